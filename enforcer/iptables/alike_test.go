package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// longSets is a node with a pod for whose policy there are sets of these hosts of 10.0.0.0/16. Sets with the same hosts have one list of members.
func longSets(sets map[string][]int) policy.Node {
	n := tenants(map[string][]string{"a": {"one", "two", "three"}})
	made := map[string]policy.Members{}
	for id, hosts := range sets {
		var members []policy.Member
		for _, h := range hosts {
			members = append(members, policy.Member{Addr: policy.AddrOf(netip.AddrFrom4([4]byte{10, 0, byte(h >> 8), byte(h)}))})
		}
		if _, there := made[fmt.Sprint(hosts)]; !there {
			made[fmt.Sprint(hosts)] = policy.MembersOf(members)
		}
		n.Sets = n.Sets.With(policy.SetID(id), policy.Set{Kind: policy.Addresses, Members: made[fmt.Sprint(hosts)]})
	}
	return n
}

// Sets of the same members share entries, whatever the others have, and a plan has for each what is its own.
func TestSetsOfTheSameMembersShareEntries(t *testing.T) {
	without := func(hosts []int, some ...int) []int {
		return slices.DeleteFunc(slices.Clone(hosts), func(h int) bool { return slices.Contains(some, h) })
	}
	all := make([]int, 500)
	for i := range all {
		all[i] = i
	}
	var r Renderer
	var held Ruleset
	for i, sets := range []map[string][]int{
		{"one": all, "two": all, "three": all},
		{"one": without(all, 250), "two": without(all, 250), "three": without(all, 251)}, // of one length, with the same ends
		{"one": without(all, 250), "two": without(all, 250, 100), "three": without(all, 250)},
		{"one": all[:400], "two": all[:300], "three": all},
		{"one": all, "two": without(all, 100, 101), "three": without(all, 100)},
		{"one": all, "two": all, "three": nil},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			n := longSets(sets)
			want, is := Render(n, keptOptions), r.Render(n, keptOptions, held)
			same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
			if diff := cmp.Diff(want, is, same); diff != "" {
				t.Errorf("(-made anew +got):\n%s", diff)
			}
			for a := range sets {
				for b := range sets {
					if slices.Equal(sets[a], sets[b]) && !setOf(is, a).isOne(setOf(is, b)) {
						t.Errorf("%s and %s have entries of their own", a, b)
					}
				}
			}
			if diff := cmp.Diff(Diff(want, copyOfSets(held)), Diff(is, held), same); diff != "" {
				t.Errorf("the plan (-without +with what is shared):\n%s", diff)
			}
			held = is
		})
	}
}

func setOf(r Ruleset, id string) Set {
	return r.Sets.Get(OwnLayout.SetNames(policy.SetID(id), policy.Addresses)[0])
}

// copyOfSets is r with entries that nothing else has.
func copyOfSets(r Ruleset) Ruleset {
	sets := map[string]Set{}
	for name, s := range r.Sets.All() {
		sets[name] = s.Holding(s.Entries())
	}
	r.Sets = policy.MapOf(sets)
	return r
}
