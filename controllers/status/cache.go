package status

import (
	"net/http"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// CacheOptions are what the controller's manager keeps: the same of pods, namespaces and policies as an enforcer does, that nodes
// exist, and what they report.
func CacheOptions() cache.Options {
	t := new(cached.Transforms)
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Transform: t.PodToEntry},
		&corev1.Namespace{}:           {Transform: cached.NamespaceToEntry},
		&networkingv1.NetworkPolicy{}: {Transform: t.StripPolicy},
		&corev1.Node{}:                {Transform: cached.StripNode},
		&v1alpha1.NodeEnforcement{}:   {Transform: cached.ReportToEntry},
		&v1alpha1.PolicyEnforcement{}: {Transform: cached.StripEnforcement},
	}}
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
