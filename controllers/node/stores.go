package node

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// CacheOptions are what the manager's cache keeps on a node: of pods and namespaces only what policy needs, of policies their spec, and of
// nodes the node's own. What comes and goes is in watches.
func CacheOptions(node string) cache.Options {
	t := new(cached.Transforms)
	return cache.Options{NewInformer: newInformer, ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Transform: t.PodToEntry},
		&corev1.Namespace{}:           {Transform: cached.NamespaceToEntry},
		&networkingv1.NetworkPolicy{}: {Transform: t.StripPolicy},
		&corev1.Node{}: {
			Field:     fields.OneTermEqualSelector("metadata.name", node),
			Transform: cached.StripNode,
		},
	}}
}

// newInformer leaves out the index by namespace that the cache asks for: stores are read as a whole, and it takes memory for every pod.
func newInformer(from toolscache.ListerWatcher, example runtime.Object, resync time.Duration, _ toolscache.Indexers) toolscache.SharedIndexInformer {
	return toolscache.NewSharedIndexInformer(from, example, resync, toolscache.Indexers{})
}

// stores are the caches that a snapshot is taken from.
type stores struct {
	pods, namespaces, policies, nodes toolscache.SharedIndexInformer
}

// newStores asks the cache for the informers.
func newStores(ctx context.Context, c cache.Cache) (*stores, error) {
	var s stores
	return &s, cached.Informers(ctx, c, []cached.Wanted{
		{Object: &corev1.Pod{}, To: &s.pods},
		{Object: &corev1.Namespace{}, To: &s.namespaces},
		{Object: &networkingv1.NetworkPolicy{}, To: &s.policies},
		{Object: &corev1.Node{}, To: &s.nodes},
	})
}

func (s *stores) all() []toolscache.SharedIndexInformer {
	return []toolscache.SharedIndexInformer{s.pods, s.namespaces, s.policies, s.nodes}
}

// snapshot is the state of the cluster as this node has seen it.
func (s *stores) snapshot(node string) compile.Snapshot {
	return compile.Snapshot{
		Node:       node,
		Pods:       cached.List(s.pods, cached.PodOf),
		Namespaces: cached.List(s.namespaces, cached.NamespaceOf),
		Policies:   cached.List(s.policies, cached.Itself[*networkingv1.NetworkPolicy]),
	}
}

// pod is the pod of a name as the API shows it, nil if it does not.
func (s *stores) pod(namespace, name string) *compile.Pod {
	e := cached.Get[*cached.PodEntry](s.pods, toolscache.NewObjectName(namespace, name).String())
	if e == nil {
		return nil
	}
	return e.Pod
}

// hasNode reports whether the cluster has a node of the name.
func (s *stores) hasNode(name string) bool {
	return cached.Get[metav1.Object](s.nodes, name) != nil
}

// podRanges are those that a node names as its pods'.
func (s *stores) podRanges(node string) []netip.Prefix {
	n := cached.Get[*corev1.Node](s.nodes, node)
	if n == nil {
		return nil
	}
	return compile.PodRanges(n)
}

// nodesWith is how many nodes run pods of a namespace, or any pods with the empty name. It walks over all pods.
func nodesWith(pods []*compile.Pod, namespace string) int {
	nodes := map[string]bool{}
	for _, p := range pods {
		if namespace == "" || p.Namespace == namespace {
			nodes[p.Node] = true
		}
	}
	return len(nodes)
}

// PodsAt are the pods that hold the addresses, as "namespace/name", empty for an address that no pod holds. It walks over all pods: an index
// would take memory for every pod of the cluster, and only sampled packets ask.
func (n *Reconciler) PodsAt(addrs ...netip.Addr) []string {
	s := compile.Snapshot{Node: n.Name, Pods: cached.List(n.stores.pods, cached.PodOf)}
	names := make([]string, len(addrs))
	for i, a := range addrs {
		if p := compile.Holder(s, a); p != nil {
			names[i] = p.Namespace + "/" + p.Name
		}
	}
	return names
}
