package status

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// emit makes an Event of what is news to a person: that a policy is in force, or is not, or is not understood. Its reason is the condition's.
func (r *Policies) emit(o metav1.Object, previous, status *v1alpha1.EnforcementStatus) {
	for _, kind := range []string{v1alpha1.AcceptedCondition, v1alpha1.ProgrammedCondition} {
		before, now := meta.FindStatusCondition(previous.Conditions, kind), meta.FindStatusCondition(status.Conditions, kind)
		if before != nil && before.Status == now.Status && before.Reason == now.Reason {
			continue
		}
		level := ""
		switch now.Reason {
		case v1alpha1.ProgrammedReason:
			level = corev1.EventTypeNormal
		case v1alpha1.NotUnderstoodReason, v1alpha1.TooLargeReason, v1alpha1.ConflictingReason, v1alpha1.NodesFailingReason, v1alpha1.NodesUnknownReason:
			level = corev1.EventTypeWarning
		}
		if level != "" {
			r.recorder.Eventf(r.writer.referenceTo(o), nil, level, now.Reason, "Enforce", "%s", cached.Shortened(note(o, now), cached.MaxNote))
		}
	}
}

// note is what an Event says of a condition. Events of the cluster's own objects are in the namespace default, where other people read them than those who
// may read the objects: the messages about how they are understood may name other policies, and pods of any namespace.
func note(o metav1.Object, c *metav1.Condition) string {
	if c.Type == v1alpha1.AcceptedCondition && o.GetNamespace() == "" {
		return "the object's condition Accepted says what is meant"
	}
	return c.Message
}

// referenceTo names a policy for an Event, in the version that the API serves.
func (w *statusWriter) referenceTo(o metav1.Object) *corev1.ObjectReference {
	ref := &corev1.ObjectReference{
		APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy",
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
	}
	switch o := o.(type) {
	case *v1alpha1.ClusterNetworkPolicy:
		ref.APIVersion, ref.Kind = o.APIVersion, o.Kind
		if o.APIVersion != v1alpha1.GroupVersion.String() {
			ref.APIVersion = w.versions[sigPolicies].Newest().String()
		}
	case *v1alpha1.NamespaceIsolation:
		ref.APIVersion, ref.Kind = o.APIVersion, o.Kind
	}
	return ref
}
