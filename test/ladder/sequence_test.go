package ladder

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/trace"
)

// changes are what can happen to a cluster, by name. Each makes a new state and leaves the old one alone.
var changes = map[string]func(*gen.Source, gen.Case) oracle.Cluster{
	"nothing": func(_ *gen.Source, c gen.Case) oracle.Cluster { return c.Cluster },
	"all policies go": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster.Policies = nil
		return c.Cluster
	},
	"all cluster policies and isolations go": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster.ClusterPolicies, c.Cluster.Isolations = nil, nil
		return c.Cluster
	},
	"cluster policies are edited": func(s *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster.ClusterPolicies = gen.ClusterPolicies(s, c, gen.Options{Invalid: true, Tiers: true})
		return c.Cluster
	},
	"isolations are edited": func(s *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster.Isolations = gen.Isolations(s, c, gen.Options{Tiers: true})
		return c.Cluster
	},
	"a policy goes": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster.Policies = slices.Clone(c.Cluster.Policies[min(1, len(c.Cluster.Policies)):])
		return c.Cluster
	},
	"policies are edited": func(s *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster.Policies = gen.Policies(s, c, gen.Options{Invalid: true})
		return c.Cluster
	},
	"a pod is relabelled": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		return changedPod(c.Cluster, func(p *corev1.Pod) { p.Labels = map[string]string{"app": "a", "tier": "b"} })
	},
	"a pod completes": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		return changedPod(c.Cluster, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	},
	"a pod is being deleted": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		return changedPod(c.Cluster, func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1800000000, 0)} })
	},
	"a pod loses an address": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		return changedPod(c.Cluster, func(p *corev1.Pod) { p.Status.PodIP, p.Status.PodIPs = "", nil })
	},
	"a pod goes": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster.Pods = slices.Clone(c.Cluster.Pods[1:])
		return c.Cluster
	},
	"a pod completes and its address is another's": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster = changedPod(c.Cluster, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
		heir := c.Cluster.Pods[0].DeepCopy()
		heir.Name, heir.UID, heir.Status.Phase = "heir", "uid-heir", corev1.PodRunning
		heir.Labels = map[string]string{"app": "heir"}
		c.Cluster.Pods = append(slices.Clone(c.Cluster.Pods), heir)
		return c.Cluster
	},
	"a namespace is relabelled": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		n := c.Cluster.Namespaces[0].DeepCopy()
		n.Labels = map[string]string{"app": "a"}
		c.Cluster.Namespaces = replaced(c.Cluster.Namespaces, 0, n)
		return c.Cluster
	},
	"a namespace asks for its denied connections": func(_ *gen.Source, c gen.Case) oracle.Cluster {
		c.Cluster.Namespaces = replaced(c.Cluster.Namespaces, 0, asking(c.Cluster.Namespaces[0]))
		return c.Cluster
	},
}

func changedPod(c oracle.Cluster, change func(*corev1.Pod)) oracle.Cluster {
	p := c.Pods[0].DeepCopy()
	change(p)
	c.Pods = replaced(c.Pods, 0, p)
	return c
}

// TestOutcomeDependsOnThePresentOnly: whatever states a cluster went through, forwards, backwards, twice each or in between
// others, with restarts or without, the kernel ends with the ruleset of the last one.
func TestOutcomeDependsOnThePresentOnly(t *testing.T) {
	forEachCase(t, 10, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{Tiers: seed%2 == 0})
		names := slices.Sorted(maps.Keys(changes))
		states := map[string]oracle.Cluster{"empty": {}}
		for _, name := range names {
			states[name] = changes[name](s, c)
		}
		names = append(names, "empty")
		for expansion, sequence := range expansions(names, rand.New(rand.NewPCG(seed, 3))) {
			for _, restart := range []bool{false, true} {
				if err := walkStates(sequence, states, restart); err != nil {
					return fmt.Errorf("%s, restart=%v: %w", expansion, restart, err)
				}
			}
		}
		return nil
	})
}

