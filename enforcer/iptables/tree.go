package iptables

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// DefaultFanOut is how many rules a packet meets at most in one node of a tree that is not too high.
const DefaultFanOut = 16

// treeKind is one of the trees of a direction.
type treeKind string

const (
	adminTree  treeKind = "ADMIN"
	policyTree treeKind = ""
	passTree   treeKind = "PASS"
	baseTree   treeKind = "BASE"
	noTree     treeKind = "none"
)

// treeKinds are all, from the last that a packet meets to the first.
var treeKinds = []treeKind{baseTree, passTree, policyTree, adminTree}

// height bounds a tree, and so the chains that a packet has entered: nf_tables refuses more than 16 nested jumps and gotos, counted from the base chain
// (NFT_JUMP_STACK_SIZE). The longest way is two to the root of the admin tree, two more in it, a list of rules, three in the policy tree, Admin isolation,
// audited NetworkPolicies, Baseline rules, two in the base tree, isolation, a denial that is logged: 15. Where lists are cut down, trees are lower: that
// leaves two levels in each of the two lists, for ports and for runs. What comes behind a list comes behind the chain for some ports, since only Pass leads
// on from a run, and Pass leaves Admin isolation out.
//
// A node of a tree that may not be higher has more rules than its fan-out.
func (n needs) height(kind treeKind) int {
	if kind == baseTree || n.long {
		return 2
	}
	return 3
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

// tree is a prefix tree over leaves: from its root to the leaves' chains, by goto. A packet whose address has no leaf goes on at otherwise, or is allowed
// if that is empty.
type tree struct {
	direction policy.Direction
	kind      treeKind
	leaves    []leaf // in the order in which they came
	otherwise string
	layout    Layout
	fanOut    int
	height    int
	chains    map[string][]Rule // none without leaves
}

func (o Options) newTree(d policy.Direction, kind treeKind, leaves []leaf, otherwise string, height int) *tree {
	t := &tree{d, kind, leaves, otherwise, o.Layout, cmp.Or(o.FanOut, DefaultFanOut), height, map[string][]Rule{}}
	if len(leaves) > 0 {
		t.addNode(o.Layout.rootChain(d, kind), slices.SortedFunc(slices.Values(leaves), func(a, b leaf) int { return a.addr.Compare(b.addr) }), 1)
	}
	return t
}

func (t *tree) addNode(chain string, leaves []leaf, depth int) {
	width := t.fanOut
	if depth == t.height {
		width = len(leaves)
	}
	side := "-d "
	if t.direction == policy.Egress {
		side = "-s "
	}
	var rules []Rule
	for _, s := range split(leaves, width) {
		target := s.leaves[0].chain
		if len(s.leaves) > 1 {
			target = t.layout.treeChain(t.direction, t.kind, s.prefix.String())
			t.addNode(target, s.leaves, depth+1)
		}
		rules = append(rules, Rule(side+s.prefix.String()+" -g "+target))
	}
	if t.otherwise != "" {
		rules = append(rules, Rule("-g "+t.otherwise))
	}
	t.chains[chain] = rules
}

func (pl *pipeline) inFamily(a netip.Addr) bool { return FamilyOf(a) == pl.family }

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
