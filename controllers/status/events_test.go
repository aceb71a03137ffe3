package status

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// TestEventsOfTheClustersObjectsNameNoOthers: they are in the namespace default.
func TestEventsOfTheClustersObjectsNameNoOthers(t *testing.T) {
	conflicting := &metav1.Condition{Type: v1alpha1.AcceptedCondition, Reason: v1alpha1.ConflictingReason, Message: "ClusterNetworkPolicy rival has the same priority, and both select the pod shop/web"}
	if text := note(&v1alpha1.ClusterNetworkPolicy{}, conflicting); strings.Contains(text, "rival") || strings.Contains(text, "shop") {
		t.Errorf("an Event in default says: %s", text)
	}
	own := &metav1.Condition{Type: v1alpha1.AcceptedCondition, Reason: v1alpha1.NotUnderstoodReason, Message: "spec.podSelector: no"}
	if text := note(&v1alpha1.PolicyEnforcement{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}, own); text != own.Message {
		t.Errorf("an Event in the policy's namespace says: %s", text)
	}
}
