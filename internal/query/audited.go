package query

import (
	"cmp"
	"slices"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// AuditedPolicy is a policy in mode Audit, as reports name it.
type AuditedPolicy struct{ Namespace, Name string }

// AuditedIn are the policies in mode Audit: the NetworkPolicies, by what they or their namespaces say, and with cluster set those of the whole cluster.
func AuditedIn(o Objects, cluster bool) []AuditedPolicy {
	var all []AuditedPolicy
	of := map[string]string{}
	for _, n := range o.Namespaces {
		of[n.Name] = n.Annotations[v1alpha1.ModeAnnotation]
	}
	for _, p := range o.Policies {
		mode, own := p.Annotations[v1alpha1.ModeAnnotation]
		if !own {
			mode = of[p.Namespace]
		}
		if mode == string(v1alpha1.Audit) {
			all = append(all, AuditedPolicy{p.Namespace, networkPolicyRef(p).String()})
		}
	}
	if cluster {
		for _, p := range o.ClusterPolicies {
			if p.Spec.Mode == v1alpha1.Audit {
				all = append(all, AuditedPolicy{Name: policy.Ref{Kind: clusterKind(p), Name: p.Name}.String()})
			}
		}
		for _, i := range o.Isolations {
			if i.Spec.Mode == v1alpha1.Audit {
				all = append(all, AuditedPolicy{Name: policy.Ref{Kind: "NamespaceIsolation", Name: i.Name}.String()})
			}
		}
	}
	slices.SortFunc(all, func(a, b AuditedPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all
}
