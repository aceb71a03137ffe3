package adversary

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/probe"
)

func protocolOf(n uint8) policy.Protocol { return policy.Protocol(n) }

// fragmentAttacks hide the ports of a packet, or all but a piece of it.
var fragmentAttacks = []attack{{
	name: "fragment: the first is tiny", finding: "own", untracked: true, duels: slices.Concat(near, remote), noSockets: noFrames,
	raw: func(b *bout) {
		p := probe.TCP(netip.AddrPortFrom(b.src(), 1), netip.AddrPortFrom(b.dst(), attackPort), probe.SYN, 1, 0, b.payload())
		b.packet(p.Piece(1, 0, 8, true))
		b.packet(p.Piece(1, 8, len(p.Payload), false))
	},
}, {
	name: "fragment: no first one", finding: "own", untracked: true, duels: slices.Concat(near, remote), noSockets: noFrames,
	raw: func(b *bout) {
		p := b.udp(b.src(), b.dst())
		b.packet(p.Piece(2, 8, len(p.Payload), false))
	},
}, {
	name: "fragment: two overlap, the port that is open under one that is not", finding: "own", untracked: true, duels: slices.Concat(near, remote), noSockets: noFrames,
	raw: func(b *bout) {
		open := probe.UDP(netip.AddrPortFrom(b.src(), 1), netip.AddrPortFrom(b.dst(), controlPort), make([]byte, len(b.payload())))
		closed := b.udp(b.src(), b.dst())
		b.packet(open.Piece(3, 0, 16, true))
		b.packet(closed.Piece(3, 0, len(closed.Payload), false))
	},
}, {
	name: "fragment: an atomic one", finding: "own", duels: slices.Concat(near, remote), noSockets: noFrames, without: []exception{withoutIPv6},
	raw: func(b *bout) {
		p := b.udp(b.src(), b.dst())
		b.packet(p.Piece(4, 0, len(p.Payload), false))
	},
}, {
	name: "header: hop-by-hop options in front", finding: "own", duels: slices.Concat(near, remote), without: []exception{withoutIPv6},
	noSockets: "options ask for NET_RAW",
	raw: func(b *bout) {
		b.packet(b.udp(b.src(), b.dst()).Behind(unix.IPPROTO_HOPOPTS, []byte{0, 1, 4, 0, 0, 0, 0}))
	},
}, {
	name: "header: destination options in front", finding: "own", duels: slices.Concat(near, remote), without: []exception{withoutIPv6},
	noSockets: "options ask for NET_RAW",
	raw: func(b *bout) {
		b.packet(b.udp(b.src(), b.dst()).Behind(unix.IPPROTO_DSTOPTS, []byte{0, 1, 4, 0, 0, 0, 0}))
	},
}, {
	name: "header: options and nothing else", finding: "own", duels: slices.Concat(near, remote), without: []exception{withoutIPv6},
	noSockets: "options ask for NET_RAW",
	raw: func(b *bout) {
		p := probe.Packet{Src: b.src(), Dst: b.dst(), Protocol: unix.IPPROTO_NONE}
		b.packet(p.Behind(unix.IPPROTO_DSTOPTS, append([]byte{1, 0x1e, 12}, append(b.payload()[:8], 0, 0, 0, 0)...)))
	},
}, {
	name: "header: a routing header", finding: "own", duels: slices.Concat(near, remote), without: []exception{withoutIPv6}, noSockets: noFrames,
	raw: func(b *bout) {
		header := append([]byte{2, 2, 0, 0, 0, 0, 0}, b.dst().AsSlice()...)
		b.packet(b.udp(b.src(), b.dst()).Behind(unix.IPPROTO_ROUTING, header))
	},
}, {
	name: "header: IPv4 options", finding: "own", duels: slices.Concat(near, remote), without: []exception{withoutIPv4},
	sockets: func(b *bout) {
		b.datagram(netip.Addr{}, netip.AddrPortFrom(b.dst(), attackPort), setBytes(unix.SOL_IP, unix.IP_OPTIONS, []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}))
	},
	raw: func(b *bout) {
		p := b.udp(b.src(), b.dst())
		p.Options = []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0} // record route
		b.packet(p)
	},
}}

