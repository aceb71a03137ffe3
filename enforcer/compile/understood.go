package compile

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Object is one policy of the API: exactly one field is set.
type Object struct {
	NetworkPolicy        *networkingv1.NetworkPolicy
	ClusterNetworkPolicy *v1alpha1.ClusterNetworkPolicy // ours, or the SIG's converted, which keeps its APIVersion
	NamespaceIsolation   *v1alpha1.NamespaceIsolation
}

// Understood is a policy whose text was read once, for who asks about one policy at a time. [Compile] reads it the same way. It is never
// written to after [Understand] has made it.
type Understood struct {
	policy  *parsedPolicy // of an isolation, with every pod of its namespaces for a subject, and without DNS
	fields  *fields
	remarks []Remark // those that follow from the text alone
}

// fields are the paths of what a kind of policy says.
type fields struct {
	subject string
	rules   string // what stands before the direction
	port    string // a named port in a rule, with a verb for the index
	types   string // what names the directions, if something does
}

// rule is the path of a direction's rule.
func (f *fields) rule(d policy.Direction, index int) string {
	return fmt.Sprintf("%s%s[%d]", f.rules, d, index)
}

// peers is what a rule calls its peers.
func (f *fields) peers(d policy.Direction) string {
	if d == policy.Ingress {
		return "from"
	}
	return "to"
}

var (
	networkPolicyFields = fields{"spec.podSelector", "spec.", "ports[%d].port", "policyTypes"}
	clusterPolicyFields = fields{"spec.subject", "spec.", "protocols[%d].destinationNamedPort", ""}
	isolationFields     = fields{"spec.namespaceSelector", "spec.allow.", "protocols[%d].destinationNamedPort", "directions"}
)

// Understand reads a policy. It cannot fail: what is not understood is named by [Understood.Review].
func Understand(o Object) *Understood {
	switch {
	case o.NetworkPolicy != nil:
		np := o.NetworkPolicy
		u := &Understood{policy: parse(np), fields: &networkPolicyFields}
		u.read(len(np.Spec.Ingress), len(np.Spec.Egress))
		return u
	case o.ClusterNetworkPolicy != nil:
		cnp := o.ClusterNetworkPolicy
		u := &Understood{policy: parseCluster(cnp), fields: &clusterPolicyFields}
		u.read(len(cnp.Spec.Ingress), len(cnp.Spec.Egress))
		return u
	default:
		ni := o.NamespaceIsolation
		p := parseIsolation(ni)
		p.subject = podSelector{namespaces: p.namespaces, pods: labels.Everything()}
		u := &Understood{policy: &p.parsedPolicy, fields: &isolationFields}
		u.read(len(ni.Spec.Allow.Ingress), len(ni.Spec.Allow.Egress))
		return u
	}
}

// Ref names the policy.
func (u *Understood) Ref() policy.Ref { return u.policy.ref }

// Selects reports whether the policy is about a pod: policy can see the pod, and the policy selects it. A ClusterNetworkPolicy without rules selects
// pods too. ns is the pod's namespace, nil if it is not known: then only a NetworkPolicy can select the pod.
func (u *Understood) Selects(p *Pod, ns *Namespace) bool {
	return p.isVisible() && u.policy.subject.selects(p, ns)
}

// Namespace is the only one that the policy can select in; ok is false if it can select in several.
func (u *Understood) Namespace() (name string, ok bool) {
	return u.policy.subject.namespace, u.policy.subject.namespaces == nil
}
