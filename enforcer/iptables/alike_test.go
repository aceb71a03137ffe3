package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestInCommonIsWhatALookAtEachElementFinds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		a := make([]int, random.IntN(3*atOnce))
		for i := range a {
			a[i] = i
		}
		b := slices.Clone(a)
		for range random.IntN(3) {
			if i := random.IntN(len(b) + 1); i < len(b) && random.IntN(2) == 0 {
				b = slices.Delete(b, i, i+1)
			} else {
				b = slices.Insert(b, i, -random.IntN(2))
			}
		}
		front, back := inCommon(a, b)
		n := min(len(a), len(b))
		wantFront := 0
		for wantFront < n && a[wantFront] == b[wantFront] {
			wantFront++
		}
		wantBack := 0
		for wantBack < n-wantFront && a[len(a)-1-wantBack] == b[len(b)-1-wantBack] {
			wantBack++
		}
		if front != wantFront || back != wantBack {
			t.Fatalf("%v and %v have %d and %d in common, want %d and %d", a, b, front, back, wantFront, wantBack)
		}
	}
}

// longSets is a node with a pod for whose policy there are sets of these hosts of 10.0.0.0/16.
func longSets(sets map[string][]int) policy.Node {
	n := tenants(map[string][]string{"a": {"one", "two", "three"}})
	for id, hosts := range sets {
		var members []policy.Member
		for _, h := range hosts {
			members = append(members, policy.Member{Addr: policy.AddrOf(netip.AddrFrom4([4]byte{10, 0, byte(h >> 8), byte(h)}))})
		}
		n.Sets = n.Sets.With(policy.SetID(id), policy.Set{Kind: policy.Addresses, Members: members})
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
					x, y := entriesOf(is, a), entriesOf(is, b)
					if slices.Equal(sets[a], sets[b]) && !policy.IsOneSlice(x, y) {
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

func entriesOf(r Ruleset, id string) []Entry {
	return r.Sets.Get(OwnLayout.SetNames(policy.SetID(id), policy.Addresses)[0]).Entries
}

// copyOfSets is r with entries that nothing else has.
func copyOfSets(r Ruleset) Ruleset {
	sets := map[string]Set{}
	for name, s := range r.Sets.All() {
		s.Entries = slices.Clone(s.Entries)
		sets[name] = s
	}
	r.Sets = policy.MapOf(sets)
	return r
}
