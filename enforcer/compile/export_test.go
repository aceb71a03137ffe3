package compile

import "testing"

// SmallBudgets has a test of a few objects reach the budgets.
func SmallBudgets(t *testing.T) {
	t.Helper()
	object, namespace, node := objectBudget, namespaceBudget, nodeBudget
	t.Cleanup(func() { objectBudget, namespaceBudget, nodeBudget = object, namespace, node })
	objectBudget = spending{rules: 12, sets: 7, entries: 9, looks: 60}
	namespaceBudget = spending{rules: 20, sets: 10, entries: 14, looks: 110}
	nodeBudget = spending{rules: 16, sets: 9, entries: 12, looks: 85}
}
