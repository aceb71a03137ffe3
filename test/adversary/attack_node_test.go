package adversary

import (
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
)

// goneAttacks come from pods that the API has no longer, or says to have finished, and whose containers run on.
func goneAttacks() []attack {
	var all []attack
	for _, p := range []struct{ name, what string }{
		{"gone", "a pod that was deleted by force"}, {"done", "a pod that has finished"}, {"old", "a pod whose address another has by now"},
	} {
		all = append(all, attack{
			name: "gone: " + p.what + ", a datagram", finding: "A7",
			duels:   []duel{{p.name, "bare"}, {p.name, "guarded"}, {p.name, "far"}, {p.name, "outside"}, {p.name, "n1"}},
			sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(b.dst(), attackPort)) },
			raw:     func(b *bout) { b.packet(b.udp(b.src(), b.dst())) },
		}, attack{
			name: "gone: " + p.what + ", a connection to the port that is open for all", finding: "A7", duels: []duel{{p.name, "guarded"}},
			sockets: func(b *bout) { b.datagram(netip.Addr{}, netip.AddrPortFrom(b.dst(), controlPort)) },
			raw: func(b *bout) {
				b.packet(probe.UDP(netip.AddrPortFrom(b.in(nobody), 1), netip.AddrPortFrom(b.dst(), controlPort), b.payload()))
			},
		}, attack{
			name: "gone: " + p.what + ", to its node by link-local", finding: "A7", duels: []duel{{p.name, "n1"}}, without: []exception{sameAsIPv6},
			sockets: func(b *bout) { b.connect(netip.Addr{}, netip.AddrPortFrom(b.dstLL(), kubeletPort)) },
			raw:     func(b *bout) { b.packet(b.udp(b.srcLL(), b.dstLL())) },
		})
	}
	return all
}

var fromRouted = absent("a routed node's pods have no bridge", func(c combination, _ duel) bool { return c.kind == topology.Routed })

// toKubelet connects to the kubelet's port, at an address of the node.
func toKubelet(name, finding string, at func(*bout) netip.Addr, without ...exception) attack {
	return attack{
		name: "node: the kubelet's port at " + name, finding: finding, duels: []duel{{"ward", "n1"}, {"shut", "n1"}}, without: without,
		sockets: func(b *bout) { b.connect(netip.Addr{}, netip.AddrPortFrom(at(b), kubeletPort)) },
		raw: func(b *bout) {
			src := b.src()
			if at(b).Is6() && at(b).IsLinkLocalUnicast() {
				src = b.srcLL()
			}
			b.packet(probe.TCP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(at(b), kubeletPort), probe.SYN, 1, 0, b.payload()))
		},
	}
}

