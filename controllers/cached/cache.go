package cached

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// NetworkPolicies is the resource of NetworkPolicies, as reports name it.
var NetworkPolicies = schema.GroupResource{Group: networkingv1.GroupName, Resource: "networkpolicies"}

// RESTMapper knows the kinds that our programs read through a manager's cache, of which the enforcer reads its own Node alone. The default one asks the API
// server for them, and a program that starts while the server is away would end instead of waiting.
func RESTMapper(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), meta.RESTScopeNamespace)
	return mapper, nil
}

// List is what take makes of all entries of a cache.
func List[E, T any](from toolscache.SharedIndexInformer, take func(E) T) []T {
	items := from.GetStore().List()
	out := make([]T, 0, len(items))
	for _, item := range items {
		if e, ok := item.(E); ok {
			out = append(out, take(e))
		}
	}
	return out
}

// Itself is an entry as it is, for [List].
func Itself[T any](entry T) T { return entry }

// NamespaceOf is the namespace of an entry, for [List].
func NamespaceOf(e *NamespaceEntry) *compile.Namespace { return e.Namespace }

// TakePod is the pod of an entry, for a [Store].
func TakePod(entry any) (*compile.Pod, bool) {
	if e, ok := entry.(*PodEntry); ok {
		return e.Pod, true
	}
	return nil, false
}

// TakeNamespace is the namespace of an entry, likewise.
func TakeNamespace(entry any) (*compile.Namespace, bool) {
	if e, ok := entry.(*NamespaceEntry); ok {
		return e.Namespace, true
	}
	return nil, false
}

// TakePolicy is the policy that an entry is.
func TakePolicy(entry any) (*networkingv1.NetworkPolicy, bool) {
	np, ok := entry.(*networkingv1.NetworkPolicy)
	return np, ok
}

// Get is what a cache holds under a key, the zero value if it holds nothing there.
func Get[E any](from toolscache.SharedIndexInformer, key string) E {
	item, _, _ := from.GetStore().GetByKey(key) // a key can always be looked up
	entry, _ := item.(E)
	return entry
}

// Wanted is an informer that is asked for.
type Wanted struct {
	Object client.Object
	To     *toolscache.SharedIndexInformer
}

// Informers asks the cache for informers. Their contents may be entries rather than API objects, so they are read by who asked for
// them and nobody else.
func Informers(ctx context.Context, c cache.Cache, all []Wanted) error {
	for _, want := range all {
		informer, err := c.GetInformer(ctx, want.Object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watching %T: %w", want.Object, err)
		}
		shared, ok := informer.(toolscache.SharedIndexInformer)
		if !ok {
			return fmt.Errorf("watching %T: the cache gave a %T, which has no store to read", want.Object, informer)
		}
		*want.To = shared
	}
	return nil
}