// established is friend's connection to the victim, over UDP from port 41000 to the port that is closed for others.
func (b *bout) established() (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(b.in(b.parties["friend"].addr), 41000), netip.AddrPortFrom(b.dst(), attackPort)
}

var (
	spyOnly = []duel{{"open", "guarded"}}
	noSpies = "a socket does not speak as others"
)

// conntrackAttacks claim to belong to something that is allowed.
var conntrackAttacks = []attack{{
	name: "connection: into another's", finding: "A3", duels: []duel{{"open", "guarded"}, {"open", "far"}}, noSockets: noSpies,
	raw: func(b *bout) {
		b.converse()
		src, dst := b.established()
		b.packet(probe.UDP(src, dst, b.payload()))
	},
}, {
	name: "connection: an answer into another's", finding: "A3", duels: []duel{{"open", "guarded"}}, noSockets: noSpies,
	raw: func(b *bout) {
		b.converse()
		friend := b.in(b.parties["friend"].addr)
		b.packet(probe.UDP(netip.AddrPortFrom(friend, attackPort), netip.AddrPortFrom(b.dst(), 41001), b.payload()))
	},
}, {
	name: "connection: an ICMP error about another's, from who is in it", finding: "A3", duels: spyOnly, noSockets: noSpies,
	raw: func(b *bout) {
		b.converse()
		b.errorsAbout(b.in(b.parties["friend"].addr))
	},
}, {
	name: "connection: an ICMP error about another's, from the pod's own address", finding: "own", duels: slices.Concat(near, []duel{{"open", "far"}}), noSockets: noSpies,
	raw: func(b *bout) {
		b.converse()
		b.errorsAbout(b.src())
	},
}, {
	name: "connection: an ICMP error that quotes nothing that there is", finding: "own", duels: slices.Concat(near, remote), noSockets: noSpies,
	raw: func(b *bout) {
		b.errorsQuoting(b.src(), netip.AddrPortFrom(b.dst(), 44000), netip.AddrPortFrom(b.in(nobody), 44001))
	},
}, {
	name: "connection: TCP without a beginning", finding: "own", duels: slices.Concat(near, remote), noSockets: "a socket begins with a SYN",
	raw: func(b *bout) {
		for i, flags := range []probe.TCPFlags{probe.ACK, probe.ACK | probe.PSH, probe.SYN | probe.ACK, probe.RST, probe.RST | probe.ACK, 1, 0, 0x29, 0x3f} {
			b.packet(probe.TCP(netip.AddrPortFrom(b.src(), uint16(42000+i)), netip.AddrPortFrom(b.dst(), attackPort), flags, 9, 9, b.payload()))
		}
	},
}, {
	name: "connection: TCP without a beginning, again and again", finding: "own", duels: near, noSockets: "a socket begins with a SYN",
	raw: func(b *bout) {
		for range 3 {
			b.packet(probe.TCP(netip.AddrPortFrom(b.src(), 42100), netip.AddrPortFrom(b.dst(), attackPort), probe.ACK, 9, 9, b.payload()))
			b.packet(probe.TCP(netip.AddrPortFrom(b.src(), 42100), netip.AddrPortFrom(b.dst(), attackPort), probe.SYN, 9, 9, b.payload()))
		}
	},
}, {
	name: "connection: wrong checksums", finding: "own", duels: near, noSockets: noFrames,
	raw: func(b *bout) {
		p := b.udp(b.src(), b.dst())
		p.Payload[6] ^= 0xff
		b.packet(p)
		p = probe.TCP(netip.AddrPortFrom(b.src(), 42200), netip.AddrPortFrom(b.dst(), attackPort), probe.SYN, 1, 0, b.payload())
		p.Payload[16] ^= 0xff
		b.packet(p)
	},
}, {
	name: "connection: from the port that is open", finding: "own", duels: slices.Concat(near, remote),
	sockets: func(b *bout) {
		fd := b.socket(unix.SOCK_DGRAM, 0, b.dst(), nil)
		b.bind(fd, netip.AddrPortFrom(b.src(), controlPort))
		if b.err == nil {
			b.fail(unix.Sendto(fd, b.payload(), 0, address(netip.AddrPortFrom(b.dst(), attackPort))))
		}
	},
	raw: func(b *bout) {
		b.packet(probe.UDP(netip.AddrPortFrom(b.src(), controlPort), netip.AddrPortFrom(b.dst(), attackPort), b.payload()))
	},
}}

