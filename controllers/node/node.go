package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node/announce"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// Syncer makes a kernel enforce a snapshot.
type Syncer interface {
	Sync(ctx context.Context, s compile.Snapshot, verify bool) (enforcer.Report, error)
}

var _ Syncer = (*enforcer.Enforcer)(nil)

// Arrivals knows addresses of this node's pods before the API does.
type Arrivals interface {
	// Into adds them to a snapshot. What it returns is told how the sync of that snapshot has ended, for a pod with some addresses.
	Into(s *compile.Snapshot) (ended func(lacking func([]netip.Addr) error))
	// OnArrival gives it what asks for a sync.
	OnArrival(ask func())
}

// Node keeps one node's kernel at what the cluster's policies say. All events are one key, so that however many come while
// a sync runs, one more sync follows.
type Node struct {
	Name string
	Sync Syncer
	// Resync is how often the kernel itself is compared with what it should hold, and so the longest that damage done by others
	// lasts.
	Resync time.Duration
	// DNSServices are the Services under which the cluster's DNS may be found; most clusters have one of them.
	DNSServices []types.NamespacedName
	// DNSAddresses are those at which nodes answer DNS themselves.
	DNSAddresses []netip.Addr
	// Facts, if they are given, begin the node's reports: what does not change while the enforcer runs. Without them none are written.
	Facts *v1alpha1.NodeEnforcementStatus
	// Heartbeat is the longest time between two reports.
	Heartbeat time.Duration
	// Health, if it is given, is in the reports.
	Health *report.Health
	// Points, if there is one, is told after each sync in which places of the rules packets are counted or logged.
	Points func(map[string]iptables.Point)
	// Arrivals are pods that the API does not show with their addresses yet. Without it there are none.
	Arrivals Arrivals
	// Announce has their addresses announced to the other nodes.
	Announce bool
	// UnknownPods are addresses of this node's pods that neither the API nor Arrivals show.
	UnknownPods UnknownPods
	// Sources are what pods send from.
	Sources Sources
	// LinkEvents, if it is given, calls back whenever a link of another network namespace comes or goes, until its context ends.
	LinkEvents func(ctx context.Context, changed func()) error
	// Ground, if it is given, is looked at again with each resync.
	Ground Ground

	reporter  *report.Reporter
	announcer *announce.Announcer
	stores    *stores
	watches   *watches
	verified  time.Time                 // of the last sync that looked at the kernel
	changed   atomic.Pointer[time.Time] // when the first event came that no sync has taken in; nil if there is none
	synced    atomic.Bool
	syncing   atomic.Pointer[time.Time] // when the sync began that runs now; nil if none does
	problems  map[compile.Problem]bool  // said already
	leftover  []string                  // likewise
	waiting   []string                  // likewise
	lines     problemLines              // how many of them
	unknown   bool                      // the cluster has no node of this name: said already
	closing   closing
	sources   sources
	addresses addresses
	grounds   grounds
	pace      pace
	restored  *restoration
}

