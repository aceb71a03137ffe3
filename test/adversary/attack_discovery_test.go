package adversary

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/probe"
)

const noICMP = "a socket without rights sends echo requests alone"

// discoveryAttacks hide in neighbour discovery and its relatives, which no policy can do without.
func discoveryAttacks() []attack {
	var all []attack
	for kind := uint8(probe.RouterSolicitation); kind <= probe.Redirect; kind++ {
		for _, v := range []struct {
			name string
			hops uint8
			size int
		}{{"a payload", 255, 200}, {"a hop limit that no link-local message has", 64, 0}, {"a hop limit of 1", 1, 0}} {
			all = append(all, attack{
				name: fmt.Sprintf("discovery: ICMPv6 %d with %s", kind, v.name), finding: "A6", duels: slices.Concat(near, home), noSockets: noICMP,
				without: []exception{onARoute, sameAsIPv6},
				raw: func(b *bout) {
					p := probe.Discovery(b.srcLL(), b.dstLL(), kind, 0, b.dstLL(), probe.Option(253, append(b.payload()[:8], make([]byte, v.size)...)))
					p.HopLimit = v.hops
					b.packet(p)
				},
			})
		}
	}
	return append(all, furtherDiscoveryAttacks...)
}

var furtherDiscoveryAttacks = []attack{{
	name: "discovery: a router solicitation to a pod", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		p := probe.ICMP(b.srcLL(), b.dstLL(), probe.RouterSolicitation, 0, 0, probe.Option(14, b.payload()[:8]))
		p.HopLimit = 255
		b.packet(p)
	},
}, {
	name: "discovery: a router solicitation to all pods", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		all := netip.MustParseAddr("ff02::2")
		p := probe.ICMP(b.srcLL(), all, probe.RouterSolicitation, 0, 0, probe.Option(14, b.payload()[:8]))
		p.HopLimit = 255
		b.packetTo(probe.MulticastMAC(all), p)
	},
}, {
	name: "discovery: a router advertisement, a router that is none", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		lifetime := []byte{0, 0, 0, 0, 0, 0, 0, 0}
		p := probe.ICMP(b.srcLL(), allNodes6, probe.RouterAdvertisement, 0, 64<<24|1800, append(lifetime, probe.Option(25, b.payload()[:8])...))
		p.HopLimit = 255
		b.packetTo(probe.MulticastMAC(allNodes6), p)
	},
}, {
	name: "discovery: a redirect", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		to := netip.AddrFrom16([16]byte(append(netip.MustParseAddr("2001:db8::").AsSlice()[:8], b.marker...)))
		p := probe.Discovery(b.linkLocalOf(b.parties["n1"].host, b.top.GatewayLink(b.from.pod)), b.dstLL(), probe.Redirect, 0, b.srcLL(), to.AsSlice())
		b.packet(p)
	},
}, {
	name: "discovery: a solicitation with an option that no resolver sends", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		b.packet(probe.Discovery(b.srcLL(), b.dstLL(), probe.NeighbourSolicitation, 0, b.dstLL(), probe.Option(253, b.payload()[:8])))
	},
}, {
	name: "discovery: a solicitation from nobody's address", finding: "A6", duels: near, without: []exception{withoutIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		b.packet(probe.Discovery(b.in(nobody), b.dst(), probe.NeighbourSolicitation, 0, b.dst(), probe.Option(14, b.payload()[:8])))
	},
}, {
	name: "discovery: duplicate address detection with a payload", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		target := probe.SolicitedNode(b.dstLL())
		p := probe.Discovery(netip.IPv6Unspecified(), target, probe.NeighbourSolicitation, 0, b.dstLL(), probe.Option(253, append(b.payload()[:8], make([]byte, 64)...)))
		b.packetTo(probe.MulticastMAC(target), p)
	},
}, {
	name: "discovery: behind a hop-by-hop header", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		p := probe.Discovery(b.srcLL(), b.dstLL(), probe.NeighbourSolicitation, 0, b.dstLL())
		b.packet(p.Behind(unix.IPPROTO_HOPOPTS, append([]byte{1, 1, 12}, append(b.payload()[:8], 0, 0, 0, 0)...)))
	},
}, {
	name: "discovery: in a fragment", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		p := probe.Discovery(b.srcLL(), b.dstLL(), probe.NeighbourSolicitation, 0, b.dstLL(), probe.Option(253, b.payload()[:8]))
		b.packet(p.Piece(7, 0, len(p.Payload), false))
	},
}, {
	name: "discovery: certification path and others (148, 149, 151, 153)", finding: "A6", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		for _, kind := range []uint8{139, 140, 141, 142, 148, 149, 151, 152, 153, 200} {
			p := probe.ICMP(b.srcLL(), b.dstLL(), kind, 0, 0, b.payload())
			p.HopLimit = 255
			b.packet(p)
		}
	},
}, {
	name: "listener: MLD to the victim's own address, with a payload", finding: "own", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		for _, kind := range []uint8{130, 131, 132, 143} {
			p := probe.ICMP(b.srcLL(), b.dstLL(), kind, 0, 0, append(group6.AsSlice(), b.payload()...))
			p.HopLimit = 1
			b.packet(p)
		}
	},
}, {
	name: "listener: an MLD query to all, with a payload", finding: "own", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		p := probe.ICMP(b.srcLL(), allNodes6, 130, 0, 100<<16, append(netip.IPv6Unspecified().AsSlice(), b.payload()...))
		p.HopLimit = 1
		b.packetTo(probe.MulticastMAC(allNodes6), p.Behind(unix.IPPROTO_HOPOPTS, []byte{0, 5, 2, 0, 0, 1, 0}))
	},
}, {
	name: "listener: IGMP to the victim's own address, with a payload", finding: "own", duels: near, without: []exception{onARoute, withoutIPv4}, noSockets: noICMP,
	raw: func(b *bout) {
		for _, kind := range []uint8{0x11, 0x12, 0x16, 0x17, 0x22} {
			b.packet(probe.IGMP(b.src(), b.dst(), kind, append(group4.AsSlice(), b.payload()...)))
		}
	},
}, {
	name: "listener: an IGMP query to all, with a payload", finding: "own", duels: near, without: []exception{onARoute, withoutIPv4}, noSockets: noICMP,
	raw: func(b *bout) {
		b.packetTo(probe.MulticastMAC(allHosts4), probe.IGMP(b.src(), allHosts4, 0x11, append([]byte{0, 0, 0, 0}, b.payload()...)))
	},
}, {
	name: "configuration: DHCP's shape, to a pod", finding: "own", duels: near, without: []exception{onARoute, withoutIPv4}, noSockets: "ports below 1024 ask for a right, and 0.0.0.0 is no source of a socket that has an address",
	raw: func(b *bout) {
		b.packet(probe.UDP(netip.MustParseAddrPort("0.0.0.0:68"), netip.AddrPortFrom(b.dst(), 67), b.payload()))
	},
}, {
	name: "configuration: DHCP's shape, to all", finding: "own", duels: near, without: []exception{onARoute, withoutIPv4}, noSockets: "ports below 1024 ask for a right, and 0.0.0.0 is no source of a socket that has an address",
	raw: func(b *bout) {
		b.packetTo(probe.BroadcastMAC, probe.UDP(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), b.payload()))
	},
}, {
	name: "configuration: DHCP's shape, to all, in the victim's frame", finding: "own", duels: near, without: []exception{onARoute, withoutIPv4}, noSockets: noFrames,
	raw: func(b *bout) {
		b.packetTo(b.to.mac, probe.UDP(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), b.payload()))
	},
}, {
	name: "configuration: a DHCP server's answer", finding: "own", duels: near, without: []exception{onARoute, withoutIPv4}, noSockets: "ports below 1024 ask for a right",
	raw: func(b *bout) {
		b.packetTo(probe.BroadcastMAC, probe.UDP(netip.AddrPortFrom(b.src(), 67), netip.MustParseAddrPort("255.255.255.255:68"), b.payload()))
	},
}, {
	name: "configuration: DHCPv6's shape, to a pod", finding: "own", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: "ports below 1024 ask for a right",
	raw: func(b *bout) {
		b.packet(probe.UDP(netip.AddrPortFrom(b.srcLL(), 546), netip.AddrPortFrom(b.dstLL(), 547), b.payload()))
	},
}, {
	name: "configuration: DHCPv6's shape, to all", finding: "own", duels: near, without: []exception{onARoute, sameAsIPv6}, noSockets: "ports below 1024 ask for a right",
	raw: func(b *bout) {
		all := netip.MustParseAddr("ff02::1:2")
		b.packetTo(probe.MulticastMAC(all), probe.UDP(netip.AddrPortFrom(b.srcLL(), 546), netip.AddrPortFrom(all, 547), b.payload()))
	},
}}

