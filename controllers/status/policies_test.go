package status

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// TestEachSlipHasItsMoment: a policy that waits for a report is not called Pending at once, also not if it has slipped before, and was found again
// without a write in between.
func TestEachSlipHasItsMoment(t *testing.T) {
	r := &Policies{index: newIndex(), claims: newClaimants()}
	np := webAt(2, "10")
	r.index.see(web, np, started)
	said := statusSaying(metav1.ConditionTrue, v1alpha1.ProgrammedReason)
	for _, step := range []struct {
		after time.Duration
		now   *v1alpha1.EnforcementStatus
		want  time.Duration
	}{
		{0, statusSaying(metav1.ConditionFalse, v1alpha1.PendingReason), podGrace},
		{podGrace / 4, statusSaying(metav1.ConditionFalse, v1alpha1.PendingReason), podGrace * 3 / 4},
		{podGrace / 2, said, 0},
		{time.Minute, statusSaying(metav1.ConditionFalse, v1alpha1.PendingReason), podGrace},
	} {
		tx, _ := r.index.begin(web, np, started.Add(step.after))
		tx.pend(pendingAgain(said, step.now))
		tx.commit()
		got, err := r.write(t.Context(), tx, np, published{said, "11"}, step.now)
		if err != nil || got != (reconcile.Result{RequeueAfter: step.want}) {
			t.Errorf("after %s it is looked at again after %s (%v), want %s", step.after, got.RequeueAfter, err, step.want)
		}
	}
}