// SetupWithManager starts the watches and the one worker. The worker starts when the manager's cache has synced, and syncs nothing before
// the other watches have: nothing is written to the kernel from half a picture.
func (n *Node) SetupWithManager(ctx context.Context, m ctrl.Manager) error {
	var err error
	if n.stores, err = newStores(ctx, m.GetCache()); err != nil {
		return err
	}
	n.closing.UnknownPods, n.sources.Sources, n.grounds.Ground = n.UnknownPods, n.Sources, n.Ground
	if n.watches, err = newWatches(m.GetConfig(), m.GetHTTPClient(), n.DNSServices); err != nil {
		return err
	}
	if n.Facts != nil {
		writer := report.NewWriter(n.watches.kinds.Watcher.Clients[v1alpha1.GroupVersion])
		n.reporter = report.NewReporter(n.Name, writer, n.owner, n.Heartbeat, *n.Facts, n.Health)
		if err := m.Add(n.reporter); err != nil {
			return fmt.Errorf("setting up the reports of the node: %w", err)
		}
	}
	if n.Arrivals != nil && n.Announce {
		writer := announce.NewWriter(n.watches.kinds.Watcher.Clients[corev1.SchemeGroupVersion])
		n.announcer = announce.New(writer, m.GetLogger().WithName("announcements"))
		if err := m.Add(n.announcer); err != nil {
			return fmt.Errorf("setting up the announcements of the node: %w", err)
		}
	}
	n.restored = newRestoration()
	if err := errors.Join(cached.Register(Metrics()), m.Add(n.restored)); err != nil {
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
	for _, informer := range n.stores.all() {
		if err := c.Watch(n.dirtyOn(informer)); err != nil {
			return fmt.Errorf("setting up the node controller: %w", err)
		}
	}
	if n.Arrivals != nil {
		if err := c.Watch(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			n.Arrivals.OnArrival(func() {
				n.pace.hurry()
				n.dirty(queue)
			})
			return nil
		})); err != nil {
			return fmt.Errorf("setting up the node controller: %w", err)
		}
	}
	if n.LinkEvents != nil {
		if err := c.Watch(source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			return n.LinkEvents(ctx, func() { queue.AddAfter(n.key(), linkDelay) })
		})); err != nil {
			return fmt.Errorf("setting up the node controller: %w", err)
		}
	}
	if err := c.Watch(source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		return n.watches.start(func(t cached.Target) (*cached.Watch, error) {
			return n.watches.kinds.Watcher.Start(ctx, t, func() { n.dirty(queue) })
		})
	})); err != nil {
		return fmt.Errorf("setting up the node controller: %w", err)
	}
	return nil
}

// laterDelay is how long after an event that can wait a sync takes it in, if none has before: one for all that come meanwhile.
const laterDelay = 5 * time.Second

// linkDelay is how long after a link has come or gone a sync takes that in, if none has before: what CNI plugins do with it takes some steps.
const linkDelay = 200 * time.Millisecond

// dirtyOn marks the node dirty on every event of an informer.
func (n *Node) dirtyOn(informer toolscache.SharedIndexInformer) source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		dirty := func() { n.dirty(queue) }
		handler := cached.OnEvents(dirty)
		handler.UpdateFunc = func(before, after any) {
			if cached.CanWait(n.Name, before, after) {
				queue.AddAfter(n.key(), laterDelay)
				return
			}
			cached.IfChanged(before, after, dirty)
		}
		_, err := informer.AddEventHandler(handler)
		dirty() // a cluster without a single object is to be enforced too
		return err
	})
}

// dirty asks for a sync, and remembers since when.
func (n *Node) dirty(queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	now := time.Now()
	n.changed.CompareAndSwap(nil, &now)
	queue.Add(n.key())
}

// resourceVersions are how far the caches have seen each kind of policy that there is.
func (n *Node) resourceVersions() map[string]string {
	versions := n.watches.kinds.ResourceVersions()
	versions[cached.NetworkPolicies.String()] = n.stores.policies.GetStore().LastStoreSyncResourceVersion()
	return versions
}

// cacheVersions are how far the caches of a snapshot have seen their kinds.
func (n *Node) cacheVersions(policies map[string]string) map[string]string {
	versions := maps.Clone(policies)
	versions["pods"] = n.stores.pods.GetStore().LastStoreSyncResourceVersion()
	versions["namespaces"] = n.stores.namespaces.GetStore().LastStoreSyncResourceVersion()
	return versions
}

// owner is the UID of the Node object, empty while there is none.
func (n *Node) owner() types.UID {
	node := cached.Get[metav1.Object](n.stores.nodes, n.Name)
	if node == nil {
		return ""
	}
	return node.GetUID()
}

func (n *Node) key() reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: n.Name}}
}

// takes is how often a snapshot is taken anew because policies have changed meanwhile.
const takes = 3

