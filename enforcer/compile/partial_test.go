package compile

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The address of a link that is shut gets nothing through anywhere as long as it is certain that no pod has it: where all pods are known, or among the node's own
// ranges.
func TestWhichAddressesOfShutLinksAreClosed(t *testing.T) {
	gone := linkTo("v0").with("shop/gone uid-gone 10.244.1.9 10.9.0.9 fd00:1::9 fd00:9::9")
	every, own := []string{"10.9.0.9", "10.244.1.9", "fd00:1::9", "fd00:9::9"}, []string{"10.244.1.9", "fd00:1::9"}
	for _, tt := range []struct {
		name      string
		elsewhere Elsewhere
		ranges    []netip.Prefix
		pods      []*corev1.Pod
		want      []string
	}{
		{name: "all pods are known", ranges: ranges("10.244.1.0/24"), want: every},
		{name: "all pods are known, and no range", want: every},
		{name: "not all are known", elsewhere: Elsewhere{Partial: true}, ranges: ranges("10.244.1.0/24", "fd00:1::/64"), want: own},
		{name: "not all are known, and no range", elsewhere: Elsewhere{Partial: true}},
		{name: "those of a namespace are not", elsewhere: Elsewhere{Unknown: []string{"bank"}}, ranges: ranges("10.244.1.0/24"), want: own[:1]},
		{name: "a pod that is known has one", elsewhere: Elsewhere{Partial: true}, ranges: ranges("10.244.1.0/24", "fd00:1::/64"),
			pods: []*corev1.Pod{shownPod("moved", "n2", 300, "10.244.1.9")}, want: own[1:]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shopOf(tt.pods, gone)
			s.Elsewhere, s.Ranges = tt.elsewhere, tt.ranges
			node, _ := Compile(s)
			if diff := cmp.Diff(tt.want, shutTexts(node)); diff != "" {
				t.Errorf("addresses that are shut off (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"v0: shop/gone shut"}, linkTexts(node)); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
		})
	}
}

func ranges(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// What a node makes of its own pods does not depend on the pods of other nodes that it knows, whatever addresses these are shown with. What it says of others'
// pods is about those that it knows.
func TestWhatDoesNotDependOnPodsElsewhere(t *testing.T) {
	s := shopOf([]*corev1.Pod{shownPod("web", "n1", 100, "10.244.1.5"), shownPod("db", "n1", 300, "10.244.1.6", "10.9.0.6")},
		linkTo("v1", "10.244.1.5"), linkTo("v2", "10.244.1.6", "10.9.0.6"), linkTo("v3", "10.244.1.77").guarded())
	s.Closed, s.Ranges = ranges("10.244.1.0/24"), ranges("10.244.1.0/24")
	s.Namespaces = s.Namespaces.With(&Namespace{Name: "bank"})
	all := s.WithPods(
		NewPod(inNamespace("bank", shownPod("thief", "n2", 50, "10.244.1.5"))), NewPod(inNamespace("bank", shownPod("heir", "n2", 500, "10.244.1.6"))),
		NewPod(inNamespace("bank", shownPod("stray", "n2", 50, "10.244.1.8"))), NewPod(inNamespace("bank", shownPod("a", "n2", 50, "10.8.0.1"))),
		NewPod(inNamespace("bank", shownPod("b", "n3", 60, "10.8.0.1"))), NewPod(inNamespace("bank", shownPod("none", "n3", 60, "0.0.0.0"))),
	)
	s.Elsewhere.Partial = true
	whole, _ := Compile(all)
	part, _ := Compile(s)
	if c := whole.Concerns; c.Contested.Here != 2 || c.Contested.Elsewhere != 1 || c.Strange.Count != 1 || c.Impossible.Elsewhere != 1 {
		t.Fatalf("not what this test is about: %+v", c)
	}
	if c := part.Concerns; c.Contested.Here+c.Contested.Elsewhere+c.Strange.Count+c.Impossible.Elsewhere != 0 {
		t.Errorf("of pods that are not known it says %+v", c)
	}
	for _, n := range []*policy.Node{&whole, &part} {
		n.Concerns.Contested, n.Concerns.Strange, n.Concerns.Impossible = policy.Contests{}, policy.Some{}, policy.Impossible{}
	}
	same := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(whole, part, same); diff != "" {
		t.Errorf("what is enforced with all pods and with its own (-all +own):\n%s", diff)
	}
	if !slices.Equal(shutTexts(part), []string{"10.244.1.77"}) || len(part.Endpoints) != 2 {
		t.Errorf("not what this test is about: shut %v, %d endpoints", shutTexts(part), len(part.Endpoints))
	}
}

// Between pods of other nodes those that are known decide: the older of all holds an address, or the older of these.
func TestWhoseAnAddressIsAmongThoseThatAreKnown(t *testing.T) {
	older, younger := NewPod(inNamespace("bank", shownPod("older", "n2", 50, "10.8.0.1"))), NewPod(shownPod("friend", "n3", 60, "10.8.0.1"))
	s := shopAt("n1", "friend", shownPod("web", "n1", 100, "10.244.1.5")).WithPods(younger)
	for _, tt := range []struct {
		name string
		s    Snapshot
		want bool
	}{{"all are known", s.WithPods(older), false}, {"some are", s, true}} {
		tt.s.Elsewhere.Partial = tt.want
		node, _ := Compile(tt.s)
		if v := node.Allows(tcp("10.8.0.1", "10.244.1.5")); v.Allowed != tt.want {
			t.Errorf("%s: %t: %s", tt.name, v.Allowed, v.Reason)
		}
	}
}

// Holds is about the pods of the last snapshot, in whatever sets they are.
func TestHolds(t *testing.T) {
	var k Compiler
	addr := netip.MustParseAddr("10.8.0.1")
	if k.Holds(addr) {
		t.Error("before any snapshot")
	}
	s := shopAt("n1", "friend", shownPod("nobody", "n2", 100, "10.8.0.1"))
	if k.Compile(s); !k.Holds(addr) {
		t.Error("a pod in no set has it")
	}
	s.Remote = s.Remote.Without("shop", "nobody")
	if k.Compile(s); k.Holds(addr) {
		t.Error("the pod is gone")
	}
}
