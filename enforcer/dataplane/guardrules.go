package dataplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/ruleset"
)

// What follows are conditions of nftables rules, as lists of expressions: each leaves the rule where it does not hold. They are put together by all.

// EtherTypes, as the frame itself has them: of a tagged frame it is the tag's.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
)

// register is the one that a condition loads what it compares into.
const register = 1

// all is the conditions one after the other.
func all(conditions ...[]expr.Any) []expr.Any {
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

// source and destination hold for packets of an address, of its family only.
func source(a netip.Addr) []expr.Any { return end(a, 12, 8) }

func destination(a netip.Addr) []expr.Any { return end(a, 16, 24) }

func end(a netip.Addr, offset4, offset6 int) []expr.Any {
	if a.Is4() {
		return all(etherType(etherIPv4), payload(expr.PayloadBaseNetworkHeader, offset4, expr.CmpOpEq, a.AsSlice()))
	}
	return all(etherType(etherIPv6), payload(expr.PayloadBaseNetworkHeader, offset6, expr.CmpOpEq, a.AsSlice()))
}

// sourceIn6 holds for IPv6 packets from a prefix.
func sourceIn6(p netip.Prefix) []expr.Any {
	return all(etherType(etherIPv6), masked(expr.PayloadBaseNetworkHeader, 8, p))
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
	return all(layer4(unix.IPPROTO_UDP), transport(0, expr.CmpOpEq, both...))
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() []expr.Any { return verdict(expr.VerdictAccept, "") }

// The bytes that are enough for what finds neighbours: of a solicitation or an advertisement with a link-layer address and a nonce (RFC 4861, 7527), 80; of
// ARP in Ethernet, what the shortest frame carries.
const (
	enoughForNeighbours = 80
	enoughForARP        = 46
)

var (
	linkLocal6   = netip.MustParsePrefix("fe80::/10")
	unspecified6 = netip.MustParsePrefix("::/128")
)

// finding are the conditions of what finds neighbours: types of ICMPv6 by value and mask, not forwarded, and short.
func finding(value, mask byte) []expr.Any {
	return all(
		[]expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{value}},
		},
		hopLimit(255), atMost(enoughForNeighbours))
}

// The ICMPv6 types of RFC 4861 and RFC 3810, as [finding] and others compare them.
const (
	solicitations, bothSolicitations = 0x85, 0xfd // 133 and 135
	advertisement, exactly           = 136, 0xff
	firstOfNeighbours                = 133
	lastOfNeighbours                 = 137
)

// Chains of the table in the family netdev that all guards share.
const (
	icmp6Chain = "icmp6" // what finds neighbours, and says who listens to which group
	firstChain = "first" // what finds an address
)

// sharedRules are the rules of those chains.
var sharedRules = map[string][][]expr.Any{
	icmp6Chain: {
		all(sourceIn6(linkLocal6), finding(solicitations, bothSolicitations), accept()),
		all(sourceIn6(unspecified6), finding(solicitations, bothSolicitations), accept()),
		all(finding(advertisement, exactly), masked(expr.PayloadBaseTransportHeader, 8, linkLocal6), accept()),
		all(sourceIn6(linkLocal6), listening(), accept()),
		all(sourceIn6(unspecified6), listening(), accept()),
	},
	firstChain: {
		all(source(netip.IPv4Unspecified()), udpPorts(68, 67), accept()),
		all(sourceIn6(linkLocal6), udpPorts(546, 547), accept()),
	},
}

// listening holds for a report of which groups are listened to, version 2: what Linux sends. It does not leave its link.
func listening() []expr.Any { return all(transport(0, expr.CmpOpEq, 143), hopLimit(1)) }

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

// guardChains are the rules of a guard's chains.
func guardChains(g ruleset.Guard) map[string][][]expr.Any {
	icmp6 := all(etherType(etherIPv6), layer4(unix.IPPROTO_ICMPV6))
	var entry4, entry6, arp, answers [][]expr.Any
	for _, a := range g.Addrs {
		if a.Is4() {
			entry4 = append(entry4, all(source(a), accept()))
			arp = append(arp, all(arpFrom(a), accept()))
			continue
		}
		entry6 = append(entry6, all(source(a), accept()))
		answers = append(answers,
			all(source(a), finding(solicitations, bothSolicitations), accept()),
			all(finding(advertisement, exactly), transport(8, expr.CmpOpEq, a.AsSlice()...), accept()))
	}
	if len(g.Addrs) == 0 { // shut
		return map[string][][]expr.Any{entryChain(g.Link): {verdict(expr.VerdictGoto, endChain(g.Link))}, endChain(g.Link): endRules(g)}
	}
	answers = append(answers,
		verdict(expr.VerdictJump, icmp6Chain),
		all(transport(0, expr.CmpOpGte, firstOfNeighbours), transport(0, expr.CmpOpLte, lastOfNeighbours), verdict(expr.VerdictGoto, endChain(g.Link))))
	entry := append(entry4, all(icmp6, verdict(expr.VerdictJump, answerChain(g.Link))))
	entry = append(append(entry, entry6...), arp...)
	entry = append(entry, all(arpFrom(netip.IPv4Unspecified()), accept()), verdict(expr.VerdictJump, firstChain), verdict(expr.VerdictGoto, endChain(g.Link)))
	return map[string][][]expr.Any{entryChain(g.Link): entry, answerChain(g.Link): answers, endChain(g.Link): endRules(g)}
}

// arpFrom holds for ARP whose sender says an IPv4 address, and whose frame carries nothing else.
func arpFrom(a netip.Addr) []expr.Any {
	return all(etherType(etherARP), atMost(enoughForARP), payload(expr.PayloadBaseNetworkHeader, 14, expr.CmpOpEq, a.AsSlice()))
}

// endRules count, sample and drop, or let pass in the end.
func endRules(g ruleset.Guard) [][]expr.Any {
	rules := [][]expr.Any{{&expr.Counter{}}}
	if g.Group != 0 {
		for _, t := range []uint16{etherIPv4, etherIPv6} {
			rules = append(rules, all(etherType(t), sample(g.Group, g.Point)))
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
		&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: group, Data: []byte(ruleset.LogPrefix + point)},
	}
}

// The sets of the table in the family bridge: the ports that are looked at, and the addresses that each may be brought.
const (
	portSet   = "ports"
	to4Set    = "to4"
	to6Set    = "to6"
	bridgeOut = "forward"
)

// field is the first of the registers of four bytes that concatenations are made in.
const field = unix.NFT_REG32_00

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
	return [][]expr.Any{
		all([]expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register},
			&expr.Lookup{SourceRegister: register, SetName: portSet, Invert: true},
		}, accept()),
		all(etherType(etherIPv4), pair(16, 4, to4Set), accept()),
		all(etherType(etherIPv6), pair(24, 16, to6Set), accept()),
		all(etherType(etherIPv6), layer4(unix.IPPROTO_ICMPV6),
			transport(0, expr.CmpOpGte, firstOfNeighbours), transport(0, expr.CmpOpLte, lastOfNeighbours), hopLimit(255), accept()),
		all(etherType(etherARP), accept()),
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
