package adversary

import (
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
)

const noFrames = "a socket does not choose the frame's header"

var taggedToRouter = where("the node has no interface for the tag", func(c combination, d duel) bool {
	return c.kind == topology.Routed || d.to == "n1"
})

func tagged(tags ...probe.Tag) func(*bout) {
	return func(b *bout) { b.packetTo(b.via(), b.udp(b.src(), b.dst()), tags...) }
}

// bridgeFilter looks into tagged frames.
var bridgeFilter = []setting{{"net/bridge/bridge-nf-filter-vlan-tagged", "1", "0"}}

// tagAttacks hide packets behind tags. A kernel takes VLAN 0 off by itself: it is a priority, and no VLAN.
var tagAttacks = []attack{{
	name: "tag: VLAN 0", finding: "A4", duels: slices.Concat(near, home), noSockets: noFrames,
	raw: tagged(probe.Tag{Type: unix.ETH_P_8021Q}),
}, {
	name: "tag: VLAN 0 with a priority", finding: "A4", duels: slices.Concat(near, home), noSockets: noFrames,
	raw: tagged(probe.Tag{Type: unix.ETH_P_8021Q, Control: 7 << 13}),
}, {
	name: "tag: VLAN 0 twice", finding: "A4", duels: slices.Concat(near, home), noSockets: noFrames,
	raw: tagged(probe.Tag{Type: unix.ETH_P_8021Q}, probe.Tag{Type: unix.ETH_P_8021Q}),
}, {
	name: "tag: VLAN 5", finding: "A4", duels: near, noSockets: noFrames, without: []exception{taggedToRouter},
	raw: tagged(probe.Tag{Type: unix.ETH_P_8021Q, Control: 5}),
}, {
	name: "tag: two, where the bridge filters tagged frames", finding: "A4", duels: near, noSockets: noFrames, without: []exception{taggedToRouter}, node: bridgeFilter,
	raw: tagged(probe.Tag{Type: unix.ETH_P_8021Q}, probe.Tag{Type: unix.ETH_P_8021Q, Control: 5}),
}, {
	name: "tag: VLAN 0 twice, where the bridge filters tagged frames", finding: "A4", duels: near, noSockets: noFrames, node: bridgeFilter,
	raw: tagged(probe.Tag{Type: unix.ETH_P_8021Q}, probe.Tag{Type: unix.ETH_P_8021Q}),
}, {
	name: "tag: 802.1ad", finding: "A4", duels: slices.Concat(near, home), noSockets: noFrames,
	raw: tagged(probe.Tag{Type: unix.ETH_P_8021AD}),
}, {
	name: "tag: 802.1Q in 802.1ad, where the bridge filters tagged frames", finding: "A4", duels: near, noSockets: noFrames, without: []exception{taggedToRouter}, node: bridgeFilter,
	raw: tagged(probe.Tag{Type: unix.ETH_P_8021AD, Control: 7}, probe.Tag{Type: unix.ETH_P_8021Q, Control: 5}),
}, {
	name: "tag: VLAN 0 and a link-local address", finding: "A4", duels: slices.Concat(near, home), noSockets: noFrames, without: []exception{onARoute, sameAsIPv6},
	raw: func(b *bout) { b.packetTo(b.via(), b.udp(b.srcLL(), b.dstLL()), probe.Tag{Type: unix.ETH_P_8021Q}) },
}, {
	name: "tag: VLAN 0 and ARP with a payload", finding: "A4", duels: near, noSockets: noFrames, without: []exception{onARoute},
	raw: func(b *bout) {
		f := probe.ARP{Operation: probe.ARPReply, Sender: b.from.mac, SenderAddr: b.from.addr, Target: b.to.mac, TargetIP: b.to.addr, Behind: b.payload()}.Frame(b.to.mac)
		f.Tags = []probe.Tag{{Type: unix.ETH_P_8021Q}}
		b.raw(f)
	},
}}

var (
	broadcast4 = netip.MustParseAddr("255.255.255.255")
	allHosts4  = netip.MustParseAddr("224.0.0.1")
	group4     = netip.MustParseAddr("239.1.2.3")
	allNodes6  = netip.MustParseAddr("ff02::1")
	group6     = netip.MustParseAddr("ff15::1234")
)

