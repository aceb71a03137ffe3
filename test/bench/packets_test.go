package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
)

// With every variant, a batch is sent in so many turns at so many visits to a road. Between visits, the road is built anew: where its
// objects lie in memory decides about a few per cent, for as long as they live. In one turn, a variant gets several attempts, and the
// quickest counts: the others have been disturbed.
const (
	newVisits         = 5
	establishedVisits = 8 // the differences are smaller
	turns             = 6
	attempts          = 4
)

// variant is a way for a node to be: with or without enforcement, with more or fewer policies.
type variant struct {
	name     string
	enforced bool
	snapshot compile.Snapshot
	guarded  bool // its pods are held to their addresses
	uncut    bool // long lists of rules are walked as they are
}

// setups are the back ends and networks that packets are measured on.
func setups() []roadOptions {
	var all []roadOptions
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		for _, kind := range topology.Kinds {
			all = append(all, roadOptions{backend: backend, kind: kind})
		}
	}
	return all
}

func (o roadOptions) String() string { return fmt.Sprintf("%s/%s", o.backend, o.kind) }

// measure sends batches in turns, in an order that changes each time, and returns what a packet took with each variant.
func measure(ctx context.Context, o roadOptions, visits int, variants []variant, send func(*road) (float64, error)) ([]sample, error) {
	took := make([]sample, len(variants))
	for range visits {
		if err := visit(ctx, o, variants, send, took); err != nil {
			return nil, fmt.Errorf("measuring on %s: %w", o, err)
		}
	}
	return took, nil
}

func visit(ctx context.Context, o roadOptions, variants []variant, send func(*road) (float64, error), took []sample) (err error) {
	roads := map[roadOptions]*road{} // a bare one too: tables that were there once leave a trace, even when they are empty
	o.client, o.server = localAddr(-2), localAddr(-1)
	for _, v := range variants {
		o.enforced, o.uncut = v.enforced, v.uncut
		if roads[o] != nil {
			continue
		}
		if roads[o], err = newRoad(ctx, o); err != nil {
			return err
		}
		defer func(r *road) { err = errors.Join(err, r.close()) }(roads[o])
	}
	for range turns {
		for _, i := range rand.Perm(len(variants)) {
			v := variants[i]
			o.enforced, o.uncut = v.enforced, v.uncut
			r := roads[o]
			if v.enforced {
				s := v.snapshot
				if v.guarded {
					if s.Network, err = r.network(s); err != nil {
						return err
					}
				}
				if err := r.sync(ctx, s); err != nil {
					return err
				}
			}
			best, err := quickest(r, send)
			if err != nil {
				return fmt.Errorf("variant %s: %w", v.name, err)
			}
			took[i] = append(took[i], best)
		}
	}
	return nil
}

func quickest(r *road, send func(*road) (float64, error)) (float64, error) {
	best := math.Inf(1)
	for range attempts {
		perPacket, err := send(r)
		if err != nil {
			return 0, err
		}
		best = min(best, perPacket)
	}
	return best, nil
}

// localPods is a node with that many isolated pods, ten of each application, and every application with a policy that lets it be
// reached by itself and by an application elsewhere, and reach the same two. The client and the server are the last two, and
// come last in every chain of the prefix tree.
func localPods(n int) compile.Snapshot {
	s := compile.Snapshot{Node: "here", Namespaces: compile.ObjectsOf(&compile.Namespace{Name: "team"})}
	for i := range n {
		app := fmt.Sprintf("app-%d", i/10)
		s = s.WithPods(pod("here", fmt.Sprintf("%s-%d", app, i), app, localAddr(i-n)))
		if i%10 == 0 {
			s.Policies = s.Policies.With(mutual(app, serverPort, app, "elsewhere"))
		}
	}
	for i := range 100 {
		s = s.WithPods(pod("there", fmt.Sprintf("elsewhere-%d", i), "elsewhere", netip.AddrFrom4([4]byte{10, 244, 2, byte(i)})))
	}
	return s
}

