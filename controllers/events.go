package controllers

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// dirtyIfChanged calls dirty unless the update changed nothing that policy looks at: kubelets write pod conditions, and node heartbeats,
// far more often than anybody moves a pod or a label.
func dirtyIfChanged(before, after any, dirty func()) {
	if !sameForPolicy(before, after) {
		dirty()
	}
}

func sameForPolicy(before, after any) bool {
	switch b := before.(type) {
	case *podEntry:
		return same(after, b, func(a, b *podEntry) bool { return samePod(a.pod, b.pod) })
	case *namespaceEntry:
		return same(after, b, sameNamespace)
	case *networkingv1.NetworkPolicy:
		return same(after, b, samePolicy)
	case *v1alpha1.ClusterNetworkPolicy:
		return same(after, b, func(a, b *v1alpha1.ClusterNetworkPolicy) bool {
			return sameVersioned(a, b) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
		})
	case *v1alpha1.NamespaceIsolation:
		return same(after, b, func(a, b *v1alpha1.NamespaceIsolation) bool {
			return sameVersioned(a, b) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
		})
	case *corev1.Service:
		return same(after, b, func(a, b *corev1.Service) bool { return a.UID == b.UID && equality.Semantic.DeepEqual(a.Spec, b.Spec) })
	case *corev1.Node:
		return same(after, b, sameNode)
	case *nodeEntry:
		return same(after, b, func(a, b *nodeEntry) bool {
			return a.UID == b.UID && slices.Equal(a.node.Labels, b.node.Labels) && slices.Equal(a.node.Addrs, b.node.Addrs) &&
				a.node.Impossible == b.node.Impossible && slices.Equal(a.node.Ranges, b.node.Ranges)
		})
	case *crdEntry:
		return same(after, b, func(a, b *crdEntry) bool { return a.established == b.established && slices.Equal(a.served, b.served) })
	}
	return false
}

func sameNamespace(a, b *namespaceEntry) bool {
	return slices.Equal(a.namespace.Labels, b.namespace.Labels) && a.namespace.Mode == b.namespace.Mode &&
		a.namespace.SourceCheckOff == b.namespace.SourceCheckOff
}

// canWait reports whether an update says of a pod's addresses what the node knows already: those that were announced are shown, which changes something only
// where another pod is said to have one of them; or those of a pod of its own are announced, as it has asked for itself.
func canWait(node string, before, after any) bool {
	b, ok := before.(*podEntry)
	return ok && same(after, b, func(a, b *podEntry) bool {
		known := *a.pod
		known.Addrs = b.pod.Addrs
		if !samePod(&known, b.pod) {
			return false
		}
		if slices.Equal(a.pod.Addrs, b.pod.Addrs) {
			return a.pod.Source != b.pod.Source
		}
		return a.pod.Source == compile.Announced && a.pod.Node == node
	})
}

// same compares after with before, if it is one of those.
func same[T any](after any, before T, equal func(after, before T) bool) bool {
	a, ok := after.(T)
	return ok && equal(a, before)
}

// sameNode compares what an enforcer asks of its own node.
func sameNode(a, b *corev1.Node) bool {
	return a.UID == b.UID && a.Spec.PodCIDR == b.Spec.PodCIDR && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs)
}

func samePolicy(a, b *networkingv1.NetworkPolicy) bool {
	return sameVersioned(a, b) && equality.Semantic.DeepEqual(a.Spec, b.Spec) &&
		a.Annotations[v1alpha1.ModeAnnotation] == b.Annotations[v1alpha1.ModeAnnotation]
}

// sameVersioned compares what the order of policies, and the report about them, depends on.
func sameVersioned(a, b metav1.Object) bool {
	created, before := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return a.GetUID() == b.GetUID() && a.GetGeneration() == b.GetGeneration() && created.Equal(&before)
}

// samePod leaves out whence the addresses are known: kubelets show what was announced a moment before, and would else have every node sync twice for
// each pod. See [canWait].
func samePod(a, b *compile.Pod) bool {
	return a.UID == b.UID && a.Node == b.Node && a.HostNetwork == b.HostNetwork && a.Finished == b.Finished &&
		a.Terminating == b.Terminating && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Addrs, b.Addrs) &&
		slices.Equal(a.Ports, b.Ports) && a.Impossible == b.Impossible
}