// take takes a snapshot, and says how far the caches had seen policies by then, or how long to wait for what is missing. It looks at how far both
// before and after: a policy that came in between would be enforced and not reported, since the sync that its own event asks for finds nothing
// new. If policies change faster than that, what is said is less than what is so.
func (n *Node) take(ctx context.Context) (s compile.Snapshot, versions map[string]string, wait time.Duration, err error) {
	for range takes {
		versions = n.resourceVersions()
		s = n.stores.snapshot(n.Name)
		s.DNS.Addresses = n.DNSAddresses
		s.Closed = n.closing.ranges(n.stores.podRanges(n.Name))
		if wait, err = n.watches.gather(ctx, &s, n.synced.Load()); err != nil || wait > 0 || maps.Equal(versions, n.resourceVersions()) {
			break
		}
	}
	if err == nil && n.restored != nil {
		err = n.restored.note(n.cacheVersions(versions))
	}
	return s, versions, wait, err
}

// Reconcile syncs the kernel with the caches.
func (n *Node) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	n.sayIfUnknown(ctx)
	n.pace.wait(ctx)
	if found, due := n.grounds.look(ctx, n.Resync); due {
		n.closing.Unable = found.Unable
	}
	changed, start := n.changed.Swap(nil), time.Now()
	snapshot, versions, wait, err := n.take(ctx)
	if err != nil || wait > 0 {
		n.changed.CompareAndSwap(nil, changed)
		return reconcile.Result{RequeueAfter: wait}, err
	}
	ended := func(func([]netip.Addr) error) {}
	if n.Arrivals != nil {
		ended = n.Arrivals.Into(&snapshot)
	}
	if n.announcer != nil {
		n.announcer.Note(snapshot, n.stores.pod)
	}
	unread := n.sources.into(&snapshot)
	verify := time.Since(n.verified) >= n.Resync
	n.syncing.Store(&start)
	came, err := n.Sync.Sync(ctx, snapshot, verify)
	err = errors.Join(err, unread)
	n.syncing.Store(nil)
	ended(func(addrs []netip.Addr) error {
		return errors.Join(enforcer.Concerning(err, addrs), lagging(snapshot, came.Waiting, addrs))
	})
	observe(came, err, time.Since(start))
	unknownPods := n.closing.condition(snapshot.Closed, came.Concerns)
	n.closing.say(ctx, unknownPods)
	checked := n.sources.condition(came.Concerns.Links)
	n.sources.say(ctx, checked)
	unpoliced, bridges := n.grounds.unpoliced(came.Concerns)
	if n.reporter != nil {
		n.reporter.Note(report.Synced{
			Report: came, ResourceVersions: versions, Err: errors.Join(err, n.watches.incomplete()), At: time.Now(), UnknownPods: unknownPods,
			Sources: checked, SourceCheck: n.sources.status(came.Concerns.Links), Facts: n.grounds.facts, Unpoliced: unpoliced, Bridges: bridges,
			Nodes: func(namespace string) int { return nodesWith(snapshot.Pods, namespace) },
		})
	}
	if n.Points != nil {
		n.Points(came.Points)
	}
	n.say(ctx, came)
	n.Health.Note(v1alpha1.SetsLeftReason, leftoverError(came.Leftover))
	n.addresses.say(ctx, came.Concerns, time.Now())
	if asked := n.watches.askRanges(came.Concerns.Contested.Elsewhere > 0, time.Now()); err == nil {
		err = asked
	}
	n.pace.took(time.Since(start))
	if err != nil {
		n.changed.CompareAndSwap(nil, changed) // it still waits
		return reconcile.Result{}, err
	}
	if changed != nil {
		changeSeconds.Observe(time.Since(*changed).Seconds())
	}
	if verify {
		n.verified = start
	}
	n.synced.Store(true)
	if len(came.Waiting) > 0 {
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil // after the pause that is between any two syncs
	}
	// Counted from the last look at the kernel, so that no amount of changes puts the next one off.
	return reconcile.Result{RequeueAfter: max(n.Resync-time.Since(n.verified), time.Millisecond)}, nil
}

// lagging says whether one of the addresses is of a pod whose namespace's policies are not in force as they are now.
func lagging(s compile.Snapshot, waiting []string, addrs []netip.Addr) error {
	if len(waiting) == 0 {
		return nil
	}
	for _, p := range s.Pods {
		has := func(a netip.Addr) bool { return slices.Contains(p.Addrs, a) }
		if p.Node == s.Node && slices.Contains(waiting, p.Namespace) && slices.ContainsFunc(addrs, has) {
			return fmt.Errorf("the policies of namespace %s are in force as they were: what they have become is being made ready", p.Namespace)
		}
	}
	return nil
}

