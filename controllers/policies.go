package controllers

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Policies says of every policy of the cluster whether it is understood, and whether the nodes enforce it: in the status of those that have
// one, in a PolicyEnforcement for a NetworkPolicy, and in Events. It writes nothing else, and no enforcer asks it for anything.
//
// A key is one policy. What may change a policy's status marks its key: the policy itself, a pod that it selects, the pod's namespace, a
// node that runs such a pod, and what that node reports. The status is then made anew from what the caches hold, by [judge], and written
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

	kinds   sync.Mutex // guards watches
	watches *watches
}

// policyKey names a policy by its resource, as in "networkpolicies.networking.k8s.io". The zero key is the task to look which kinds of policies
// the API has.
type policyKey struct{ resource, namespace, name string }

// String is what the log calls the key.
func (k policyKey) String() string {
	if k.namespace == "" {
		return k.resource + " " + k.name
	}
	return k.resource + " " + k.namespace + "/" + k.name
}

// inCache is the key under which caches hold the object.
func (k policyKey) inCache() string { return toolscache.NewObjectName(k.namespace, k.name).String() }

type policyQueue = workqueue.TypedRateLimitingInterface[policyKey]

const (
	// policyWorkers is how many policies are looked at beside each other: each waits for its writes.
	policyWorkers = 8
	// reportPause is how long a report waits for others before the policies that it is about are looked at.
	reportPause = 50 * time.Millisecond
	// behind is how long a worker waits for the handlers to have seen what the caches have.
	behind = 10 * time.Millisecond
	// podGrace is how long a policy that is programmed may wait for the report of a node where a pod has just come, before it is called
	// Pending: else each pod that starts would turn its policies' conditions there and back.
	podGrace = time.Second
	// listenEvery is how often it is looked which nodes have fallen silent.
	listenEvery = time.Second
	// maxStatusWait is the longest pause between attempts to write a status that fail, as while the API server is away.
	maxStatusWait = 30 * time.Second
	// sigPolicies is the resource whose status has conditions and nothing else.
	sigPolicies = "clusternetworkpolicies.policy.networking.k8s.io"
)

// SetupWithManager starts the watches and the workers.
func (r *Policies) SetupWithManager(ctx context.Context, m ctrl.Manager) error {
	var err error
	if r.view, err = newView(ctx, m.GetCache()); err != nil {
		return err
	}
	if r.watches, err = newWatches(m.GetConfig(), m.GetHTTPClient(), nil); err != nil {
		return err
	}
	for _, d := range r.watches.definitions {
		d.objects.transform = oursWithStatus
		if d.name == sigPolicies {
			d.objects.transform = sigsWithStatus
		}
	}
	r.index, r.claims = newIndex(), newClaimants()
	r.writer = newStatusWriter(r.watches)
	r.recorder = m.GetEventRecorder("ringfence-controller")
	if err := m.Add(outlook{r.watches.watcher.clients[v1alpha1.GroupVersion]}); err != nil {
		return fmt.Errorf("setting up the policy controller: %w", err)
	}
	c, err := controller.NewTyped("policies", m, controller.TypedOptions[policyKey]{
		Reconciler: r, MaxConcurrentReconciles: policyWorkers, CacheSyncTimeout: math.MaxInt64, RateLimiter: retries[policyKey](maxStatusWait),
	})
	if err != nil {
		return fmt.Errorf("setting up the policy controller: %w", err)
	}
	if err := c.Watch(source.TypedFunc[policyKey](r.watch)); err != nil {
		return fmt.Errorf("setting up the policy controller: %w", err)
	}
	if err := register(r.Metrics()); err != nil {
		return fmt.Errorf("setting up the policy controller: %w", err)
	}
	return nil
}

