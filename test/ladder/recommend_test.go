package ladder

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// recommendShare is one in how many clusters policies are recommended for: the oracle is asked about every pair of its pods twice.
const recommendShare = 8

// TestWhatIsRecommendedAllowsWhatWasSeenAndNothingElse: once the policies are enforced, the oracle allows at the namespace's pods each connection that was seen
// and passed, and of all others those that rules allowed before, and those between the same workloads, as far as labels tell them apart. Asked again, nothing more
// is recommended. Half of the clusters have policies, in any mode, and a quarter those of the whole cluster too.
func TestWhatIsRecommendedAllowsWhatWasSeenAndNothingElse(t *testing.T) {
	var kept, denied atomic.Int64
	forEachCase(t, max(*clustersFlag/recommendShare, 1), func(seed uint64) error {
		c := gen.New(gen.Seed(seed), gen.Options{Tiers: true})
		c.Cluster.Pods = withOwnAddresses(c.Cluster.Pods)
		if len(c.Cluster.Pods) == 0 || len(c.Cluster.Pods) > fewPods {
			return nil
		}
		for _, n := range c.Cluster.Namespaces {
			query.LabelNamespace(n)
		}
		if seed%2 == 0 {
			c.Cluster.Policies = nil
		}
		if seed%4 != 3 {
			c.Cluster.ClusterPolicies, c.Cluster.Isolations = nil, nil
		}
		w := watched{Cluster: c.Cluster, others: c.Others, random: rand.New(rand.NewPCG(seed, 7))}
		w.share()
		w.namespace = w.Pods[w.random.IntN(len(w.Pods))].Namespace
		w.see()
		objects := Objects(w.Cluster)
		recommended := query.New(objects).Recommend(w.observed())
		allowed, forbidden, err := w.check(recommended)
		if err != nil {
			return fmt.Errorf("%w\nnamespace %s, seen are\n%+v\nrecommended is\n%s\nof\n%s", err, w.namespace, w.seen, describe(recommended), Describe(w.Cluster))
		}
		kept.Add(int64(allowed))
		denied.Add(int64(forbidden))
		var more []metav1.Object
		for _, p := range recommended.Policies {
			more = append(more, p)
		}
		if again := query.New(objects.With(more...)).Recommend(w.observed()); len(again.Policies) > 0 {
			return fmt.Errorf("asked again, it recommends\n%s\nafter\n%s\nof\n%s", describe(again), describe(recommended), Describe(w.Cluster))
		}
		return nil
	})
	if cases := int64(*clustersFlag / recommendShare); !t.Failed() && (kept.Load() < cases || denied.Load() < cases) {
		t.Errorf("of %d clusters, %d flows are allowed, and %d denied: the cases have become too tame", cases, kept.Load(), denied.Load())
	}
}

func describe(r query.Recommendation) string {
	text := fmt.Sprintf("%q\n", r.Notes)
	for _, p := range r.Policies {
		text += fmt.Sprintf("%s %v: %+v\n", p.Name, p.Annotations, p.Spec)
	}
	return text
}

// watched is a cluster in which connections of a namespace's pods are seen.
type watched struct {
	oracle.Cluster
	others    []netip.Addr
	random    *rand.Rand
	namespace string
	seen      []seenFlow
}

// seenFlow is a connection that was seen, between two pods, or a pod and an address.
type seenFlow struct {
	src, dst place
	protocol corev1.Protocol
	port     uint16
	verdict  v1alpha1.ConnectionVerdict
	passes   bool // now, between some pods of the two workloads
	nameless bool // the other end is known by its address alone
	direction
}

type direction = v1alpha1.ConnectionDirection

// place is an address, and the pod that has it.
type place struct {
	pod  *corev1.Pod
	addr netip.Addr
}

// String is the address.
func (p place) String() string { return p.addr.String() }

// share has some pods be of one workload.
func (w *watched) share() {
	isController := true
	for i, p := range w.Pods {
		p = p.DeepCopy()
		if w.random.IntN(2) == 0 {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: "all", Controller: &isController}}
			p.Labels["app"] = "a"
		}
		w.Pods[i] = p
	}
}

// places are all ends that connections may have: pods that run, addresses of nodes, and of nobody.
func (w *watched) places(of func(*corev1.Pod) bool) (all []place) {
	for _, p := range w.Pods {
		if !runs(p) || !of(p) {
			continue
		}
		for _, ip := range p.Status.PodIPs {
			all = append(all, place{p, netip.MustParseAddr(ip.IP)})
		}
	}
	return all
}

// runs reports whether policy may be about a pod.
func runs(p *corev1.Pod) bool {
	return !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

func (w *watched) own() []place {
	return w.places(func(p *corev1.Pod) bool { return p.Namespace == w.namespace })
}

func (w *watched) all() []place {
	all := w.places(func(*corev1.Pod) bool { return true })
	for _, n := range w.Nodes {
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && !addr.IsLinkLocalUnicast() { // which no node is known by
				all = append(all, place{addr: addr})
			}
		}
	}
	for _, a := range w.others {
		if !a.IsLinkLocalUnicast() {
			all = append(all, place{addr: a})
		}
	}
	return all
}