// groupAttacks send to many at once.
var groupAttacks = []attack{{
	name: "group: limited broadcast", finding: "A5", duels: slices.Concat(near, home), without: []exception{onARoute, withoutIPv4},
	sockets: func(b *bout) {
		b.datagram(netip.Addr{}, netip.AddrPortFrom(broadcast4, attackPort), set(unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	},
	raw: func(b *bout) { b.packetTo(probe.BroadcastMAC, b.udp(b.src(), broadcast4)) },
}, {
	name: "group: the subnet's broadcast", finding: "A5", duels: slices.Concat(near, home), without: []exception{
		withoutIPv4, where("a routed pod has no subnet", func(c combination, _ duel) bool { return c.kind == topology.Routed }),
	},
	sockets: func(b *bout) {
		b.datagram(netip.Addr{}, netip.AddrPortFrom(netip.MustParseAddr("10.244.1.255"), attackPort), set(unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	},
	raw: func(b *bout) { b.packetTo(probe.BroadcastMAC, b.udp(b.src(), netip.MustParseAddr("10.244.1.255"))) },
}, {
	name: "group: all hosts", finding: "A5", duels: slices.Concat(near, home), without: []exception{onARoute, withoutIPv4},
	sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(allHosts4, attackPort)) },
	raw:     func(b *bout) { b.packetTo(probe.MulticastMAC(allHosts4), b.udp(b.src(), allHosts4)) },
}, {
	name: "group: a multicast group", finding: "A5", duels: near, without: []exception{onARoute, withoutIPv4},
	sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(group4, attackPort)) },
	raw:     func(b *bout) { b.packetTo(probe.MulticastMAC(group4), b.udp(b.src(), group4)) },
}, {
	name: "group: all nodes of the link", finding: "A5", duels: slices.Concat(near, home), without: []exception{onARoute, sameAsIPv6},
	sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(allNodes6, attackPort)) },
	raw:     func(b *bout) { b.packetTo(probe.MulticastMAC(allNodes6), b.udp(b.srcLL(), allNodes6)) },
}, {
	name: "group: an IPv6 multicast group, from the pod's own address", finding: "A5", duels: near, without: []exception{onARoute, withoutIPv6},
	sockets: func(b *bout) { b.datagram(b.src(), netip.AddrPortFrom(group6, attackPort)) },
	raw:     func(b *bout) { b.packetTo(probe.MulticastMAC(group6), b.udp(b.src(), group6)) },
}, {
	name: "group: the victim's solicited-node address, no neighbour discovery", finding: "A5", duels: near, without: []exception{onARoute, withoutIPv6},
	sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(probe.SolicitedNode(b.dst()), attackPort)) },
	raw: func(b *bout) {
		b.packetTo(probe.MulticastMAC(probe.SolicitedNode(b.dst())), b.udp(b.srcLL(), probe.SolicitedNode(b.dst())))
	},
}, {
	name: "group: the victim's address in a broadcast frame", finding: "A5", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) { b.packetTo(probe.BroadcastMAC, b.udp(b.src(), b.dst())) },
}, {
	name: "group: an address that is allowed in a broadcast frame", finding: "A5", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) { b.packetTo(probe.BroadcastMAC, b.allowedElsewhere()) },
}, {
	name: "group: an address that is allowed in a multicast frame", finding: "A5", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) { b.packetTo(probe.MulticastMAC(group4), b.allowedElsewhere()) },
}, {
	name: "group: a group's address in the victim's frame", finding: "A5", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) {
		group := group4
		if b.six() {
			group = group6
		}
		b.packetTo(b.to.mac, b.udp(b.src(), group))
	},
}, {
	name: "group: an address that is allowed in the victim's frame", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) { b.packetTo(b.to.mac, b.allowedElsewhere()) },
}, {
	name: "group: an address that is allowed in a frame for nobody, which the bridge floods", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noFrames,
	raw: func(b *bout) { b.packetTo(net.HardwareAddr{2, 9, 9, 9, 9, 9}, b.allowedElsewhere()) },
}, {
	name: "group: a link-local service's name (mDNS, LLMNR)", finding: "A5", duels: near, without: []exception{onARoute, withoutIPv4},
	sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(netip.MustParseAddr("224.0.0.251"), 5353)) },
	raw: func(b *bout) {
		mdns := netip.MustParseAddr("224.0.0.251")
		b.packetTo(probe.MulticastMAC(mdns), probe.UDP(netip.AddrPortFrom(b.src(), 5353), netip.AddrPortFrom(mdns, 5353), b.payload()))
	},
}}