// converse has friend and the victim exchange datagrams, as an attacker would know or guess that they do.
func (b *bout) converse() {
	friend := b.parties["friend"]
	src, dst := b.established()
	exchange := func(from *party, src, dst netip.AddrPort, at *party) {
		c := &bout{world: b.world, from: from, to: at, marker: random(8)}
		b.fail(c.send(probe.Sockets, func(c *bout) {
			fd := c.socket(unix.SOCK_DGRAM, 0, dst.Addr(), nil)
			c.bind(fd, src)
			if c.err == nil {
				c.fail(unix.Sendto(fd, c.payload(), 0, address(dst)))
			}
		}))
	}
	exchange(friend, src, dst, b.to)
	exchange(b.to, dst, src, friend)
	other := netip.AddrPortFrom(b.dst(), 41001)
	exchange(b.to, other, netip.AddrPortFrom(src.Addr(), attackPort), friend)
}

// errorsAbout are ICMP errors that quote the victim's answer in its connection with friend, and bring more behind the quotation.
func (b *bout) errorsAbout(src netip.Addr) {
	from, to := b.established()
	b.errorsQuoting(src, to, from)
}

// errorsQuoting sends all kinds of errors: connection tracking takes every ICMPv6 message below 128 for one.
func (b *bout) errorsQuoting(src netip.Addr, from, to netip.AddrPort) {
	quoted := probe.UDP(from, to, make([]byte, 128)).Marshal()
	kinds := []uint8{3, 4, 5, 11, 12}
	if b.six() {
		kinds = []uint8{1, 2, 3, 4, 5, 100, 127}
	}
	for _, kind := range kinds {
		b.packet(probe.ICMP(src, b.dst(), kind, 0, 0, append(slices.Clone(quoted), b.payload()...)))
	}
}

// serviceAttacks take ways that lead elsewhere than they say: policy holds behind destination NAT.
var serviceAttacks = []attack{{
	name: "service: to a Service's address", finding: "own", duels: near, services: true,
	sockets: func(b *bout) { b.datagram(netip.Addr{}, b.service()) },
	raw: func(b *bout) {
		b.packetTo(b.from.gateway, probe.UDP(netip.AddrPortFrom(b.src(), 43000), b.service(), b.payload()))
	},
}, {
	name: "service: to a port of the pod's node, which leads back", finding: "own", duels: near, services: true,
	sockets: func(b *bout) { b.datagram(netip.Addr{}, b.nodePort("n1")) },
	raw: func(b *bout) {
		b.packetTo(b.from.gateway, probe.UDP(netip.AddrPortFrom(b.src(), 43001), b.nodePort("n1"), b.payload()))
	},
}, {
	name: "service: to a port of another node, which leads back", finding: "own", duels: near, services: true,
	sockets: func(b *bout) { b.datagram(netip.Addr{}, b.nodePort("n2")) },
	raw: func(b *bout) {
		b.packetTo(b.from.gateway, probe.UDP(netip.AddrPortFrom(b.src(), 43002), b.nodePort("n2"), b.payload()))
	},
}, {
	name: "service: by the victim's own source, as if it came back to itself", finding: "A3", duels: near, services: true, noSockets: noSpies,
	raw: func(b *bout) {
		b.packetTo(b.from.gateway, probe.UDP(netip.AddrPortFrom(b.dst(), 43003), b.service(), b.payload()))
	},
}}

func (b *bout) nodePort(node string) netip.AddrPort {
	port := uint16(nodePort)
	if b.to.name == "bare" {
		port++
	}
	return netip.AddrPortFrom(b.in(b.parties[node].addr), port)
}

func (b *bout) service() netip.AddrPort {
	port := uint16(servicePort)
	if b.to.name == "bare" {
		port++
	}
	return netip.AddrPortFrom(b.in(webVIP), port)
}

