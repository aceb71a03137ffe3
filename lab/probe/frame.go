package probe

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Frames and packets that are written field by field, so that any field may be a lie.

// Frame is an Ethernet frame.
type Frame struct {
	Dst, Src net.HardwareAddr
	// Tags are the VLAN tags, the outermost first.
	Tags []Tag
	// Type is the ether type, or the length of an 802.3 frame.
	Type    uint16
	Payload []byte
}

// Tag is a VLAN tag: its own ether type, such as unix.ETH_P_8021Q, and priority and VLAN in one number.
type Tag struct{ Type, Control uint16 }

// Marshal writes the frame as it goes over the wire, without its checksum.
func (f Frame) Marshal() []byte {
	b := append(append([]byte(nil), f.Dst...), f.Src...)
	for _, t := range f.Tags {
		b = be.AppendUint16(b, t.Type)
		b = be.AppendUint16(b, t.Control)
	}
	return append(be.AppendUint16(b, f.Type), f.Payload...)
}

// BroadcastMAC is everybody on the link.
var BroadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// MulticastMAC is where frames for a multicast address go (RFC 1112, section 6.4; RFC 2464, section 7).
func MulticastMAC(a netip.Addr) net.HardwareAddr {
	b := a.AsSlice()
	if a.Is4() {
		return net.HardwareAddr{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	return append(net.HardwareAddr{0x33, 0x33}, b[12:]...)
}

// SolicitedNode is the multicast address at which neighbour discovery asks for a (RFC 4291, section 2.7.1).
func SolicitedNode(a netip.Addr) netip.Addr {
	out := netip.MustParseAddr("ff02::1:ff00:0").As16()
	in := a.As16()
	copy(out[13:], in[13:])
	return netip.AddrFrom16(out)
}

// Packet is an IP packet of the family of its addresses.
type Packet struct {
	Src, Dst netip.Addr
	Protocol policy.Protocol
	// HopLimit is 64 if it is 0.
	HopLimit uint8
	// Options are IPv4's, a multiple of 4 bytes.
	Options []byte
	// ID and Fragment are IPv4's: what the fragments of a packet share, and flags with the offset in units of 8 bytes.
	ID, Fragment uint16
	Payload      []byte
}

// EtherType is the one that belongs to the packet's family.
func (p Packet) EtherType() uint16 {
	if p.Dst.Is4() {
		return unix.ETH_P_IP
	}
	return unix.ETH_P_IPV6
}

const ipv4Header = 20

// Marshal writes the packet.
func (p Packet) Marshal() []byte {
	hops := p.HopLimit
	if hops == 0 {
		hops = 64
	}
	if !p.Dst.Is4() {
		b := be.AppendUint32(nil, 6<<28)
		b = be.AppendUint16(b, uint16(len(p.Payload)))
		b = append(b, byte(p.Protocol), hops)
		b = append(append(b, p.Src.AsSlice()...), p.Dst.AsSlice()...)
		return append(b, p.Payload...)
	}
	b := make([]byte, ipv4Header, ipv4Header+len(p.Options)+len(p.Payload))
	b = append(b, p.Options...)
	b[0] = 4<<4 | byte(len(b)/4)
	be.PutUint16(b[2:], uint16(len(b)+len(p.Payload)))
	be.PutUint16(b[4:], p.ID)
	be.PutUint16(b[6:], p.Fragment)
	b[8], b[9] = hops, byte(p.Protocol)
	copy(b[12:], p.Src.AsSlice())
	copy(b[16:], p.Dst.AsSlice())
	be.PutUint16(b[10:], ^sum(0, b))
	return append(b, p.Payload...)
}

// TCPFlags are those of a TCP header.
type TCPFlags uint8

// The flags of TCP.
const (
	SYN TCPFlags = tcpFlagSyn
	RST TCPFlags = tcpFlagRst
	PSH TCPFlags = 0x08
	ACK TCPFlags = tcpFlagAck
)

// TCP is a segment with the sequence numbers given.
func TCP(src, dst netip.AddrPort, flags TCPFlags, seq, ack uint32, data []byte) Packet {
	b := make([]byte, tcpHeader, tcpHeader+len(data))
	be.PutUint16(b, src.Port())
	be.PutUint16(b[2:], dst.Port())
	be.PutUint32(b[4:], seq)
	be.PutUint32(b[8:], ack)
	b[12], b[13] = tcpHeader/4<<4, byte(flags)
	be.PutUint16(b[14:], 65535)
	b = append(b, data...)
	p := Packet{Src: src.Addr(), Dst: dst.Addr(), Protocol: policy.TCP, Payload: b}
	return p.summed(16)
}

// UDP is a datagram.
func UDP(src, dst netip.AddrPort, data []byte) Packet {
	b := make([]byte, udpHeader, udpHeader+len(data))
	be.PutUint16(b, src.Port())
	be.PutUint16(b[2:], dst.Port())
	be.PutUint16(b[4:], uint16(udpHeader+len(data)))
	p := Packet{Src: src.Addr(), Dst: dst.Addr(), Protocol: policy.UDP, Payload: append(b, data...)}
	return p.summed(6)
}

// ICMP is a message of ICMP between IPv4 addresses and of ICMPv6 between others, whose second word is rest.
func ICMP(src, dst netip.Addr, kind, code uint8, rest uint32, body []byte) Packet {
	b := []byte{kind, code, 0, 0}
	b = append(be.AppendUint32(b, rest), body...)
	p := Packet{Src: src, Dst: dst, Protocol: policy.ICMP, Payload: b}
	if dst.Is4() {
		be.PutUint16(b[2:], ^sum(0, b))
		return p
	}
	p.Protocol = policy.ICMPv6
	return p.summed(2)
}

// INIT is the first packet of an SCTP association.
func INIT(src, dst netip.AddrPort, tag uint32) Packet {
	return Packet{
		Src: src.Addr(), Dst: dst.Addr(), Protocol: policy.SCTP,
		Payload: sctp{srcPort: src.Port(), dstPort: dst.Port(), kind: sctpInit, initiateTag: tag}.marshal(),
	}
}

// IGMP is a message of IGMP with the options and the hop limit that one has (RFC 3376, section 4).
func IGMP(src, dst netip.Addr, kind uint8, body []byte) Packet {
	b := append([]byte{kind, 0, 0, 0}, body...)
	be.PutUint16(b[2:], ^sum(0, b))
	return Packet{Src: src, Dst: dst, Protocol: unix.IPPROTO_IGMP, HopLimit: 1, Options: []byte{0x94, 4, 0, 0}, Payload: b}
}

// summed writes the checksum over pseudo header and payload at an offset of the payload.
func (p Packet) summed(at int) Packet {
	c := checksum(Flow{Protocol: p.Protocol, Src: p.Src, Dst: p.Dst}, p.Payload)
	be.PutUint16(p.Payload[at:], c)
	return p
}

// Behind puts an extension header in front of an IPv6 packet's payload: what follows the byte that names the next header. Its length is a
// multiple of 8 bytes with that byte.
func (p Packet) Behind(kind policy.Protocol, header []byte) Packet {
	b := append([]byte{byte(p.Protocol)}, header...)
	p.Payload, p.Protocol = append(b, p.Payload...), kind
	return p
}

// Piece is the fragment of p that has the bytes of its payload between from and to; more says that others follow. From is a multiple of 8.
func (p Packet) Piece(id uint16, from, to int, more bool) Packet {
	flag := uint16(0)
	if more {
		flag = 1
	}
	data := p.Payload[from:to]
	if p.Dst.Is4() {
		p.ID, p.Fragment, p.Payload = id, flag<<13|uint16(from/8), data
		return p
	}
	header := be.AppendUint16([]byte{0}, uint16(from)|flag)
	header = be.AppendUint32(header, uint32(id))
	p.Payload = data
	return p.Behind(unix.IPPROTO_FRAGMENT, header)
}
