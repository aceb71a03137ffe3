package controllers

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"

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
		return ok && slices.Equal(a.namespace.Labels, b.namespace.Labels)
	case *networkingv1.NetworkPolicy:
		a, ok := after.(*networkingv1.NetworkPolicy)
		return ok && equality.Semantic.DeepEqual(a.Spec, b.Spec) && a.UID == b.UID
	case *corev1.Node:
		a, ok := after.(*corev1.Node)
		return ok && a.UID == b.UID
	}
	return false
}

func samePod(a, b *compile.Pod) bool {
	return a.UID == b.UID && a.Node == b.Node && a.HostNetwork == b.HostNetwork && a.Finished == b.Finished &&
		a.Terminating == b.Terminating && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Addrs, b.Addrs) &&
		slices.Equal(a.Ports, b.Ports)
}
