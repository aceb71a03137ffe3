package oracle

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// rule is an ingress or an egress rule; peers is the from or the to list.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// isolates reports whether the policy applies to the pod in that direction. A policy whose podSelector
// is invalid might have meant any pod of its namespace, so it isolates all of them.
func isolates(p *networkingv1.NetworkPolicy, pod *corev1.Pod, d direction) bool {
	if p.Namespace != pod.Namespace {
		return false
	}
	if valid(p.Spec.PodSelector) && !selects(p.Spec.PodSelector, pod.Labels) {
		return false
	}
	for _, t := range typesOf(p) {
		// A type that nobody knows might have meant either direction.
		if t == d || t != ingress && t != egress {
			return true
		}
	}
	return false
}

// typesOf are the policy's types with their default: "policies that contain an egress section are assumed to
// affect egress, and all policies (whether or not they contain an ingress section) are assumed to affect ingress."
// An empty list is no egress section: "you must specify a policyTypes value that include "Egress" (since
// such a policy would not include an egress section and would otherwise default to just [ "Ingress" ])".
func typesOf(p *networkingv1.NetworkPolicy) []direction {
	if len(p.Spec.PolicyTypes) > 0 {
		return p.Spec.PolicyTypes
	}
	if len(p.Spec.Egress) > 0 {
		return []direction{ingress, egress}
	}
	return []direction{ingress}
}

// rulesOf are the rules that the policy has for a direction. A policy whose podSelector is invalid has none, and so has
// one that isolates in the direction only because it names a type that nobody knows.
func rulesOf(p *networkingv1.NetworkPolicy, d direction) []rule {
	if !valid(p.Spec.PodSelector) || !slices.Contains(typesOf(p), d) {
		return nil
	}
	var rules []rule
	switch d {
	case ingress:
		for _, r := range p.Spec.Ingress {
			rules = append(rules, rule{r.From, r.Ports})
		}
	case egress:
		for _, r := range p.Spec.Egress {
			rules = append(rules, rule{r.To, r.Ports})
		}
	}
	return rules
}

// peersMatch reports whether the remote address is in one of the peers. "If this field is empty or
// missing, this rule matches all sources."
func (c Cluster) peersMatch(policyNamespace string, peers []networkingv1.NetworkPolicyPeer, remote netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	for _, peer := range peers {
		if c.peerMatches(policyNamespace, peer, remote) {
			return true
		}
	}
	return false
}

func (c Cluster) peerMatches(policyNamespace string, peer networkingv1.NetworkPolicyPeer, remote netip.Addr) bool {
	if peer.IPBlock != nil {
		// "If this field is set then neither of the other fields can be."
		return peer.PodSelector == nil && peer.NamespaceSelector == nil && blockMatches(*peer.IPBlock, remote)
	}
	if peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return false
	}
	pod := c.owner(remote)
	if pod == nil {
		return false
	}
	if peer.PodSelector != nil && !selects(*peer.PodSelector, pod.Labels) {
		return false
	}
	if peer.NamespaceSelector == nil {
		// "Otherwise it selects the pods matching podSelector in the policy's own namespace."
		return pod.Namespace == policyNamespace
	}
	namespace := c.namespace(pod.Namespace)
	return namespace != nil && selects(*peer.NamespaceSelector, namespace.Labels)
}

// blockMatches reports whether an address is in the block and in none of its exceptions. A block with an
// exception that is no CIDR, or not a part of the block, matches nothing: what it should have kept out is unknown.
func blockMatches(b networkingv1.IPBlock, a netip.Addr) bool {
	cidr, ok := parseCIDR(b.CIDR)
	if !ok {
		return false
	}
	for _, text := range b.Except {
		except, ok := parseCIDR(text)
		// "Except values will be rejected if they are outside the cidr range"
		if !ok || !cidr.Contains(except.Addr()) || except.Bits() <= cidr.Bits() {
			return false
		}
	}
	if !cidr.Contains(a) {
		return false
	}
	for _, text := range b.Except {
		if except, _ := parseCIDR(text); except.Contains(a) {
			return false
		}
	}
	return true
}

// parseCIDR reads an IPv4 or IPv6 CIDR. Bits behind the prefix length do not count. Two forms are read as the API
// server reads them in objects that are older than its strict parsing: decimal numbers with leading zeros, and an IPv4
// network written as an IPv4-mapped IPv6 network.
func parseCIDR(text string) (netip.Prefix, bool) {
	ip, length, ok := strings.Cut(text, "/")
	if !ok {
		return netip.Prefix{}, false
	}
	if !strings.Contains(ip, ":") {
		octets := strings.Split(ip, ".")
		for i := range octets {
			octets[i] = withoutLeadingZeros(octets[i])
		}
		ip = strings.Join(octets, ".")
	}
	p, err := netip.ParsePrefix(ip + "/" + withoutLeadingZeros(length))
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

func withoutLeadingZeros(number string) string {
	for len(number) > 1 && number[0] == '0' {
		number = number[1:]
	}
	return number
}

// portsMatch reports whether the flow goes to one of the ports. "If this field is empty or missing, this
// rule matches all ports", and with them the protocols that have none.
func (c Cluster) portsMatch(ports []networkingv1.NetworkPolicyPort, f Flow) bool {
	if len(ports) == 0 {
		return true
	}
	for _, port := range ports {
		if c.portMatches(port, f) {
			return true
		}
	}
	return false
}

func (c Cluster) portMatches(port networkingv1.NetworkPolicyPort, f Flow) bool {
	protocol := TCP // "If not specified, this field defaults to TCP."
	if port.Protocol != nil {
		known := false
		if protocol, known = protocolNumber(*port.Protocol); !known {
			return false
		}
	}
	if f.Protocol != protocol {
		return false
	}
	switch {
	case port.Port == nil:
		// "This field cannot be defined if the port field is not defined or if the port field is defined as
		// a named (string) port."
		return port.EndPort == nil
	case port.Port.Type == intstr.String:
		if port.EndPort != nil {
			return false
		}
		dst := c.owner(f.Dst)
		return dst != nil && servesNamedPort(dst, port.Port.StrVal, protocol, f.DstPort)
	case port.Port.Type != intstr.Int:
		return false
	}
	first, last := port.Port.IntVal, port.Port.IntVal
	if port.EndPort != nil {
		last = *port.EndPort
	}
	if first < 1 || last > 65535 || last < first {
		return false
	}
	return first <= int32(f.DstPort) && int32(f.DstPort) <= last
}
