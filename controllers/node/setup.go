package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node/announce"
	"github.com/ringfence-io/ringfence/controllers/node/connections"
	"github.com/ringfence-io/ringfence/controllers/node/podnames"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/controllers/node/scope"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

const (
	// laterDelay is how long after an event that can wait a sync takes it in, if none has before: one for all that come meanwhile.
	laterDelay = 5 * time.Second
	// linkDelay is how long after a link has come or gone a sync takes that in, if none has before: what CNI plugins do with it takes some steps.
	linkDelay = 200 * time.Millisecond
)

// queue is the worker's: it has one key.
type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// SetupWithManager starts the watches and the one worker. The worker starts when the manager's cache has synced, and syncs nothing before
// the other watches have: nothing is written to the kernel from half a picture.
func (n *Reconciler) SetupWithManager(ctx context.Context, m ctrl.Manager) error {
	n.stores = newStores(n.hear())
	err := cached.Informers(ctx, m.GetCache(), []cached.Wanted{{Object: &corev1.Node{}, To: &n.stores.node}})
	if err != nil {
		return err
	}
	if n.watches, err = newWatches(m.GetConfig(), m.GetHTTPClient(), n.DNSServices, n.stores); err != nil {
		return err
	}
	if err := errors.Join(cached.Register(Metrics()), n.addRunnables(m)); err != nil {
		return fmt.Errorf("setting up the node controller: %w", err)
	}
	c, err := controller.New("node", m, controller.Options{
		Reconciler: n, MaxConcurrentReconciles: 1,
		// The API server may be away for longer than any limit; meanwhile what is in the kernel stays.
		CacheSyncTimeout: math.MaxInt64,
		RateLimiter:      cached.Retries[reconcile.Request](n.Resync),
	})
	if err != nil {
		return fmt.Errorf("setting up the node controller: %w", err)
	}
	for _, s := range n.eventSources() {
		if err := c.Watch(s); err != nil {
			return fmt.Errorf("setting up the node controller: %w", err)
		}
	}
	return nil
}

// hear are the pods that the node hears of.
func (n *Reconciler) hear() heard {
	if n.ReachedPods {
		pods := scope.New(n.Name, cmp.Or(n.KeepPods, scope.Kept))
		pods.Wait, n.causes.batched = n.causes.wait, true
		return &reachedPods{Pods: pods}
	}
	return newAllPods(n.Name)
}

// addRunnables adds what runs beside the worker: the reports, the announcements, and what ends the process when the API server has gone back.
func (n *Reconciler) addRunnables(m ctrl.Manager) error {
	clients := n.watches.kinds.Watcher.Clients
	if n.Facts != nil {
		n.reporter = report.NewReporter(n.Name, report.NewWriter(clients[v1alpha1.GroupVersion]), n.owner, n.Heartbeat, *n.Facts, n.Health)
		if err := m.Add(n.reporter); err != nil {
			return fmt.Errorf("adding the reports of the node: %w", err)
		}
	}
	if n.Connections != nil {
		reporter := &connections.Reporter{
			Node: n.Name, Ledger: n.Connections, Writer: connections.NewWriter(clients[v1alpha1.GroupVersion]), Owner: n.owner,
			Nodes: func() int { return n.sizes.atMost("") },
		}
		if err := m.Add(reporter); err != nil {
			return fmt.Errorf("adding the reports of denied connections: %w", err)
		}
	}
	if n.Arrivals != nil && n.Announce {
		n.announcer = announce.New(announce.NewWriter(clients[corev1.SchemeGroupVersion]), m.GetLogger().WithName("announcements"))
		if err := m.Add(n.announcer); err != nil {
			return fmt.Errorf("adding the announcements of the node: %w", err)
		}
	}
	if n.ReachedPods {
		n.names.Asker = podnames.NewAsker(clients[corev1.SchemeGroupVersion])
		n.sizes.ask = SizeAsker(clients[corev1.SchemeGroupVersion])
		n.sizes.want([]string{""}, time.Now())
		if err := errors.Join(m.Add(n.names), m.Add(n.sizes)); err != nil {
			return fmt.Errorf("adding what is asked of pods that are not known: %w", err)
		}
	}
	return m.Add(n.restored)
}

