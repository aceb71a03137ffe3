package controllers

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// CacheOptions are what a node's cache keeps: of pods and namespaces only what policy needs, of policies their spec, and of nodes the
// node's own.
func CacheOptions(node string) cache.Options {
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Transform: podToEntry},
		&corev1.Namespace{}:           {Transform: namespaceToEntry},
		&networkingv1.NetworkPolicy{}: {Transform: cache.TransformStripManagedFields()},
		&corev1.Node{}: {
			Field:     fields.OneTermEqualSelector("metadata.name", node),
			Transform: stripNode,
		},
	}}
}

// RESTMapper knows the kinds that the enforcer reads. The default one asks the API server for them, and an enforcer that starts while
// the server is away would end instead of waiting.
func RESTMapper(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), meta.RESTScopeNamespace)
	return mapper, nil
}

// podEntry stands in the cache for a pod. A Pod object takes some 2 KB even when everything in it is empty: with tens of thousands of
// them that is most of the enforcer's memory.
type podEntry struct {
	*metav1.ObjectMeta // nothing, shared by all
	resourceVersion    string
	pod                *compile.Pod
}

// GetNamespace and the methods that follow are all that the cache itself asks an entry for.
func (e *podEntry) GetNamespace() string { return e.pod.Namespace }

// GetName is the pod's.
func (e *podEntry) GetName() string { return e.pod.Name }

// GetUID is the pod's.
func (e *podEntry) GetUID() types.UID { return types.UID(e.pod.UID) }

// GetResourceVersion is the pod's.
func (e *podEntry) GetResourceVersion() string { return e.resourceVersion }

// GetObjectMeta is the entry itself, so that nobody reads past it to the metadata that all share.
func (e *podEntry) GetObjectMeta() metav1.Object { return e }

// noMeta is what entries have instead of a metadata of their own, a third of their size.
var noMeta metav1.ObjectMeta

// namespaceEntry stands in the cache for a namespace.
type namespaceEntry struct {
	metav1.ObjectMeta
	namespace *compile.Namespace
}

func podToEntry(obj any) (any, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil // an entry already, or the tombstone of one
	}
	return &podEntry{&noMeta, p.ResourceVersion, compile.NewPod(p)}, nil
}

func namespaceToEntry(obj any) (any, error) {
	n, ok := obj.(*corev1.Namespace)
	if !ok {
		return obj, nil
	}
	return &namespaceEntry{identity(n), compile.NewNamespace(n)}, nil
}

// stripNode leaves of a node its name: kubelets write the rest of it all the time.
func stripNode(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	return &corev1.Node{ObjectMeta: identity(n)}, nil
}

func identity(o metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
	}
}

// stores are the caches that a snapshot is taken from.
type stores struct {
	pods, namespaces, policies, nodes toolscache.SharedIndexInformer
}

// newStores asks the cache for the informers. Their contents are entries rather than API objects, so they are read
// here and nowhere else.
func newStores(ctx context.Context, c cache.Cache) (*stores, error) {
	var s stores
	for _, want := range []struct {
		object client.Object
		to     *toolscache.SharedIndexInformer
	}{
		{&corev1.Pod{}, &s.pods},
		{&corev1.Namespace{}, &s.namespaces},
		{&networkingv1.NetworkPolicy{}, &s.policies},
		{&corev1.Node{}, &s.nodes},
	} {
		informer, err := c.GetInformer(ctx, want.object, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watching %T: %w", want.object, err)
		}
		shared, ok := informer.(toolscache.SharedIndexInformer)
		if !ok {
			return nil, fmt.Errorf("watching %T: the cache gave a %T, which has no store to read", want.object, informer)
		}
		*want.to = shared
	}
	return &s, nil
}

func (s *stores) all() []toolscache.SharedIndexInformer {
	return []toolscache.SharedIndexInformer{s.pods, s.namespaces, s.policies, s.nodes}
}

// snapshot is the state of the cluster as this node has seen it.
func (s *stores) snapshot(node string) compile.Snapshot {
	return compile.Snapshot{
		Node:       node,
		Pods:       list(s.pods, func(e *podEntry) *compile.Pod { return e.pod }),
		Namespaces: list(s.namespaces, func(e *namespaceEntry) *compile.Namespace { return e.namespace }),
		Policies:   list(s.policies, func(p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy { return p }),
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

// hasNode reports whether the cluster has a node of the name.
func (s *stores) hasNode(name string) bool {
	_, ok, _ := s.nodes.GetStore().GetByKey(name)
	return ok
}
