package dataplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// What follows are conditions of nftables rules, as lists of expressions: each leaves the rule where it does not hold. They are put together by every.

// EtherTypes, as the frame itself has them: of a tagged frame it is the tag's.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
)

// register is the one that a condition loads what it compares into.
const register = 1

// every is the conditions one after the other.
func every(conditions ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, c := range conditions {
		out = append(out, c...)
	}
	return out
}

// payload holds where the bytes of a packet at an offset compare with a value.
func payload(base expr.PayloadBase, offset int, op expr.CmpOp, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: base, Offset: uint32(offset), Len: uint32(len(value))},
		&expr.Cmp{Op: op, Register: register, Data: value},
	}
}

// masked holds where the first bytes of an address are prefix's.
func masked(base expr.PayloadBase, offset int, p netip.Prefix) []expr.Any {
	value := p.Addr().AsSlice()
	mask := make([]byte, len(value))
	for i := range p.Bits() {
		mask[i/8] |= 1 << (7 - i%8)
	}
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: base, Offset: uint32(offset), Len: uint32(len(value))},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(value)), Mask: mask, Xor: make([]byte, len(value))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: value},
	}
}

func etherType(t uint16) []expr.Any {
	return payload(expr.PayloadBaseLLHeader, 12, expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, t))
}

// from holds for frames of an EtherType from a hardware address, or from any if that is empty. The two stand side by side, so that one look is enough: it is
// what costs most of a rule that most packets meet.
func from(mac string, t uint16) []expr.Any {
	if mac == "" {
		return etherType(t)
	}
	return payload(expr.PayloadBaseLLHeader, 6, expr.CmpOpEq, binary.BigEndian.AppendUint16([]byte(mac), t))
}

// source holds for packets from an address, of its family only.
func source(a netip.Addr) []expr.Any {
	if a.Is4() {
		return every(etherType(etherIPv4), sender(a))
	}
	return every(etherType(etherIPv6), sender(a))
}

// sender holds for packets from an address, if they are of its family.
func sender(a netip.Addr) []expr.Any {
	offset := 8
	if a.Is4() {
		offset = 12
	}
	return payload(expr.PayloadBaseNetworkHeader, offset, expr.CmpOpEq, a.AsSlice())
}

// sourceIn6 holds for IPv6 packets from a prefix.
func sourceIn6(p netip.Prefix) []expr.Any {
	return every(etherType(etherIPv6), masked(expr.PayloadBaseNetworkHeader, 8, p))
}

// layer4 holds for packets of a protocol, behind whatever extension headers.
func layer4(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{protocol}},
	}
}

// transport holds where the bytes behind all headers of IP compare with a value.
func transport(offset int, op expr.CmpOp, value ...byte) []expr.Any {
	return payload(expr.PayloadBaseTransportHeader, offset, op, value)
}

func hopLimit(n byte) []expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, 7, expr.CmpOpEq, []byte{n})
}

// atMost holds for packets of so many bytes, without the link's header and with whatever follows the packet in its frame.
func atMost(bytes uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyLEN, Register: register},
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLte, Register: register, Data: binaryutil.BigEndian.PutUint32(bytes)},
	}
}

// udpPorts holds for a UDP packet from one port to another.
func udpPorts(from, to uint16) []expr.Any {
	both := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	return every(layer4(unix.IPPROTO_UDP), transport(0, expr.CmpOpEq, both...))
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() []expr.Any { return verdict(expr.VerdictAccept, "") }

// What finds neighbours carries little. A solicitation or an advertisement is 24 bytes behind the header of IPv6, with one option 32 (RFC 4861, 4.3 and 4.4);
// a router's solicitation 8 or 16 (4.1). ARP for IPv4 in Ethernet is 28 bytes (RFC 826). Whatever is longer has something else to say.
const (
	neighbourBytes, neighbourWithOption = 64, 72
	routerBytes, routerWithOption       = 48, 56
	arpBytes                            = 28
)

// Types of ICMPv6, and of options of neighbour discovery: a hardware address of the source or of the target, of 8 bytes, and a nonce (RFC 7527).
const (
	routerSolicitation, neighbourSolicitation, neighbourAdvertisement = 133, 135, 136

	firstOfNeighbours, lastOfNeighbours = 133, 137

	sourceOption, targetOption, nonceOption = 0x0101, 0x0201, 0x0e01
)

var (
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
	multicast6 = netip.MustParsePrefix("ff00::/8")
	multicast4 = netip.MustParsePrefix("224.0.0.0/4")
)

// option is one of neighbour discovery that a message may end with, at an offset behind all headers of IP. One that says a hardware address says the pod's own,
// if that is known: others believe it (RFC 4861, 7.2).
type option struct {
	at   int
	kind uint16
	mac  string
}

// discovery are the forms that a message of neighbour discovery may have, each a list of conditions: directly behind the header of IPv6, never forwarded, and
// with one of these options at most.
func discovery(kind byte, plain, withOption uint32, options ...option) [][]expr.Any {
	head := every(nextHeader(unix.IPPROTO_ICMPV6), transport(0, expr.CmpOpEq, kind), hopLimit(255))
	forms := [][]expr.Any{every(head, atMost(plain))}
	for _, o := range options {
		is := append([]byte{byte(o.kind >> 8), byte(o.kind)}, o.mac...)
		forms = append(forms, every(head, atMost(withOption), transport(o.at, expr.CmpOpEq, is...)))
	}
	return forms
}

// nextHeader holds for IPv6 packets whose first header behind IPv6's own is this.
func nextHeader(protocol byte) []expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, 6, expr.CmpOpEq, []byte{protocol})
}

