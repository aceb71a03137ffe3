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
		a, ok := after.(*podEntry)
		return ok && samePod(a.pod, b.pod)
	case *namespaceEntry:
		a, ok := after.(*namespaceEntry)
		return ok && slices.Equal(a.namespace.Labels, b.namespace.Labels) && a.namespace.Mode == b.namespace.Mode
	case *networkingv1.NetworkPolicy:
		a, ok := after.(*networkingv1.NetworkPolicy)
		return ok && equality.Semantic.DeepEqual(a.Spec, b.Spec) && sameVersioned(a, b) &&
			a.Annotations[v1alpha1.ModeAnnotation] == b.Annotations[v1alpha1.ModeAnnotation]
	case *v1alpha1.ClusterNetworkPolicy:
		a, ok := after.(*v1alpha1.ClusterNetworkPolicy)
		return ok && equality.Semantic.DeepEqual(a.Spec, b.Spec) && sameVersioned(a, b)
	case *v1alpha1.NamespaceIsolation:
		a, ok := after.(*v1alpha1.NamespaceIsolation)
		return ok && equality.Semantic.DeepEqual(a.Spec, b.Spec) && sameVersioned(a, b)
	case *corev1.Service:
		a, ok := after.(*corev1.Service)
		return ok && equality.Semantic.DeepEqual(a.Spec, b.Spec) && a.UID == b.UID
	case *nodeEntry:
		a, ok := after.(*nodeEntry)
		return ok && a.UID == b.UID && slices.Equal(a.node.Labels, b.node.Labels) && slices.Equal(a.node.Addrs, b.node.Addrs)
	case *crdEntry:
		a, ok := after.(*crdEntry)
		return ok && a.established == b.established && slices.Equal(a.served, b.served)
	case *corev1.Node:
		a, ok := after.(*corev1.Node)
		return ok && a.UID == b.UID
	}
	return false
}

// sameVersioned compares what the order of policies, and the report about them, depends on.
func sameVersioned(a, b metav1.Object) bool {
	created, before := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return a.GetUID() == b.GetUID() && a.GetGeneration() == b.GetGeneration() && created.Equal(&before)
}

func samePod(a, b *compile.Pod) bool {
	return a.UID == b.UID && a.Node == b.Node && a.HostNetwork == b.HostNetwork && a.Finished == b.Finished &&
		a.Terminating == b.Terminating && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Addrs, b.Addrs) &&
		slices.Equal(a.Ports, b.Ports)
}