// The ports that are gone to. 53 is that of names, for which both protocols may be allowed.
var seenPorts = []seenPort{{corev1.ProtocolTCP, 80}, {corev1.ProtocolTCP, 8080}, {corev1.ProtocolUDP, 81}, {corev1.ProtocolSCTP, 80}, {corev1.ProtocolUDP, 53}}

// triedPorts are those, and one more for each protocol.
var triedPorts = append(seenPorts, seenPort{corev1.ProtocolTCP, 53}, seenPort{corev1.ProtocolUDP, 80})

type seenPort struct {
	protocol corev1.Protocol
	number   uint16
}

// see draws what is seen.
func (w *watched) see() {
	own, all := w.own(), w.all()
	if len(own) == 0 {
		return
	}
	for range w.random.IntN(7) {
		local, remote := own[w.random.IntN(len(own))], all[w.random.IntN(len(all))]
		if local.addr.Is4() != remote.addr.Is4() {
			continue
		}
		port := seenPorts[w.random.IntN(len(seenPorts))]
		s := seenFlow{src: local, dst: remote, protocol: port.protocol, port: port.number, verdict: v1alpha1.ConnectionAllowed, direction: v1alpha1.ConnectionEgress}
		if w.random.IntN(2) == 0 {
			s.src, s.dst, s.direction = remote, local, v1alpha1.ConnectionIngress
		}
		s.nameless = w.random.IntN(4) == 0
		switch w.random.IntN(6) {
		case 0:
			s.verdict = v1alpha1.ConnectionDenied
		case 1:
			s.verdict = v1alpha1.ConnectionWouldDeny
		}
		for f := range w.between(s, w.workload) {
			passes, _ := w.Allowed(f)
			s.passes = s.passes || passes
		}
		w.seen = append(w.seen, s)
	}
}

// workload are the places of all pods of a place's workload, or itself.
func (w *watched) workload(p place) []place {
	if p.pod == nil {
		return []place{p}
	}
	return w.places(func(q *corev1.Pod) bool { return query.Workload(q) == query.Workload(p.pod) })
}

// alike are the places of all pods of the namespace that have all labels which the pods of a place's workload have in common, or itself.
func (w *watched) alike(p place) []place {
	if p.pod == nil {
		return []place{p}
	}
	return w.places(func(q *corev1.Pod) bool {
		for key, value := range p.pod.Labels {
			inCommon := !slices.ContainsFunc(w.Pods, func(o *corev1.Pod) bool {
				v, ok := o.Labels[key]
				return runs(o) && query.Workload(o) == query.Workload(p.pod) && (!ok || v != value)
			})
			if got, ok := q.Labels[key]; inCommon && (!ok || got != value) {
				return false
			}
		}
		return q.Namespace == p.pod.Namespace
	})
}

// between are the flows of a connection between what two places stand for.
func (w *watched) between(s seenFlow, standFor func(place) []place) func(yield func(oracle.Flow) bool) {
	return func(yield func(oracle.Flow) bool) {
		for _, src := range standFor(s.src) {
			for _, dst := range standFor(s.dst) {
				if src.addr.Is4() == dst.addr.Is4() && !yield(w.flow(src, dst, s.protocol, s.port)) {
					return
				}
			}
		}
	}
}

func (w *watched) flow(src, dst place, protocol corev1.Protocol, port uint16) oracle.Flow {
	numbers := map[corev1.Protocol]oracle.Protocol{corev1.ProtocolTCP: oracle.TCP, corev1.ProtocolUDP: oracle.UDP, corev1.ProtocolSCTP: oracle.SCTP}
	return oracle.Flow{Src: src.addr, Dst: dst.addr, Protocol: numbers[protocol], DstPort: port, FromNode: w.nodeAt(src), ToNode: w.nodeAt(dst)}
}

// nodeAt is the node that has an address.
func (w *watched) nodeAt(p place) string {
	for _, n := range w.Nodes {
		if p.pod == nil && slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Address == p.addr.String() }) {
			return n.Name
		}
	}
	return ""
}

// isOfDNS reports whether a pod is behind a Service of the DNS, whose port may be any.
func (w *watched) isOfDNS(p place) bool {
	return p.pod != nil && slices.ContainsFunc(w.DNSServices, func(s *corev1.Service) bool { return s.Namespace == p.pod.Namespace })
}