// expansions are the sequences of states that are made of a list of names.
func expansions(names []string, random *rand.Rand) map[string][]string {
	reversed := slices.Clone(names)
	slices.Reverse(reversed)
	var doubled, interleaved []string
	for i, name := range names {
		doubled = append(doubled, name, name)
		interleaved = append(interleaved, name, reversed[i])
	}
	shuffled := slices.Clone(names)
	random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	return map[string][]string{
		"in order": names, "reversed": reversed, "doubled": doubled, "interleaved with the reverse": interleaved, "shuffled": shuffled,
	}
}

// walkStates syncs every state in turn, and wants the ruleset of each after its sync.
func walkStates(sequence []string, states map[string]oracle.Cluster, restart bool) error {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := enforcer.New(kernel, Options)
	for i, name := range sequence {
		if restart {
			e = enforcer.New(kernel, Options)
		}
		if err := syncTo(e, kernel, states[name], i%3 == 0); err != nil {
			return fmt.Errorf("state %q after %q: %w", name, sequence[:i], err)
		}
	}
	return nil
}

func syncTo(e *enforcer.Enforcer, kernel *dataplane.Fake, c oracle.Cluster, verify bool) error {
	report, err := e.Sync(context.Background(), Snapshot(c, "node1"), verify)
	if err != nil {
		return err
	}
	if !report.Repairs.Empty() {
		return fmt.Errorf("there was nothing to repair, but\n%s", report.Repairs)
	}
	have, err := kernel.Observe(context.Background())
	if err != nil {
		return err
	}
	if diff := cmp.Diff(Rendered(c, "node1").String(), have.String()); diff != "" {
		return fmt.Errorf("the kernel differs from the state's ruleset (-want +got):\n%s", diff)
	}
	return nil
}

// TestOrderOfEventsDoesNotMatter: the events that lead from one cluster to another, in any order, some of them twice, with a
// sync after any of them, end in the ruleset of the other cluster.
func TestOrderOfEventsDoesNotMatter(t *testing.T) {
	forEachCase(t, 15, func(seed uint64) error {
		from, _ := newCase(seed, 0)
		to, _ := newCase(seed+1<<40, 0)
		events := eventsBetween(from.Cluster, to.Cluster)
		random := rand.New(rand.NewPCG(seed, 4))
		for round := range 5 {
			random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			kernel := dataplane.NewFake(dataplane.Capabilities{})
			e := enforcer.New(kernel, Options)
			cache := newCache(from.Cluster)
			for i, event := range events {
				event(cache)
				if random.IntN(4) == 0 {
					events[random.IntN(i+1)](cache) // an event may come again
				}
				if random.IntN(3) == 0 {
					if err := syncTo(e, kernel, cache.cluster(to.Cluster), false); err != nil {
						return fmt.Errorf("round %d, after %d events: %w", round, i+1, err)
					}
				}
			}
			if err := syncTo(e, kernel, cache.cluster(to.Cluster), true); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			if diff := cmp.Diff(Rendered(to.Cluster, "node1").String(), Rendered(cache.cluster(to.Cluster), "node1").String()); diff != "" {
				return fmt.Errorf("round %d (-want +got):\n%s", round, diff)
			}
		}
		return nil
	})
}

// cache holds the newest version of each object, as informers do: by kind, namespace and name.
type cache map[string]metav1.Object

func newCache(c oracle.Cluster) cache {
	k := cache{}
	addTo(k, c.Pods)
	addTo(k, c.Namespaces)
	addTo(k, c.Nodes)
	addTo(k, c.Policies)
	addTo(k, c.ClusterPolicies)
	addTo(k, c.Isolations)
	addTo(k, c.DNSServices)
	return k
}

func addTo[T metav1.Object](k cache, objects []T) {
	for _, o := range objects {
		k[keyOf(o)] = o
	}
}

func keyOf(o metav1.Object) string {
	kind := fmt.Sprintf("%T", o)
	if p, ok := o.(*v1alpha1.ClusterNetworkPolicy); ok && !isOurs(p) {
		kind = p.APIVersion // ours and the SIG's may have one name
	}
	return kind + " " + o.GetNamespace() + "/" + o.GetName()
}

func objectsOf[T metav1.Object](k cache) []T {
	var objects []T
	for _, o := range k {
		if t, ok := o.(T); ok {
			objects = append(objects, t)
		}
	}
	return objects
}

