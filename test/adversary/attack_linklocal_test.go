package adversary

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
)

// linkLocalAttacks go by the addresses that the kernel gives every link, and no CNI plugin names.
var linkLocalAttacks = []attack{{
	name: "link-local: a datagram", finding: "A1", duels: slices.Concat(near, home), without: []exception{onARoute, sameAsIPv6},
	sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(b.dstLL(), attackPort)) },
	raw:     func(b *bout) { b.packet(b.udp(b.srcLL(), b.dstLL())) },
}, {
	name: "link-local: a TCP connection to the kubelet's port", finding: "A1", duels: slices.Concat(near, home), without: []exception{onARoute, sameAsIPv6},
	sockets: func(b *bout) { b.connect(netip.Addr{}, netip.AddrPortFrom(b.dstLL(), kubeletPort)) },
	raw: func(b *bout) {
		b.packet(probe.TCP(netip.AddrPortFrom(b.srcLL(), 40000), netip.AddrPortFrom(b.dstLL(), kubeletPort), probe.SYN, 1, 0, b.payload()))
	},
}, {
	name: "link-local: an echo request", finding: "A1", duels: slices.Concat(near, home), without: []exception{onARoute, sameAsIPv6},
	sockets: func(b *bout) { b.ping(b.dstLL()) },
	raw:     func(b *bout) { b.packet(probe.ICMP(b.srcLL(), b.dstLL(), 128, 0, 1, b.payload())) },
}, {
	name: "link-local: from the pod's own address to the victim's link-local one", finding: "A1", duels: slices.Concat(near, home), without: []exception{onARoute, withoutIPv6},
	sockets: func(b *bout) { b.datagram(b.src(), netip.AddrPortFrom(b.dstLL(), attackPort)) },
	raw:     func(b *bout) { b.packet(b.udp(b.src(), b.dstLL())) },
}, {
	name: "link-local: from the pod's link-local address to the victim's own", finding: "A1", duels: slices.Concat(near, home), without: []exception{onARoute, withoutIPv6},
	sockets: func(b *bout) { b.datagram(b.srcLL(), netip.AddrPortFrom(b.dst(), attackPort)) },
	raw:     func(b *bout) { b.packet(b.udp(b.srcLL(), b.dst())) },
}, {
	name: "link-local: from one of nobody's", finding: "A1", duels: slices.Concat(near, home), without: []exception{onARoute, sameAsIPv6},
	sockets: func(b *bout) {
		b.datagram(netip.MustParseAddr("fe80::bad"), netip.AddrPortFrom(b.dstLL(), attackPort), set(unix.SOL_IP, unix.IP_FREEBIND, 1))
	},
	raw: func(b *bout) { b.packet(b.udp(netip.MustParseAddr("fe80::bad"), b.dstLL())) },
}, {
	name: "link-local: from the victim's own", finding: "A1", duels: near, without: []exception{onARoute, sameAsIPv6},
	sockets: func(b *bout) {
		b.datagram(b.dstLL(), netip.AddrPortFrom(b.dstLL(), attackPort), set(unix.SOL_IP, unix.IP_FREEBIND, 1))
	},
	raw: func(b *bout) { b.packet(b.udp(b.dstLL(), b.dstLL())) },
}, {
	name: "link-local: IPv4's, to an address that the victim never asked for", finding: "A1", duels: near, without: []exception{onARoute, withoutIPv4},
	noSockets: "a socket has no address of 169.254.0.0/16 to send from, and its kernel would ask for the victim's",
	raw: func(b *bout) {
		b.packet(b.udp(netip.MustParseAddr("169.254.3.1"), netip.MustParseAddr("169.254.3.2")))
	},
}}

// secondAddressAttacks are about an address that the CNI plugin gave the pod, and the API does not show.
var secondAddressAttacks = []attack{{
	name: "second address: to the metadata service", finding: "A2", duels: []duel{{"second", "outside"}},
	sockets: func(b *bout) { b.datagram(b.in(secondAddr), netip.AddrPortFrom(b.in(metadata), attackPort)) },
	raw:     func(b *bout) { b.packet(b.udp(b.in(secondAddr), b.in(metadata))) },
}, {
	name: "second address: a TCP connection from it", finding: "A2", duels: []duel{{"second", "bare"}, {"second", "outside"}, {"second", "remote"}, {"second", "n1"}},
	sockets: func(b *bout) { b.connect(b.in(secondAddr), netip.AddrPortFrom(b.dst(), 80)) },
	raw: func(b *bout) {
		b.packet(probe.TCP(netip.AddrPortFrom(b.in(secondAddr), 40000), netip.AddrPortFrom(b.dst(), 80), probe.SYN, 1, 0, b.payload()))
	},
}, {
	name: "second address: to it", finding: "A2", duels: []duel{{"open", "second"}},
	sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(b.in(secondAddr), attackPort)) },
	raw:     func(b *bout) { b.packet(b.udp(b.src(), b.in(secondAddr))) },
}, {
	name: "second address: another pod's, claimed", finding: "A2", duels: everywhere,
	noSockets: "an IPv4 socket binds to its host's own addresses alone",
	raw:       func(b *bout) { b.packet(b.udp(b.in(secondAddr), b.dst())) },
}}

// lie is a source that is not the pod's.
type lie struct {
	name    string
	addr    func(*bout) netip.Addr
	without []exception
}

func of(name string) func(*bout) netip.Addr {
	return func(b *bout) netip.Addr { return b.in(b.parties[name].addr) }
}

func literal(v4, v6 string) func(*bout) netip.Addr {
	return func(b *bout) netip.Addr {
		if b.six() {
			return netip.MustParseAddr(v6)
		}
		return netip.MustParseAddr(v4)
	}
}