// eventSources are whatever asks for a sync.
func (n *Reconciler) eventSources() []source.Source {
	all := []source.Source{source.Func(n.watchNode)}
	if n.Arrivals != nil {
		all = append(all, source.Func(n.watchArrivals))
	}
	if n.LinkEvents != nil {
		all = append(all, source.Func(n.watchLinks))
	}
	return append(all, source.Func(n.startWatches))
}

// watchNode marks the node dirty when its Node has changed.
func (n *Reconciler) watchNode(_ context.Context, q queue) error {
	dirty := func() { n.dirty(q) }
	_, err := n.stores.node.AddEventHandler(cached.OnEvents(dirty))
	dirty() // a cluster without a single object is to be enforced too
	return err
}

// watchStores marks the node dirty when what a store holds has changed, and starts them.
func (n *Reconciler) watchStores(ctx context.Context, q queue) {
	changed := func(before, after *compile.Pod) {
		here := func(p *compile.Pod) bool { return p != nil && p.Node == n.Name }
		switch {
		case before != nil && after != nil && cached.CanWait(n.Name, before, after):
			q.AddAfter(n.key(), laterDelay)
		case here(before) || here(after):
			n.dirty(q)
		default:
			n.dirtyElsewhere(q)
		}
	}
	n.stores.namespaces.OnChange(func(_, _ *compile.Namespace) { n.dirty(q) })
	n.stores.policies.OnChange(func(_, _ *networkingv1.NetworkPolicy) { n.dirty(q) })
	n.stores.pods.Start(ctx, n.watches.kinds.Watcher, changed)
	n.stores.start(ctx, n.watches.kinds.Watcher)
}

// watchArrivals has a pod that has just come be in the next sync, which begins at once.
func (n *Reconciler) watchArrivals(_ context.Context, q queue) error {
	n.Arrivals.OnArrival(func() {
		n.pace.hurry()
		n.dirty(q)
	})
	return nil
}

func (n *Reconciler) watchLinks(ctx context.Context, q queue) error {
	n.sources.note(time.Now())
	return n.LinkEvents(ctx, func() {
		n.sources.note(time.Now())
		q.AddAfter(n.key(), linkDelay)
	})
}

// startWatches starts what the manager's cache does not hold.
func (n *Reconciler) startWatches(ctx context.Context, q queue) error {
	n.watchStores(ctx, q)
	n.comparisons.ask = func() { n.dirty(q) }
	n.readings.ask = func() { q.Add(n.key()) }
	return n.watches.start(func(t cached.Target) (*cached.Watch, error) {
		return n.watches.kinds.Watcher.Start(ctx, t, func() { n.dirty(q) })
	})
}

// dirty asks for a sync, and remembers since when.
func (n *Reconciler) dirty(q queue) {
	n.noteChange()
	n.causes.here.Store(true)
	q.Add(n.key())
}

// dirtyElsewhere does so for a pod of another node. Where very many of them change, several wait for one sync, and only the first asks for it.
func (n *Reconciler) dirtyElsewhere(q queue) {
	n.noteChange()
	if !n.causes.askElsewhere() {
		return
	}
	q.AddAfter(n.key(), n.causes.pause(time.Now()))
}

func (n *Reconciler) noteChange() {
	if n.changed.Load() != nil {
		return
	}
	now := time.Now()
	n.changed.CompareAndSwap(nil, &now)
}

func (n *Reconciler) key() reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: n.Name}}
}

// owner is the UID of the Node object, empty while there is none.
func (n *Reconciler) owner() types.UID {
	node := cached.Get[metav1.Object](n.stores.node, n.Name)
	if node == nil {
		return ""
	}
	return node.GetUID()
}
