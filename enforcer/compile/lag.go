package compile

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// PoliciesOf are the NetworkPolicies of some namespaces, in a snapshot with nothing else.
func (s Snapshot) PoliciesOf(namespaces map[string]bool) Snapshot {
	var some Snapshot
	for _, p := range s.Policies {
		if namespaces[p.Namespace] {
			some.Policies = append(some.Policies, p)
		}
	}
	return some
}

// Lagging is s with the NetworkPolicies of some namespaces as another snapshot has them: as if the API had shown the others earlier. All else is of s.
func (s Snapshot) Lagging(namespaces map[string]bool, other Snapshot) Snapshot {
	if len(namespaces) == 0 {
		return s
	}
	policies := make([]*networkingv1.NetworkPolicy, 0, len(s.Policies))
	for _, p := range s.Policies {
		if !namespaces[p.Namespace] {
			policies = append(policies, p)
		}
	}
	s.Policies = append(policies, other.PoliciesOf(namespaces).Policies...)
	return s
}

// HasNoOtherPolicies reports whether all NetworkPolicies of a namespace stand in another snapshot too, the very same.
func (s Snapshot) HasNoOtherPolicies(o Snapshot, namespace string) bool {
	one := map[string]bool{namespace: true}
	there := o.PoliciesOf(one).Policies
	return !slices.ContainsFunc(s.PoliciesOf(one).Policies, func(p *networkingv1.NetworkPolicy) bool { return !slices.Contains(there, p) })
}

// HasOneOf reports whether a NetworkPolicy of a namespace that is new from one snapshot to another is still there, in whatever version.
func (s Snapshot) HasOneOf(before, after Snapshot, namespace string) bool {
	one := map[string]bool{namespace: true}
	was, is := before.PoliciesOf(one).Policies, s.PoliciesOf(one).Policies
	return slices.ContainsFunc(after.PoliciesOf(one).Policies, func(p *networkingv1.NetworkPolicy) bool {
		return !slices.Contains(was, p) && slices.ContainsFunc(is, func(q *networkingv1.NetworkPolicy) bool { return q.UID == p.UID && q.Name == p.Name })
	})
}

// HasSamePolicies reports whether a namespace has the very same NetworkPolicies in both snapshots.
func (s Snapshot) HasSamePolicies(o Snapshot, namespace string) bool {
	return s.HasNoOtherPolicies(o, namespace) && o.HasNoOtherPolicies(s, namespace)
}
