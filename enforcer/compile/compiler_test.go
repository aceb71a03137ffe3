package compile

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// A policy is read once for each version, and forgotten with its object; the mode of its namespace is not part of what is kept.
func TestEachVersionOfAPolicyIsReadOnce(t *testing.T) {
	first, second := networkPolicy(`{podSelector: {}, ingress: [{ports: [{port: 0}]}]}`).NetworkPolicy, networkPolicy(`{podSelector: {}}`).NetworkPolicy
	ns := &Namespace{Name: first.Namespace}
	s := Snapshot{Node: "n", Namespaces: ObjectsOf(ns), Policies: ObjectsOf(first)}.WithPods(&Pod{
		Namespace: ns.Name, Name: "near", UID: "1", Node: "n", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
	})
	var k Compiler
	k.Compile(s)
	read := k.reading.in[ns.Name].policies[first].text
	if read == nil {
		t.Fatal("nothing is kept")
	}
	k.Compile(s)
	if k.reading.in[ns.Name].policies[first].text != read {
		t.Error("what has not changed was read again")
	}
	for _, mode := range []string{string(v1alpha1.Audit), "nonsense", ""} {
		s.Namespaces = ObjectsOf(&Namespace{Name: ns.Name, Mode: mode})
		_, want := Compile(s)
		_, got := k.Compile(s)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("mode %q (-anew +with what was kept):\n%s", mode, diff)
		}
	}
	s.Policies = ObjectsOf(second) // another object: another version
	k.Compile(s)
	kept := k.reading.in[ns.Name].policies
	if _, old := kept[first]; old || kept[second] == nil || len(kept) != 1 {
		t.Errorf("kept: %d policies, of the version before: %v", len(kept), old)
	}
}

// keeping is a snapshot with a policy for a pod of the node, and pods elsewhere.
func keeping(remote ...*Pod) Snapshot {
	addr := func(a string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(a)} }
	app := func(a string) Labels { return NewLabels(map[string]string{"app": a}) }
	friend := `{podSelector: {matchLabels: {app: friend}}}`
	return Snapshot{
		Node:       "here",
		Namespaces: ObjectsOf(keptShop, keptOther),
		Policies:   ObjectsOf(keptPolicy(friend)),
	}.WithPods(append([]*Pod{
		{Namespace: "shop", Name: "web", UID: "1", Node: "here", Labels: app("web"), Addrs: addr("10.0.0.1"), Ports: []NamedPort{{"http", policy.TCP, 80}}},
		{Namespace: "shop", Name: "friend", UID: "2", Node: "there", Labels: app("friend"), Addrs: addr("10.0.0.2"), Ports: []NamedPort{{"http", policy.TCP, 80}}},
	}, remote...)...)
}

var keptShop, keptOther = &Namespace{Name: "shop", Mode: "Audit"}, &Namespace{Name: "other"}

func keptPolicy(peer string) *networkingv1.NetworkPolicy {
	np := networkPolicy(`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [` + peer + `]}],
		egress: [{to: [` + peer + `], ports: [{port: http}]}, {to: [{namespaceSelector: {}}]}]}`).NetworkPolicy
	np.Namespace, np.Name = "shop", "friends"
	return np
}

