package gen

import (
	"fmt"
	"slices"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// addLongLists gives one or two cluster policies so many rules that their lists are long: for all pods, and each for few packets, so that a packet gets far in
// them. It draws after everything else.
func addLongLists(s *Source, c *Case, o Options) {
	for i := range s.between(1, 2) {
		d := tierDrawer{drawer: drawer{s, *c, o.forOneObject(s)}}
		p := &v1alpha1.ClusterNetworkPolicy{}
		p.Name = fmt.Sprintf("long-%d", i)
		p.Spec = v1alpha1.ClusterNetworkPolicySpec{
			Tier: d.tier(), Priority: pick(s, []int32{0, 1, 2}), Mode: pick(s, []v1alpha1.Mode{v1alpha1.Enforce, "", v1alpha1.Enforce, v1alpha1.Audit}),
			Subject: v1alpha1.Subject{Namespaces: &v1alpha1.LabelSelector{}},
		}
		like := longList{d, s.intN(3), d.narrowProtocols()}
		for range s.between(3, 50) {
			r := v1alpha1.IngressRule{Action: d.action(), From: like.peers(), Protocols: like.protocols()}
			r.Log = r.Action == v1alpha1.Deny && s.oneIn(6)
			p.Spec.Ingress = append(p.Spec.Ingress, r)
		}
		for range s.between(3, 50) {
			r := v1alpha1.EgressRule{Action: d.action(), To: like.peers(), Protocols: like.protocols()}
			r.Log = r.Action == v1alpha1.Deny && s.oneIn(6)
			p.Spec.Egress = append(p.Spec.Egress, r)
		}
		c.Cluster.ClusterPolicies = append(c.Cluster.ClusterPolicies, p)
	}
}

// longList draws the rules of a long list. Most are alike: for the same ports, for single ports, or for any of these.
type longList struct {
	tierDrawer
	kind int
	same []v1alpha1.Protocol
}

func (l longList) protocols() []v1alpha1.Protocol {
	switch {
	case l.oneIn(12):
		return l.tierDrawer.protocols()
	case l.kind == 0, l.kind == 1 && l.oneIn(2):
		return l.same
	}
	return l.narrowProtocols()
}

// narrowProtocols are a port or two of one protocol each, and seldom all.
func (d tierDrawer) narrowProtocols() []v1alpha1.Protocol {
	if d.oneIn(10) {
		return nil
	}
	var out []v1alpha1.Protocol
	numbers := append(slices.Clone(portNumbers), 2, 84, 443, 32767, 32768)
	for range pick(d.Source, []int{1, 1, 1, 2}) {
		match := &v1alpha1.PortMatch{DestinationPort: &v1alpha1.Port{Number: pick(d.Source, numbers)}}
		out = append(out, pick(d.Source, []v1alpha1.Protocol{{TCP: match}, {UDP: match}, {TCP: match}, {SCTP: match}}))
	}
	return out
}

// peers are mostly the pods with two labels in the namespaces with another, so that few packets match.
func (l longList) peers() []v1alpha1.Peer {
	if l.oneIn(8) {
		return l.clusterPeers(false)
	}
	labels := func(n int) v1alpha1.LabelSelector {
		m := map[string]v1alpha1.LabelValue{}
		for range n {
			m[pick(l.Source, labelKeys)] = v1alpha1.LabelValue(pick(l.Source, labelValues))
		}
		return v1alpha1.LabelSelector{MatchLabels: m}
	}
	return []v1alpha1.Peer{{Pods: &v1alpha1.NamespacedPod{NamespaceSelector: labels(pick(l.Source, []int{1, 0, 2})), PodSelector: labels(2)}}}
}
