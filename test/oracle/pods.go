package oracle

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// owner is the pod that holds an address now, or nil.
//
// A host-network pod has its node's address, which belongs to no pod. A pod that ran to its end has given
// its address back, whatever its status still says. Where two pods hold the address, one of them is about to go or
// its status is stale: the pod that stays wins over the one that is being deleted, then the younger, then
// the one with the greater UID.
func (c Cluster) owner(a netip.Addr) *corev1.Pod {
	var best *corev1.Pod
	for _, p := range c.Pods {
		if holds(p, a) && (best == nil || outranks(p, best)) {
			best = p
		}
	}
	return best
}

// holds reports whether pod p lists a among its addresses and may.
func holds(p *corev1.Pod, a netip.Addr) bool {
	if p.Spec.HostNetwork || isOver(p) {
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