// localAddr is the i-th address after the last one that a local pod has.
func localAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 1, byte(253 + i)}) }

func pod(node, name, app string, a netip.Addr) *compile.Pod {
	return &compile.Pod{
		Namespace: "team", Name: name, UID: name, Node: node, Addrs: []netip.Addr{a},
		Labels: compile.NewLabels(map[string]string{"app": app}),
		Ports:  []compile.NamedPort{{Name: "main", Protocol: policy.UDP, Port: serverPort}},
	}
}

// mutual is a policy that isolates an application in both directions, and admits peers in both.
func mutual(app string, port int32, peers ...string) *networkingv1.NetworkPolicy {
	udp, number := corev1.ProtocolUDP, intstr.FromInt32(port)
	ports := []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &number}}
	var all []networkingv1.NetworkPolicyPeer
	for _, p := range peers {
		all = append(all, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": p}}})
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: fmt.Sprintf("%s-%d", app, port)},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: all, Ports: ports}},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{To: all, Ports: ports}},
		},
	}
}

// BenchmarkNewConnection measures the first packet of a connection between two isolated pods, which passes the tree of either
// direction and the rules of either pod.
func BenchmarkNewConnection(b *testing.B) {
	kit.NeedNetfilter(b)
	sizes := []int{10, 110, 250}
	variants := []variant{{name: "without"}}
	for _, n := range sizes {
		variants = append(variants, variant{name: fmt.Sprint(n), enforced: true, snapshot: localPods(n)})
	}
	t := tableOf("Added to the first packet of a connection, in ns: median (quartiles)",
		"back end/node", "the packet without", "10 isolated pods", "110", "250", "250 : 10", "goal: 2 at most")
	for _, o := range setups() {
		took, err := measure(b.Context(), o, newVisits, variants, (*road).sendNew)
		kit.Must(b, err)
		row, added := []string{o.String(), took[0].text("%.0f")}, make([]sample, len(sizes))
		for i, n := range sizes {
			added[i] = took[i+1].minus(took[0])
			row = append(row, added[i].text("%.0f"))
			report(b, fmt.Sprintf("%s/pods=%d", o, n), map[string]float64{"added-ns/connection": added[i].median()})
		}
		ratio := added[2].median() / added[0].median()
		t.add(append(row, fmt.Sprintf("%.2f", ratio), verdict(ratio, 2))...)
	}
}

// BenchmarkEstablished measures a packet of an established flow between the same two pods.
func BenchmarkEstablished(b *testing.B) {
	kit.NeedNetfilter(b)
	variants := []variant{
		{name: "without"},
		{name: "policies=0", enforced: true, snapshot: localPods(0)},
		{name: "policies=1000", enforced: true, snapshot: manyPolicies(1000)},
	}
	t := tableOf("A packet of an established connection, in ns: median (quartiles)",
		"back end/node", "without ringfence", "no policy", "1,000 policies add", "per cent", "goal: under 3 %")
	for _, o := range setups() {
		took, err := measure(b.Context(), o, establishedVisits, variants, (*road).sendEstablished)
		kit.Must(b, err)
		for i, v := range variants {
			report(b, fmt.Sprintf("%s/%s", o, v.name), map[string]float64{"ns/packet": took[i].median()})
		}
		added := took[2].minus(took[1])
		part := 100 * added.median() / took[1].median()
		t.add(o.String(), took[0].text("%.0f"), took[1].text("%.0f"), added.text("%.0f"), fmt.Sprintf("%.1f", part), verdict(part, 3))
	}
}

// manyPolicies is a node with 110 isolated pods, and so many policies that each application has its share of them.
func manyPolicies(n int) compile.Snapshot {
	s := localPods(110)
	for i := s.Policies.Len(); i < n; i++ {
		s.Policies = s.Policies.With(mutual(fmt.Sprintf("app-%d", i%11), int32(serverPort+i), fmt.Sprintf("app-%d", i%7), "elsewhere"))
	}
	return s
}