// firstChain is a chain that all guards share: what finds an address.
const firstChain = "first"

// sharedRules are the rules of chains that are shared.
var sharedRules = map[string][][]expr.Any{
	firstChain: {
		every(source(netip.IPv4Unspecified()), udpPorts(68, 67), accept()),
		every(sourceIn6(linkLocal6), udpPorts(546, 547), accept()),
	},
}

// listening holds for a report of which groups are listened to, version 2: what Linux sends. It does not leave its link.
func listening() []expr.Any { return every(transport(0, expr.CmpOpEq, 143), hopLimit(1)) }

// Names of a link's chains: where its frames enter, the answers of its neighbours discovery, and where it ends that does not pass.
func entryChain(link string) string  { return "in-" + link }
func answerChain(link string) string { return "nd-" + link }
func endChain(link string) string    { return "no-" + link }

// linkOf is the link whose entry a chain is.
func linkOf(chain string) (link string, ok bool) {
	const prefix = "in-"
	if len(chain) <= len(prefix) || chain[:len(prefix)] != prefix {
		return "", false
	}
	return chain[len(prefix):], true
}

// guardChains are the rules of a guard's chains. Those that most packets meet stand in front.
func guardChains(g iptables.Guard) map[string][][]expr.Any {
	entry, answers, end := entryChain(g.Link), answerChain(g.Link), endChain(g.Link)
	if len(g.Addrs) == 0 { // shut
		return map[string][][]expr.Any{entry: {verdict(expr.VerdictGoto, end)}, end: endRules(g)}
	}
	return map[string][][]expr.Any{entry: entryRules(g), answers: answerRules(g), end: endRules(g)}
}

// errors4 are the types of ICMP that are about another packet: unreachable, quench, redirect, time exceeded, parameter problem. Of ICMPv6 all are below the
// first that is none.
var errors4 = []byte{3, 4, 5, 11, 12}

const firstQuery6 = 128

// The first byte of an IPv4 header says how long it is: as it is without options, and with the one that IGMP has (router alert).
const (
	withoutOptions4  = 0x45
	withRouterAlert4 = 0x46
)

// entryRules are what a frame from a link meets first.
func entryRules(g iptables.Guard) [][]expr.Any {
	end := verdict(expr.VerdictGoto, endChain(g.Link))
	var rules [][]expr.Any
	add := func(conditions ...[]expr.Any) { rules = append(rules, every(conditions...)) }
	four, six := byFamily(g.Addrs)
	for _, a := range four {
		is := every(from(g.MAC, etherIPv4), sender(a), headerOf4(withoutOptions4))
		add(is, protocol4(unix.IPPROTO_TCP), accept())
		add(is, protocol4(unix.IPPROTO_UDP), intoNone(g.Tunnels), accept())
	}
	for _, a := range six {
		is := every(from(g.MAC, etherIPv6), sender(a))
		add(is, nextHeader(unix.IPPROTO_TCP), accept())
		add(is, nextHeader(unix.IPPROTO_UDP), intoNone(g.Tunnels), accept())
	}
	if g.MAC != "" {
		add(payload(expr.PayloadBaseLLHeader, 6, expr.CmpOpNeq, []byte(g.MAC)), end)
	}
	for _, t := range g.Tunnels {
		into := layer4(byte(t.Protocol))
		if t.Port != 0 {
			into = every(into, transport(2, expr.CmpOpEq, byte(t.Port>>8), byte(t.Port)))
		}
		add(into, end)
	}
	for _, kind := range errors4 {
		// It is about a packet to this pod: the destination stands in what it quotes, behind its own 8 bytes.
		add(etherType(etherIPv4), protocol4(unix.IPPROTO_ICMP), transport(0, expr.CmpOpEq, kind), otherThan(24, four), end)
	}
	for _, a := range four {
		add(source(a), headerOf4(withoutOptions4), accept())
		add(source(a), headerOf4(withRouterAlert4), protocol4(unix.IPPROTO_IGMP), accept())
	}
	// Connection tracking takes every type below 128 for an error (nf_conntrack_icmpv6_error).
	add(etherType(etherIPv6), layer4(unix.IPPROTO_ICMPV6), transport(0, expr.CmpOpLt, firstQuery6), otherThan(32, six), end)
	add(etherType(etherIPv6), layer4(unix.IPPROTO_ICMPV6), verdict(expr.VerdictJump, answerChain(g.Link)))
	add(etherType(etherIPv6), routingHeader(), end)
	for _, a := range six {
		add(source(a), accept())
	}
	for _, a := range append(four, netip.IPv4Unspecified()) {
		add(arpFrom(a, g.MAC), accept())
	}
	add(verdict(expr.VerdictJump, firstChain))
	add(end)
	return rules
}

