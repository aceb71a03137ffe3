package status

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// transaction is one worker's turn with one policy. The worker reads what is known from its own copy, without a lock, writes there what it finds, and commits
// that at the end of its judgement. What it writes to the API after that it records at once.
type transaction struct {
	known
	key   policyKey
	now   time.Time // when it began
	index *index
}

// restore takes over since when this version is known from the status that another process wrote. A status that says nothing of that, and calls the
// version programmed, was right when it was written: the nodes that were desired then have it, and one that is desired since reports its pods. One of
// another mode than the present one speaks of another version: a mode has no generation. Nor was a version seen before it was there: what says so was
// written by another program. It reports whether it took anything over.
func (tx *transaction) restore(status *v1alpha1.EnforcementStatus, mode v1alpha1.Mode) bool {
	v := &tx.version
	if !v.first || tx.written.status != nil {
		return false
	}
	c := meta.FindStatusCondition(status.Conditions, v1alpha1.ProgrammedCondition)
	if c == nil || c.ObservedGeneration != v.generation || status.Mode != "" && status.Mode != mode {
		return false
	}
	if status.ObservedSince == "" && c.Status != metav1.ConditionTrue || status.ObservedSince != "" && !cached.Reached(v.since, status.ObservedSince) {
		return false
	}
	v.since, v.first, tx.judged.timed = status.ObservedSince, false, true
	return true
}

// pend notes whether a policy that is written to be programmed waits for a report again.
func (tx *transaction) pend(again bool) {
	switch {
	case !again:
		tx.judged.pendingSince = time.Time{}
	case tx.judged.pendingSince.IsZero():
		tx.judged.pendingSince = tx.now
	}
}

// grace is how long it need not be written yet that the policy waits for a report again.
func (tx *transaction) grace() time.Duration {
	if tx.judged.pendingSince.IsZero() {
		return 0
	}
	return tx.judged.pendingSince.Add(podGrace).Sub(tx.now)
}

// commit has the index take over what the worker has found, unless another version of the policy has come meanwhile. It returns those of the policy's nodes
// that were not known to run pods which the policy selects: what has happened to them while the worker looked has marked nothing.
func (tx *transaction) commit() (fresh []string) {
	tx.index.mu.Lock()
	defer tx.index.mu.Unlock()
	k := tx.index.policies[tx.key]
	if k == nil || !k.version.same(&tx.version) {
		return nil
	}
	fresh = tx.index.place(tx.key, k, tx.judged.on)
	if tx.judged.programmed && !tx.judged.timed {
		tx.judged.timed = true
		programmingSeconds.Observe(tx.now.Sub(k.version.seen).Seconds())
	}
	k.judged = tx.judged
	k.version.since, k.version.first = tx.version.since, false
	if k.marks.count == tx.marks.count {
		k.marks.settled, k.marks.review = tx.judged.programmed, false
	}
	return fresh
}

// record notes what was just written to the API, whichever version of the policy the index knows by now: it stands there all the same. Of another policy of
// the same name it notes nothing.
func (tx *transaction) record(change func(*written)) {
	change(&tx.written)
	tx.index.mu.Lock()
	defer tx.index.mu.Unlock()
	if k := tx.index.policies[tx.key]; k != nil && k.version.uid == tx.version.uid {
		change(&k.written)
	}
}
