// Package scope has a node hear of the pods that matter to it: its own, those of the namespaces that are wanted, and those of all namespaces where these
// are too many. Each of these scopes is a watch, which comes and goes while the node enforces.
//
//	spec.nodeName=NODE ────────────> own
//	namespace A  ─┐
//	namespace B  ─┼─ or all pods ──> others
//	namespace …  ─┘
//
// Invariants:
//   - of the node's own pods the first scope alone decides: two watches show one pod in two versions, and this one is never stopped;
//   - a scope counts once it has synced: before, it would be there by halves. Missing says which do not count yet;
//   - what was known stays known until what takes its place has synced and is no older: from namespaces to all pods, and back;
//   - whoever can change policies cannot have watches begin as often as they change: what was wanted is watched for a while;
//   - a change costs what has changed, and not what is known.
//
// It decides nothing about policy: enforcer/reach says which namespaces are wanted.
package scope

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

const (
	// MaxNamespaces is up to how many namespaces are watched one by one. A watch of one costs an API server some 60 KB, whatever happens in it; one of
	// all pods costs it every event of the cluster. With what else is watched, that many watches fit on one connection, which may have a hundred.
	// docs/adr/0025 has the figures.
	MaxNamespaces = 64
	// Kept is how long a namespace is watched after it was last wanted: pods of one application come and go on a node. All pods are, too, after there were
	// too many namespaces: a policy that names all namespaces and comes and goes would otherwise have an API server show all pods each time.
	Kept = 10 * time.Minute
)

// Pods are the pods that a node hears of. Its methods may be called from any goroutine, once it has started.
type Pods struct {
	// Wait returns when a change of a pod of another node may be taken in, or when the watch ends; at once, unless it is set before anything runs.
	Wait func(context.Context)

	node       string
	kept       time.Duration
	transforms *cached.Transforms
	own        *cached.Store[*compile.Pod]

	// What scopes are started with. They follow the API server, but for tests.
	ctx     context.Context
	watcher *cached.Watcher
	changed func(before, after *compile.Pod)
	follow  func(ctx context.Context, s *cached.Store[*compile.Pod])

	mu         sync.Mutex
	namespaces map[string]*namespace
	all        *watch                        // nil while namespaces are watched one by one
	allCount   bool                          // all pods are what is known
	wide       bool                          // all pods are wanted
	wideAt     time.Time                     // when they were, last
	at         time.Time                     // when anything was wanted, last
	others     compile.Objects[*compile.Pod] // of the namespaces, as they were taken last
}

// watch is a scope that comes and goes.
type watch struct {
	*cached.Store[*compile.Pod]
	stop context.CancelFunc
}

type namespace struct {
	watch
	wanted time.Time                     // when it was, last
	taken  compile.Objects[*compile.Pod] // what of it is among the others
}

// New are the pods that a node hears of; of none before it has started. What is not wanted any more is watched for as long as kept says, [Kept] but for tests.
func New(node string, kept time.Duration) *Pods {
	p := &Pods{
		Wait: func(context.Context) {}, node: node, kept: kept, transforms: new(cached.Transforms), namespaces: map[string]*namespace{},
	}
	p.own = p.store(cached.Target{Node: node, Listed: true}, nil)
	p.follow = func(ctx context.Context, s *cached.Store[*compile.Pod]) { s.Follow(ctx, p.watcher) }
	return p
}

// Target is what all watches of pods have in common, for who makes their clients.
func (p *Pods) Target() cached.Target { return p.own.Target() }

// Start begins to watch the node's own pods, and whatever is wanted from then on, until ctx ends. Each change of a pod that counts is told, as a [cached.Store]
// tells it.
func (p *Pods) Start(ctx context.Context, w *cached.Watcher, changed func(before, after *compile.Pod)) {
	p.ctx, p.watcher, p.changed = ctx, w, changed
	p.own.OnChange(changed)
	go p.follow(ctx, p.own)
}