// nodeAttacks are about all that the attacker's node has, by whichever address.
var nodeAttacks = []attack{
	toKubelet("its address", "A8", (*bout).dst),
	toKubelet("its bridge's address", "A8", func(b *bout) netip.Addr { return b.in(netip.MustParseAddr("10.244.1.1")) }, fromRouted),
	toKubelet("docker0's address", "A8", func(*bout) netip.Addr { return dockerAddr }, withoutIPv4),
	toKubelet("flannel's address", "A8", func(b *bout) netip.Addr { return b.in(netip.MustParseAddr("10.244.1.0")) }),
	toKubelet("the pod's own gateway's", "A8", func(*bout) netip.Addr { return netip.MustParseAddr("169.254.1.1") }, withoutIPv4,
		absent("a bridged pod has another gateway", func(c combination, _ duel) bool { return c.kind == topology.Bridged })),
	toKubelet("its link-local address", "A1", (*bout).dstLL, sameAsIPv6),
	toKubelet("its wire's link-local address, from the pod's own", "A1", func(b *bout) netip.Addr { return b.linkLocalOf(b.to.host, "eth0") }, sameAsIPv6,
		where("IPv6 does not forward to link-local addresses, and takes those of the link alone", func(combination, duel) bool { return true })),
	{
		name: "node: another node's kubelet at flannel's address", finding: "A8", duels: []duel{{"ward", "n2"}},
		sockets: func(b *bout) {
			b.connect(netip.Addr{}, netip.AddrPortFrom(b.in(netip.MustParseAddr("10.244.2.0")), kubeletPort))
		},
		raw: func(b *bout) {
			b.packet(probe.TCP(netip.AddrPortFrom(b.src(), 40000), netip.AddrPortFrom(b.in(netip.MustParseAddr("10.244.2.0")), kubeletPort), probe.SYN, 1, 0, b.payload()))
		},
	},
	{
		name: "node: 127.0.0.1, which route_localnet lets in", finding: "own", duels: home, without: []exception{withoutIPv4},
		noSockets: "a pod's own loopback takes it",
		raw:       func(b *bout) { b.packet(b.udp(b.src(), netip.MustParseAddr("127.0.0.1"))) },
	},
	{
		name: "node: 127.0.0.1, from nobody's address", finding: "own", duels: home, without: []exception{withoutIPv4},
		noSockets: "a pod's own loopback takes it",
		raw:       func(b *bout) { b.packet(b.udp(b.in(nobody), netip.MustParseAddr("127.0.0.1"))) },
	},
	{
		name: "node: through its hardware address rather than the neighbour's", finding: "own", duels: near,
		noSockets: noFrames,
		raw:       func(b *bout) { b.packetTo(b.from.gateway, b.udp(b.src(), b.dst())) },
	},
	{
		name: "node: a source route, where the node follows one", finding: "own", duels: near, without: []exception{withoutIPv4},
		node:      []setting{{"net/ipv4/conf/all/accept_source_route", "1", "0"}},
		noSockets: "the kernel has come to ask for NET_RAW; older ones let any socket choose a way",
		raw: func(b *bout) {
			p := probe.UDP(netip.AddrPortFrom(b.src(), 1), netip.AddrPortFrom(b.nodeAddr(), controlPort), b.payload())
			p.Options = append([]byte{131, 7, 4}, b.dst().AsSlice()...) // RFC 791, section 3.1: loose, one address
			p.Options = append(p.Options, 0)
			b.packetTo(b.from.gateway, p)
		},
	},
	{
		name: "node: a segment routing header, where the node follows one", finding: "own", duels: near, without: []exception{withoutIPv6},
		node:      []setting{{"net/ipv6/conf/all/seg6_enabled", "1", "0"}, {"net/ipv6/conf/LINK/seg6_enabled", "1", "0"}},
		noSockets: "the kernel sends by its own routes",
		raw: func(b *bout) {
			node := b.in(b.parties["n1"].addr)
			p := probe.UDP(netip.AddrPortFrom(b.src(), 1), netip.AddrPortFrom(b.dst(), controlPort+1), b.payload())
			p.Dst = node
			header := []byte{4, 4, 1, 1, 0, 0, 0}
			header = append(append(header, b.dst().AsSlice()...), node.AsSlice()...)
			b.packetTo(b.from.gateway, p.Behind(unix.IPPROTO_ROUTING, header))
		},
	},
}

func (b *bout) nodeAddr() netip.Addr { return b.parties["n1"].addr }

const vxlanPort = 8472

// vxlan is an Ethernet frame with a packet, as flannel's tunnel carries it.
func (b *bout) vxlan(at string, p probe.Packet) []byte {
	mac, err := b.parties[at].host.HardwareAddr("flannel.1")
	b.fail(err)
	f := probe.Frame{Dst: mac, Src: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Type: p.EtherType(), Payload: p.Marshal()}
	return append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, f.Marshal()...)
}

// throughTunnel is a packet to the victim from who may, inside of a datagram to a node's tunnel.
func (b *bout) throughTunnel(outer netip.Addr, node string) probe.Packet {
	inner := b.udp(b.in(b.parties["friend"].addr), b.dst())
	return probe.UDP(netip.AddrPortFrom(outer, 50000), netip.AddrPortFrom(b.parties[node].addr, vxlanPort), b.vxlan(node, inner))
}

