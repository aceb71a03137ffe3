package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Where a set has the members that it had in the last node, it is these that stand in the next: a node that differs little takes little memory of its own.
func TestACompilerReusesTheMembersOfSets(t *testing.T) {
	// Every address of the node's pods is a member of its set of known addresses.
	snapshot := func(addrs ...string) Snapshot {
		s := Snapshot{Node: "n", Closed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		for i, a := range addrs {
			name := fmt.Sprint(i)
			s = s.WithPods(&Pod{Name: name, UID: name, Node: "n", Addrs: []netip.Addr{netip.MustParseAddr(a)}})
		}
		return s
	}
	members := func(n policy.Node) policy.Members { return n.Sets.Get(n.Closed.Known).Members }
	for name, tt := range map[string]struct {
		after  Snapshot
		shared bool
	}{
		"nothing changed": {snapshot("10.0.0.1", "10.0.0.2"), true},
		"another order":   {snapshot("10.0.0.2", "10.0.0.1"), true},
		"one more":        {snapshot("10.0.0.1", "10.0.0.2", "10.0.0.3"), false},
		"one fewer":       {snapshot("10.0.0.1"), false},
		"another one":     {snapshot("10.0.0.1", "10.0.0.3"), false},
		"none":            {snapshot(), false},
	} {
		t.Run(name, func(t *testing.T) {
			want, _ := Compile(tt.after)
			var compiler Compiler
			before, _ := compiler.Compile(snapshot("10.0.0.1", "10.0.0.2"))
			got, _ := compiler.Compile(tt.after)
			same := cmp.Options{
				cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
			}
			if diff := cmp.Diff(want, got, same); diff != "" {
				t.Errorf("-without +with what there was:\n%s", diff)
			}
			like := Like(before)
			anew, _ := like.Compile(tt.after)
			if diff := cmp.Diff(want, anew, same); diff != "" {
				t.Errorf("-without +like the node before:\n%s", diff)
			}
			for who, n := range map[string]policy.Node{"the same compiler": got, "one like it": anew} {
				if shared := members(n).Len() > 0 && members(n).IsOne(members(before)); shared != tt.shared {
					t.Errorf("%s: shared: %v, want %v", who, shared, tt.shared)
				}
			}
		})
	}
}
