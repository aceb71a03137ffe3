package status

import (
	"context"
	"fmt"
	"math"
	"time"

	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

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
	// sigPolicies is the resource whose status has conditions and nothing else.
	sigPolicies = cached.SIGPolicies
)

// SetupWithManager starts the watches and the workers.
func (r *Policies) SetupWithManager(ctx context.Context, m ctrl.Manager) error {
	var err error
	if r.view, err = newView(ctx, m.GetCache()); err != nil {
		return err
	}
	if r.kinds, err = cached.NewKinds(m.GetConfig(), m.GetHTTPClient()); err != nil {
		return err
	}
	r.kinds.KeepStatus()
	r.index, r.claims = newIndex(), newClaimants()
	r.writer = newStatusWriter(r.kinds)
	r.recorder = m.GetEventRecorder("ringfence-controller")
	if err := m.Add(historyProbe{r.kinds.Watcher.Clients[v1alpha1.GroupVersion]}); err != nil {
		return fmt.Errorf("setting up the policy controller: %w", err)
	}
	c, err := controller.NewTyped("policies", m, controller.TypedOptions[policyKey]{
		Reconciler: r, MaxConcurrentReconciles: policyWorkers, CacheSyncTimeout: math.MaxInt64,
		RateLimiter: cached.Retries[policyKey](cached.LongestPause),
	})
	if err != nil {
		return fmt.Errorf("setting up the policy controller: %w", err)
	}
	if err := c.Watch(source.TypedFunc[policyKey](r.watch)); err != nil {
		return fmt.Errorf("setting up the policy controller: %w", err)
	}
	if err := cached.Register(r.Metrics()); err != nil {
		return fmt.Errorf("setting up the policy controller: %w", err)
	}
	return nil
}

// Client is one of our group's version. It is there once [Policies.SetupWithManager] has been called.
func (r *Policies) Client() rest.Interface { return r.kinds.Watcher.Clients[v1alpha1.GroupVersion] }

// Runs reports whether a node runs pods of a namespace. It may be called once the manager's caches have synced.
func (r *Policies) Runs(node, namespace string) bool { return r.view.runs(node, namespace) }

// watch adds the handlers that mark keys, and starts what the manager's cache does not hold.
func (r *Policies) watch(ctx context.Context, queue policyQueue) error {
	r.queue = queue
	r.leads.Store(true)
	for _, w := range []struct {
		informer toolscache.SharedIndexInformer
		handler  toolscache.ResourceEventHandler
	}{
		{r.view.policies, cached.OnChange(r.policyChanged(cached.NetworkPolicies.String()))},
		{r.view.enforcements, cached.OnChange(r.enforcementChanged)},
		{r.view.namespaces, cached.OnChange(r.namespaceChanged)},
		{r.view.pods, cached.OnChange(r.podChanged)},
		{r.view.nodes, cached.OnChange(r.nodeChanged)},
		{r.view.reports, r.onReport()},
	} {
		if _, err := w.informer.AddEventHandler(w.handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	go r.listen(ctx)
	look := func() { r.queue.Add(policyKey{}) }
	r.kindsMu.Lock()
	defer r.kindsMu.Unlock()
	return r.kinds.Start(func(t cached.Target) (*cached.Watch, error) {
		if t.Only.Name != "" { // a CustomResourceDefinition
			return r.kinds.Watcher.Start(ctx, t, look)
		}
		return r.kinds.Watcher.Follow(ctx, t, cached.OnChange(r.policyChanged(t.GroupResource().String())), look)
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
			for _, node := range r.view.heartbeats.lost(since, now) {
				r.mark(0, false, r.index.on(node)...)
			}
			since = now
		}
	}
}

// lookForKinds starts and stops the watches of kinds of policies, as the API gets and loses them.
func (r *Policies) lookForKinds(ctx context.Context) error {
	r.kindsMu.Lock()
	defer r.kindsMu.Unlock()
	if err := r.kinds.Follow(ctx); err != nil {
		return err
	}
	for _, resource := range r.kinds.Absent() {
		r.index.forgetKind(resource)
	}
	return nil
}

// kindsAreSynced reports whether all policies of the kinds that the API has are in the caches, and in the index.
func (r *Policies) kindsAreSynced(ctx context.Context) (bool, error) {
	r.kindsMu.Lock()
	defer r.kindsMu.Unlock()
	if err := r.kinds.Follow(ctx); err != nil { // a kind may be known that nobody has begun to watch
		return false, err
	}
	return len(r.kinds.Missing()) == 0, nil
}