// store is one for some of the pods. Pods of the node, and those that are not bound, are held apart: they do not count in any scope but the node's own.
func (p *Pods) store(some cached.Target, wait func()) *cached.Store[*compile.Pod] {
	some.Kind, some.Versions, some.Resource = "Pod", cached.NewVersions(corev1.SchemeGroupVersion), "pods"
	some.Example, some.Transform = &corev1.Pod{}, p.transforms.PodToEntry // pods of all scopes share what they have in common
	return cached.NewStore(cached.StoreOptions[*compile.Pod]{
		Target: some, Take: cached.TakePod, Same: cached.IsSamePod, Here: p.isApart, Dated: true, Wait: wait,
	})
}

func (p *Pods) isApart(pod *compile.Pod) bool { return pod.Node == p.node || pod.Node == "" }

// begin starts a scope that comes and goes.
func (p *Pods) begin(some cached.Target) watch {
	ctx, stop := context.WithCancel(p.ctx)
	w := watch{p.store(some, func() { p.Wait(ctx) }), stop}
	w.OnChange(func(before, after *compile.Pod) {
		if counts := func(pod *compile.Pod) bool { return pod != nil && !p.isApart(pod) }; before == nil && after == nil || counts(before) || counts(after) {
			p.changed(before, after)
		}
	})
	go p.follow(ctx, w.Store)
	return w
}

// Want has the node hear of the pods of these namespaces, out of so many that the cluster has, and of no others for longer than [Kept]. It watches all
// pods instead where that costs less: where more than [MaxNamespaces] were wanted within that time, or more than half of the cluster's are.
func (p *Pods) Want(names []string, of int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = now
	if p.wide = len(names) > MaxNamespaces || 2*len(names) > of || p.recent(names) > MaxNamespaces; p.wide {
		p.wideAt = now
	}
	lately := p.all != nil && now.Sub(p.wideAt) < p.kept
	if p.wide || lately && p.all.HasSynced() {
		p.widen()
	}
	if p.wide || lately && p.allCount {
		return
	}
	for _, name := range names {
		if p.namespaces[name] == nil {
			p.namespaces[name] = &namespace{watch: p.begin(cached.Target{Only: types.NamespacedName{Namespace: name}, Listed: true})}
		}
		p.namespaces[name].wanted = now
	}
	if !lately {
		p.narrow()
	}
	p.end(func(n *namespace) bool { return p.at.Sub(n.wanted) >= p.kept })
}

// recent is how many namespaces are wanted, or were not long ago.
func (p *Pods) recent(names []string) int {
	count := len(names)
	for name, n := range p.namespaces {
		if p.at.Sub(n.wanted) < p.kept && !slices.Contains(names, name) {
			count++
		}
	}
	return count
}

// widen watches all pods, and namespaces no more once all are there.
func (p *Pods) widen() {
	if p.all == nil {
		all := p.begin(cached.Target{})
		p.all = &all
	}
	if p.allCount || !p.all.HasSynced() {
		return
	}
	for name, n := range p.namespaces {
		if n.HasSynced() && !hasSeen(p.all, &n.watch, name) {
			return
		}
	}
	p.allCount = true
	p.end(func(*namespace) bool { return true })
}

// narrow watches all pods no more, once each namespace that is wanted is there.
func (p *Pods) narrow() {
	if p.all == nil || len(p.unsynced()) > 0 {
		return
	}
	for name, n := range p.namespaces {
		if p.allCount && n.HasSynced() && !hasSeen(&n.watch, p.all, name) {
			return
		}
	}
	p.all.stop()
	p.all, p.allCount = nil, false
}

// hasSeen reports whether a watch has come to what another one shows of a namespace, so that it can take its place: two watches come to the same at different
// times, and the list that one begins with may be another API server's, which is behind. A pod that is there would be gone for a moment, or be as it was.
// Where a watch has not come as far, it will, and will say so.
func hasSeen(w, other *watch, namespace string) bool {
	newest := other.Newest(namespace)
	return newest == "" || cached.Reached(w.ResourceVersion(), newest)
}

