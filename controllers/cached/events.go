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

// SameForPolicy reports whether policy sees no difference between two versions of what a cache holds.
func SameForPolicy(before, after any) bool {
	switch b := before.(type) {
	case *PodEntry:
		return same(after, b, func(a, b *PodEntry) bool { return samePod(a.Pod, b.Pod) })
	case *NamespaceEntry:
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
	case *NodeEntry:
		return same(after, b, samePeer)
	case *crdEntry:
		return same(after, b, func(a, b *crdEntry) bool { return a.established == b.established && slices.Equal(a.served, b.served) })
	}
	return false
}

func sameNamespace(a, b *NamespaceEntry) bool {
	return slices.Equal(a.Namespace.Labels, b.Namespace.Labels) && a.Namespace.Mode == b.Namespace.Mode &&
		a.Namespace.SourceCheckOff == b.Namespace.SourceCheckOff
}

// CanWait reports whether an update says of a pod's addresses what the node knows already: those that were announced are shown, which changes something only
// where another pod is said to have one of them; or those of a pod of its own are announced, as it has asked for itself.
func CanWait(node string, before, after any) bool {
	b, ok := before.(*PodEntry)
	return ok && same(after, b, func(a, b *PodEntry) bool {
		known := *a.Pod
		known.Addrs = b.Pod.Addrs
		if !samePod(&known, b.Pod) {
			return false
		}
		if slices.Equal(a.Pod.Addrs, b.Pod.Addrs) {
			return a.Pod.Source != b.Pod.Source
		}
		return a.Pod.Source == compile.Announced && a.Pod.Node == node
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

// samePeer compares what is asked of nodes that are peers, or whose pods contest an address.
func samePeer(a, b *NodeEntry) bool {
	return a.UID == b.UID && slices.Equal(a.Node.Labels, b.Node.Labels) && slices.Equal(a.Node.Addrs, b.Node.Addrs) &&
		a.Node.Impossible == b.Node.Impossible && slices.Equal(a.Node.Ranges, b.Node.Ranges)
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
// each pod. See [CanWait].
func samePod(a, b *compile.Pod) bool {
	return a.UID == b.UID && a.Node == b.Node && a.HostNetwork == b.HostNetwork && a.Finished == b.Finished &&
		a.Terminating == b.Terminating && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Addrs, b.Addrs) &&
		slices.Equal(a.Ports, b.Ports) && a.Impossible == b.Impossible
}
