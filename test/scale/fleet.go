package scale

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// resync is how often the nodes sync even if nothing has changed: more often than enforcers do, to see that it causes no write.
const resync = 5 * time.Second

// How enforcers start: a DaemonSet's pods never come all at once.
const (
	startsPerSecond = 50
	startsAtOnce    = 5
)

// fleet is the enforcers of all nodes. They share what they watch, and one index that says whom a policy is about: a node of its own would
// compile everything, and a thousand of them would take a thousand processors. Each syncs on each change of a policy, as enforcers do, and tells
// its real [report.Reporter], which decides whether that is worth a write.
//
// Pods and namespaces stay as they were when the fleet was made.
type fleet struct {
	nodes      []*node
	byName     map[string]*node
	pods       map[string][]*compile.Pod // by namespace
	namespaces map[string]*compile.Namespace
	stores     map[string]toolscache.SharedIndexInformer // of policies, by resource.group
	known      map[policy.Ref]followed
	synced     map[string]string // how far the caches had come at the last sync
	dirty      chan struct{}
	restarts   chan *node // those of whose enforcers another process is to take the place

	news *atomic.Int64 // reports that were no mere signs of life
	stop func()        // and wait until nothing runs
}

// followed is a version of a policy, and whom it selects, by node.
type followed struct {
	uid        types.UID
	generation int64
	pods       map[string][]*compile.Pod
	pass       int
}

// newFleet makes the enforcers of nodes.
func newFleet(nodes []*node, pods []*compile.Pod, namespaces []*compile.Namespace, stores map[string]toolscache.SharedIndexInformer) (*fleet, error) {
	f := &fleet{
		nodes: nodes, byName: map[string]*node{}, pods: map[string][]*compile.Pod{}, namespaces: map[string]*compile.Namespace{},
		stores: stores, dirty: make(chan struct{}, 1), restarts: make(chan *node),
	}
	for _, n := range nodes {
		f.byName[n.name] = n
	}
	for _, p := range pods {
		f.pods[p.Namespace] = append(f.pods[p.Namespace], p)
	}
	for _, ns := range namespaces {
		f.namespaces[ns.Name] = ns
	}
	changed := func() {
		select {
		case f.dirty <- struct{}{}:
		default: // the pass that is asked for will see this too
		}
	}
	for resource, informer := range stores {
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { changed() },
			UpdateFunc: func(any, any) { changed() },
			DeleteFunc: func(any) { changed() },
		}); err != nil {
			return nil, fmt.Errorf("watching %s: %w", resource, err)
		}
	}
	return f, nil
}

// start starts all enforcers, as if their processes had started now.
func (f *fleet) start(heartbeat time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	f.known, f.news = map[policy.Ref]followed{}, new(atomic.Int64)
	for _, n := range f.nodes {
		n.objects, n.pods, n.stale = map[policy.Ref]policy.Object{}, map[*compile.Pod]int{}, true
		n.start(ctx, heartbeat, f.news)
	}
	var run sync.WaitGroup
	run.Go(func() { f.run(ctx, heartbeat) })
	f.stop = func() {
		cancel()
		run.Wait()
		for _, n := range f.nodes {
			n.stop()
		}
	}
}

func (f *fleet) run(ctx context.Context, heartbeat time.Duration) {
	tick := time.NewTicker(resync)
	defer tick.Stop()
	f.sync(ctx, 1)
	for pass := 2; ; {
		select {
		case <-ctx.Done():
			return
		case n := <-f.restarts:
			n.stop()
			n.start(ctx, heartbeat, f.news)
			f.note(n, f.synced)
			continue
		case <-f.dirty:
		case <-tick.C:
		}
		f.sync(ctx, pass)
		pass++
	}
}