// wants reports whether a namespace is wanted now.
func (p *Pods) wants(n *namespace) bool { return n.wanted.Equal(p.at) }

func (p *Pods) end(which func(*namespace) bool) {
	for name, n := range p.namespaces {
		if which(n) {
			n.stop()
			p.take(n, compile.Objects[*compile.Pod]{})
			delete(p.namespaces, name)
		}
	}
}

// unsynced are the namespaces that are wanted and whose pods are not all there yet, sorted by name.
func (p *Pods) unsynced() []*namespace {
	var all []*namespace
	for _, name := range slices.Sorted(maps.Keys(p.namespaces)) {
		if n := p.namespaces[name]; p.wants(n) && !n.HasSynced() {
			all = append(all, n)
		}
	}
	return all
}

// HasSynced reports whether the node's own pods are known.
func (p *Pods) HasSynced() bool { return p.own.HasSynced() }

// String is what the log calls the watch of these.
func (p *Pods) String() string { return p.own.String() }

// Missing are the scopes that are wanted and do not count yet, as the log calls them; none if the node knows all pods that are wanted.
func (p *Pods) Missing() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	switch {
	case p.allCount: // until each namespace is there, if that is what is wanted
	case p.wide:
		names = append(names, p.all.String())
	default:
		for _, n := range p.unsynced() {
			names = append(names, n.String())
		}
	}
	return names
}

// Watched is what is watched besides the node's own pods.
type Watched struct {
	Namespaces int  // that are watched one by one
	All        bool // all pods are watched
}

// Watched is what is watched now.
func (p *Pods) Watched() Watched {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Watched{len(p.namespaces), p.all != nil}
}

// Knows reports whether all pods of a namespace are known.
func (p *Pods) Knows(namespace string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.namespaces[namespace]
	return p.allCount || n != nil && n.HasSynced()
}

// KnowsAll reports whether all pods are known.
func (p *Pods) KnowsAll() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allCount
}

// Elsewhere says which pods of other nodes count, and which of some namespaces do not yet.
func (p *Pods) Elsewhere(wanted []string) compile.Elsewhere {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.allCount {
		return compile.Elsewhere{}
	}
	e := compile.Elsewhere{Partial: true}
	for _, name := range wanted {
		if n := p.namespaces[name]; n == nil || !n.HasSynced() {
			e.Unknown = append(e.Unknown, name)
		}
	}
	return e
}

// Contents are the pods of the node, and those of other nodes that are known.
func (p *Pods) Contents() (own, others compile.Objects[*compile.Pod]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, _, _ = p.own.Contents()
	if p.allCount {
		_, others, _ = p.all.Contents()
		return own, others
	}
	for _, n := range p.namespaces {
		if n.HasSynced() {
			_, now, _ := n.Contents()
			p.take(n, now)
		}
	}
	return own, p.others
}

// take has the others be what a namespace has now.
func (p *Pods) take(n *namespace, now compile.Objects[*compile.Pod]) {
	gone, come := now.Since(n.taken)
	for _, pod := range gone {
		p.others = p.others.Without(pod.Namespace, pod.Name)
	}
	for _, pod := range come {
		p.others = p.others.With(pod)
	}
	n.taken = now
}

// Get is the pod of the node of a name, as the API shows it; nil if it shows none.
func (p *Pods) Get(namespace, name string) *compile.Pod {
	pod, _ := p.own.Get(namespace, name)
	return pod
}

// ResourceVersions are how far each scope has come, by what the log calls it: each has a history of its own, which ends with its watch.
func (p *Pods) ResourceVersions() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	versions := map[string]string{p.own.String(): p.own.ResourceVersion()}
	if p.all != nil {
		versions[p.all.String()] = p.all.ResourceVersion()
	}
	for _, n := range p.namespaces {
		versions[n.String()] = n.ResourceVersion()
	}
	return versions
}
