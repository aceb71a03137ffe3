package compile_test

import (
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/ladder"
)

// TestWhatACompilerKeepsDoesNotShowInRefusals: who is refused, and why, does not depend on what is kept either.
func TestWhatACompilerKeepsDoesNotShowInRefusals(t *testing.T) {
	for seed := range uint64(120) {
		if _, err := ladder.WalkHistoryBy(compile.NewSmall, seed, 60); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestSmallBudgetsRefuseForEachReason: the histories of the test above are worth something.
func TestSmallBudgetsRefuseForEachReason(t *testing.T) {
	reasons := []string{
		"it has ", "the policies of the namespace", "the cluster-wide policies", "all policies of a node", " rules, where", " sets, where", " addresses in sets, where",
		" pods to compare with its selectors, where",
	}
	said := map[string]int{}
	for seed := range uint64(120) {
		h := ladder.NewHistory(seed)
		for range 20 {
			_, s := h.Next()
			_, problems := compile.NewSmall().Compile(s)
			for _, p := range problems {
				for _, reason := range reasons {
					if p.Here && strings.Contains(p.Detail, reason) {
						said[reason]++
					}
				}
			}
		}
	}
	for _, reason := range reasons {
		if said[reason] < 10 {
			t.Errorf("%q is said %d times", reason, said[reason])
		}
	}
	t.Log(said)
}
