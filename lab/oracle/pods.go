package oracle

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// owner is the pod that holds an address now, as the judging node sees it, or nil.
//
// A host-network pod has its node's address, which belongs to no pod. A pod that ran to its end has given
// its address back, whatever its status still says. Where several pods hold the address:
//
//   - "a pod of this node keeps its own against any claim from elsewhere";
//   - of two pods of one node, one is about to go or its status is stale: the pod that stays wins over the one that is being deleted, then the
//     younger, then the one with the greater UID;
//   - of pods of several other nodes, one whose node names other ranges for its pods loses, then the younger, then the one with the greater UID.
func (c Cluster) owner(a netip.Addr) *corev1.Pod {
	var here, fitting, elsewhere *corev1.Pod
	for _, p := range c.Pods {
		switch {
		case !holds(p, a) || !c.isFirstOfItsNode(p, a):
		case p.Spec.NodeName == c.Judge:
			here = p
		case a.IsLinkLocalUnicast(): // which means a host on this node's own links
		case c.fits(p.Spec.NodeName, a):
			fitting = older(fitting, p)
		default:
			elsewhere = older(elsewhere, p)
		}
	}
	for _, p := range []*corev1.Pod{here, fitting} {
		if p != nil {
			return p
		}
	}
	return elsewhere
}

// isFirstOfItsNode reports whether no other pod of p's node takes the address from it.
func (c Cluster) isFirstOfItsNode(p *corev1.Pod, a netip.Addr) bool {
	for _, q := range c.Pods {
		if q != p && q.Spec.NodeName == p.Spec.NodeName && holds(q, a) && outranks(q, p) {
			return false
		}
	}
	return true
}

// fits reports whether a node may have given a pod the address, by the ranges of the address's family that it names: "the pod IP ranges for usage by
// the node".
func (c Cluster) fits(node string, a netip.Addr) bool {
	fits := true
	for _, n := range c.Nodes {
		if n.Name != node {
			continue
		}
		for _, text := range n.Spec.PodCIDRs {
			cidr, ok := parseCIDR(text)
			if ok && cidr.Contains(a) {
				return true
			}
			fits = fits && !(ok && cidr.Addr().Is4() == a.Is4())
		}
	}
	return fits
}

func older(p, q *corev1.Pod) *corev1.Pod {
	if p == nil || q.CreationTimestamp.Time.Before(p.CreationTimestamp.Time) || q.CreationTimestamp.Equal(&p.CreationTimestamp) && q.UID < p.UID {
		return q
	}
	return p
}

// holders are the pods that hold an address on their own nodes: each node decides for its own.
func (c Cluster) holders(a netip.Addr) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range c.Pods {
		if c.seenFrom(p.Spec.NodeName).owner(a) == p {
			out = append(out, p)
		}
	}
	return out
}

// isNobodys reports an address that no pod, and no node that others reach, can have.
func isNobodys(a netip.Addr) bool {
	return a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// holds reports whether pod p lists a among its addresses and may.
func holds(p *corev1.Pod, a netip.Addr) bool {
	if p.Spec.HostNetwork || isOver(p) || isNobodys(a) {
		return false
	}
	// "If this field is specified, the 0th entry must match the podIP field."
	for _, ip := range append([]corev1.PodIP{{IP: p.Status.PodIP}}, p.Status.PodIPs...) {
		if parsed, err := netip.ParseAddr(ip.IP); err == nil && parsed.Unmap() == a {
			return true
		}
	}
	return false
}

// isOver reports a pod whose containers have all ended for good.
func isOver(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// outranks reports whether p rather than q holds an address that both list.
func outranks(p, q *corev1.Pod) bool {
	pStays, qStays := p.DeletionTimestamp == nil, q.DeletionTimestamp == nil
	if pStays != qStays {
		return pStays
	}
	if !p.CreationTimestamp.Time.Equal(q.CreationTimestamp.Time) {
		return p.CreationTimestamp.After(q.CreationTimestamp.Time)
	}
	return p.UID > q.UID
}

// namespace is the namespace of that name, or nil.
func (c Cluster) namespace(name string) *corev1.Namespace {
	for _, n := range c.Namespaces {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// servesNamedPort reports whether the pod lists a container port of that name, protocol and number. Init
// containers count, as those that restart always run beside the others.
func servesNamedPort(p *corev1.Pod, name string, protocol Protocol, number uint16) bool {
	if name == "" {
		return false
	}
	var all []corev1.Container
	all = append(all, p.Spec.InitContainers...)
	all = append(all, p.Spec.Containers...)
	for _, container := range all {
		for _, port := range container.Ports {
			// "Protocol for port. Must be UDP, TCP, or SCTP. Defaults to "TCP"."
			declared := port.Protocol
			if declared == "" {
				declared = corev1.ProtocolTCP
			}
			given, known := protocolNumber(declared)
			if port.Name == name && known && given == protocol && port.ContainerPort == int32(number) && number != 0 {
				return true
			}
		}
	}
	return false
}

// protocolNumber is the IP protocol that the API's name means.
func protocolNumber(p corev1.Protocol) (Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP:
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}