var lies = []lie{
	{name: "nobody's in the range of pods", addr: func(b *bout) netip.Addr { return b.in(nobody) }},
	{name: "nobody's anywhere", addr: literal("198.51.100.9", "2001:db8::9")},
	{name: "another pod's, who may", addr: of("friend")},
	{name: "a pod's of another node", addr: of("remote")},
	{name: "the victim's own", addr: (*bout).dst, without: []exception{toItself}},
	{name: "the node's", addr: of("n1"), without: []exception{nodesOwn}},
	{name: "another node's", addr: of("n2"), without: []exception{othersOwn}},
	{name: "a Service's", addr: func(b *bout) netip.Addr { return b.in(webVIP) }},
	{name: "the outside's", addr: of("outside")},
	{name: "unspecified", addr: literal("0.0.0.0", "::"), without: []exception{unspecified}},
	{name: "loopback", addr: literal("127.0.0.1", "::1"), without: []exception{noRouter}},
	{name: "loopback's range", addr: literal("127.9.9.9", "::9")},
	{name: "multicast", addr: literal("224.0.0.5", "ff02::5"), without: []exception{noRouter}},
	{name: "broadcast", addr: literal("255.255.255.255", "ff0e::1"), without: []exception{noRouter}},
	{name: "class E", addr: literal("240.0.0.9", "100::9")},
	{name: "IPv4-mapped", addr: func(b *bout) netip.Addr { return netip.AddrFrom16(b.from.addr.As16()) }, without: []exception{withoutIPv6}},
	{name: "IPv4's link-local", addr: literal("169.254.7.7", "fe80::7"), without: []exception{linkLocalIsNotRouted}},
}

var (
	toItself = where("a node drops what claims to come from itself; IPv6 takes it", func(c combination, d duel) bool {
		return c.stack != ipv6 && d.to == "n1"
	})
	unspecified = where("no router forwards such a source; an IPv6 node takes it", func(c combination, d duel) bool {
		return (c.kind == topology.Routed || !isNear(d)) && (c.stack != ipv6 || d.to != "n1")
	})
	nodesOwn = where("a node drops what claims to come from itself; IPv6 forwards it", func(c combination, d duel) bool {
		return c.stack != ipv6 && (c.kind == topology.Routed || !isNear(d))
	})
	othersOwn = where("a node on the way drops what claims to come from itself", func(c combination, d duel) bool {
		return c.stack != ipv6 && d.to == "far"
	})
	noRouter = where("no router forwards or takes such a source", func(c combination, d duel) bool {
		return c.kind == topology.Routed || !isNear(d)
	})
	linkLocalIsNotRouted = where("IPv6 does not forward link-local sources", func(c combination, d duel) bool {
		return c.stack == ipv6 && (c.kind == topology.Routed && isNear(d) || isRemote(d))
	})
)

// sourceAttacks lie about who sends.
func sourceAttacks() []attack {
	var all []attack
	for _, l := range lies {
		all = append(all, attack{
			name: "false source: " + l.name, finding: "A3", duels: everywhere, without: l.without,
			noSockets: "an IPv4 socket binds to its host's own addresses alone; IPv6 sockets do not ask, see below",
			raw:       func(b *bout) { b.packet(b.udp(l.addr(b), b.dst())) },
		})
	}
	return append(all, attack{
		name: "false source: IPV6_FREEBIND, without any right", finding: "A3", duels: everywhere, without: []exception{withoutIPv6},
		sockets: func(b *bout) {
			b.datagram(b.in(b.parties["friend"].addr), netip.AddrPortFrom(b.dst(), attackPort), set(unix.SOL_IP, unix.IP_FREEBIND, 1))
		},
	}, attack{
		name: "false source: IPV6_FREEBIND and TCP, without any right", finding: "A3", duels: everywhere, without: []exception{withoutIPv6},
		sockets: func(b *bout) {
			b.connect(b.in(nobody), netip.AddrPortFrom(b.dst(), 80), set(unix.SOL_IP, unix.IP_FREEBIND, 1))
		},
	}, attack{
		name: "false source: a transparent socket", finding: "A3", duels: everywhere,
		noSockets: "IP_TRANSPARENT asks for NET_RAW or NET_ADMIN",
		raw: func(b *bout) {
			level, name := unix.SOL_IP, unix.IP_TRANSPARENT
			if b.six() {
				level, name = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			}
			b.connect(b.in(b.parties["friend"].addr), netip.AddrPortFrom(b.dst(), 80), set(level, name, 1))
		},
	}, attack{
		name: "false source: a whole connection's first segments, from who may", finding: "A3", duels: slices.Concat(near, remote),
		noSockets: "a socket sends a SYN first",
		raw: func(b *bout) {
			src, dst := netip.AddrPortFrom(b.in(b.parties["friend"].addr), 40001), netip.AddrPortFrom(b.dst(), attackPort)
			b.packet(probe.TCP(src, dst, probe.SYN, 1, 0, b.payload()))
			b.packet(probe.TCP(src, dst, probe.ACK|probe.PSH, 9, 9, b.payload()))
		},
	}, attack{
		name: "false source: true address, the victim's hardware address", finding: "own", duels: []duel{{"open", "guarded"}}, steals: true,
		without:   []exception{onARoute},
		noSockets: "the kernel writes the hardware address",
		raw: func(b *bout) {
			p := b.udp(b.src(), b.in(b.parties["remote"].addr))
			b.raw(probe.Frame{Dst: b.from.gateway, Src: b.to.mac, Type: p.EtherType(), Payload: p.Marshal()})
		},
	})
}