// cluster is what the cache holds, in no order. The addresses of DNS and the ranges that are closed are the nodes' own configuration: as of another cluster.
func (k cache) cluster(of oracle.Cluster) oracle.Cluster {
	return oracle.Cluster{
		Pods: objectsOf[*corev1.Pod](k), Namespaces: objectsOf[*corev1.Namespace](k), Nodes: objectsOf[*corev1.Node](k),
		Policies: objectsOf[*networkingv1.NetworkPolicy](k), ClusterPolicies: objectsOf[*v1alpha1.ClusterNetworkPolicy](k),
		Isolations: objectsOf[*v1alpha1.NamespaceIsolation](k), DNSServices: objectsOf[*corev1.Service](k),
		DNSAddresses: of.DNSAddresses, Closed: of.Closed,
	}
}

// eventsBetween are the additions, updates and deletions that make to out of from.
func eventsBetween(from, to oracle.Cluster) []func(cache) {
	var events []func(cache)
	old, next := newCache(from), newCache(to)
	for key := range old {
		if next[key] == nil {
			events = append(events, func(k cache) { delete(k, key) })
		}
	}
	for key, o := range next {
		events = append(events, func(k cache) { k[key] = o })
	}
	return events
}

// TestAddressOfACompletedPod: a pod that gets the address of one that is over inherits nothing, whichever event comes first, and
// neither in between.
func TestAddressOfACompletedPod(t *testing.T) {
	address := "10.244.1.7"
	at := func(name string, seconds int64, phase corev1.PodPhase, labels map[string]string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels, CreationTimestamp: metav1.Time{Time: time.Unix(seconds, 0)}},
			Spec:       corev1.PodSpec{NodeName: "node2"},
			Status:     corev1.PodStatus{Phase: phase, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}},
		}
	}
	friend := map[string]string{"app": "friend"}
	server := at("server", 1, corev1.PodRunning, map[string]string{"app": "server"})
	server.Spec.NodeName, server.Status.PodIP, server.Status.PodIPs = "node1", "10.244.0.5", []corev1.PodIP{{IP: "10.244.0.5"}}
	onlyFriends := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "only-friends"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "server"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: friend}}}}},
		},
	}
	old := at("old", 100, corev1.PodRunning, friend)
	done := func(k cache) { addTo(k, []*corev1.Pod{at("old", 100, corev1.PodSucceeded, friend)}) }
	gone := func(k cache) { delete(k, keyOf(old)) }
	stranger := func(k cache) {
		addTo(k, []*corev1.Pod{at("new", 200, corev1.PodRunning, map[string]string{"app": "stranger"})})
	}
	for name, events := range map[string][]func(cache){
		"completed, then another":          {done, stranger},
		"another, then completed":          {stranger, done},
		"completed, gone, another":         {done, gone, stranger},
		"another, then gone":               {stranger, gone},
		"completed, another, gone":         {done, stranger, gone},
		"completed twice, another twice":   {done, done, stranger, stranger},
		"another, completed, another late": {stranger, done, stranger},
	} {
		t.Run(name, func(t *testing.T) {
			k := newCache(oracle.Cluster{Pods: []*corev1.Pod{server, old}, Policies: []*networkingv1.NetworkPolicy{onlyFriends}})
			kernel := dataplane.NewFake(dataplane.Capabilities{})
			e := enforcer.New(kernel, Options)
			if err := syncTo(e, kernel, k.cluster(oracle.Cluster{}), false); err != nil {
				t.Fatal(err)
			}
			if !passes(t, kernel, address, "10.244.0.5") {
				t.Error("the friend is denied while it runs")
			}
			for i, event := range events {
				event(k)
				if err := syncTo(e, kernel, k.cluster(oracle.Cluster{}), false); err != nil {
					t.Fatal(err)
				}
				if passes(t, kernel, address, "10.244.0.5") {
					t.Errorf("after event %d the address is still allowed", i)
				}
			}
		})
	}
}

func passes(t *testing.T, kernel *dataplane.Fake, src, dst string) bool {
	t.Helper()
	have, err := kernel.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	tracer, err := trace.Parse(have.String())
	if err != nil {
		t.Fatal(err)
	}
	v, err := tracer.Walk("FORWARD", trace.Packet{
		Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: uint8(policy.TCP), DstPort: 80})
	if err != nil {
		t.Fatal(err)
	}
	return v.Passed
}
