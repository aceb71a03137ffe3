package gen

import (
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/test/oracle"
)

// outsiders are addresses that nobody has.
var outsiders = []netip.Addr{
	netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("10.244.0.200"), netip.MustParseAddr("10.0.0.1"),
	netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("fd00:10:24::200"), netip.MustParseAddr("fe80::1"),
}

// addresses are those of the pods, of the nodes and of outsiders.
func (c Case) addresses() []netip.Addr {
	out := c.podAddresses()
	for _, n := range c.Nodes {
		out = append(out, n.Addrs...)
	}
	return append(out, outsiders...)
}

func (c Case) podAddresses() []netip.Addr {
	var out []netip.Addr
	for _, p := range c.Cluster.Pods {
		for _, ip := range p.Status.PodIPs {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}

// edges are the first and last addresses of all blocks and exceptions, and their neighbours outside.
func (c Case) edges() []netip.Addr {
	var out []netip.Addr
	add := func(text string) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return
		}
		first, last := p.Masked().Addr(), lastOf(p)
		for _, a := range []netip.Addr{first, last, first.Prev(), last.Next()} {
			if a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
				out = append(out, a)
			}
		}
	}
	for _, peer := range c.peers() {
		if peer.IPBlock != nil {
			add(peer.IPBlock.CIDR)
			for _, x := range peer.IPBlock.Except {
				add(x)
			}
		}
	}
	return out
}

// peers are those of all rules of all policies.
func (c Case) peers() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for _, p := range c.Cluster.Policies {
		for _, r := range p.Spec.Ingress {
			out = append(out, r.From...)
		}
		for _, r := range p.Spec.Egress {
			out = append(out, r.To...)
		}
	}
	return out
}

// lastOf is the last address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Flows draws n flows that are likely to meet the cluster's policies: mostly between pods, else to and from block
// edges, nodes and outsiders, on ports that containers and policies name, and on their neighbours.
func Flows(s *Source, c Case, n int) []oracle.Flow {
	ends := map[bool]*struct{ pods, edges, all []netip.Addr }{true: {}, false: {}}
	for _, a := range c.podAddresses() {
		ends[a.Is4()].pods = append(ends[a.Is4()].pods, a)
	}
	for _, a := range c.edges() {
		ends[a.Is4()].edges = append(ends[a.Is4()].edges, a)
	}
	for _, a := range c.addresses() {
		ends[a.Is4()].all = append(ends[a.Is4()].all, a)
	}
	var out []oracle.Flow
	for range n {
		e := ends[s.intN(2) == 0]
		end := func() netip.Addr {
			switch k := s.intN(10); {
			case k < 6 && len(e.pods) > 0:
				return pick(s, e.pods)
			case k < 8 && len(e.edges) > 0:
				return pick(s, e.edges)
			}
			return pick(s, e.all)
		}
		f := oracle.Flow{Src: end(), Dst: end()}
		setProtocol(s, &f)
		for _, node := range c.Nodes {
			for _, a := range node.Addrs {
				if a == f.Src && s.oneIn(2) {
					f.FromNode = node.Name
				}
			}
		}
		out = append(out, f)
	}
	return out
}

func setProtocol(s *Source, f *oracle.Flow) {
	switch k := s.intN(16); {
	case k < 7:
		f.Protocol = oracle.TCP
	case k < 10:
		f.Protocol = oracle.UDP
	case k < 13:
		f.Protocol = oracle.SCTP
	case k < 15 && f.Src.Is4():
		f.Protocol, f.ICMPType = oracle.ICMP, pick(s, []uint8{8, 0, 13})
		return
	case k < 15:
		f.Protocol, f.ICMPType = oracle.ICMPv6, pick(s, []uint8{128, 129, 132, 133, 134, 135, 136, 137, 138})
		return
	default:
		f.Protocol = 47
		return
	}
	f.DstPort = uint16(pick(s, portNumbers))
	switch s.intN(8) {
	case 6:
		f.DstPort++ // 65535 becomes 0
	case 7:
		f.DstPort--
	}
}
