// Package oracle judges flows by the Kubernetes API texts alone.
//
// It answers one question, slowly and in plain sight: may this first packet of a connection pass, given
// these pods, namespaces and policies? It is written from the doc comments of networking.k8s.io/v1 and
// from the project's semantics table, to be compared with what the enforcer computes.
//
// Invariants:
//   - it shares no code with the enforcer, nor with apimachinery's selectors: two programs that agree
//     because they call the same function prove nothing;
//   - nothing is precomputed, cached or sorted: each question is answered by reading all objects again;
//   - it takes objects as they are, also those that the API server would refuse. Such an object never
//     opens traffic: each invalid part matches nothing.
package oracle

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Cluster is all that decides about a flow.
type Cluster struct {
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
	Policies   []*networkingv1.NetworkPolicy
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
	ok, sent := c.mayLeave(c.owner(f.Src), f)
	if !ok {
		return false, sent
	}
	ok, received := c.mayEnter(c.owner(f.Dst), f)
	if !ok {
		return false, received
	}
	return true, sent + "; " + received
}

// AllowedAt reports whether one node must let the flow pass, and why. A node enforces the egress of the
// source where that is one of its pods, and the ingress of the destination likewise.
func (c Cluster) AllowedAt(node string, f Flow) (bool, string) {
	if f.FromNode == node && node != "" {
		return true, "the node sends it itself"
	}
	if f.isNeighbourDiscovery() {
		return true, "neighbour discovery is never dropped"
	}
	src, dst := c.owner(f.Src), c.owner(f.Dst)
	why := "neither end is a pod of this node"
	if src != nil && src.Spec.NodeName == node {
		ok, reason := c.mayLeave(src, f)
		if !ok {
			return false, reason
		}
		why = reason
	}
	if dst != nil && dst.Spec.NodeName == node {
		ok, reason := c.mayEnter(dst, f)
		if !ok {
			return false, reason
		}
		why = reason
	}
	return true, why
}

// mayLeave judges the egress of the pod that holds the source address.
func (c Cluster) mayLeave(src *corev1.Pod, f Flow) (bool, string) {
	if src == nil {
		return true, "the source is no pod"
	}
	return c.judge(src, egress, f.Dst, f)
}

// mayEnter judges the ingress of the pod that holds the destination address.
func (c Cluster) mayEnter(dst *corev1.Pod, f Flow) (bool, string) {
	if dst == nil {
		return true, "the destination is no pod"
	}
	// "OR if the traffic source is the pod's local node"
	if f.FromNode != "" && f.FromNode == dst.Spec.NodeName {
		return true, "the destination's own node sends it"
	}
	return c.judge(dst, ingress, f.Src, f)
}

// judge asks all policies about one end of the flow. "Traffic is allowed to a pod if there are no
// NetworkPolicies selecting the pod, OR ... if the traffic matches at least one ingress rule across all of
// the NetworkPolicy objects whose podSelector matches the pod", and the same for egress.
func (c Cluster) judge(pod *corev1.Pod, d direction, remote netip.Addr, f Flow) (bool, string) {
	if f.Src == f.Dst {
		return true, fmt.Sprintf("pod %s/%s reaches itself", pod.Namespace, pod.Name)
	}
	isolated := 0
	for _, p := range c.Policies {
		if !isolates(p, pod, d) {
			continue
		}
		isolated++
		for i, r := range rulesOf(p, d) {
			if c.peersMatch(p.Namespace, r.peers, remote) && c.portsMatch(r.ports, f) {
				return true, fmt.Sprintf("%s[%d] of policy %s/%s allows pod %s/%s", d, i, p.Namespace, p.Name, pod.Namespace, pod.Name)
			}
		}
	}
	if isolated == 0 {
		return true, fmt.Sprintf("pod %s/%s is not isolated for %s", pod.Namespace, pod.Name, d)
	}
	return false, fmt.Sprintf("pod %s/%s is isolated for %s by %d policies and no rule of theirs matches", pod.Namespace, pod.Name, d, isolated)
}

// isNeighbourDiscovery reports the five message types of RFC 4861, without which IPv6 has no link.
func (f Flow) isNeighbourDiscovery() bool {
	return f.Protocol == ICMPv6 && f.Dst.Is6() && f.ICMPType >= 133 && f.ICMPType <= 137
}
