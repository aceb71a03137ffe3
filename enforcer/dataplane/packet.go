package dataplane

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Packet is a packet that a rule of ours has sampled. What the packet does not have, or what lies beyond the bytes of it that were
// copied, is zero.
type Packet struct {
	// ID is that of the iptables.Point whose rule sampled it.
	ID string
	At time.Time
	// Lost is how many samples before this one, and after the one before it, nobody was quick enough to read.
	Lost uint64

	Src, Dst netip.Addr
	// Protocol is that of the payload, behind IPv6 extension headers; where these go on beyond the copied bytes, the last known header's.
	Protocol policy.Protocol
	// SrcPort and DstPort are zero in all fragments but the first.
	SrcPort, DstPort uint16
	// ICMPType and ICMPCode are those of ICMP, or of ICMPv6.
	ICMPType, ICMPCode uint8
	TCPFlags           uint8
	// In and Out are interfaces. A packet to the node has no Out, one from it no In.
	In, Out string
	// Length is that of the whole IP packet.
	Length int
}

// The protocols beyond those of package policy whose headers begin with two ports.
const (
	dccp    policy.Protocol = 33
	udpLite policy.Protocol = 136
)

// IPv6 extension headers, as IANA numbers them. Those of ESP and of "no next header" end the chain: what follows cannot be read.
const (
	hopByHop           policy.Protocol = 0
	routing            policy.Protocol = 43
	fragment           policy.Protocol = 44
	authentication     policy.Protocol = 51
	destinationOptions policy.Protocol = 60
)

// parse reads the start of an IP packet into p. What is not there stays zero.
func (p *Packet) parse(b []byte) {
	if len(b) == 0 {
		return
	}
	switch b[0] >> 4 {
	case 4:
		p.parseIPv4(b)
	case 6:
		p.parseIPv6(b)
	}
}

func (p *Packet) parseIPv4(b []byte) {
	const shortest = 20
	if len(b) < shortest {
		return
	}
	p.Length = int(binary.BigEndian.Uint16(b[2:]))
	p.Protocol = policy.Protocol(b[9])
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	header := 4 * int(b[0]&0x0f)
	offset := binary.BigEndian.Uint16(b[6:]) & 0x1fff
	if header < shortest || header > len(b) || offset > 0 {
		return
	}
	p.parseTransport(b[header:])
}

func (p *Packet) parseIPv6(b []byte) {
	const header = 40
	if len(b) < header {
		return
	}
	p.Length = header + int(binary.BigEndian.Uint16(b[4:]))
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	p.Protocol = policy.Protocol(b[6])
	rest := b[header:]
	for {
		next, length, ok := extension(p.Protocol, rest)
		if !ok {
			return
		}
		if length == 0 {
			break
		}
		later := p.Protocol == fragment && binary.BigEndian.Uint16(rest[2:])>>3 > 0
		p.Protocol = next
		if later || length > len(rest) {
			return
		}
		rest = rest[length:]
	}
	p.parseTransport(rest)
}

// extension is the protocol behind an IPv6 extension header, and the header's length: 0 if the protocol is none. It is not ok
// if the header has no first 8 bytes: it always has in a packet that is whole.
func extension(protocol policy.Protocol, b []byte) (next policy.Protocol, length int, ok bool) {
	switch protocol {
	case hopByHop, routing, fragment, authentication, destinationOptions:
	default:
		return protocol, 0, true
	}
	if len(b) < 8 {
		return protocol, 0, false
	}
	switch protocol {
	case fragment:
		length = 8
	case authentication:
		length = 4 * (int(b[1]) + 2)
	default:
		length = 8 * (int(b[1]) + 1)
	}
	return policy.Protocol(b[0]), length, true
}

func (p *Packet) parseTransport(b []byte) {
	switch p.Protocol {
	case policy.TCP, policy.UDP, policy.SCTP, dccp, udpLite:
		if len(b) >= 4 {
			p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
		if p.Protocol == policy.TCP && len(b) > 13 {
			p.TCPFlags = b[13]
		}
	case policy.ICMP, policy.ICMPv6:
		if len(b) >= 2 {
			p.ICMPType, p.ICMPCode = b[0], b[1]
		}
	}
}