// roll has another process take the place of each enforcer, one after the other, as fast as they start.
func (f *fleet) roll(ctx context.Context) error {
	tick := time.NewTicker(time.Second / startsPerSecond)
	defer tick.Stop()
	for _, n := range f.nodes {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case f.restarts <- n:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// nodesWith is how many nodes run pods of a namespace, or any with the empty name.
func (f *fleet) nodesWith(namespace string) int {
	if namespace == "" {
		return len(f.nodes)
	}
	nodes := map[string]bool{}
	for _, p := range f.pods[namespace] {
		nodes[p.Node] = true
	}
	return len(nodes)
}

// versions are how far the caches have come.
func (f *fleet) versions() map[string]string {
	versions := map[string]string{}
	for resource, informer := range f.stores {
		versions[resource] = informer.GetStore().LastStoreSyncResourceVersion()
	}
	return versions
}

// sync is a sync of each node. How far the caches have come is read before what they hold, and again, as enforcers do.
func (f *fleet) sync(ctx context.Context, pass int) {
	var versions map[string]string
	for range 3 {
		versions = f.versions()
		for _, informer := range f.stores {
			for _, item := range informer.GetStore().List() {
				f.follow(item.(metav1.Object), pass)
			}
		}
		if maps.Equal(versions, f.versions()) {
			break
		}
	}
	for ref, k := range f.known {
		if k.pass != pass {
			f.forget(ref, k)
		}
	}
	for i, n := range f.nodes {
		if pass == 1 && i%startsAtOnce == 0 {
			select {
			case <-time.After(startsAtOnce * time.Second / startsPerSecond):
			case <-ctx.Done():
				return
			}
		}
		f.note(n, versions)
	}
	f.synced = versions
}

// note is what a node's sync says, of policies up to these versions.
func (f *fleet) note(n *node, versions map[string]string) {
	n.reporter.Note(report.Synced{
		Report: enforcer.Report{
			Concerns: n.concern(f.namespaces), Counts: enforcer.Counts{Chains: 2 * len(n.objects), Rules: 9 * len(n.objects)},
		},
		ResourceVersions: versions, At: time.Now(), Nodes: f.nodesWith,
	})
}

// follow brings the nodes' concerns up to date with a policy.
func (f *fleet) follow(o metav1.Object, pass int) {
	ref := refOf(o)
	k, ok := f.known[ref]
	if ok && k.uid == o.GetUID() && k.generation == o.GetGeneration() {
		k.pass = pass
		f.known[ref] = k
		return
	}
	if ok {
		f.forget(ref, k)
	}
	k = followed{uid: o.GetUID(), generation: o.GetGeneration(), pods: map[string][]*compile.Pod{}, pass: pass}
	u := understand(o)
	selected := func(pods []*compile.Pod) {
		for _, p := range pods {
			if u.Selects(p, f.namespaces[p.Namespace]) {
				k.pods[p.Node] = append(k.pods[p.Node], p)
			}
		}
	}
	if namespace, one := u.Namespace(); one {
		selected(f.pods[namespace])
	} else {
		for _, pods := range f.pods {
			selected(pods)
		}
	}
	for name, pods := range k.pods {
		f.byName[name].add(policy.Object{Ref: ref, UID: string(k.uid), Generation: k.generation}, pods)
	}
	f.known[ref] = k
}

func (f *fleet) forget(ref policy.Ref, k followed) {
	for name, pods := range k.pods {
		f.byName[name].remove(ref, pods)
	}
	delete(f.known, ref)
}

func understand(o metav1.Object) *compile.Understood {
	switch o := o.(type) {
	case *networkingv1.NetworkPolicy:
		return compile.Understand(compile.Object{NetworkPolicy: o})
	case *v1alpha1.ClusterNetworkPolicy:
		return compile.Understand(compile.Object{ClusterNetworkPolicy: o})
	}
	return compile.Understand(compile.Object{NamespaceIsolation: o.(*v1alpha1.NamespaceIsolation)})
}

// refOf names a policy. Only that no two have the same matters here.
func refOf(o metav1.Object) policy.Ref {
	return policy.Ref{Kind: fmt.Sprintf("%T", o), Namespace: o.GetNamespace(), Name: o.GetName()}
}