// protocolAttacks are those that a rule may have forgotten.
func protocolAttacks() []attack {
	all := []attack{{
		name: "protocol: UDP", finding: "own", duels: everywhere,
		sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(b.dst(), attackPort)) },
		raw:     func(b *bout) { b.packet(b.udp(b.src(), b.dst())) },
	}, {
		name: "protocol: TCP, to the port that is open over UDP", finding: "own", duels: everywhere,
		sockets: func(b *bout) { b.connect(netip.Addr{}, netip.AddrPortFrom(b.dst(), controlPort)) },
		raw: func(b *bout) {
			b.packet(probe.TCP(netip.AddrPortFrom(b.src(), 40000), netip.AddrPortFrom(b.dst(), controlPort), probe.SYN, 1, 0, b.payload()))
		},
	}, {
		name: "protocol: an echo request", finding: "own", duels: everywhere,
		sockets: func(b *bout) { b.ping(b.dst()) },
		raw: func(b *bout) {
			kind := uint8(8)
			if b.six() {
				kind = 128
			}
			b.packet(probe.ICMP(b.src(), b.dst(), kind, 0, 7, b.payload()))
		},
	}, {
		name: "protocol: ICMP of other kinds", finding: "own", duels: everywhere, noSockets: noICMP,
		raw: func(b *bout) {
			for _, kind := range []uint8{0, 4, 5, 9, 10, 13, 15, 17, 42, 129} {
				b.packet(probe.ICMP(b.src(), b.dst(), kind, 0, 0, b.payload()))
			}
		},
	}, {
		name: "protocol: SCTP, to the port that is open over UDP", finding: "own", duels: slices.Concat(near, remote), noSockets: "the kernel may have no SCTP sockets",
		raw: func(b *bout) {
			tag := b.marker[:4]
			b.packet(probe.INIT(netip.AddrPortFrom(b.src(), 40000), netip.AddrPortFrom(b.dst(), controlPort), uint32(tag[0])<<24|uint32(tag[1])<<16|uint32(tag[2])<<8|uint32(tag[3])))
			b.marker = tag
		},
	}, {
		name: "protocol: UDP to port 0", finding: "own", duels: slices.Concat(near, remote), noSockets: "a socket sends to no port 0",
		raw: func(b *bout) {
			b.packet(probe.UDP(netip.AddrPortFrom(b.src(), 40000), netip.AddrPortFrom(b.dst(), 0), b.payload()))
		},
	}}
	for _, k := range []uint8{unix.IPPROTO_UDPLITE, unix.IPPROTO_DCCP, unix.IPPROTO_PIM, 112, 89, 253, 255} {
		all = append(all, attack{
			name: fmt.Sprintf("protocol: number %d", k), finding: "own", duels: slices.Concat(near, remote), noSockets: "a socket without rights speaks UDP, TCP and SCTP",
			raw: func(b *bout) {
				ports := []byte{1, 1, controlPort >> 8, controlPort & 0xff, 0, 8, 0, 0}
				b.packet(probe.Packet{Src: b.src(), Dst: b.dst(), Protocol: protocolOf(k), Payload: append(ports, b.payload()...)})
			},
		})
	}
	return append(all, attack{
		name: "protocol: the other family's ether type", finding: "own", duels: near, noSockets: noFrames,
		without: []exception{where("the bridge's netfilter, or the router, drops what is no packet of the family", func(combination, duel) bool { return true })},
		raw: func(b *bout) {
			p := b.udp(b.src(), b.dst())
			kind := uint16(unix.ETH_P_IPV6)
			if b.six() {
				kind = unix.ETH_P_IP
			}
			b.frame(b.via(), kind, p.Marshal())
		},
	}, attack{
		name: "protocol: IPv4-mapped addresses on the wire", finding: "own", duels: near, noSockets: "the kernel sends IPv4 to them", without: []exception{onARoute, withoutIPv6},
		raw: func(b *bout) {
			b.packet(b.udp(netip.AddrFrom16(b.from.addr.As16()), netip.AddrFrom16(b.to.addr.As16())))
		},
	})
}