// TestWhatAChangeDoesNotReachStaysTheSame: who compares with the last node can tell by the addresses of lists that they have not changed.
func TestWhatAChangeDoesNotReachStaysTheSame(t *testing.T) {
	stranger := &Pod{Namespace: "other", Name: "stranger", UID: "3", Node: "there", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.3")}}
	s := keeping()
	shared := *s.Local[0] // with an address that a pod of this node has taken from it
	shared.Name, shared.UID, shared.Created = "older", "4", -1
	shared.Addrs = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.4")}
	s = s.WithPods(&shared)
	after := s
	after.Remote = s.Remote.With(stranger)
	var k Compiler
	was, _ := k.Compile(s)
	is, _ := k.Compile(after)
	if len(was.Policies) != 1 || was.Sets.Len() != 4 || len(was.Endpoints) != 2 || len(was.Endpoints[0].Addrs) != 1 {
		t.Fatalf("not what this test is about: %+v", was)
	}
	for _, d := range policy.Directions {
		if &was.Policies[0].Rules[d][0] != &is.Policies[0].Rules[d][0] {
			t.Errorf("the rules of %s are made again", d)
		}
	}
	for i := range was.Endpoints {
		if &was.Endpoints[i].Addrs[0] != &is.Endpoints[i].Addrs[0] {
			t.Errorf("the addresses of %s are made again", was.Endpoints[i].Name)
		}
	}
	changed := 0
	for id, set := range was.Sets.All() {
		if now := is.Sets.Get(id); !set.Members.IsOne(now.Members) {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d sets are made again, where one has the pod that has come", changed)
	}
}

// TestWhatIsSaidOfANamespaceIsHeeded: whatever changes in a namespace, and in nothing else, what is compiled is what a compiler makes of it that has kept nothing.
func TestWhatIsSaidOfANamespaceIsHeeded(t *testing.T) {
	s := keeping()
	var k Compiler
	k.Compile(s)
	for _, tt := range []struct {
		what string
		is   Namespace
	}{
		{"it asks for what is denied", Namespace{Logged: true}},
		{"it asks for that no more", Namespace{}},
		{"its mode", Namespace{Mode: string(v1alpha1.Audit)}},
		{"it asks, and is audited", Namespace{Mode: string(v1alpha1.Audit), Logged: true}},
		{"what its pods may send", Namespace{SourceCheckOff: true}},
	} {
		is := tt.is
		is.Name, is.Labels = keptShop.Name, keptShop.Labels
		s.Namespaces = ObjectsOf(&is, keptOther)
		want, _ := Compile(s)
		got, _ := k.Compile(s)
		if diff := cmp.Diff(pointsOf(want), pointsOf(got)); diff != "" {
			t.Errorf("%s (-anew +with what was kept):\n%s", tt.what, diff)
		}
	}
	shop := Namespace{Name: "shop"}
	for i := range reflect.TypeFor[Namespace]().NumField() {
		other := shop
		switch f := reflect.ValueOf(&other).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("other")
		case reflect.Bool:
			f.SetBool(true)
		default:
			other.Labels = NewLabels(map[string]string{"a": "b"})
		}
		if shop.Equal(&other) {
			t.Errorf("two namespaces are the same though they differ in %s", reflect.TypeFor[Namespace]().Field(i).Name)
		}
	}
}

// pointsOf says of each policy of a node whether what it denies is passed, and whether it is logged.
func pointsOf(n policy.Node) []string {
	var all []string
	for _, p := range n.Policies {
		all = append(all, fmt.Sprintf("%s audit %t logged %t", p.Ref, p.Audit, p.Log))
	}
	slices.Sort(all)
	return all
}

// TestWhatIsNotUsedIsForgotten: what a compiler keeps is of the last snapshot, however many it has seen.
func TestWhatIsNotUsedIsForgotten(t *testing.T) {
	var k Compiler
	for i := range 20 {
		s := keeping()
		s.Policies = ObjectsOf(keptPolicy(fmt.Sprintf(`{podSelector: {matchLabels: {app: friend-%d}}, namespaceSelector: {matchLabels: {n: n-%d}}}`, i, i)))
		s.Isolations = []*v1alpha1.NamespaceIsolation{{}}
		s.Isolations[0].Name = "all"
		for n := range i % 5 {
			s = s.WithPods(&Pod{Namespace: "shop", Name: fmt.Sprint(n), UID: fmt.Sprint("more-", n), Node: "there",
				Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.AddrFrom4([4]byte{10, 0, 1, byte(n)})}})
		}
		k.Compile(s)
	}
	for what, sizes := range map[string][2]int{
		"policies":   {len(k.reading.in["shop"].policies), 1},
		"isolations": {len(k.reading.isolations), 1},
		"read":       {len(k.reading.sorted), 2},
		"pods":       {k.cluster.count, 6},
		"partly":     {len(k.cluster.claims.partly), 4},
		"sets":       {len(k.known.sets), 5},
		"scopes":     {len(k.known.scopes.named) + len(k.known.scopes.wide), 3},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s: %d are kept, want %d", what, sizes[0], sizes[1])
		}
	}
	k.Compile(Snapshot{Node: "here"})
	if n := len(k.reading.in) + len(k.reading.isolations) + len(k.reading.sorted) + k.cluster.count + len(k.cluster.byNamespace) + k.cluster.claims.sole.size + len(k.cluster.claims.several) + len(k.cluster.claims.decided) + len(k.known.sets) + len(k.known.scopes.named) + len(k.known.scopes.wide) + len(k.known.others); n != 0 {
		t.Errorf("of nothing, %d things are kept", n)
	}
}

// Sets of the same pods share the list of these, also after pods have come and gone, and a set that comes later does.
func TestSetsWithTheSameMembersShareThem(t *testing.T) {
	var many []*Pod
	for i := range 200 {
		many = append(many, &Pod{Namespace: "other", Name: fmt.Sprint(i), UID: fmt.Sprint("many", i), Node: "there", Labels: NewLabels(map[string]string{"app": "many"}),
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})}})
	}
	all := `{namespaceSelector: {}, podSelector: {matchLabels: {app: many}}}`
	alike := `{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web, friend]}]}}`
	third := `{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [many, more]}]}}`
	var k Compiler
	for i, step := range []struct {
		pods  []*Pod
		peers []string
	}{{many[:150], []string{all, alike}}, {many[1:151], []string{all, alike}}, {many, []string{all, alike, third}}, {many[1:], []string{all, alike, third}}} {
		s := keeping(step.pods...)
		s.Policies = Objects[*networkingv1.NetworkPolicy]{}
		for n, peer := range step.peers {
			p := networkPolicy(`{podSelector: {}, ingress: [{from: [` + peer + `]}]}`).NetworkPolicy
			p.Namespace, p.Name = "shop", fmt.Sprint(n)
			s.Policies = s.Policies.With(p)
		}
		node, _ := k.Compile(s)
		var lists []policy.Members
		for id, set := range node.Sets.All() {
			if set.Members.Len() != len(step.pods) {
				t.Fatalf("step %d: set %s has %d members, want %d", i, id, set.Members.Len(), len(step.pods))
			}
			if !slices.ContainsFunc(lists, set.Members.IsOne) {
				lists = append(lists, set.Members)
			}
		}
		if node.Sets.Len() != len(step.peers) || len(lists) != 1 {
			t.Errorf("step %d: %d sets have %d lists; want %d and 1", i, node.Sets.Len(), len(lists), len(step.peers))
		}
	}
}