// observed is what was seen, as a report has it.
func (w *watched) observed() query.Observed {
	now := metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	o := query.Observed{Namespace: w.namespace, Until: now.Time}
	o.Report.AllowedSince = &now
	for _, s := range w.seen {
		one := v1alpha1.ReportedConnection{Nodes: []string{s.node()}}
		one.Verdict, one.Direction, one.Protocol, one.Port, one.LastTime = s.verdict, s.direction, string(s.protocol), int32(s.port), now
		one.From, one.To = endAt(s.src), endAt(s.dst)
		if _, remote := one.Ends(); s.nameless {
			*remote = v1alpha1.ConnectionEnd{Address: remote.Address}
		}
		o.Report.Connections = append(o.Report.Connections, one)
	}
	return o
}

func endAt(p place) v1alpha1.ConnectionEnd {
	e := v1alpha1.ConnectionEnd{Address: p.addr.String()}
	if p.pod != nil {
		e.Namespace, e.Pod, e.Workload = p.pod.Namespace, p.pod.Name, query.Workload(p.pod)[len(p.pod.Namespace)+1:]
	}
	return e
}

// node is the one that has seen it.
func (s seenFlow) node() string {
	if s.direction == v1alpha1.ConnectionIngress {
		return s.dst.pod.Spec.NodeName
	}
	return s.src.pod.Spec.NodeName
}

// wanted are the connections that are to be allowed. What a node has sent to a pod of its own is always.
func (w *watched) wanted() []seenFlow {
	return slices.DeleteFunc(slices.Clone(w.seen), func(s seenFlow) bool {
		return s.verdict == v1alpha1.ConnectionDenied || !s.passes || s.direction == v1alpha1.ConnectionIngress && w.nodeAt(s.src) == s.node()
	})
}

// check asks the oracle about each connection of the namespace's pods, at their end alone. It counts what is allowed, and what is denied.
func (w *watched) check(r query.Recommendation) (allowed, denied int, err error) {
	for _, d := range []direction{v1alpha1.ConnectionIngress, v1alpha1.ConnectionEgress} {
		before, after := w.ruled(d), w.enforced(d, r.Policies)
		must, may, names := map[oracle.Flow]bool{}, map[oracle.Flow]bool{}, map[oracle.Flow]bool{}
		for _, s := range w.wanted() {
			for f := range w.between(s, w.workload) {
				must[f] = true
			}
			for f := range w.between(s, w.alike) {
				may[f] = true
				for _, f.Protocol = range []oracle.Protocol{oracle.TCP, oracle.UDP} {
					names[f] = names[f] || s.protocol != corev1.ProtocolSCTP && (f.DstPort == 53 || w.isOfDNS(s.dst))
				}
			}
		}
		for _, local := range w.own() {
			for _, remote := range w.all() {
				for _, port := range triedPorts {
					if local.addr.Is4() != remote.addr.Is4() {
						continue
					}
					src, dst := local, remote
					if d == v1alpha1.ConnectionIngress {
						src, dst = remote, local
					}
					f := w.flow(src, dst, port.protocol, port.number)
					own := local.pod == remote.pod || d == v1alpha1.ConnectionIngress && f.FromNode == local.pod.Spec.NodeName
					was, _ := before.Allowed(f)
					is, because := after.Allowed(f)
					switch {
					case is && !was && !may[f] && !names[f] && !own:
						return 0, 0, fmt.Errorf("%s is allowed (%s) for %s, because %s", f, d, local.pod.Name, because)
					case !is && (was || must[f] || may[f] && len(w.Policies) == 0):
						return 0, 0, fmt.Errorf("%s is denied (%s) for %s, because %s", f, d, local.pod.Name, because)
					case is:
						allowed++
					default:
						denied++
					}
				}
			}
		}
	}
	return allowed, denied, nil
}

// ruled is the cluster in which the namespace's policies allow what their rules do, in one direction, and nothing else is.
func (w *watched) ruled(d direction) oracle.Cluster {
	return w.enforced(d, []*networkingv1.NetworkPolicy{{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "nothing-else"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}},
	}})
}

// enforced is the cluster with the namespace's policies alone, and some more or in the place of those of their names, all of them enforced in one direction.
func (w *watched) enforced(d direction, more []*networkingv1.NetworkPolicy) oracle.Cluster {
	c := w.Cluster
	c.ClusterPolicies, c.Isolations, c.Policies = nil, nil, nil
	var objects []metav1.Object
	for _, p := range more {
		objects = append(objects, p)
	}
	for _, p := range Objects(w.Cluster).With(objects...).Policies {
		if p.Namespace != w.namespace {
			continue
		}
		p = p.DeepCopy()
		p.Annotations = map[string]string{v1alpha1.ModeAnnotation: string(v1alpha1.Enforce)}
		isolates := slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyType(d))
		if len(p.Spec.PolicyTypes) == 0 {
			isolates = d == v1alpha1.ConnectionIngress || len(p.Spec.Egress) > 0
		}
		if p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyType(d)}; isolates {
			c.Policies = append(c.Policies, p)
		}
	}
	return c
}
