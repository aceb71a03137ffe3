package controllers

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// networkPolicies is the resource that the manager's cache watches, as reports name it.
var networkPolicies = schema.GroupResource{Group: networkingv1.GroupName, Resource: "networkpolicies"}

// CacheOptions are what the manager's cache keeps on a node: of pods and namespaces only what policy needs, of policies their spec, and of
// nodes the node's own. What comes and goes is in watches.
func CacheOptions(node string) cache.Options {
	t := new(transforms)
	return cache.Options{NewInformer: newInformer, ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Transform: t.podToEntry},
		&corev1.Namespace{}:           {Transform: namespaceToEntry},
		&networkingv1.NetworkPolicy{}: {Transform: t.stripPolicy},
		&corev1.Node{}: {
			Field:     fields.OneTermEqualSelector("metadata.name", node),
			Transform: stripNode,
		},
	}}
}

// newInformer leaves out the index by namespace that the cache asks for: stores are read as a whole, and it takes memory for every pod.
func newInformer(from toolscache.ListerWatcher, example runtime.Object, resync time.Duration, _ toolscache.Indexers) toolscache.SharedIndexInformer {
	return toolscache.NewSharedIndexInformer(from, example, resync, toolscache.Indexers{})
}

// RESTMapper knows the kinds that the enforcer reads through the manager's cache. The default one asks the API server for them, and an
// enforcer that starts while the server is away would end instead of waiting.
func RESTMapper(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), meta.RESTScopeNamespace)
	return mapper, nil
}

// stores are the caches that a snapshot is taken from.
type stores struct {
	pods, namespaces, policies, nodes toolscache.SharedIndexInformer
}

// newStores asks the cache for the informers.
func newStores(ctx context.Context, c cache.Cache) (*stores, error) {
	var s stores
	return &s, informers(ctx, c, []wanted{
		{&corev1.Pod{}, &s.pods},
		{&corev1.Namespace{}, &s.namespaces},
		{&networkingv1.NetworkPolicy{}, &s.policies},
		{&corev1.Node{}, &s.nodes},
	})
}

func (s *stores) all() []toolscache.SharedIndexInformer {
	return []toolscache.SharedIndexInformer{s.pods, s.namespaces, s.policies, s.nodes}
}

// snapshot is the state of the cluster as this node has seen it.
func (s *stores) snapshot(node string) compile.Snapshot {
	return compile.Snapshot{
		Node:       node,
		Pods:       list(s.pods, podOf),
		Namespaces: list(s.namespaces, namespaceOf),
		Policies:   list(s.policies, itself[*networkingv1.NetworkPolicy]),
	}
}

func list[E, T any](from toolscache.SharedIndexInformer, take func(E) T) []T {
	items := from.GetStore().List()
	out := make([]T, 0, len(items))
	for _, item := range items {
		if e, ok := item.(E); ok {
			out = append(out, take(e))
		}
	}
	return out
}

func itself[T any](entry T) T { return entry }

func podOf(e *podEntry) *compile.Pod                   { return e.pod }
func namespaceOf(e *namespaceEntry) *compile.Namespace { return e.namespace }

// get is what a cache holds under a key, the zero value if it holds nothing there.
func get[E any](from toolscache.SharedIndexInformer, key string) E {
	item, _, _ := from.GetStore().GetByKey(key) // a key can always be looked up
	entry, _ := item.(E)
	return entry
}

// pod is the pod of a name as the API shows it, nil if it does not.
func (s *stores) pod(namespace, name string) *compile.Pod {
	e := get[*podEntry](s.pods, toolscache.NewObjectName(namespace, name).String())
	if e == nil {
		return nil
	}
	return e.pod
}

// hasNode reports whether the cluster has a node of the name.
func (s *stores) hasNode(name string) bool {
	return get[metav1.Object](s.nodes, name) != nil
}

// podRanges are those that a node names as its pods'.
func (s *stores) podRanges(node string) []netip.Prefix {
	n := get[*corev1.Node](s.nodes, node)
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
