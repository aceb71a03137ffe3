package oracle

import (
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// Denial says that an audited object would have denied a flow. Direction is "ingress" or "egress"; Namespace is empty for objects
// that are in none.
type Denial struct {
	Kind, Namespace, Name, Direction string
}

// The kinds of objects in the tiers, as denials and reasons name them.
const (
	clusterPolicyKind    = "ClusterNetworkPolicy"
	sigClusterPolicyKind = "ClusterNetworkPolicy.policy.networking.k8s.io"
	isolationKind        = "NamespaceIsolation"
)

// AuditedAt is what audited objects would have denied of the flow at one node, sorted. It is said whatever becomes of the flow, by the
// stages that are asked about it.
func (c Cluster) AuditedAt(node string, f Flow) []Denial {
	noted := c.at(node, f).noted
	slices.SortFunc(noted, func(a, b Denial) int {
		return slices.Compare([]string{a.Kind, a.Namespace, a.Name, a.Direction}, []string{b.Kind, b.Namespace, b.Name, b.Direction})
	})
	return slices.Compact(noted)
}

// isAudited reports whether a NetworkPolicy is only audited: by its own annotation, or where it has none, by its namespace's.
func (c Cluster) isAudited(p *networkingv1.NetworkPolicy) bool {
	if mode, ok := p.Annotations[v1alpha1.ModeAnnotation]; ok {
		return mode == string(v1alpha1.Audit)
	}
	if namespace := c.namespace(p.Namespace); namespace != nil {
		return namespace.Annotations[v1alpha1.ModeAnnotation] == string(v1alpha1.Audit)
	}
	return false
}

// kindOf tells our policies from the SIG's.
func kindOf(p *v1alpha1.ClusterNetworkPolicy) string {
	if isSIG(p) {
		return sigClusterPolicyKind
	}
	return clusterPolicyKind
}

func isSIG(p *v1alpha1.ClusterNetworkPolicy) bool {
	return strings.HasPrefix(p.APIVersion, "policy.networking.k8s.io/")
}
