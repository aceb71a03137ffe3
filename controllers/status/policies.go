package status

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// Policies says of every policy of the cluster whether it is understood, and whether the nodes enforce it: in the status of those that have
// one, in a PolicyEnforcement for a NetworkPolicy, and in Events. It writes nothing else, and no enforcer asks it for anything.
//
// A key is one policy. What may change a policy's status marks its key: the policy itself, a pod that it selects, the pod's namespace, a
// node that runs such a pod, and what that node reports. The status is then made anew from what the caches hold, by [Judge], and written
// if it says anything else than before.
type Policies struct {
	// Spacing is the shortest time between two writes to one policy that differ in counts only; 1 s if it is 0.
	Spacing time.Duration

	view     *view
	writer   *statusWriter
	recorder events.EventRecorder
	index    *index
	claims   *claimants
	queue    policyQueue
	leads    atomic.Bool // this process writes, and not another one's

	kindsMu sync.Mutex // guards kinds, once they are watched
	kinds   *cached.Kinds
}

// Reconcile brings one policy's status to what the caches say.
func (r *Policies) Reconcile(ctx context.Context, key policyKey) (reconcile.Result, error) {
	if key == (policyKey{}) {
		return reconcile.Result{}, r.lookForKinds(ctx)
	}
	if key.namespace == "" {
		if synced, err := r.kindsAreSynced(ctx); err != nil || !synced {
			return reconcile.Result{RequeueAfter: reportPause}, err // with half of the policies, messages about conflicts would be wrong
		}
	}
	o := r.object(key)
	if o == nil || r.isOfAnother(key, o) {
		return reconcile.Result{}, r.dropEnforcement(ctx, key)
	}
	tx, ok := r.index.begin(key, o, time.Now())
	if !ok {
		return reconcile.Result{RequeueAfter: behind}, nil
	}
	before := r.published(tx, o)
	tx.restore(before.status, r.mode(o))
	nodes, absent := r.view.nodesOf(tx.version.understood, tx.now)
	status := r.judge(tx, o, nodes, before.status.Conditions)
	presumed := recoveryIsPresumed(before.status, status, nodes)
	if !presumed {
		tx.pend(pendingAgain(before.status, status))
	}
	tx.judged.programmed = !presumed && meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ProgrammedCondition)
	tx.judged.on = slices.AppendSeq(absent, maps.Keys(nodes))
	tx.judged.took = time.Since(tx.now)
	if fresh := tx.commit(); r.view.missed(nodes, fresh) {
		r.mark(reportPause, false, key)
	}
	if presumed {
		return reconcile.Result{}, nil // what is heard of the nodes, or that nothing is, marks the key
	}
	return r.write(ctx, tx, o, before, status)
}

// judge makes a policy's status of what the caches have.
func (r *Policies) judge(tx *transaction, o metav1.Object, nodes map[string]*NodeCase, previous []metav1.Condition) *v1alpha1.EnforcementStatus {
	if tx.marks.review {
		tx.judged.remarks = tx.version.understood.Review(r.reviewed(tx.version.understood))
	}
	status := Judge(PolicyCase{
		Resource: tx.key.resource, UID: tx.version.uid, Namespace: tx.key.namespace, Name: tx.key.name,
		Generation: tx.version.generation, Mode: r.mode(o), Since: tx.version.since, Remarks: tx.judged.remarks, Nodes: nodes,
	}, previous)
	if tx.key.resource == sigPolicies {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ReadyCondition)
	}
	return &status
}

// write writes the status if it says anything else than what was published before, and an Event if that is news to a person.
func (r *Policies) write(ctx context.Context, tx *transaction, o metav1.Object, before published, status *v1alpha1.EnforcementStatus) (
	reconcile.Result, error) {
	if sameStatus(before.status, status) || tx.key.resource == sigPolicies && sameConditions(before.status.Conditions, status.Conditions) {
		return reconcile.Result{}, nil
	}
	if wait := r.pause(tx, before.status, status); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	at, err := r.enforcementOf(ctx, tx, o, before)
	if err != nil {
		return reconcile.Result{}, err
	}
	version, err := r.writer.write(ctx, tx.key, at, status)
	switch {
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: r.spacing()}, nil // or sooner: what stands there marks the key when it comes to the cache
	case apierrors.IsNotFound(err):
		tx.record((*written).gone) // it was deleted before this process knew that it was there
		fallthrough
	case err != nil:
		statusErrors.Inc()
		return reconcile.Result{}, err
	}
	statusWrites.WithLabelValues(tx.key.resource).Inc()
	tx.record(func(w *written) { w.updated(status, version, tx.now) })
	r.emit(o, before.status, status)
	return reconcile.Result{}, nil
}

// pause is how long a write has to wait: for others, if it differs in counts only, or for a report that may make it needless.
func (r *Policies) pause(tx *transaction, before, now *v1alpha1.EnforcementStatus) time.Duration {
	if wait := tx.written.at.Add(r.spacing()).Sub(tx.now); wait > 0 && sameVerdict(before, now) {
		return wait
	}
	return tx.grace()
}

// enforcementOf makes the PolicyEnforcement of a NetworkPolicy that has none, and returns the resource version at which a status is written.
func (r *Policies) enforcementOf(ctx context.Context, tx *transaction, o metav1.Object, before published) (string, error) {
	if tx.key.resource != cached.NetworkPolicies.String() || tx.written.made || r.view.enforcement(tx.key) != nil {
		return before.at, nil
	}
	at, err := r.writer.makeEnforcement(ctx, tx.key, o)
	if err != nil {
		return "", err
	}
	tx.record(func(w *written) { w.created(at) })
	return at, nil
}

// isOfAnother reports whether the PolicyEnforcement of a NetworkPolicy speaks of another policy of its name, which is gone. Its going marks the key.
func (r *Policies) isOfAnother(key policyKey, o metav1.Object) bool {
	if key.resource != cached.NetworkPolicies.String() {
		return false
	}
	e := r.view.enforcement(key)
	return e != nil && ownerUID(e, "NetworkPolicy") != string(o.GetUID())
}

func (r *Policies) spacing() time.Duration {
	if r.Spacing == 0 {
		return time.Second
	}
	return r.Spacing
}

// dropEnforcement deletes the PolicyEnforcement of a NetworkPolicy that is gone. Garbage collection would do it too, in its own time, and until then
// a new policy of the name would seem to be enforced.
func (r *Policies) dropEnforcement(ctx context.Context, key policyKey) error {
	if key.resource != cached.NetworkPolicies.String() {
		return nil
	}
	e := r.view.enforcement(key)
	if e == nil {
		return nil
	}
	return r.writer.deleteEnforcement(ctx, key, e.UID)
}
