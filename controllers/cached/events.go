package cached

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// IfChanged calls dirty unless the update changed nothing that policy looks at: kubelets write pod conditions, and node heartbeats,
// far more often than anybody moves a pod or a label.
func IfChanged(before, after any, dirty func()) {
	if !SameForPolicy(before, after) {
		dirty()
	}
}

// entry is what stands in a cache instead of an object. Each says beside its type what policy sees of it.
type entry interface {
	// sameAs reports whether policy sees no difference to the version before.
	sameAs(before any) bool
}

// SameForPolicy reports whether policy sees no difference between two versions of what a cache holds.
func SameForPolicy(before, after any) bool {
	switch a := after.(type) {
	case entry:
		return a.sameAs(before)
	case *networkingv1.NetworkPolicy:
		return same(a, before, IsSamePolicy)
	case *v1alpha1.ClusterNetworkPolicy:
		return same(a, before, func(a, b *v1alpha1.ClusterNetworkPolicy) bool {
			return sameVersioned(a, b) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
		})
	case *v1alpha1.NamespaceIsolation:
		return same(a, before, func(a, b *v1alpha1.NamespaceIsolation) bool {
			return sameVersioned(a, b) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
		})
	case *corev1.Service:
		return same(a, before, func(a, b *corev1.Service) bool { return a.UID == b.UID && equality.Semantic.DeepEqual(a.Spec, b.Spec) })
	case *corev1.Node:
		return same(a, before, sameNode)
	}
	return false
}

// CanWait reports whether an update says of a pod's addresses what the node knows already: those that were announced are shown, which changes something only
// where another pod is said to have one of them; or those of a pod of its own are announced, as it has asked for itself.
func CanWait(node string, before, after *compile.Pod) bool {
	known := *after
	known.Addrs = before.Addrs
	if !samePod(&known, before) {
		return false
	}
	if slices.Equal(after.Addrs, before.Addrs) {
		return after.Source != before.Source
	}
	return after.Source == compile.Announced && after.Node == node
}

// same compares after with before, if that is of the same type.
func same[T any](after T, before any, equal func(after, before T) bool) bool {
	b, ok := before.(T)
	return ok && equal(after, b)
}

// sameNode compares what an enforcer asks of its own node.
func sameNode(a, b *corev1.Node) bool {
	return a.UID == b.UID && a.Spec.PodCIDR == b.Spec.PodCIDR && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs)
}

// IsSamePolicy reports whether policy, and what is reported of it, sees no difference between two versions.
func IsSamePolicy(a, b *networkingv1.NetworkPolicy) bool {
	return sameVersioned(a, b) && equality.Semantic.DeepEqual(a.Spec, b.Spec) &&
		a.Annotations[v1alpha1.ModeAnnotation] == b.Annotations[v1alpha1.ModeAnnotation]
}

// sameVersioned compares what the order of policies, and the report about them, depends on.
func sameVersioned(a, b metav1.Object) bool {
	created, before := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return a.GetUID() == b.GetUID() && a.GetGeneration() == b.GetGeneration() && created.Equal(&before)
}
