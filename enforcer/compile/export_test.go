package compile

// NewSmall is a compiler with budgets that a few objects reach.
func NewSmall() *Compiler {
	return &Compiler{known: knownSets{budgets: budgets{
		object:    spending{rules: 12, sets: 7, entries: 9, looks: 60},
		namespace: spending{rules: 20, sets: 10, entries: 14, looks: 110},
		node:      spending{rules: 16, sets: 9, entries: 12, looks: 85},
	}}}
}
