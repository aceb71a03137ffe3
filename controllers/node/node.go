package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node/announce"
	"github.com/ringfence-io/ringfence/controllers/node/connections"
	"github.com/ringfence-io/ringfence/controllers/node/podnames"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
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

// Config is what a Reconciler is told. It does not change while the node runs.
type Config struct {
	Name string
	Sync Syncer
	// Compare, if it is given, is asked now and then whether what was made step by step is right.
	Compare Comparer
	// Kernel, if it is given, is read beside the syncs. Without it those that verify read it themselves.
	Kernel Reader
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
	Points func(policy.Map[string, policy.Point])
	// Watched, if there is one, is told after each sync for which pods of this node connections that pass are looked for, by their addresses.
	Watched func(map[netip.Addr]policy.PodName)
	// Connections, if it is given, has what was seen of connections written into the node's NodeConnections.
	Connections *connections.Ledger
	// Arrivals are pods that the API does not show with their addresses yet. Without it there are none.
	Arrivals Arrivals
	// Announce has their addresses announced to the other nodes.
	Announce bool
	// ReachedPods has the node hear of its own pods and of those of namespaces that its policies can name, instead of all pods.
	ReachedPods bool
	// KeepPods is how long it goes on to hear of pods that they do not name any more; [scope.Kept], unless it is given.
	KeepPods time.Duration
	// UnknownPods are addresses of this node's pods that neither the API nor Arrivals show.
	UnknownPods UnknownPods
	// Sources are what pods send from.
	Sources Sources
	// LinkEvents, if it is given, calls back whenever a link of another network namespace comes or goes, until its context ends.
	LinkEvents func(ctx context.Context, changed func()) error
	// Ground, if it is given, is looked at again with each resync.
	Ground Ground
}

// Reconciler keeps one node's kernel at what the cluster's policies say. All events are one key, so that however many come while
// a sync runs, one more sync follows.
//
// [Reconciler.Synced], [Reconciler.Live], [Reconciler.PodsAt] and [Reconciler.Named] may be called from any goroutine; everything else is the one worker's.
type Reconciler struct {
	Config

	// What a snapshot is taken from.
	stores   *stores
	watches  *watches
	restored *restoration
	inForce  stays // what is enforced while changes wait

	// How far syncs have come, and when the next may begin.
	progress
	pace   pace
	causes *causes

	// What is enforced besides the API's objects, and what comes of it.
	closing closing
	sources sources
	grounds grounds

	comparisons comparisons
	readings    readings

	// Who is told of pods, and of syncs. The first two may be nil.
	announcer *announce.Announcer
	reporter  *report.Reporter
	names     *podnames.Names
	sizes     *sizes
	log       syncLog
	addresses addressLog
	listeners []listener
}

// progress is how far syncs have come.
type progress struct {
	changed  atomic.Pointer[time.Time] // when the first event came that no sync has taken in; nil if there is none
	syncing  atomic.Pointer[time.Time] // when the sync began that runs now; nil if none does
	synced   atomic.Bool               // once
	verified time.Time                 // of the last sync that looked at the kernel
}

// New makes a Reconciler, which does nothing before it is set up with a manager that runs.
func New(c Config) *Reconciler {
	n := &Reconciler{
		Config: c, restored: newRestoration(), causes: newCauses(),
		comparisons: comparisons{Comparer: c.Compare, every: compareEvery, ask: func() {}},
		readings:    readings{Reader: c.Kernel, ask: func() {}},
		closing:     closing{UnknownPods: c.UnknownPods}, sources: sources{Sources: c.Sources}, grounds: grounds{Ground: c.Ground},
	}
	n.sizes = newSizes()
	n.names = podnames.New(n.PodsAt, func() int { return n.sizes.atMost("") })
	n.listeners = n.allListeners()
	return n
}

// Reconcile syncs the kernel with the caches.
func (n *Reconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	n.prepare(ctx)
	spent, elsewhere := processTime(), n.causes.take()
	o, wait, err := n.take(ctx)
	if err != nil || wait > 0 {
		n.changed.CompareAndSwap(nil, o.changed) // it still waits
		return reconcile.Result{RequeueAfter: wait}, err
	}
	n.sync(ctx, o)
	for _, tell := range n.listeners {
		tell(ctx, o)
	}
	took := time.Since(o.began)
	spent = min(processTime()-spent, took) // more is what others in the process take meanwhile
	n.pace.took(spent, took-spent)
	if elsewhere {
		n.causes.took(spent, time.Now())
	}
	return n.requeue(o)
}

