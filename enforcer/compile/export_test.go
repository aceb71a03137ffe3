package compile

import "github.com/ringfence-io/ringfence/enforcer/policy"

// small are budgets that a few objects reach.
var small = budgets{
	object:    spending{rules: 12, sets: 7, entries: 9, looks: 60},
	namespace: spending{rules: 20, sets: 10, entries: 14, looks: 110},
	node:      spending{rules: 16, sets: 9, entries: 12, looks: 85},
}

// smallNode are budgets of which a few objects reach that of a node, and no other.
var smallNode = budgets{object: documented.object, namespace: documented.namespace, node: spending{rules: 24, sets: 12, entries: 24, looks: 160}}

// NewSmall is a compiler with small budgets.
func NewSmall() *Compiler { return &Compiler{known: knownSets{budgets: small}} }

// NewSmallNode is a compiler with a small budget of the node.
func NewSmallNode() *Compiler { return &Compiler{known: knownSets{budgets: smallNode}} }

// TogetherSmall is Together with small budgets.
func TogetherSmall(s Snapshot) (policy.Node, bool) { return together(s, small) }

// TogetherSmallNode is Together with a small budget of each node.
func TogetherSmallNode(s Snapshot) (policy.Node, bool) { return together(s, smallNode) }
