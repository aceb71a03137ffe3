package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Link is the host's end of an interface that a pod of this node has. What a pod sends enters the host there and nowhere else, whatever source it claims.
type Link struct {
	// Name is the interface's in the host's network namespace, and Index the kernel's number of it: a link that is made anew under a name has another.
	Name  string
	Index int
	// Namespace and Pod name who has the other end; a link that is shut has names too, of the pod that was there last.
	Namespace, Pod string
	// Addrs are the addresses that the pod may send from, sorted. A link without any is shut: nothing that comes from it gets through.
	Addrs []netip.Addr
	// MAC is the hardware address of the other end where it matters, which is on a bridge: that sends frames where it has seen an address last. Empty if it is
	// not known, or does not matter.
	MAC string
	// Bridged is set for a port of a bridge: a frame that the bridge brings it, and that is for none of Addrs, does not get through. Policy, which knows pods
	// by their addresses, would not have been asked about it. What is for all pods does, unless Isolated is set: then a policy says who may reach the pod.
	Bridged, Isolated bool
}

// Equal reports whether two links are the same in all.
func (l Link) Equal(o Link) bool {
	return l.Name == o.Name && l.Index == o.Index && l.Namespace == o.Namespace && l.Pod == o.Pod && l.MAC == o.MAC && l.Bridged == o.Bridged &&
		l.Isolated == o.Isolated && slices.Equal(l.Addrs, o.Addrs)
}

// Tunnel is a way by which nodes send each other packets in packets: what a pod could say there would come out of the tunnel as if another node had sent it.
type Tunnel struct {
	Protocol Protocol
	// Port is the destination port, of UDP.
	Port uint16
}

// ports and types of what a pod has to send before it has an address, or to keep it.
const (
	dhcpClient, dhcpServer     = 68, 67
	dhcpv6Client, dhcpv6Server = 546, 547
)

// icmpv6 types, of RFC 4861 (neighbour discovery) and of RFC 3810 (which multicast groups have listeners).
const (
	routerSolicitation    = 133
	neighbourSolicitation = 135
	neighbourAdvert       = 136
	listenerReportV2      = 143
)

// ForbidsSource says why a flow does not get past the link that it comes from, empty if it does. What a [Flow] does not have is looked at beside that:
// neighbour discovery has a hop limit of 255 and is short; an ICMP error quotes a packet to the pod; a packet does not say its way (source routes, routing
// headers).
func (n *Node) ForbidsSource(f Flow) string {
	i := slices.IndexFunc(n.Links, func(l Link) bool { return l.Name == f.From })
	if f.From == "" || i < 0 {
		return ""
	}
	l := &n.Links[i]
	if slices.Contains(n.Tunnels, Tunnel{f.Protocol, f.DstPort}) {
		return fmt.Sprintf("%s %d is the nodes' own tunnel, and %s/%s is no node", f.Protocol, f.DstPort, l.Namespace, l.Pod)
	}
	if l.allows(f) {
		return ""
	}
	if len(l.Addrs) == 0 {
		return fmt.Sprintf("pod %s/%s is gone, and its interface %s is shut", l.Namespace, l.Pod, l.Name)
	}
	if f.isNeighbourDiscovery() && slices.Contains(l.Addrs, f.Src) {
		return fmt.Sprintf("ICMPv6 type %d of neighbour discovery is a router's, and %s/%s is none", f.ICMPType, l.Namespace, l.Pod)
	}
	return fmt.Sprintf("%s is no address of %s/%s, whose interface %s it comes from", f.Src, l.Namespace, l.Pod, l.Name)
}

func (l *Link) allows(f Flow) bool {
	own := slices.Contains(l.Addrs, f.Src)
	return own && !f.isNeighbourDiscovery() || len(l.Addrs) > 0 && f.findsAddresses(own)
}

// findsAddresses reports whether a flow is what a pod has to say before it has an address, or to keep it; own is set if it comes from one of the pod's.
func (f Flow) findsAddresses(own bool) bool {
	nobody := f.Src == netip.IPv6Unspecified() || f.Src.Is6() && f.Src.IsLinkLocalUnicast() // of the link alone
	switch {
	case f.isNeighbourDiscovery():
		return (own || nobody) && (f.ICMPType == routerSolicitation || f.ICMPType == neighbourSolicitation || f.ICMPType == neighbourAdvert)
	case f.Protocol == ICMPv6:
		return nobody && f.ICMPType == listenerReportV2
	case f.Protocol == UDP && f.Src == netip.IPv4Unspecified():
		return f.SrcPort == dhcpClient && f.DstPort == dhcpServer
	case f.Protocol == UDP && nobody:
		return f.Src != netip.IPv6Unspecified() && f.SrcPort == dhcpv6Client && f.DstPort == dhcpv6Server
	}
	return false
}

// shutEnd is the end of a flow that is of a pod which is gone, and whose interface is still there.
func (n *Node) shutEnd(f Flow) (netip.Addr, bool) {
	if n.Shut == "" {
		return netip.Addr{}, false
	}
	shut := func(a netip.Addr) bool { return n.has(n.Shut, Member{Addr: AddrOf(a)}) }
	if shut(f.Src) {
		return f.Src, true
	}
	return f.Dst, !f.ToNode && shut(f.Dst)
}

// holdsLinkLocal reports whether a flow is not forwarded because it is for an address of one link alone.
func (n *Node) holdsLinkLocal(f Flow) bool {
	return n.LinkLocalHeld && !f.ToNode && f.Dst.Is6() && f.Dst.IsLinkLocalUnicast()
}