// allowedElsewhere is a packet that policy allows, to another than the victim.
func (b *bout) allowedElsewhere() probe.Packet {
	return probe.UDP(netip.AddrPortFrom(b.src(), 40000), netip.AddrPortFrom(b.in(elsewhere), controlPort), b.payload())
}

var trimmed = where("the bridge's netfilter cuts off what is behind the end of a packet", func(c combination, _ duel) bool { return c.kind == topology.Bridged })

const noEtherTypes = "a socket sends IP"

// frameAttacks are frames without an IP packet, or with one that is not what the frame says.
func frameAttacks() []attack {
	var all []attack
	for _, k := range []struct {
		name string
		kind uint16
	}{
		{"local experiments", 0x88b5}, {"IPX", 0x8137}, {"LLDP", 0x88cc}, {"EAPOL", 0x888e}, {"PPPoE", 0x8864}, {"MPLS", 0x8847}, {"RARP", 0x8035},
		{"transparent bridging", 0x6558}, {"batman", 0x4305}, {"PTP", 0x88f7}, {"loopback", 0x9000}, {"MACsec", 0x88e5},
	} {
		all = append(all, attack{
			name: "ether type: " + k.name, finding: "own", duels: near, without: []exception{onARoute}, noSockets: noEtherTypes,
			raw: func(b *bout) { b.frame(b.to.mac, k.kind, b.payload()) },
		})
	}
	return append(all, attack{
		name: "ether type: none, an 802.3 frame with LLC", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noEtherTypes,
		raw: func(b *bout) {
			llc := append([]byte{0x42, 0x42, 3}, b.payload()...)
			b.frame(b.to.mac, uint16(len(llc)), llc)
		},
	}, attack{
		name: "ether type: none, IP in SNAP", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noEtherTypes,
		raw: func(b *bout) {
			p := b.udp(b.src(), b.dst())
			snap := append([]byte{0xaa, 0xaa, 3, 0, 0, 0, byte(p.EtherType() >> 8), byte(p.EtherType())}, p.Marshal()...)
			b.frame(b.to.mac, uint16(len(snap)), snap)
		},
	}, attack{
		name: "ether type: none, a BPDU", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noEtherTypes,
		raw: func(b *bout) {
			llc := append([]byte{0x42, 0x42, 3, 0, 0, 0, 0, 0}, b.payload()...)
			b.frame(net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0}, uint16(len(llc)), llc)
		},
	}, attack{
		name: "ether type: PPPoE with IP inside, where the bridge filters it", finding: "own", duels: near, without: []exception{onARoute}, noSockets: noEtherTypes,
		node: []setting{{"net/bridge/bridge-nf-filter-pppoe-tagged", "1", "0"}},
		raw: func(b *bout) {
			ip := b.udp(b.src(), b.dst()).Marshal()
			protocol := []byte{0x00, 0x21}
			if b.six() {
				protocol[1] = 0x57
			}
			session := append([]byte{0x11, 0, 0, 1, byte((len(ip) + 2) >> 8), byte(len(ip) + 2)}, protocol...)
			b.frame(b.to.mac, 0x8864, append(session, ip...))
		},
	}, attack{
		name: "ether type: an allowed packet with more behind its end", finding: "own", duels: near, without: []exception{onARoute, trimmed}, noSockets: noEtherTypes,
		raw: func(b *bout) {
			p := b.allowedElsewhere()
			p.Payload = p.Payload[:8]
			b.frame(b.to.mac, p.EtherType(), append(p.Marshal(), b.payload()...))
		},
	})
}
