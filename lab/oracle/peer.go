package oracle

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// plain is a selector of our API in the words of Kubernetes'.
func plain(s v1alpha1.LabelSelector) metav1.LabelSelector {
	out := metav1.LabelSelector{MatchLabels: s.MatchLabels}
	for _, r := range s.MatchExpressions {
		out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{Key: r.Key, Operator: r.Operator, Values: r.Values})
	}
	return out
}

// isInNamespaces reports whether the pod's namespace matches.
func (c Cluster) isInNamespaces(s v1alpha1.LabelSelector, pod *corev1.Pod) bool {
	namespace := c.namespace(pod.Namespace)
	return namespace != nil && selects(plain(s), namespace.Labels)
}

// isNamespacedPod reports whether the pod matches, and its namespace too.
func (c Cluster) isNamespacedPod(s v1alpha1.NamespacedPod, pod *corev1.Pod) bool {
	return c.isInNamespaces(s.NamespaceSelector, pod) && selects(plain(s.PodSelector), pod.Labels)
}

// areUnderstoodPeers: "This field must be defined and contain at least one item."
func areUnderstoodPeers(peers []v1alpha1.Peer) bool {
	for _, p := range peers {
		if !isUnderstoodPeer(p) {
			return false
		}
	}
	return len(peers) > 0
}

// isUnderstoodPeer: "If an implementation sees no fields are set then it can infer that the deployed CRD is of an incompatible version
// with an unknown field." Domain names are not enforced, so they are not understood either.
func isUnderstoodPeer(p v1alpha1.Peer) bool {
	fields := 0
	understood := len(p.DomainNames) == 0
	if p.Namespaces != nil {
		fields++
		understood = understood && valid(plain(*p.Namespaces))
	}
	if p.Pods != nil {
		fields++
		understood = understood && valid(plain(p.Pods.NamespaceSelector)) && valid(plain(p.Pods.PodSelector))
	}
	if p.Nodes != nil {
		fields++
		understood = understood && valid(plain(*p.Nodes))
	}
	if len(p.Networks) > 0 {
		fields++
		for _, cidr := range p.Networks {
			_, ok := parseCIDR(string(cidr))
			understood = understood && ok
		}
	}
	return understood && fields == 1
}

// clusterPeersMatch: "If any element matches the source of incoming traffic then the specified action is applied", and the same for
// destinations. All peers are understood.
func (c Cluster) clusterPeersMatch(peers []v1alpha1.Peer, remote netip.Addr) bool {
	for _, p := range peers {
		if c.clusterPeerMatches(p, remote) {
			return true
		}
	}
	return false
}

func (c Cluster) clusterPeerMatches(p v1alpha1.Peer, remote netip.Addr) bool {
	pod := c.owner(remote)
	switch {
	case p.Namespaces != nil:
		return pod != nil && c.isInNamespaces(*p.Namespaces, pod)
	case p.Pods != nil:
		return pod != nil && c.isNamespacedPod(*p.Pods, pod)
	case p.Nodes != nil:
		return c.isNodeAddress(*p.Nodes, remote)
	}
	for _, text := range p.Networks {
		if cidr, ok := parseCIDR(string(text)); ok && cidr.Contains(remote) {
			return true
		}
	}
	return false
}

// isNodeAddress: "It selects the nodeIPs as the peer type by matching on the IPs present in the node.Status.Addresses field of the node." A link-local one
// means another host on each link, and what a pod of this node has is the pod's.
func (c Cluster) isNodeAddress(s v1alpha1.LabelSelector, a netip.Addr) bool {
	if pod := c.owner(a); isNobodys(a) || a.IsLinkLocalUnicast() || pod != nil && pod.Spec.NodeName == c.Judge {
		return false
	}
	for _, n := range c.Nodes {
		if !selects(plain(s), n.Labels) {
			continue
		}
		for _, address := range n.Status.Addresses {
			if parsed, err := netip.ParseAddr(address.Address); err == nil && parsed.Unmap() == a {
				return true
			}
		}
		if c.owner(a) == nil && isOfTunnelOrBridge(n, a) {
			return true
		}
	}
	return false
}

// isOfTunnelOrBridge: nodes "stands for all their addresses: those in their status, those of the tunnels and bridges to their pods". A tunnel, such as
// Flannel's, has the first address of the range of the node's pods, a bridge the one after it, unless a pod has it.
func isOfTunnelOrBridge(n *corev1.Node, a netip.Addr) bool {
	for _, text := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
		r, err := netip.ParsePrefix(text)
		if err != nil || r.IsSingleIP() {
			continue
		}
		if first := r.Masked().Addr(); a == first || a == first.Next() {
			return true
		}
	}
	return false
}

func areUnderstoodProtocols(protocols []v1alpha1.Protocol) bool {
	for _, p := range protocols {
		if !isUnderstoodProtocol(p) {
			return false
		}
	}
	return true
}

// isUnderstoodProtocol: "Exactly one field is set".
func isUnderstoodProtocol(p v1alpha1.Protocol) bool {
	fields, understood := 0, true
	for _, m := range []*v1alpha1.PortMatch{p.TCP, p.UDP, p.SCTP} {
		if m != nil {
			fields++
			understood = understood && isUnderstoodPort(m.DestinationPort)
		}
	}
	if p.DestinationNamedPort != "" {
		fields++
	}
	return understood && fields == 1
}

// isUnderstoodPort: "You must specify either Port or Range". A range of one port is tolerated.
func isUnderstoodPort(p *v1alpha1.Port) bool {
	switch {
	case p == nil:
		return true
	case p.Range == nil:
		return p.Number >= 1 && p.Number <= 65535
	case p.Number != 0:
		return false
	}
	return p.Range.Start >= 1 && p.Range.Start <= p.Range.End && p.Range.End <= 65535
}

// protocolsMatch reports whether the flow is of one of the protocols; "without them it is for all, ICMP included". All are understood.
func (c Cluster) protocolsMatch(protocols []v1alpha1.Protocol, f Flow) bool {
	if len(protocols) == 0 {
		return true
	}
	for _, p := range protocols {
		if c.protocolMatches(p, f) {
			return true
		}
	}
	return false
}

func (c Cluster) protocolMatches(p v1alpha1.Protocol, f Flow) bool {
	if p.DestinationNamedPort != "" {
		// "the container ports of this name, of any protocol, on the destination pod"
		dst := c.owner(f.Dst)
		return dst != nil && servesNamedPort(dst, p.DestinationNamedPort, f.Protocol, f.DstPort)
	}
	match := map[Protocol]*v1alpha1.PortMatch{TCP: p.TCP, UDP: p.UDP, SCTP: p.SCTP}[f.Protocol]
	switch {
	case match == nil:
		return false
	case match.DestinationPort == nil:
		return true
	case match.DestinationPort.Range != nil:
		r := match.DestinationPort.Range
		return r.Start <= int32(f.DstPort) && int32(f.DstPort) <= r.End
	}
	return match.DestinationPort.Number == int32(f.DstPort)
}