// intoNone holds for UDP packets whose port is none of the tunnels'. A fragment that has no ports is no such packet.
func intoNone(tunnels []policy.Tunnel) []expr.Any {
	var conditions [][]expr.Any
	for _, t := range tunnels {
		if t.Protocol == policy.UDP && t.Port != 0 {
			conditions = append(conditions, transport(2, expr.CmpOpNeq, byte(t.Port>>8), byte(t.Port)))
		}
	}
	return every(conditions...)
}

func byFamily(addrs []netip.Addr) (four, six []netip.Addr) {
	for _, a := range addrs {
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	return four, six
}

// otherThan holds where the address at an offset behind all headers of IP is none of these.
func otherThan(offset int, addrs []netip.Addr) []expr.Any {
	var conditions [][]expr.Any
	for _, a := range addrs {
		conditions = append(conditions, transport(offset, expr.CmpOpNeq, a.AsSlice()...))
	}
	return every(conditions...)
}

// headerOf4 holds for IPv4 headers of a length, and protocol4 for those of a protocol.
func headerOf4(first byte) []expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, 0, expr.CmpOpEq, []byte{first})
}

func protocol4(protocol byte) []expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, 9, expr.CmpOpEq, []byte{protocol})
}

// routingHeader holds for IPv6 packets that say their way (RFC 8200, 4.4).
func routingHeader() []expr.Any {
	return []expr.Any{
		&expr.Exthdr{DestRegister: register, Type: unix.IPPROTO_ROUTING, Offset: 0, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{1}},
	}
}

// answerRules are for ICMPv6: what asks for neighbours, what answers for the pod, and which groups it listens to. Of the types of neighbour discovery nothing
// else goes on.
func answerRules(g iptables.Guard) [][]expr.Any {
	end := verdict(expr.VerdictGoto, endChain(g.Link))
	_, six := byFamily(g.Addrs)
	var rules [][]expr.Any
	add := func(conditions ...[]expr.Any) { rules = append(rules, every(conditions...)) }
	accepting := func(forms [][]expr.Any) {
		for _, f := range forms {
			add(f, accept())
		}
	}
	add(not6(expr.PayloadBaseNetworkHeader, 8, append(six, netip.IPv6Unspecified())), end)
	accepting(discovery(neighbourSolicitation, neighbourBytes, neighbourWithOption, option{24, sourceOption, g.MAC}, option{24, nonceOption, ""}))
	accepting(discovery(routerSolicitation, routerBytes, routerWithOption, option{8, sourceOption, g.MAC}))
	add(transport(0, expr.CmpOpEq, neighbourAdvertisement), not6(expr.PayloadBaseTransportHeader, 8, six), end)
	accepting(discovery(neighbourAdvertisement, neighbourBytes, neighbourWithOption, option{24, targetOption, g.MAC}))
	add(listening(), accept())
	add(transport(0, expr.CmpOpGte, firstOfNeighbours), transport(0, expr.CmpOpLte, lastOfNeighbours), end)
	return rules
}

// not6 holds where the address at an offset is none of these, and no link-local one.
func not6(base expr.PayloadBase, offset int, addrs []netip.Addr) []expr.Any {
	conditions := masked(base, offset, linkLocal6)
	conditions[len(conditions)-1].(*expr.Cmp).Op = expr.CmpOpNeq
	for _, a := range addrs {
		conditions = append(conditions, payload(base, offset, expr.CmpOpNeq, a.AsSlice())...)
	}
	return conditions
}

