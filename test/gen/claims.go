package gen

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// impossible are addresses that neither a pod nor a node can have, of each kind; the last two can be a pod's, on its own node.
var impossible = []string{
	"0.0.0.0", "::", "::ffff:0.0.0.0", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255", "169.254.7.7", "fe80::7",
}

// addClaims has some of what kubelets write be wrong. It draws after everything else.
//
//   - In one case of four all nodes give their pods addresses of one range, so that many pods have the same; else a few pods are shown with addresses of
//     others, besides their own or in their place.
//   - Some pods and nodes have an address of impossible, and some nodes one of a pod.
//   - Some nodes name ranges: those of their pods, or those of another node.
func addClaims(s *Source, c *Case) {
	pods := c.Cluster.Pods
	if s.oneIn(4) {
		for _, p := range pods {
			for i := range p.Status.PodIPs {
				if a, err := netip.ParseAddr(p.Status.PodIPs[i].IP); err == nil && !p.Spec.HostNetwork {
					p.Status.PodIPs[i].IP = inFirstRange(a, c.Nodes).String()
				}
			}
			if len(p.Status.PodIPs) > 0 {
				p.Status.PodIP = p.Status.PodIPs[0].IP
			}
		}
	} else {
		for range s.between(1, 4) {
			if victim := pick(s, pods); !victim.Spec.HostNetwork {
				claim(s, pick(s, pods), addressesOf(victim))
			}
		}
	}
	for range s.intN(3) {
		claim(s, pick(s, pods), []netip.Addr{netip.MustParseAddr(pick(s, impossible))})
	}
	for i, n := range c.Cluster.Nodes {
		if s.oneIn(3) {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: pick(s, impossible)})
		}
		if addrs := addressesOf(pick(s, pods)); s.oneIn(4) && len(addrs) > 0 && !isImpossible(addrs[0]) {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: addrs[0].String()})
		}
		ranges := c.Nodes[i].Pods
		switch s.intN(5) {
		case 3:
			ranges = pick(s, c.Nodes).Pods
		case 4:
			continue
		}
		for _, r := range ranges {
			n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, r.String())
		}
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
}

// claim gives a pod some of the addresses, besides its own or in their place.
func claim(s *Source, p *corev1.Pod, addrs []netip.Addr) {
	if s.oneIn(3) {
		p.Status.PodIP, p.Status.PodIPs = "", nil
	}
	for _, a := range addrs {
		if s.oneIn(4) {
			continue
		}
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	if len(p.Status.PodIPs) > 0 {
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
}

func isImpossible(a netip.Addr) bool {
	return slices.ContainsFunc(impossible, func(text string) bool { return netip.MustParseAddr(text).Unmap() == a })
}

// inFirstRange is the address of the first node's range that has a's place in that of its own.
func inFirstRange(a netip.Addr, nodes []Node) netip.Addr {
	for _, n := range nodes {
		for i, r := range n.Pods {
			if r.Contains(a) {
				bytes, first := a.AsSlice(), nodes[0].Pods[i].Addr().AsSlice()
				copy(bytes, first[:r.Bits()/8])
				moved, _ := netip.AddrFromSlice(bytes)
				return moved
			}
		}
	}
	return a
}
