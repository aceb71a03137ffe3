package report

import (
	"slices"
	"testing"

	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
)

// One namespace with many refused policies leaves room for those of others.
func TestRefusedPoliciesAreNamedByTurns(t *testing.T) {
	got := byTurns(slices.Concat(testapi.RefusedIn("a", 100), testapi.RefusedIn("b", 2), testapi.RefusedIn("c", 1)), 6)
	var names []string
	for _, r := range got {
		names = append(names, r.Object.Ref.Namespace+"/"+r.Object.Ref.Name)
	}
	want := []string{"a/p0000", "b/p0000", "c/p0000", "a/p0001", "b/p0001", "a/p0002"}
	if !slices.Equal(names, want) {
		t.Errorf("named: %v, want %v", names, want)
	}
}
