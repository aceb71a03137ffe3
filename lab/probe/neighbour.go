package probe

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ARP is a message of the IPv4 address resolution protocol (RFC 826).
type ARP struct {
	// Operation is 1 for a request and 2 for a reply.
	Operation            uint16
	Sender, Target       net.HardwareAddr
	SenderAddr, TargetIP netip.Addr
	// Behind follows the message where Ethernet pads a short frame.
	Behind []byte
}

// The operations of ARP.
const (
	ARPRequest uint16 = 1
	ARPReply   uint16 = 2
)

// Frame is the message in a frame from its sender.
func (a ARP) Frame(dst net.HardwareAddr) Frame {
	b := be.AppendUint16(nil, 1) // Ethernet
	b = be.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4)
	b = be.AppendUint16(b, a.Operation)
	b = append(append(b, a.Sender...), a.SenderAddr.AsSlice()...)
	b = append(append(b, a.Target...), a.TargetIP.AsSlice()...)
	return Frame{Dst: dst, Src: a.Sender, Type: unix.ETH_P_ARP, Payload: append(b, a.Behind...)}
}

// The messages of neighbour discovery (RFC 4861, section 4).
const (
	RouterSolicitation     = 133
	RouterAdvertisement    = 134
	NeighbourSolicitation  = 135
	NeighbourAdvertisement = 136
	Redirect               = 137
)

// Flags of a neighbour advertisement, in its second word.
const (
	Solicited uint32 = 1 << 30
	Override  uint32 = 1 << 29
)

// Discovery is a message of neighbour discovery about a target with options, and with the hop limit that such a message has.
func Discovery(src, dst netip.Addr, kind uint8, flags uint32, target netip.Addr, options ...[]byte) Packet {
	body := target.AsSlice()
	for _, o := range options {
		body = append(body, o...)
	}
	p := ICMP(src, dst, kind, 0, flags, body)
	p.HopLimit = 255
	return p
}

// LinkLayer is the option that names a link-layer address: kind is 1 for the source's and 2 for the target's.
func LinkLayer(kind uint8, mac net.HardwareAddr) []byte {
	return append([]byte{kind, 1}, mac...)
}

// Option is an option of neighbour discovery with data, padded to a multiple of 8 bytes.
func Option(kind uint8, data []byte) []byte {
	b := append([]byte{kind, 0}, data...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b[1] = uint8(len(b) / 8)
	return b
}