// sayIfUnknown logs, once, that the cluster has no node of this name: then no pod is local, and nothing is enforced.
func (n *Node) sayIfUnknown(ctx context.Context) {
	known := n.stores.hasNode(n.Name)
	if !known && !n.unknown {
		log.FromContext(ctx).Info("the cluster has no node of this name, so no pod counts as local: give the name that "+
			"'kubectl get nodes' prints with --node-name or NODE_NAME", "node", n.Name)
	}
	n.unknown = !known
}

// say logs what a person who looks for trouble would want to know, and each problem once as long as it lasts.
func (n *Node) say(ctx context.Context, r enforcer.Report) {
	logger := log.FromContext(ctx)
	if !r.Repairs.Empty() {
		logger.Info("somebody else changed our rules: repaired", "changes", report.PlanSize(r.Repairs), "plan", abridged(r.Repairs.String()))
	}
	if debug := logger.V(1); debug.Enabled() && !r.Applied.Empty() { // the text of a whole policy is several megabytes
		debug.Info("applied", "plan", r.Applied.String(), "counts", r.Counts)
	}
	said, now := make(map[compile.Problem]bool, len(r.Problems)), time.Now()
	over := func(namespace string, leftOut int) {
		logger.Info("more parts of policies could not be enforced as written than have a line", "namespace", namespace, "leftOut", leftOut)
	}
	for _, p := range r.Problems {
		if !n.problems[p] && n.lines.may(now, p.Ref.Namespace, over) {
			logger.Info("a part of a policy cannot be enforced as written", "kind", p.Ref.Kind, "namespace", p.Ref.Namespace,
				"name", p.Ref.Name, "field", p.Field, "detail", cached.Shortened(p.Detail, longestLine))
		}
		said[p] = true
	}
	n.problems = said
	if len(r.Waiting) > 0 && !slices.Equal(r.Waiting, n.waiting) {
		logger.Info("the policies of namespaces have changed so much that it takes several syncs: they are in force as they were until all is ready",
			"namespaces", r.Waiting)
	}
	n.waiting = r.Waiting
	if len(r.Leftover) > 0 && !slices.Equal(r.Leftover, n.leftover) {
		logger.Info("sets that are needed no more stay, since rules of another program refer to them: take these rules away", "sets", r.Leftover)
	}
	n.leftover = r.Leftover
}

// maxLeftoverNames is how many sets an error names.
const maxLeftoverNames = 5

// leftoverError says which sets stay that are needed no more, nil if there are none.
func leftoverError(sets []string) error {
	if len(sets) == 0 {
		return nil
	}
	some := strings.Join(sets[:min(len(sets), maxLeftoverNames)], ", ")
	return fmt.Errorf("%d sets that are needed no more stay, since rules of another program refer to them: %s; "+
		"see 'iptables-save' and 'nft list ruleset' on the node, and take these rules away", len(sets), some)
}

// Synced fails until the node has enforced the cluster's policies once: the readiness check.
func (n *Node) Synced() error {
	if !n.synced.Load() {
		return fmt.Errorf("node %s: policy has not been enforced yet", n.Name)
	}
	return nil
}

// longestSync is longer than a sync can take whose every step waits for as long as it may and then goes well.
const longestSync = 15 * time.Minute

// Live fails while a sync does not end: the liveness check. Whatever holds it up, a program or a system call that does not return, a new start gets rid of, or
// an administrator hears of.
func (n *Node) Live() error {
	began := n.syncing.Load()
	if began != nil && time.Since(*began) > longestSync {
		return fmt.Errorf("node %s: a sync has not ended for %s", n.Name, time.Since(*began).Round(time.Second))
	}
	return nil
}

// abridged is text short enough for one log line.
func abridged(text string) string {
	const limit = 4096
	if len(text) > limit {
		return text[:limit] + "..."
	}
	return text
}
