package oracle

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// clusterRule is an ingress or an egress rule of a ClusterNetworkPolicy; peers is the from or the to list.
type clusterRule struct {
	action    v1alpha1.Action
	peers     []v1alpha1.Peer
	protocols []v1alpha1.Protocol
}

// clusterRules is the stage of a tier's ClusterNetworkPolicies: the first rule that matches decides, in the order of the policies, then
// of the rules in them. An audited policy decides nothing; its first rule that matches says what would have been denied.
func (c Cluster) clusterRules(tier v1alpha1.Tier, e end) answer {
	var noted []Denial
	for _, p := range c.clusterPoliciesOf(tier) {
		if !c.isSubject(p.Spec.Subject, e.pod) {
			continue
		}
		said, i := c.clusterPolicySays(p, e)
		if p.Spec.Mode == v1alpha1.Audit {
			if said == denies {
				noted = append(noted, Denial{Kind: kindOf(p), Name: p.Name, Direction: e.word()})
			}
			continue
		}
		if said != nothing {
			verb := map[says]string{accepts: "accepts", denies: "denies", passes: "passes"}[said]
			reason := fmt.Sprintf("%s[%d] of %s %s %s %s", e.word(), i, kindOf(p), p.Name, verb, e)
			return answer{says: said, reason: reason, noted: noted}
		}
	}
	return answer{noted: noted}
}

// clusterPoliciesOf are the policies of a tier in the order in which they are asked. A tier that nobody knows counts as Admin, behind
// which nothing can open what it denies.
func (c Cluster) clusterPoliciesOf(tier v1alpha1.Tier) []*v1alpha1.ClusterNetworkPolicy {
	var out []*v1alpha1.ClusterNetworkPolicy
	for _, p := range c.ClusterPolicies {
		if p.Spec.Tier == tier || tier == v1alpha1.AdminTier && p.Spec.Tier != v1alpha1.BaselineTier {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(p, q *v1alpha1.ClusterNetworkPolicy) int {
		switch {
		case isAskedBefore(p, q):
			return -1
		case isAskedBefore(q, p):
			return 1
		}
		return 0
	})
	return out
}

// isAskedBefore: "lower numbers come first. Policies of equal priority are asked in the order of their creation, then of their
// names." Ours come before the SIG's of the same name.
func isAskedBefore(p, q *v1alpha1.ClusterNetworkPolicy) bool {
	if p.Spec.Priority != q.Spec.Priority {
		return p.Spec.Priority < q.Spec.Priority
	}
	if !p.CreationTimestamp.Time.Equal(q.CreationTimestamp.Time) {
		return p.CreationTimestamp.Time.Before(q.CreationTimestamp.Time)
	}
	if p.Name != q.Name {
		return p.Name < q.Name
	}
	return !isSIG(p) && isSIG(q)
}

// isSubject reports whether the policy is for the pod. A subject that is not understood might have meant any pod.
func (c Cluster) isSubject(s v1alpha1.Subject, pod *corev1.Pod) bool {
	if !isUnderstoodSubject(s) {
		return true
	}
	if s.Namespaces != nil {
		return c.isInNamespaces(*s.Namespaces, pod)
	}
	return c.isNamespacedPod(*s.Pods, pod)
}

// isUnderstoodSubject: "Exactly one field is set", and selectors say what they select.
func isUnderstoodSubject(s v1alpha1.Subject) bool {
	if (s.Namespaces == nil) == (s.Pods == nil) {
		return false
	}
	if s.Namespaces != nil {
		return valid(plain(*s.Namespaces))
	}
	return valid(plain(s.Pods.NamespaceSelector)) && valid(plain(s.Pods.PodSelector))
}

// clusterPolicySays is what the policy's first rule that matches says, and which it is.
func (c Cluster) clusterPolicySays(p *v1alpha1.ClusterNetworkPolicy, e end) (says, int) {
	understood := isUnderstoodSubject(p.Spec.Subject)
	for i, r := range clusterRulesOf(p, e.direction) {
		said := c.clusterRuleSays(r, e)
		if !understood && said != denies {
			// For whom it would open is not known.
			continue
		}
		if said != nothing {
			return said, i
		}
	}
	return nothing, 0
}

func clusterRulesOf(p *v1alpha1.ClusterNetworkPolicy, d direction) []clusterRule {
	var rules []clusterRule
	switch d {
	case ingress:
		for _, r := range p.Spec.Ingress {
			rules = append(rules, clusterRule{r.Action, r.From, r.Protocols})
		}
	case egress:
		for _, r := range p.Spec.Egress {
			rules = append(rules, clusterRule{r.Action, r.To, r.Protocols})
		}
	}
	return rules
}

// clusterRuleSays is the rule's action where it matches, and nothing where it does not. "For "Accept" rules, "fail closed" means:
// "treat the rule as matching no traffic". For "Deny" and "Pass" rules, "fail closed" means: "treat the rule as a 'Deny all' rule"."
func (c Cluster) clusterRuleSays(r clusterRule, e end) says {
	understood := areUnderstoodPeers(r.peers) && areUnderstoodProtocols(r.protocols)
	matches := understood && c.clusterPeersMatch(r.peers, e.remote) && c.protocolsMatch(r.protocols, e.flow)
	switch r.action {
	case v1alpha1.Accept:
		if matches {
			return accepts
		}
	case v1alpha1.Deny:
		if matches || !understood {
			return denies
		}
	case v1alpha1.Pass:
		if !understood {
			return denies
		}
		if matches {
			return passes
		}
	default:
		// An action that nobody knows: nothing that the rule could have meant opens more than a denial of everything.
		return denies
	}
	return nothing
}
