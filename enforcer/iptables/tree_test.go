package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// addresses are the ways in which a node's pods may be numbered, n of them.
var addresses = map[string]func(i int) netip.Addr{
	"in a row":         func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}) },
	"far apart":        func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i * 7), byte(i >> 4), byte(i * 13)}) },
	"random IPv6":      func(i int) netip.Addr { return randomIPv6(uint64(i)) },
	"powers of two":    func(i int) netip.Addr { return shifted(i) },
	"both ends of all": func(i int) netip.Addr { return netip.AddrFrom4([4]byte{byte(i%2) * 255, 0, byte(i >> 8), byte(i)}) },
}

func randomIPv6(seed uint64) netip.Addr {
	r := rand.New(rand.NewPCG(seed, 1))
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return netip.AddrFrom16(b)
}

// shifted is the least even numbering: every prefix holds as many addresses as all that are longer.
func shifted(i int) netip.Addr {
	var b [16]byte
	b[0], b[i/8%14+1], b[15] = 0xfd, 0x80>>(i%8), byte(i>>7)
	return netip.AddrFrom16(b)
}

func TestTreeLeadsEveryAddressToItsGroupAndNoOther(t *testing.T) {
	for name, at := range addresses {
		for _, n := range []int{1, 2, 16, 17, 110, 250, 1000} {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				group := map[netip.Addr]string{}
				var leaves []leaf
				for i := range n {
					a := at(i)
					if _, twice := group[a]; !twice {
						group[a] = fmt.Sprintf("group-%d", i)
						leaves = append(leaves, leaf{a, group[a]})
					}
				}
				for _, tree := range []struct {
					treeKind
					long   bool
					height int
				}{{adminTree, false, 3}, {policyTree, false, 3}, {policyTree, true, 2}, {baseTree, false, 2}} {
					chains := tree.of(policy.Egress, leaves, "RF-OTHERWISE", needs{long: tree.long})
					for a, want := range group {
						got, depth := follow(t, chains, tree.treeKind, a)
						if got != want || depth > tree.height {
							t.Errorf("%q: %s leads to %q over %d chains, want %q over at most %d", tree.treeKind, a, got, depth, want, tree.height)
						}
					}
					for i := range n {
						stranger := at(i).Next()
						want, known := group[stranger]
						if !known {
							want = "RF-OTHERWISE"
						}
						if got, _ := follow(t, chains, tree.treeKind, stranger); got != want {
							t.Errorf("%q: %s leads to %q, want %q", tree.treeKind, stranger, got, want)
						}
					}
				}
			})
		}
	}
}

func TestTreeIsShallowAndNarrowForANodeFullOfPods(t *testing.T) {
	for _, n := range []int{16, 256} {
		var leaves []leaf
		for i := range n {
			leaves = append(leaves, leaf{addresses["in a row"](i), "group"})
		}
		chains := policyTree.of(policy.Ingress, leaves, "", needs{})
		for c, rules := range chains {
			if len(rules) > DefaultFanOut {
				t.Errorf("%d pods: %s has %d rules, want at most %d", n, c, len(rules), DefaultFanOut)
			}
		}
		if want := 1 + n/DefaultFanOut*min(1, n/(DefaultFanOut+1)); len(chains) != want {
			t.Errorf("%d pods in a row take %d chains, want %d", n, len(chains), want)
		}
	}
}

// of is the tree's chains over the leaves.
func (k treeKind) of(d policy.Direction, leaves []leaf, otherwise string, n needs) map[string][]Rule {
	return Options{}.newTree(d, k, leaves, otherwise, n.height(k)).chains
}

// follow follows the tree by its text and returns the chain that it ends in, "" if none, and how many chains it passed.
func follow(t *testing.T, chains map[string][]Rule, k treeKind, a netip.Addr) (string, int) {
	t.Helper()
	chain := OwnLayout.rootChain(policy.Egress, k)
	for depth := 1; ; depth++ {
		next := ""
		for _, r := range chains[chain] {
			f := strings.Fields(string(r))
			switch {
			case len(f) == 2 && f[0] == "-g":
				next = f[1]
			case len(f) != 4 || f[0] != "-s" || f[2] != "-g":
				t.Fatalf("%s has the rule %q, want -s PREFIX -g CHAIN", chain, r)
			case netip.MustParsePrefix(f[1]).Contains(a):
				next = f[3]
			}
			if next != "" {
				break
			}
		}
		if _, inner := chains[next]; !inner {
			return next, depth
		}
		chain = next
	}
}
