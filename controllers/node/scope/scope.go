// Package scope has a node hear of the pods that matter to it: its own, those of the namespaces that are wanted, and those of all namespaces where these
// are too many. Each of these scopes is a watch, which comes and goes while the node enforces.
//
//	spec.nodeName=NODE ────────────┐
//	namespace A  ─┐                ├─> List: each pod once
//	namespace B  ─┼─ or all pods ──┘
//	namespace …  ─┘
//
// Invariants:
//   - of the node's own pods the first scope alone decides: two watches show one pod in two versions, and this one is never stopped;
//   - a scope counts, and is in the list, once it has synced: before, it would be there by halves. Missing says which do not count yet;
//   - what was known stays known until what takes its place has synced: from namespaces to all pods, and back.
//
// It starts nothing by itself, and decides nothing about policy: enforcer/reach says which namespaces are wanted.
package scope

import (
	"maps"
	"slices"
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
	// Kept is how long a namespace is watched after it was last wanted: pods of one application come and go on a node.
	Kept = 10 * time.Minute
)

// Pods are the pods that a node hears of. Its methods are called by one goroutine at a time.
type Pods struct {
	node       string
	transforms *cached.Transforms
	begin      func(cached.Target) (*cached.Watch, error)

	own        *cached.Watch
	namespaces map[string]*namespace
	all        *cached.Watch // nil while namespaces are watched one by one
	wide       bool          // all pods are wanted
	at         time.Time     // when anything was wanted, last
}

// namespace is a scope that comes and goes.
type namespace struct {
	*cached.Watch
	wanted time.Time // when it was, last
}

// New has a node hear of its own pods, by begin, which starts a watch.
func New(node string, begin func(cached.Target) (*cached.Watch, error)) (*Pods, error) {
	p := &Pods{node: node, transforms: new(cached.Transforms), begin: begin, namespaces: map[string]*namespace{}}
	own := p.target()
	own.Node, own.Listed = node, true
	var err error
	p.own, err = begin(own)
	return p, err
}

// Target is what all watches of pods have in common, for whoever makes their clients.
func Target() cached.Target {
	return cached.Target{
		Kind: "Pod", Versions: cached.NewVersions(corev1.SchemeGroupVersion), Resource: "pods",
		Example: &corev1.Pod{}, Transform: new(cached.Transforms).PodToEntry,
	}
}

func (p *Pods) target() cached.Target {
	t := Target()
	t.Transform = p.transforms.PodToEntry // pods of all scopes share what they have in common
	return t
}

// Want has the node hear of the pods of these namespaces, out of so many that the cluster has, and of no others for longer than [Kept]. It watches all
// pods instead where that costs less: where they are more than [MaxNamespaces], or more than half of the cluster's.
func (p *Pods) Want(names []string, of int, now time.Time) error {
	p.at, p.wide = now, len(names) > MaxNamespaces || 2*len(names) > of
	if p.wide {
		return p.widen()
	}
	for _, name := range names {
		if p.namespaces[name] == nil {
			one := p.target()
			one.Only, one.Listed = types.NamespacedName{Namespace: name}, true
			watch, err := p.begin(one)
			if err != nil {
				return err
			}
			p.namespaces[name] = &namespace{Watch: watch}
		}
		p.namespaces[name].wanted = now
	}
	p.narrow()
	return nil
}

// widen watches all pods, and namespaces no more once all are there.
func (p *Pods) widen() (err error) {
	if p.all == nil {
		if p.all, err = p.begin(p.target()); err != nil {
			return err
		}
	}
	if p.all.Synced() {
		p.stop(func(*namespace) bool { return true })
	}
	return nil
}

// narrow stops what is not wanted any more: all pods, once each namespace that is wanted is there; and namespaces that were not for long, or that would
// be too many with those that are.
func (p *Pods) narrow() {
	if p.all != nil && len(p.unsynced()) == 0 {
		p.all.Stop()
		p.all = nil
	}
	many := len(p.namespaces) > MaxNamespaces
	p.stop(func(n *namespace) bool { return !p.wants(n) && (many || p.at.Sub(n.wanted) >= Kept) })
}

// wants reports whether a namespace is wanted now.
func (p *Pods) wants(n *namespace) bool { return n.wanted.Equal(p.at) }

func (p *Pods) stop(which func(*namespace) bool) {
	for name, n := range p.namespaces {
		if which(n) {
			n.Stop()
			delete(p.namespaces, name)
		}
	}
}

// unsynced are the namespaces that are wanted and whose pods are not all there yet, sorted by name.
func (p *Pods) unsynced() []*cached.Watch {
	var watches []*cached.Watch
	for _, name := range slices.Sorted(maps.Keys(p.namespaces)) {
		if n := p.namespaces[name]; p.wants(n) && !n.Synced() {
			watches = append(watches, n.Watch)
		}
	}
	return watches
}

// Missing are the watches that do not count yet, as the log calls them; none if the node knows all pods that are wanted.
func (p *Pods) Missing() []string {
	var missing []*cached.Watch
	if !p.own.Synced() {
		missing = append(missing, p.own)
	}
	switch known := p.all != nil && p.all.Synced(); {
	case known: // all are, until each namespace is there
	case p.wide:
		missing = append(missing, p.all)
	default:
		missing = append(missing, p.unsynced()...)
	}
	names := make([]string, len(missing))
	for i, w := range missing {
		names[i] = w.Target.String()
	}
	return names
}

// List are the pods that are known, each once.
func (p *Pods) List() []*compile.Pod {
	list := cached.List(p.own.Informer, cached.PodOf)
	elsewhere := func(w *cached.Watch) {
		if !w.Synced() {
			return
		}
		for _, pod := range cached.List(w.Informer, cached.PodOf) {
			if pod.Node != p.node && pod.Node != "" { // one that is not bound is of no use, and may be the node's own in a moment
				list = append(list, pod)
			}
		}
	}
	if p.all != nil && p.all.Synced() {
		elsewhere(p.all)
		return list
	}
	for _, n := range p.namespaces {
		elsewhere(n.Watch)
	}
	return list
}

// Own is the pod of the node by its name as the API shows it, nil if it does not.
func (p *Pods) Own(namespace, name string) *compile.Pod {
	e := cached.Get[*cached.PodEntry](p.own.Informer, types.NamespacedName{Namespace: namespace, Name: name}.String())
	if e == nil {
		return nil
	}
	return e.Pod
}

// ResourceVersions are how far each scope has come, by what the log calls it: each has a history of its own.
func (p *Pods) ResourceVersions() map[string]string {
	versions := map[string]string{}
	add := func(w *cached.Watch) {
		versions[w.Target.String()] = w.Informer.GetStore().LastStoreSyncResourceVersion()
	}
	add(p.own)
	if p.all != nil {
		add(p.all)
	}
	for _, n := range p.namespaces {
		add(n.Watch)
	}
	return versions
}