// arpFrom holds for ARP for IPv4 in Ethernet, a request or a reply, whose sender says an address, and that carries nothing else.
func arpFrom(a netip.Addr, mac string) []expr.Any {
	head := []byte{0, 1, 0x08, 0x00, 6, 4, 0}
	is := every(etherType(etherARP), atMost(arpBytes), payload(expr.PayloadBaseNetworkHeader, 0, expr.CmpOpEq, head),
		payload(expr.PayloadBaseNetworkHeader, 7, expr.CmpOpLte, []byte{2}), payload(expr.PayloadBaseNetworkHeader, 14, expr.CmpOpEq, a.AsSlice()))
	if mac != "" {
		is = every(is, payload(expr.PayloadBaseNetworkHeader, 8, expr.CmpOpEq, []byte(mac)))
	}
	return is
}

// endRules count, sample and drop, or let pass in the end.
func endRules(g iptables.Guard) [][]expr.Any {
	rules := [][]expr.Any{{&expr.Counter{}}}
	if g.Group != 0 {
		for _, t := range []uint16{etherIPv4, etherIPv6} {
			rules = append(rules, every(etherType(t), sample(g.Group, g.Point)))
		}
	}
	if g.Audit {
		return append(rules, accept())
	}
	return append(rules, verdict(expr.VerdictDrop, ""))
}

// sample sends up to ten packets a second to a group of NFLOG.
func sample(group uint16, point string) []expr.Any {
	return []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: 10, Unit: expr.LimitTimeSecond, Burst: 20},
		&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: group, Data: []byte(iptables.LogPrefix + point)},
	}
}

// The sets of the table in the family bridge: the ports that are looked at, those of them whose pods are isolated, the addresses that each may be brought, and
// those that are for all.
const (
	portSet     = "ports"
	isolatedSet = "isolated"
	to4Set      = "to4"
	to6Set      = "to6"
	forAllSet   = "forall"
	bridgeOut   = "forward"
)

// field is the first of the registers of four bytes that concatenations are made in.
const field = unix.NFT_REG32_00

// out holds for frames to a port that is in a set, or is not.
func out(set string, not bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register},
		&expr.Lookup{SourceRegister: register, SetName: set, Invert: not},
	}
}

// inwardRules are what a frame meets that a bridge brings from one port to another.
func inwardRules(audit bool) [][]expr.Any {
	end := append([]expr.Any{&expr.Counter{}}, verdict(expr.VerdictDrop, "")...)
	if audit {
		end = append([]expr.Any{&expr.Counter{}}, accept()...)
	}
	pair := func(offset, size int, set string) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: field, Base: expr.PayloadBaseNetworkHeader, Offset: uint32(offset), Len: uint32(size)},
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: field + uint32(size)/4},
			&expr.Lookup{SourceRegister: field, SetName: set},
		}
	}
	forAll := []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Lookup{SourceRegister: register, SetName: forAllSet},
	}
	return [][]expr.Any{
		// What most frames are comes first: a port that is not looked at has no address in these sets.
		every(etherType(etherIPv4), payload(expr.PayloadBaseNetworkHeader, 12, expr.CmpOpNeq, netip.IPv4Unspecified().AsSlice()),
			pair(16, 4, to4Set), accept()),
		every(etherType(etherIPv6), nextHeader(unix.IPPROTO_TCP), pair(24, 16, to6Set), accept()),
		every(out(portSet, true), accept()),
		every(source(netip.IPv4Unspecified()), end), // who has no address asks servers, by DHCP and by DHCPv6
		every(etherType(etherIPv6), layer4(unix.IPPROTO_UDP), transport(2, expr.CmpOpEq, 547>>8, 547&0xff), end),
		every(etherType(etherIPv6), pair(24, 16, to6Set), accept()),
		every(etherType(etherIPv6), layer4(unix.IPPROTO_ICMPV6), transport(0, expr.CmpOpGte, firstOfNeighbours+1),
			transport(0, expr.CmpOpLte, lastOfNeighbours), hopLimit(255), accept()), // routers alone are asked by 133
		every(etherType(etherARP), accept()),
		every(out(isolatedSet, false), end),
		every(etherType(etherIPv4), masked(expr.PayloadBaseNetworkHeader, 16, multicast4), accept()),
		every(etherType(etherIPv4), forAll, accept()),
		every(etherType(etherIPv6), masked(expr.PayloadBaseNetworkHeader, 24, multicast6), accept()),
		end,
	}
}

// interfaceName is a link's name as a set compares it.
func interfaceName(link string) []byte {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return name
}

// hookPriority is that of our base chains: before what others do with a frame there.
var hookPriority = nftables.ChainPriorityRef(-500)