// watch adds the handlers that mark keys, and starts what the manager's cache does not hold.
func (r *Policies) watch(ctx context.Context, queue policyQueue) error {
	r.queue = queue
	r.leads.Store(true)
	for _, w := range []struct {
		informer toolscache.SharedIndexInformer
		handler  toolscache.ResourceEventHandler
	}{
		{r.view.policies, onChange(r.policyChanged(networkPolicies.String()))},
		{r.view.enforcements, onChange(r.enforcementChanged)},
		{r.view.namespaces, onChange(r.namespaceChanged)},
		{r.view.pods, onChange(r.podChanged)},
		{r.view.nodes, onChange(r.nodeChanged)},
		{r.view.reports, r.onReport()},
	} {
		if _, err := w.informer.AddEventHandler(w.handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	go r.listen(ctx)
	look := func() { r.queue.Add(policyKey{}) }
	r.kinds.Lock()
	defer r.kinds.Unlock()
	return r.watches.start(func(t target) (*watch, error) {
		if t.only.Name != "" { // a CustomResourceDefinition
			return r.watches.watcher.start(ctx, t, look)
		}
		return r.watches.watcher.follow(ctx, t, onChange(r.policyChanged(t.groupResource().String())), look)
	})
}

// listen marks the policies of nodes that fall silent.
func (r *Policies) listen(ctx context.Context) {
	tick := time.NewTicker(listenEvery)
	defer tick.Stop()
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, node := range r.view.hearing.lost(since, now) {
				r.mark(0, false, r.index.on(node)...)
			}
			since = now
		}
	}
}

// Reconcile brings one policy's status to what the caches say.
func (r *Policies) Reconcile(ctx context.Context, key policyKey) (reconcile.Result, error) {
	if key == (policyKey{}) {
		return reconcile.Result{}, r.lookForKinds(ctx)
	}
	if key.namespace == "" {
		if synced, err := r.kindsAreSynced(ctx); err != nil || !synced {
			return reconcile.Result{RequeueAfter: reportPause}, err // with half of the policies, what is said of conflicts would be wrong
		}
	}
	o := r.object(key)
	if o == nil {
		return reconcile.Result{}, r.dropEnforcement(ctx, key)
	}
	if key.resource == networkPolicies.String() {
		if stale := r.view.enforcement(key); stale != nil && ownerUID(stale, "NetworkPolicy") != string(o.GetUID()) {
			// It speaks of a policy of this name that is gone. Its going marks the key.
			return reconcile.Result{}, r.dropEnforcement(ctx, key)
		}
	}
	now := time.Now()
	p, ok := r.index.begin(key, o)
	if !ok {
		return reconcile.Result{RequeueAfter: behind}, nil
	}
	previous, at := r.previous(key, o, p)
	if p.restore(previous, r.mode(o)) {
		r.index.restored(key, p)
	}
	nodes, absent := r.view.nodesOf(p.understood, now)
	if p.unreviewed {
		p.remarks = p.understood.Review(r.reviewed(p.understood))
	}
	status := judge(policyCase{
		resource: key.resource, uid: o.GetUID(), namespace: key.namespace, name: key.name,
		generation: p.generation, mode: r.mode(o), since: p.since, remarks: p.remarks, nodes: nodes,
	}, previous.Conditions)
	if key.resource == sigPolicies {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ReadyCondition)
	}
	wait := hasty(previous, &status, nodes)
	programmed := !wait && isTrue(status.Conditions, v1alpha1.ProgrammedCondition)
	if fresh := r.index.end(key, p, nodes, absent, programmed, now); r.view.missed(nodes, fresh) {
		r.mark(reportPause, false, key)
	}
	if wait {
		return reconcile.Result{}, nil // what is heard of the nodes, or that nothing is, marks the key
	}
	return r.write(ctx, key, o, p, at, previous, &status, now)
}

// write writes the status if it says anything new, over the previous one that stands at a resource version, and an Event if that is news to a
// person.
func (r *Policies) write(ctx context.Context, key policyKey, o metav1.Object, p known, at string, previous, status *v1alpha1.EnforcementStatus,
	now time.Time) (reconcile.Result, error) {
	slip := r.index.slip(key, slipped(previous, status), now)
	if sameStatus(previous, status) || key.resource == sigPolicies && sameConditions(previous.Conditions, status.Conditions) {
		return reconcile.Result{}, nil
	}
	if wait := p.writtenAt.Add(r.spacing()).Sub(now); wait > 0 && sameVerdict(previous, status) {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if slip > 0 {
		return reconcile.Result{RequeueAfter: slip}, nil
	}
	if key.resource == networkPolicies.String() && !p.made && r.view.enforcement(key) == nil {
		var err error
		if at, err = r.writer.makeEnforcement(ctx, key, o); err != nil {
			return reconcile.Result{}, err
		}
		r.index.made(key, p.uid, at)
	}
	version, err := r.writer.write(ctx, key, at, status)
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: r.spacing()}, nil // or sooner: what stands there marks the key when it comes to the cache
	}
	if err != nil {
		if apierrors.IsNotFound(err) {
			r.index.unmade(key) // somebody has deleted it before this process knew that it was there
		}
		statusErrors.Inc()
		return reconcile.Result{}, err
	}
	statusWrites.WithLabelValues(key.resource).Inc()
	r.index.wrote(key, p.uid, status, version, now)
	r.tell(o, previous, status)
	return reconcile.Result{}, nil
}