// prepare waits until a sync may begin, and looks at what the kernel has besides the rules.
func (n *Reconciler) prepare(ctx context.Context) {
	n.log.missingNode(ctx, n.Name, n.stores.hasNode(n.Name))
	n.pace.wait(ctx)
	n.comparisons.act(ctx)
	if found, due := n.grounds.look(ctx, n.Resync); due {
		n.closing.Unable = found.Unable
	}
}

// takes is how often a snapshot is taken anew because policies have changed meanwhile.
const takes = 3

// take takes a snapshot, and with it how far the caches had seen policies by then; or says how long to wait for what is missing. It looks at how far both
// before and after: a policy that came in between would be enforced and not reported, since the sync that its own event asks for finds nothing
// new. Of what is in stores both are one. If policies change faster than that, what is said is less than what is so.
func (n *Reconciler) take(ctx context.Context) (o *outcome, wait time.Duration, err error) {
	o = &outcome{changed: n.changed.Swap(nil), began: time.Now()}
	var seen map[string]string
	for range takes {
		o.ResourceVersions = n.watches.kinds.ResourceVersions()
		o.snapshot, seen = n.stores.snapshot(n.Name)
		o.snapshot.DNS.Addresses = n.DNSAddresses
		named := n.stores.podRanges(n.Name)
		o.snapshot.Closed, o.snapshot.Ranges = n.closing.ranges(named), n.closing.own(named)
		wait, err = n.watches.gather(ctx, &o.snapshot, n.synced.Load())
		if err != nil || wait > 0 || maps.Equal(o.ResourceVersions, n.watches.kinds.ResourceVersions()) {
			break
		}
	}
	policies := cached.NetworkPolicies.String()
	o.ResourceVersions[policies] = seen[policies]
	if err == nil {
		maps.Copy(seen, o.ResourceVersions)
		err = n.restored.note(seen)
		n.restored.forget(n.stores.pods.ResourceVersions())
	}
	if err == nil && wait > 0 {
		wait = n.stay(o, wait)
	}
	return o, wait, err
}

// sync adds to the snapshot what the API does not know, and has the kernel enforce it.
func (n *Reconciler) sync(ctx context.Context, o *outcome) {
	if !o.stays {
		n.inForce = stays{o.snapshot, maps.Clone(o.ResourceVersions), true}
	}
	if n.Arrivals != nil {
		o.ended = n.Arrivals.Into(&o.snapshot)
	}
	if n.announcer != nil {
		n.announcer.Note(o.snapshot, n.stores.pod)
	}
	if due := time.Since(n.verified) >= n.Resync; due {
		o.verify = n.readings.verify(ctx)
		o.reading = !o.verify
	}
	unread := n.sources.into(&o.snapshot, o.verify)
	n.syncing.Store(&o.began)
	var err error
	o.Report, err = n.Sync.Sync(ctx, o.snapshot, o.verify)
	o.Err = errors.Join(err, unread)
	n.syncing.Store(nil)
}

// requeue says when the next sync is due, if no event asks for one before.
func (n *Reconciler) requeue(o *outcome) (reconcile.Result, error) {
	if o.Err != nil {
		n.changed.CompareAndSwap(nil, o.changed) // it still waits
		return reconcile.Result{}, o.Err
	}
	if o.stays {
		n.changed.CompareAndSwap(nil, o.changed) // it still waits
		if o.reading {
			return reconcile.Result{}, nil // the kernel is being read, and then asks for a sync
		}
		n.verified = o.began
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil
	}
	if o.changed != nil {
		changeSeconds.Observe(time.Since(*o.changed).Seconds())
	}
	if o.verify {
		n.verified = o.began
	}
	n.synced.Store(true)
	if len(o.Report.Waiting) > 0 {
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil // after the pause that is between any two syncs
	}
	if o.reading {
		return reconcile.Result{}, nil // the kernel is being read, and then asks for a sync
	}
	// Counted from the last look at the kernel, so that no amount of changes puts the next one off.
	return reconcile.Result{RequeueAfter: max(n.Resync-time.Since(n.verified), time.Millisecond)}, nil
}

// Synced fails until the node has enforced the cluster's policies once: the readiness check.
func (n *Reconciler) Synced() error {
	if !n.synced.Load() {
		return fmt.Errorf("node %s: policy has not been enforced yet", n.Name)
	}
	return nil
}

// longestSync is longer than a sync can take whose every step waits for as long as it may and then goes well.
const longestSync = 15 * time.Minute

// Live fails while a sync does not end: the liveness check. Whatever holds it up, a program or a system call that does not return, a new start gets rid of, or
// an administrator hears of.
func (n *Reconciler) Live() error {
	began := n.syncing.Load()
	if began != nil && time.Since(*began) > longestSync {
		return fmt.Errorf("node %s: a sync has not ended for %s", n.Name, time.Since(*began).Round(time.Second))
	}
	return nil
}
