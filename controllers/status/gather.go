package status

import (
	"cmp"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// object is the policy of a key as the caches have it, nil if it is gone, or the API has no policies of its kind.
func (r *Policies) object(key policyKey) metav1.Object {
	if key.resource == cached.NetworkPolicies.String() {
		return cached.Get[metav1.Object](r.view.policies, key.inCache())
	}
	r.kindsMu.Lock()
	defer r.kindsMu.Unlock()
	return r.kinds.Object(key.resource, key.inCache())
}

// published is a status as it stands in the API, and the resource version of the object that has it.
type published struct {
	status *v1alpha1.EnforcementStatus
	at     string
}

// published is what the caches have of a policy's status, or what was written since.
func (r *Policies) published(tx *transaction, o metav1.Object) published {
	shown := published{status: &v1alpha1.EnforcementStatus{}}
	switch o := o.(type) {
	case *v1alpha1.ClusterNetworkPolicy:
		shown = published{&o.Status, o.ResourceVersion}
	case *v1alpha1.NamespaceIsolation:
		shown = published{&o.Status, o.ResourceVersion}
	default:
		e := r.view.enforcement(tx.key)
		if e == nil && !tx.written.made {
			return shown // what was written is gone
		}
		if e != nil {
			shown = published{&e.Status.EnforcementStatus, e.ResourceVersion}
		}
	}
	if version := tx.written.resourceVersion; version != "" && !cached.Reached(shown.at, version) {
		return published{cmp.Or(tx.written.status, shown.status), version}
	}
	return shown
}

// mode is the one that the policy is in.
func (r *Policies) mode(o metav1.Object) v1alpha1.Mode {
	var mode v1alpha1.Mode
	switch o := o.(type) {
	case *v1alpha1.ClusterNetworkPolicy:
		mode = o.Spec.Mode
	case *v1alpha1.NamespaceIsolation:
		mode = o.Spec.Mode
	case *networkingv1.NetworkPolicy:
		own, ok := o.Annotations[v1alpha1.ModeAnnotation]
		if ns := r.view.namespace(o.Namespace); !ok && ns != nil {
			own = ns.Mode
		}
		mode = v1alpha1.Mode(own)
	}
	if mode == v1alpha1.Audit {
		return mode
	}
	return v1alpha1.Enforce // whatever is not known enforces
}

// reviewed is the cluster as a review of one policy sees it.
func (r *Policies) reviewed(u *compile.Understood) compile.View {
	v := compile.View{Namespaces: r.view.byName.from(r.view.namespaces), Pods: r.view.podsIn, Contested: r.claims.contests}
	if _, one := u.Namespace(); !one {
		v.ClusterPolicies = r.index.clusterPolicies()
	}
	return v
}
