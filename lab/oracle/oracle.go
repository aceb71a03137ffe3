// Package oracle judges flows by the API texts alone.
//
// It answers two questions, slowly and in plain sight: may this first packet of a connection pass, given these pods, namespaces, nodes
// and policies? And what would objects that are only audited have denied of it? It is written from the doc comments of
// networking.k8s.io/v1, policy.networking.k8s.io/v1beta1 and policy.ringfence.io/v1alpha1 and from the project's semantics table, to be
// compared with what the enforcer computes.
//
// Invariants:
//   - it shares no code with the enforcer, nor with apimachinery's selectors: two programs that agree
//     because they call the same function prove nothing;
//   - nothing is precomputed or kept: each question is answered by reading all objects again;
//   - it takes objects as they are, also those that the API server would refuse. Such an object never
//     opens traffic: what is invalid matches nothing where it would allow, and everything where it would not.
package oracle

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// Cluster is all that decides about a flow.
type Cluster struct {
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
	Nodes      []*corev1.Node
	Policies   []*networkingv1.NetworkPolicy
	// ClusterPolicies are ours and the SIG's. The SIG's are converted and keep their own APIVersion.
	ClusterPolicies []*v1alpha1.ClusterNetworkPolicy
	Isolations      []*v1alpha1.NamespaceIsolation
	// DNSServices are the Services of the cluster's DNS, and DNSAddresses where nodes serve DNS themselves.
	DNSServices  []*corev1.Service
	DNSAddresses []netip.Addr
	// Closed are, by node, the address ranges of its pods in which nothing passes that no pod is known to hold, where a node is run so.
	Closed map[string][]netip.Prefix

	// Judge is the node that judges, empty for all together: where pods contest an address, nodes may differ about whose it is. It is set by who is asked.
	Judge string
}

// seenFrom is the cluster as a node sees it.
func (c Cluster) seenFrom(node string) Cluster {
	c.Judge = node
	return c
}

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that have ports in the API, and the two whose packets are typed.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// String is the name of the protocol in capitals, as the API writes it, or its number.
func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "ICMP"
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case ICMPv6:
		return "ICMPv6"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Flow is the first packet of a connection, after destination NAT and before masquerading.
type Flow struct {
	Src, Dst netip.Addr
	Protocol Protocol
	// DstPort counts for TCP, UDP and SCTP.
	DstPort uint16
	// ICMPType counts for ICMP and ICMPv6.
	ICMPType uint8
	// FromNode names the node whose own processes, or host-network pods, send the packet. It is empty
	// when the packet comes from a pod or from outside.
	FromNode string
	// ToNode names the node that has the destination address itself, if one has.
	ToNode string
}

// String reads as a person would say it.
func (f Flow) String() string {
	s := fmt.Sprintf("%s -> %s %s", f.Src, f.Dst, f.Protocol)
	switch f.Protocol {
	case TCP, UDP, SCTP:
		s += fmt.Sprintf("/%d", f.DstPort)
	case ICMP, ICMPv6:
		s += fmt.Sprintf(" type %d", f.ICMPType)
	}
	if f.FromNode != "" {
		s += " sent by node " + f.FromNode
	}
	return s
}

// direction is one of the two policy types.
type direction = networkingv1.PolicyType

const (
	ingress = networkingv1.PolicyTypeIngress
	egress  = networkingv1.PolicyTypeEgress
)

// Allowed reports whether the flow may pass from end to end, and why.
func (c Cluster) Allowed(f Flow) (bool, string) {
	if f.isNeighbourDiscovery() {
		return true, "neighbour discovery is never dropped"
	}
	for node := range c.Closed {
		if reason := c.closed(node, f); reason != "" {
			return false, reason
		}
	}
	reason := ""
	for _, src := range c.holders(f.Src) {
		sent := c.seenFrom(src.Spec.NodeName).leaving(src, f)
		if !sent.allowed {
			return false, sent.reason
		}
		reason += sent.reason + "; "
	}
	for _, dst := range c.holders(f.Dst) {
		received := c.seenFrom(dst.Spec.NodeName).entering(dst, f)
		if !received.allowed {
			return false, received.reason
		}
		reason += received.reason + "; "
	}
	return true, reason + "and nothing else is asked"
}

// AllowedAt reports whether one node must let the flow pass, and why. A node enforces the egress of the
// source where that is one of its pods, and the ingress of the destination likewise.
func (c Cluster) AllowedAt(node string, f Flow) (bool, string) {
	v := c.at(node, f)
	return v.allowed, v.reason
}

// verdict is what the policies of a cluster say of a flow, and what audited ones would have denied of it.
type verdict struct {
	allowed bool
	reason  string
	noted   []Denial
}

// at judges the ends of the flow that are pods of the node: egress first, and where it denies, ingress is not asked.
func (c Cluster) at(node string, f Flow) verdict {
	c = c.seenFrom(node)
	if f.FromNode == node && node != "" {
		return verdict{allowed: true, reason: "the node sends it itself"}
	}
	if f.isNeighbourDiscovery() {
		return verdict{allowed: true, reason: "neighbour discovery is never dropped"}
	}
	if reason := c.closed(node, f); reason != "" {
		return verdict{reason: reason}
	}
	src, dst := c.owner(f.Src), c.owner(f.Dst)
	v := verdict{allowed: true, reason: "neither end is a pod of this node"}
	if src != nil && src.Spec.NodeName == node {
		v = c.leaving(src, f)
		if !v.allowed {
			return v
		}
	}
	if dst != nil && dst.Spec.NodeName == node {
		received := c.entering(dst, f)
		received.noted = append(received.noted, v.noted...)
		v = received
	}
	return v
}

// leaving judges the egress of the pod that holds the source address.
func (c Cluster) leaving(src *corev1.Pod, f Flow) verdict {
	return c.judge(end{pod: src, direction: egress, remote: f.Dst, flow: f})
}

// entering judges the ingress of the pod that holds the destination address.
func (c Cluster) entering(dst *corev1.Pod, f Flow) verdict {
	// "OR if the traffic source is the pod's local node"
	if f.FromNode != "" && f.FromNode == dst.Spec.NodeName {
		return verdict{allowed: true, reason: "the destination's own node sends it"}
	}
	return c.judge(end{pod: dst, direction: ingress, remote: f.Src, flow: f})
}

// isNeighbourDiscovery reports the five message types of RFC 4861, without which IPv6 has no link.
func (f Flow) isNeighbourDiscovery() bool {
	return f.Protocol == ICMPv6 && f.Dst.Is6() && f.ICMPType >= 133 && f.ICMPType <= 137
}
