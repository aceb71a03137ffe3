package oracle

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// end is a pod that a flow leaves or enters, and where the flow goes to or comes from.
type end struct {
	pod       *corev1.Pod
	direction direction
	remote    netip.Addr
	flow      Flow
}

// String is the pod's name as messages have it.
func (e end) String() string { return fmt.Sprintf("pod %s/%s", e.pod.Namespace, e.pod.Name) }

// says is what one stage says of an end.
type says int

const (
	nothing says = iota // the next stage is asked
	accepts             // allowed in this direction, whatever would follow
	denies              // dropped
	passes              // the rest of the tier is not asked
)

// answer is what one stage says, why, and what its audited objects would have denied.
type answer struct {
	says   says
	reason string
	noted  []Denial
}

// judge asks one stage after the other until one decides. "Policy tiers are evaluated in the following order: Admin tier,
// NetworkPolicy tier, Baseline tier", and within its tier "an isolation comes after all ClusterNetworkPolicies".
func (c Cluster) judge(e end) verdict {
	var w walk
	w.hear("Admin rules", c.clusterRules(v1alpha1.AdminTier, e))
	if !w.decided && !w.passed {
		w.hear("Admin isolation", c.isolation(v1alpha1.AdminTier, e))
	}
	w.passed = false
	if !w.decided {
		w.hear("NetworkPolicies", c.networkPolicies(e))
	}
	if !w.decided {
		w.hear("Baseline rules", c.clusterRules(v1alpha1.BaselineTier, e))
	}
	if !w.decided && !w.passed {
		w.hear("Baseline isolation", c.isolation(v1alpha1.BaselineTier, e))
	}
	if !w.decided {
		// "If a given connection wasn't allowed or denied by any of the tiers, the default kubernetes policy is applied,
		// which says that all pods can communicate with each other."
		w.allowed = true
		w.heard = append(w.heard, fmt.Sprintf("nothing denies the %s of %s", e.direction, e))
	}
	w.reason = strings.Join(w.heard, ", then ")
	return w.verdict
}

// walk is what the stages have said so far.
type walk struct {
	verdict
	decided bool // the verdict stands
	passed  bool // the rest of the present tier is not asked
	heard   []string
}

func (w *walk) hear(stage string, a answer) {
	w.noted = append(w.noted, a.noted...)
	if a.reason != "" {
		w.heard = append(w.heard, stage+": "+a.reason)
	}
	switch a.says {
	case accepts:
		w.decided, w.allowed = true, true
	case denies:
		w.decided = true
	case passes:
		w.passed = true
	}
}

// networkPolicies is the stage of NetworkPolicies. "Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod, OR
// ... if the traffic matches at least one ingress rule across all of the NetworkPolicy objects whose podSelector matches the pod", and
// the same for egress. A pod may always reach itself.
func (c Cluster) networkPolicies(e end) answer {
	var audited []Denial
	enforced, wouldAllow := 0, e.flow.Src == e.flow.Dst
	for _, p := range c.Policies {
		if !isolates(p, e.pod, e.direction) {
			continue
		}
		allows, i := c.policyAllows(p, e)
		switch {
		case c.isAudited(p):
			audited = append(audited, Denial{Kind: "NetworkPolicy", Namespace: p.Namespace, Name: p.Name, Direction: e.word()})
			wouldAllow = wouldAllow || allows
		case allows:
			return answer{says: accepts, reason: fmt.Sprintf("%s[%d] of NetworkPolicy %s/%s allows %s", e.word(), i, p.Namespace, p.Name, e)}
		default:
			enforced++
		}
	}
	switch {
	case enforced > 0 && e.flow.Src == e.flow.Dst:
		return answer{says: accepts, reason: fmt.Sprintf("%s reaches itself", e)}
	case enforced > 0:
		return answer{says: denies, reason: fmt.Sprintf("%s is isolated for %s by %d NetworkPolicies and no rule of theirs matches", e, e.word(), enforced)}
	case wouldAllow:
		return answer{}
	}
	return answer{noted: audited}
}

// policyAllows reports whether a rule of the policy matches, and which.
func (c Cluster) policyAllows(p *networkingv1.NetworkPolicy, e end) (bool, int) {
	for i, r := range rulesOf(p, e.direction) {
		if c.peersMatch(p.Namespace, r.peers, e.remote) && c.portsMatch(r.ports, e.flow) {
			return true, i
		}
	}
	return false, 0
}

// word is the direction in small letters, as fields of the API and denials have it.
func (e end) word() string { return strings.ToLower(string(e.direction)) }
