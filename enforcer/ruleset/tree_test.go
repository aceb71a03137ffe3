package ruleset

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
				chains := map[string][]Rule{}
				addTree(chains, policy.Egress, leaves)
				for a, want := range group {
					got, depth := walk(t, chains, a)
					if got != want || depth > maxDepth {
						t.Errorf("%s leads to %q over %d chains, want %q over at most %d", a, got, depth, want, maxDepth)
					}
				}
				for i := range n {
					stranger := at(i).Next()
					if got, _ := walk(t, chains, stranger); got != group[stranger] {
						t.Errorf("%s leads to %q, want %q", stranger, got, group[stranger])
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
		chains := map[string][]Rule{}
		addTree(chains, policy.Ingress, leaves)
		for c, rules := range chains {
			if len(rules) > fanOut {
				t.Errorf("%d pods: %s has %d rules, want at most %d", n, c, len(rules), fanOut)
			}
		}
		if want := 1 + n/fanOut*min(1, n/(fanOut+1)); len(chains) != want {
			t.Errorf("%d pods in a row take %d chains, want %d", n, len(chains), want)
		}
	}
}

// walk follows the tree by its text and returns the group that it ends in, "" if none, and how many chains it passed.
func walk(t *testing.T, chains map[string][]Rule, a netip.Addr) (string, int) {
	t.Helper()
	chain := rootChain(policy.Egress)
	for depth := 1; ; depth++ {
		next := ""
		for _, r := range chains[chain] {
			f := strings.Fields(string(r))
			if len(f) != 4 || f[0] != "-s" || f[2] != "-g" {
				t.Fatalf("%s has the rule %q, want -s PREFIX -g CHAIN", chain, r)
			}
			if netip.MustParsePrefix(f[1]).Contains(a) {
				next = f[3]
				break
			}
		}
		if _, inner := chains[next]; !inner {
			return next, depth
		}
		chain = next
	}
}
