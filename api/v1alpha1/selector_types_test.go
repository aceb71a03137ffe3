package v1alpha1

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestACopyOfASelectorSharesNothing(t *testing.T) {
	full := func() *LabelSelector {
		return &LabelSelector{
			MatchLabels:      map[string]string{"app": "web"},
			MatchExpressions: []LabelSelectorRequirement{{Key: "env", Operator: metav1.LabelSelectorOpIn, Values: []string{"a", "b"}}},
		}
	}
	for _, want := range []*LabelSelector{nil, {}, {MatchLabels: map[string]string{}, MatchExpressions: []LabelSelectorRequirement{}}, full()} {
		if diff := cmp.Diff(want, want.DeepCopy()); diff != "" {
			t.Errorf("the copy differs (-want +got):\n%s", diff)
		}
	}

	original := full()
	changed := original.DeepCopy()
	changed.MatchLabels["app"] = "api"
	changed.MatchExpressions[0].Key = "tier"
	changed.MatchExpressions[0].Values[0] = "c"
	if diff := cmp.Diff(full(), original); diff != "" {
		t.Errorf("a change of the copy changes the original (-want +got):\n%s", diff)
	}
}
