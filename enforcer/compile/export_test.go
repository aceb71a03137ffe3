package compile

import "github.com/ringfence-io/ringfence/enforcer/policy"

// small are budgets that a few objects reach.
var small = budgets{
	object:    spending{rules: 12, sets: 7, entries: 9, looks: 60},
	namespace: spending{rules: 20, sets: 10, entries: 14, looks: 110},
	node:      spending{rules: 16, sets: 9, entries: 12, looks: 85},
}

// NewSmall is a compiler with small budgets.
func NewSmall() *Compiler { return &Compiler{known: knownSets{budgets: small}} }

// TogetherSmall is Together with small budgets.
func TogetherSmall(s Snapshot) (policy.Node, bool) { return together(s, small) }