// neighbourAttacks say that an address is where it is not, so that what is for another comes to the attacker; or carry something in saying it.
var neighbourAttacks = []attack{{
	name: "neighbours: an ARP reply, guarded's address is the attacker's", finding: "own", duels: []duel{{"open", "guarded"}}, steals: true,
	without: []exception{onARoute, withoutIPv4}, noSockets: noFrames,
	raw: func(b *bout) {
		friend := b.parties["friend"]
		b.raw(probe.ARP{Operation: probe.ARPReply, Sender: b.from.mac, SenderAddr: b.to.addr, Target: friend.mac, TargetIP: friend.addr}.Frame(friend.mac))
	},
}, {
	name: "neighbours: an ARP request that says the same", finding: "own", duels: []duel{{"open", "guarded"}}, steals: true,
	without: []exception{onARoute, withoutIPv4}, noSockets: noFrames,
	raw: func(b *bout) {
		friend := b.parties["friend"]
		b.raw(probe.ARP{Operation: probe.ARPRequest, Sender: b.from.mac, SenderAddr: b.to.addr, Target: make([]byte, 6), TargetIP: friend.addr}.Frame(friend.mac))
	},
}, {
	name: "neighbours: gratuitous ARP", finding: "own", duels: []duel{{"open", "guarded"}}, steals: true,
	without: []exception{onARoute, withoutIPv4}, noSockets: noFrames,
	raw: func(b *bout) {
		for _, operation := range []uint16{probe.ARPRequest, probe.ARPReply} {
			b.raw(probe.ARP{Operation: operation, Sender: b.from.mac, SenderAddr: b.to.addr, Target: probe.BroadcastMAC, TargetIP: b.to.addr}.Frame(probe.BroadcastMAC))
		}
	},
}, {
	name: "neighbours: an ARP reply behind VLAN 0", finding: "own", duels: []duel{{"open", "guarded"}}, steals: true,
	without: []exception{onARoute, withoutIPv4}, noSockets: noFrames,
	raw: func(b *bout) {
		friend := b.parties["friend"]
		f := probe.ARP{Operation: probe.ARPReply, Sender: b.from.mac, SenderAddr: b.to.addr, Target: friend.mac, TargetIP: friend.addr}.Frame(friend.mac)
		f.Tags = []probe.Tag{{Type: unix.ETH_P_8021Q}}
		b.raw(f)
	},
}, {
	name: "neighbours: a neighbour advertisement, guarded's address is the attacker's", finding: "own", duels: []duel{{"open", "guarded"}}, steals: true,
	without: []exception{onARoute, withoutIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		friend := b.parties["friend"]
		p := probe.Discovery(b.srcLL(), b.in(friend.addr), probe.NeighbourAdvertisement, probe.Override, b.dst(), probe.LinkLayer(2, b.from.mac))
		b.packetTo(friend.mac, p)
	},
}, {
	name: "neighbours: the same to all nodes", finding: "own", duels: []duel{{"open", "guarded"}}, steals: true,
	without: []exception{onARoute, withoutIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		p := probe.Discovery(b.src(), allNodes6, probe.NeighbourAdvertisement, probe.Override, b.dst(), probe.LinkLayer(2, b.from.mac))
		b.packetTo(probe.MulticastMAC(allNodes6), p)
	},
}, {
	name: "neighbours: a neighbour solicitation from guarded's address", finding: "own", duels: []duel{{"open", "guarded"}}, steals: true,
	without: []exception{onARoute, withoutIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		friend := b.parties["friend"]
		b.packetTo(friend.mac, probe.Discovery(b.dst(), b.in(friend.addr), probe.NeighbourSolicitation, 0, b.in(friend.addr), probe.LinkLayer(1, b.from.mac)))
	},
}, {
	name: "neighbours: a router's advertisement, all networks are the attacker's", finding: "own", duels: []duel{{"open", "guarded"}}, without: []exception{onARoute, sameAsIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		p := probe.ICMP(b.srcLL(), b.dstLL(), probe.RouterAdvertisement, 0, 64<<24|9000, append(make([]byte, 8), probe.LinkLayer(1, append(b.marker[:2:2], b.marker[2:6]...))...))
		p.HopLimit = 255
		b.marker = b.marker[:6]
		b.packet(p)
	},
}, {
	name: "neighbours: the attacker's own address is the victim's, where a third pod's echo goes", finding: "own", poisons: true, duels: []duel{{"open", "guarded"}},
	without: []exception{onARoute, withoutIPv4}, noSockets: noFrames,
	raw: func(b *bout) {
		friend := b.parties["friend"]
		f := probe.ARP{Operation: probe.ARPReply, Sender: b.to.mac, SenderAddr: b.from.addr, Target: friend.mac, TargetIP: friend.addr}.Frame(friend.mac)
		f.Src = b.from.mac
		echo := probe.ICMP(b.src(), friend.addr, 8, 0, 1, b.payload())
		b.packetTo(friend.mac, echo) // friend knows the attacker
		b.raw(f)
		b.packetTo(friend.mac, echo)
	},
}, {
	name: "neighbours: the same by an advertisement", finding: "own", poisons: true, duels: []duel{{"open", "guarded"}},
	without: []exception{onARoute, withoutIPv6}, noSockets: noICMP,
	raw: func(b *bout) {
		friend := b.parties["friend"]
		echo := probe.ICMP(b.src(), b.in(friend.addr), 128, 0, 1, b.payload())
		b.packetTo(friend.mac, echo)
		b.packetTo(friend.mac, probe.Discovery(b.src(), b.in(friend.addr), probe.NeighbourAdvertisement, probe.Override, b.src(), probe.LinkLayer(2, b.to.mac)))
		b.packetTo(friend.mac, echo)
	},
}, {
	name: "neighbours: ARP with a payload, to a pod", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) {
		b.raw(probe.ARP{Operation: probe.ARPReply, Sender: b.from.mac, SenderAddr: b.from.addr, Target: b.to.mac, TargetIP: b.to.addr, Behind: append(make([]byte, 18), b.payload()...)}.Frame(b.to.mac))
	},
}, {
	name: "neighbours: ARP with a payload in its padding, to all", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) {
		b.raw(probe.ARP{Operation: probe.ARPRequest, Sender: b.from.mac, SenderAddr: b.from.addr, Target: make([]byte, 6), TargetIP: b.to.addr, Behind: b.payload()[:12]}.Frame(probe.BroadcastMAC))
	},
}, {
	name: "neighbours: ARP of another protocol and operation", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) {
		for _, kind := range []byte{3, 8, 9, 25} {
			f := probe.ARP{Operation: uint16(kind), Sender: b.from.mac, SenderAddr: b.from.addr, Target: b.marker[:6], TargetIP: b.to.addr}.Frame(b.to.mac)
			b.raw(f)
		}
		b.marker = b.marker[:6]
	},
}}
