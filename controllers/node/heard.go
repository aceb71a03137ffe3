package node

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node/scope"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/reach"
)

// heard are the pods that a node hears of: all, or those that its policies can name.
type heard interface {
	// Target is what watches of pods have in common.
	Target() cached.Target
	// Start begins to watch, and has each change told, as a [cached.Store] does.
	Start(ctx context.Context, w *cached.Watcher, changed func(before, after *compile.Pod))
	// HasSynced reports whether the node's own pods are known.
	HasSynced() bool
	// String is what the log calls what has to be there first.
	String() string
	// Contents are the pods of the node, and those of other nodes that are known, at one moment.
	Contents() (own, others compile.Objects[*compile.Pod])
	// Get is a pod of the node by its name, as the API shows it; nil if it shows none. With all pods it is any pod.
	Get(namespace, name string) *compile.Pod
	// ResourceVersions are how far the API has been seen, by watch.
	ResourceVersions() map[string]string
	// knows reports whether all pods of a namespace are known, or of the cluster with the empty name.
	knows(namespace string) bool
	// reach has the node hear of what a snapshot's policies name, and gives the snapshot what is known of that. It returns what is not known yet.
	reach(s *compile.Snapshot, now time.Time) (missing []string)
}

var (
	_ heard = (*allPods)(nil)
	_ heard = (*reachedPods)(nil)
)

// allPods has a node hear of all pods of the cluster.
type allPods struct {
	*cached.Store[*compile.Pod]
}

func newAllPods(node string) *allPods {
	return &allPods{cached.NewStore(cached.StoreOptions[*compile.Pod]{
		Target: cached.Target{
			Kind: "Pod", Versions: cached.NewVersions(corev1.SchemeGroupVersion), Resource: "pods", Example: &corev1.Pod{},
			Transform: new(cached.Transforms).PodToEntry,
		},
		Take: cached.TakePod, Same: cached.IsSamePod, Here: func(p *compile.Pod) bool { return p.Node == node },
	})}
}

// Start begins to watch.
func (a *allPods) Start(ctx context.Context, w *cached.Watcher, changed func(before, after *compile.Pod)) {
	a.OnChange(changed)
	go a.Follow(ctx, w)
}

// Contents are all pods.
func (a *allPods) Contents() (own, others compile.Objects[*compile.Pod]) {
	own, others, _ = a.Store.Contents()
	return own, others
}

// Get is the pod of a name.
func (a *allPods) Get(namespace, name string) *compile.Pod {
	p, _ := a.Store.Get(namespace, name)
	return p
}

// ResourceVersions has one.
func (a *allPods) ResourceVersions() map[string]string {
	return map[string]string{"pods": a.ResourceVersion()}
}

func (*allPods) reach(*compile.Snapshot, time.Time) []string {
	noteWatched(scope.Watched{All: true}, 0)
	return nil
}

func (*allPods) knows(string) bool { return true }

// reachedPods has a node hear of its own pods, and of those of namespaces that its policies can name.
type reachedPods struct {
	*scope.Pods
	finder reach.Finder
}

func (r *reachedPods) reach(s *compile.Snapshot, now time.Time) []string {
	names := r.finder.Of(*s)
	r.Want(names, s.Namespaces.Len(), now)
	missing := r.Missing()
	s.Elsewhere = r.Elsewhere(names)
	noteWatched(r.Watched(), len(s.Elsewhere.Unknown))
	// This comes behind the look at what is not known, so that all else is whole. Own pods stay those by which the namespaces were found.
	_, s.Remote = r.Contents()
	return missing
}

func (r *reachedPods) knows(namespace string) bool {
	if namespace == "" {
		return r.KnowsAll()
	}
	return r.Knows(namespace)
}

// unheard is how changes wait for pods that policies name and that are not known yet.
type unheard struct {
	since   time.Time // when the wait began; zero while nobody waits
	without []string  // the namespaces that nobody waits for any more, since it has taken too long: sorted
	logged  string    // what the log has as missing
}

// hold is how long changes wait for the pods of some namespaces, [patience] in all. What is in force stays meanwhile, and no policy is enforced by half of the
// pods that it names. After that, changes come without these pods, and what policies say of them fails closed. A namespace that is reached later has a wait of
// its own.
func (u *unheard) hold(namespaces []string, now time.Time) time.Duration {
	in := func(sorted []string) func(string) bool {
		return func(name string) bool {
			_, is := slices.BinarySearch(sorted, name)
			return is
		}
	}
	u.without = slices.DeleteFunc(u.without, func(name string) bool { return !in(namespaces)(name) })
	if len(u.without) == len(namespaces) {
		u.since = time.Time{}
		return 0
	}
	if u.since.IsZero() {
		u.since = now
	}
	if left := patience - now.Sub(u.since); left > 0 {
		return left
	}
	u.since, u.without = time.Time{}, slices.Clone(namespaces)
	return 0
}

// holdForPods is how long a node that enforces already waits for pods.
func (w *watches) holdForPods(ctx context.Context, s *compile.Snapshot, missing []string) time.Duration {
	hold := w.unheard.hold(s.Elsewhere.Unknown, time.Now())
	if hold == 0 {
		w.sayUnheard(ctx, len(s.Elsewhere.Unknown), missing)
	}
	return hold
}

// sayUnheard logs that changes come without pods that policies name, whenever these are others, and that all are known again.
func (w *watches) sayUnheard(ctx context.Context, namespaces int, missing []string) {
	text := ""
	if namespaces > 0 {
		text = strings.Join(missing, ", ")
	}
	if text == w.unheard.logged {
		return
	}
	w.unheard.logged = text
	if text == "" {
		log.FromContext(ctx).Info("all pods that policies name are known again")
		return
	}
	log.FromContext(ctx).Info("the API server does not show pods that policies name: enforcing without them, so that what policies say of them fails closed",
		"waited", patience.String(), "namespaces", namespaces, "waiting for", missing)
}

// stays is what is enforced while changes wait.
type stays struct {
	snapshot         compile.Snapshot
	resourceVersions map[string]string
	there            bool
}

// stay makes o the outcome of a sync of what was in force, if it is time to compare the kernel with that: what other programs do to it lasts no longer
// because changes wait. It returns how long to wait for either.
func (n *Reconciler) stay(o *outcome, wait time.Duration) time.Duration {
	due := n.Resync - time.Since(n.verified)
	switch {
	case !n.inForce.there:
		return wait
	case due > 0:
		return min(wait, due)
	}
	o.snapshot, o.ResourceVersions, o.stays = n.inForce.snapshot, maps.Clone(n.inForce.resourceVersions), true
	return 0
}

// podScopes begin the names of watches of pods, and of nothing else that has a history.
const podScopes = "pods"

// forget ends the histories of scopes that are watched no more. Another watch of the same begins with a list that may be older.
func (r *restoration) forget(scopes map[string]string) {
	for name := range r.seen {
		if _, still := scopes[name]; !still && strings.HasPrefix(name, podScopes) {
			delete(r.seen, name)
		}
	}
}