// toKubelet is the first segment of a connection to the node's kubelet, from another node's pod.
func (b *bout) toKubelet() probe.Packet {
	src := netip.AddrPortFrom(b.in(b.parties["remote"].addr), 40002)
	return probe.TCP(src, netip.AddrPortFrom(b.in(b.nodeAddr()), kubeletPort), probe.SYN, 1, 0, b.payload())
}

// tunnelAttacks put packets into others: for a node that takes them out, or for a victim that does.
func tunnelAttacks() []attack {
	all := []attack{{
		name: "tunnel: VXLAN to the pod's own node", finding: "own", duels: []duel{{"open", "guarded"}, {"open", "far"}},
		sockets: func(b *bout) {
			payload := b.vxlan("n1", b.udp(b.in(b.parties["friend"].addr), b.dst()))
			b.sendTo(payload, netip.AddrPortFrom(b.parties["n1"].addr, vxlanPort))
		},
		raw: func(b *bout) { b.packetTo(b.from.gateway, b.throughTunnel(b.from.addr, "n1")) },
	}, {
		name: "tunnel: VXLAN to another node", finding: "own", duels: []duel{{"open", "far"}, {"open", "guarded"}},
		sockets: func(b *bout) {
			payload := b.vxlan("n2", b.udp(b.in(b.parties["friend"].addr), b.dst()))
			b.sendTo(payload, netip.AddrPortFrom(b.parties["n2"].addr, vxlanPort))
		},
		raw: func(b *bout) { b.packetTo(b.from.gateway, b.throughTunnel(b.from.addr, "n2")) },
	}, {
		name: "tunnel: VXLAN to the pod's own node, as another node", finding: "own", duels: []duel{{"open", "guarded"}}, noSockets: "an IPv4 socket binds to its host's own addresses alone",
		raw: func(b *bout) { b.packetTo(b.from.gateway, b.throughTunnel(b.parties["n2"].addr, "n1")) },
	}}
	all = append(all, attack{
		name: "tunnel: VXLAN to the pod's own node, and to its kubelet inside", finding: "own", duels: []duel{{"ward", "n1"}},
		sockets: func(b *bout) { b.sendTo(b.vxlan("n1", b.toKubelet()), netip.AddrPortFrom(b.nodeAddr(), vxlanPort)) },
		raw: func(b *bout) {
			outer := probe.UDP(netip.AddrPortFrom(b.from.addr, 50001), netip.AddrPortFrom(b.nodeAddr(), vxlanPort), b.vxlan("n1", b.toKubelet()))
			b.packetTo(b.from.gateway, outer)
		},
	})
	for _, k := range []struct {
		name     string
		protocol uint8
		header   []byte
		six      bool
	}{
		{"IP in IP", unix.IPPROTO_IPIP, nil, false}, {"6in4", unix.IPPROTO_IPV6, nil, true},
		{"GRE", unix.IPPROTO_GRE, []byte{0, 0, 8, 0}, false}, {"GRE with Ethernet", unix.IPPROTO_GRE, []byte{0, 0, 0x65, 0x58}, false},
		{"ESP", unix.IPPROTO_ESP, nil, false}, {"L2TP", unix.IPPROTO_L2TP, nil, false}, {"EtherIP", 97, []byte{0x30, 0}, false},
	} {
		all = append(all, attack{
			name: "tunnel: " + k.name, finding: "own", duels: slices.Concat(near, remote), noSockets: "a socket without rights speaks UDP, TCP and SCTP",
			raw: func(b *bout) {
				inner := b.udp(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"))
				if k.six {
					inner = b.udp(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"))
				}
				b.packet(probe.Packet{Src: b.src(), Dst: b.dst(), Protocol: protocolOf(k.protocol), Payload: append(slices.Clone(k.header), inner.Marshal()...)})
			},
		})
	}
	return all
}
