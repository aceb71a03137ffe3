package node

import (
	"context"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

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
	r.Want(r.finder.Of(*s), s.Namespaces.Len(), now)
	missing := r.Missing()
	noteWatched(r.Watched(), len(missing))
	// This comes behind the look at what is missing, so that what is not missing is whole. Own pods stay those by which the namespaces were found.
	_, s.Remote = r.Contents()
	return missing
}

func (r *reachedPods) knows(namespace string) bool {
	if namespace == "" {
		return r.KnowsAll()
	}
	return r.Knows(namespace)
}

// holdForPods is how long changes wait for pods that are not known yet: for as long as it takes. What is in force stays, and no policy is enforced by half
// of the pods that it names. Meanwhile [Reconciler.stay] has the kernel held to what was in force.
func (w *watches) holdForPods(ctx context.Context, missing []string) time.Duration {
	if len(missing) == 0 {
		w.unheard = time.Time{}
		return 0
	}
	if w.unheard.IsZero() {
		w.unheard = time.Now()
	}
	if time.Since(w.unheard) >= patience {
		w.sayUnheard(ctx, missing)
	}
	return patience
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
