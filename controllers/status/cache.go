package status

import (
	"net/http"
	"sync/atomic"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// CacheOptions are what the controller's manager keeps: the same of pods, namespaces and policies as an enforcer does, that nodes
// exist, and what they report.
func CacheOptions() cache.Options {
	t := new(cached.Transforms)
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Transform: podsBy(t)},
		&corev1.Namespace{}:           {Transform: cached.NamespaceToEntry},
		&networkingv1.NetworkPolicy{}: {Transform: t.StripPolicy},
		&corev1.Node{}:                {Transform: cached.StripNode},
		&v1alpha1.NodeEnforcement{}:   {Transform: cached.ReportToEntry},
		&v1alpha1.PolicyEnforcement{}: {Transform: cached.StripEnforcement},
		&v1alpha1.NodeConnections{}:   {Transform: cached.StripConnections},
		&v1alpha1.ConnectionReport{}:  {Transform: cached.StripConnections},
	}}
}

// podEntry stands in the controller's cache for a pod. It keeps the pod's digest, which each look at a policy that selects the pod asks for.
type podEntry struct {
	*cached.PodEntry
	digest atomic.Pointer[podDigest]
}

// podDigest is a pod's digest in a version of its namespace.
type podDigest struct {
	in    *compile.Namespace
	value uint64
}

// podsBy stores a podEntry for a Pod.
func podsBy(t *cached.Transforms) toolscache.TransformFunc {
	return func(obj any) (any, error) {
		made, err := t.PodToEntry(obj)
		if e, ok := made.(*cached.PodEntry); ok {
			return &podEntry{PodEntry: e}, err
		}
		return made, err
	}
}

// Digest is the pod's in its namespace, nil if that is not known. Several goroutines may ask.
func (e *podEntry) Digest(ns *compile.Namespace) uint64 {
	known := e.digest.Load()
	if known == nil || known.in != ns {
		known = &podDigest{ns, e.Pod.Digest(ns)}
		e.digest.Store(known)
	}
	return known.value
}

// RESTMapper knows the kinds of CacheOptions, for the reason that [cached.RESTMapper] gives.
func RESTMapper(config *rest.Config, c *http.Client) (meta.RESTMapper, error) {
	mapper, err := cached.RESTMapper(config, c)
	if err != nil {
		return nil, err
	}
	ours := mapper.(*meta.DefaultRESTMapper)
	ours.Add(v1alpha1.GroupVersion.WithKind("NodeEnforcement"), meta.RESTScopeRoot)
	ours.Add(v1alpha1.GroupVersion.WithKind("PolicyEnforcement"), meta.RESTScopeNamespace)
	// Its name is a plural already, which the mapper would make another plural of.
	connections := v1alpha1.GroupVersion.WithResource("nodeconnections")
	ours.AddSpecific(v1alpha1.GroupVersion.WithKind("NodeConnections"), connections, connections, meta.RESTScopeRoot)
	ours.Add(v1alpha1.GroupVersion.WithKind("ConnectionReport"), meta.RESTScopeNamespace)
	return ours, nil
}

// Scheme has the kinds that the controller's manager reads and makes.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, networkingv1.AddToScheme, coordinationv1.AddToScheme, eventsv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		utilruntime.Must(add(s)) // it fails on types that are added twice under different names, and on nothing at run time
	}
	return s
}
