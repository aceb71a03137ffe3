package ruleset

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// fanOut is how many rules a packet meets at most in one node of a tree that is not too high. Where the layout was set at link time it is another, so that
// what such a program takes over differs in more than its names.
func fanOut() int {
	if layout != ownLayout {
		return 5
	}
	return 16
}

// leaf sends the packets of one address to a chain.
type leaf struct {
	addr  netip.Addr
	chain string
}

// subtree is the part of the leaves that lies in one prefix, the longest that holds them all.
type subtree struct {
	prefix netip.Prefix
	leaves []leaf
}

// addTree adds the prefix tree over the leaves: from its root to the leaves' chains, by goto. A packet whose address has no leaf goes on at otherwise, or
// is allowed if that is empty.
func (w *walk) addTree(kind treeKind, leaves []leaf, otherwise string) {
	if len(leaves) == 0 {
		return
	}
	slices.SortFunc(leaves, func(a, b leaf) int { return a.addr.Compare(b.addr) })
	w.addNode(kind, rootChain(w.direction, kind), leaves, otherwise, 1)
}

func (w *walk) addNode(kind treeKind, chain string, leaves []leaf, otherwise string, depth int) {
	width := fanOut()
	if depth == kind.depth() {
		width = len(leaves)
	}
	side := "-d "
	if w.direction == policy.Egress {
		side = "-s "
	}
	var rules []Rule
	for _, t := range split(leaves, width) {
		target := t.leaves[0].chain
		if len(t.leaves) > 1 {
			target = treeChain(w.direction, kind, t.prefix.String())
			w.addNode(kind, target, t.leaves, otherwise, depth+1)
		}
		rules = append(rules, Rule(side+t.prefix.String()+" -g "+target))
	}
	if otherwise != "" {
		rules = append(rules, Rule("-g "+otherwise))
	}
	w.chains[chain] = rules
}

func (w *walk) inFamily(a netip.Addr) bool { return FamilyOf(a) == w.family }

// split cuts sorted leaves into at most width subtrees of disjoint prefixes, as even as prefixes allow: the fullest is
// halved until there are enough, or until every one holds a single address.
func split(leaves []leaf, width int) []subtree {
	trees := []subtree{newSubtree(leaves)}
	for len(trees) < width {
		i := 0
		for j := range trees {
			if len(trees[j].leaves) > len(trees[i].leaves) {
				i = j
			}
		}
		if len(trees[i].leaves) == 1 {
			break
		}
		lower, upper := trees[i].halves()
		trees = slices.Replace(trees, i, i+1, lower, upper)
	}
	return trees
}

func newSubtree(leaves []leaf) subtree {
	return subtree{commonPrefix(leaves[0].addr, leaves[len(leaves)-1].addr), leaves}
}

// halves cuts a subtree at the first bit in which its addresses differ.
func (t subtree) halves() (lower, upper subtree) {
	bit := t.prefix.Bits()
	i, _ := slices.BinarySearchFunc(t.leaves, 1, func(l leaf, one int) int { return cmp.Compare(bitAt(l.addr, bit), one) })
	return newSubtree(t.leaves[:i]), newSubtree(t.leaves[i:])
}

// commonPrefix is the longest prefix that holds a and b.
func commonPrefix(a, b netip.Addr) netip.Prefix {
	bits := 0
	for bits < a.BitLen() && bitAt(a, bits) == bitAt(b, bits) {
		bits++
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// bitAt is bit i of a, counted from the most significant one.
func bitAt(a netip.Addr, i int) int {
	return int(a.AsSlice()[i/8]>>(7-i%8)) & 1
}