func (r *Policies) spacing() time.Duration {
	if r.Spacing == 0 {
		return time.Second
	}
	return r.Spacing
}

// lookForKinds starts and stops the watches of kinds of policies, as the API gets and loses them.
func (r *Policies) lookForKinds(ctx context.Context) error {
	r.kinds.Lock()
	defer r.kinds.Unlock()
	if err := r.watches.follow(ctx); err != nil {
		return err
	}
	for _, d := range r.watches.definitions {
		if d.watch == nil {
			r.index.forgetKind(d.objects.groupResource().String())
		}
	}
	return nil
}

// kindsAreSynced reports whether all policies of the kinds that the API has are in the caches, and in the index.
func (r *Policies) kindsAreSynced(ctx context.Context) (bool, error) {
	r.kinds.Lock()
	defer r.kinds.Unlock()
	if err := r.watches.follow(ctx); err != nil { // a kind may be known that nobody has begun to watch
		return false, err
	}
	return len(r.watches.missing()) == 0, nil
}

// object is the policy of a key as the caches have it, nil if it is gone, or the API has no policies of its kind.
func (r *Policies) object(key policyKey) metav1.Object {
	if key.resource == networkPolicies.String() {
		return get[metav1.Object](r.view.policies, key.inCache())
	}
	r.kinds.Lock()
	defer r.kinds.Unlock()
	for _, d := range r.watches.definitions {
		if d.watch != nil && d.objects.groupResource().String() == key.resource {
			return get[metav1.Object](d.watch.informer, key.inCache())
		}
	}
	return nil
}

// previous is the status as it stands, and its resource version: what the caches have, or what was written since.
func (r *Policies) previous(key policyKey, o metav1.Object, p known) (status *v1alpha1.EnforcementStatus, at string) {
	cached, version := &v1alpha1.EnforcementStatus{}, ""
	switch o := o.(type) {
	case *v1alpha1.ClusterNetworkPolicy:
		cached, version = &o.Status, o.ResourceVersion
	case *v1alpha1.NamespaceIsolation:
		cached, version = &o.Status, o.ResourceVersion
	default:
		e := r.view.enforcement(key)
		if e == nil && !p.made {
			return cached, "" // what was written is gone
		}
		if e != nil {
			cached, version = &e.Status.EnforcementStatus, e.ResourceVersion
		}
	}
	if p.writtenVersion != "" && !reached(version, p.writtenVersion) {
		return cmp.Or(p.written, cached), p.writtenVersion
	}
	return cached, version
}

// mode is the one that the policy is in.
func (r *Policies) mode(o metav1.Object) v1alpha1.Mode {
	var mode v1alpha1.Mode
	switch o := o.(type) {
	case *v1alpha1.ClusterNetworkPolicy:
		mode = o.Spec.Mode
	case *v1alpha1.NamespaceIsolation:
		mode = o.Spec.Mode
	case *networkingv1.NetworkPolicy:
		own, ok := o.Annotations[v1alpha1.ModeAnnotation]
		if ns := r.view.namespace(o.Namespace); !ok && ns != nil {
			own = ns.Mode
		}
		mode = v1alpha1.Mode(own)
	}
	if mode == v1alpha1.Audit {
		return mode
	}
	return v1alpha1.Enforce // whatever is not known enforces
}

// reviewed is the cluster as a review of one policy sees it.
func (r *Policies) reviewed(u *compile.Understood) compile.View {
	v := compile.View{Namespaces: map[string]*compile.Namespace{}, Pods: r.view.podsIn, Contested: r.claims.contests}
	for _, ns := range list(r.view.namespaces, namespaceOf) {
		v.Namespaces[ns.Name] = ns
	}
	if _, one := u.Namespace(); !one {
		v.ClusterPolicies = r.index.clusterPolicies()
	}
	return v
}

// dropEnforcement deletes the PolicyEnforcement of a NetworkPolicy that is gone. Garbage collection would do it too, in its own time, and until then
// a new policy of the name would seem to be enforced.
func (r *Policies) dropEnforcement(ctx context.Context, key policyKey) error {
	if key.resource != networkPolicies.String() {
		return nil
	}
	e := r.view.enforcement(key)
	if e == nil {
		return nil
	}
	return r.writer.deleteEnforcement(ctx, key, e.UID)
}
