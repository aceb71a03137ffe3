package ruleset

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

const (
	// fanOut is how many rules a packet meets at most in one node of the tree.
	fanOut = 16
	// maxDepth bounds the tree's height, and so the chains that a packet has entered when a group decides: nf_tables refuses
	// more than 16 nested jumps and gotos (NFT_JUMP_STACK_SIZE). 16^3 pods fit; where addresses are so uneven
	// that a third level does not suffice, its nodes are longer than fanOut.
	maxDepth = 3
)

// leaf sends the packets of one address to the chain of its group.
type leaf struct {
	addr  netip.Addr
	group string
}

// subtree is the part of the leaves that lies in one prefix, the longest that holds them all.
type subtree struct {
	prefix netip.Prefix
	leaves []leaf
}

// addTree adds the prefix tree over the leaves to chains: from the root chain of the direction to the groups, by
// goto, so that a group's RETURN, and an address that has no leaf, continue behind the jump to the root.
func addTree(chains map[string][]Rule, d policy.Direction, leaves []leaf) {
	if len(leaves) == 0 {
		return
	}
	slices.SortFunc(leaves, func(a, b leaf) int { return a.addr.Compare(b.addr) })
	addNode(chains, d, rootChain(d), leaves, 1)
}

func addNode(chains map[string][]Rule, d policy.Direction, chain string, leaves []leaf, depth int) {
	width := fanOut
	if depth == maxDepth {
		width = len(leaves)
	}
	side := "-d "
	if d == policy.Egress {
		side = "-s "
	}
	for _, t := range split(leaves, width) {
		target := t.leaves[0].group
		if len(t.leaves) > 1 {
			target = treeChain(d, t.prefix.String())
			addNode(chains, d, target, t.leaves, depth+1)
		}
		chains[chain] = append(chains[chain], Rule(side+t.prefix.String()+" -g "+target))
	}
}

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
