package gen

import (
	"net/netip"
	"slices"
)

// podRanges are those that podAddress takes a node's addresses from.
func podRanges(node int) []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(node), 0}), 24),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x10, 0, 0x24, 0, byte(node)}), 64),
	}
}

// addGateways gives each node an address of its own in the range of its pods, as a bridge has.
func addGateways(c *Case) {
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.Addrs = append(slices.Clone(n.Addrs), gateway(n.Pods[0]), gateway(n.Pods[1]))
	}
}

// gatewayByte is the last byte of an address that no pod is given.
const gatewayByte = 77

// gateway is the node's own address in a range of its pods.
func gateway(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	bytes[len(bytes)-1] = gatewayByte
	a, _ := netip.AddrFromSlice(bytes)
	return a
}

// isGateway reports whether a is one of the node's own addresses in the range of its pods. The kernel takes it for the node's, whoever sends it.
func (n Node) isGateway(a netip.Addr) bool {
	return slices.Contains(n.Addrs, a) && slices.ContainsFunc(n.Pods, func(p netip.Prefix) bool { return p.Contains(a) })
}

// addClosed closes ranges on the nodes: mostly those of their pods, sometimes a half of them or one family alone, so that pods lie outside, sometimes
// one of another node, and on one node in six none. It draws after everything else.
func addClosed(s *Source, c *Case) {
	c.Cluster.Closed = map[string][]netip.Prefix{}
	for _, n := range c.Nodes {
		ranges := slices.Clone(n.Pods)
		switch s.intN(12) {
		case 6:
			ranges = []netip.Prefix{netip.PrefixFrom(ranges[0].Addr(), ranges[0].Bits()+1), ranges[1]}
		case 7:
			ranges = ranges[:1]
		case 8:
			ranges = append(ranges[1:], netip.PrefixFrom(ranges[1].Addr(), ranges[1].Bits()+4))
		case 9:
			ranges = append(ranges, pick(s, c.Nodes).Pods...)
		case 10, 11:
			continue
		}
		c.Cluster.Closed[n.Name] = ranges
	}
}
