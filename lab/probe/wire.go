package probe

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The packets that raw probes send and read, without their IP headers, which the kernel writes.

// firstPacket is the packet that opens a connection from a source port: a SYN, a datagram, an INIT or an echo
// request.
func firstPacket(f Flow, port uint16) []byte {
	switch f.protocol() {
	case policy.TCP:
		return tcpSyn(f, port)
	case policy.UDP:
		return udpRequest(f, port)
	case policy.SCTP:
		return sctp{srcPort: port, dstPort: f.Port, kind: sctpInit, initiateTag: uint32(port)<<16 | 1}.marshal()
	case Experimental:
		return experimental(port, request)
	}
	return echoRequest(f, port)
}

// answer is what a probe needs to know of a packet that came back.
type answer struct {
	srcPort, dstPort uint16 // dstPort is the identifier where there are no ports
	refused          bool
	identity         string
}

func (a answer) matches(f Flow, port uint16) bool {
	return a.dstPort == port && (!f.hasPorts() || a.srcPort == f.Port)
}

// parseAnswer reads a packet that came back, and reports whether it is an answer to a first packet.
func parseAnswer(protocol policy.Protocol, b []byte) (answer, bool) {
	switch protocol {
	case policy.TCP:
		return parseTCP(b)
	case policy.UDP:
		if len(b) < udpHeader {
			return answer{}, false
		}
		a := answer{srcPort: be.Uint16(b), dstPort: be.Uint16(b[2:]), identity: string(b[udpHeader:])}
		return a, a.identity != request
	case policy.SCTP:
		s, ok := parseSCTP(b)
		a := answer{srcPort: s.srcPort, dstPort: s.dstPort, identity: s.cookie, refused: s.kind == sctpAbort}
		return a, ok && s.kind != sctpInit
	case Experimental:
		a, ok := parseExperimental(b)
		return a, ok && a.identity != request
	}
	return parseEchoReply(protocol, b)
}

var be = binary.BigEndian

const (
	tcpHeader = 20
	udpHeader = 8

	tcpFlagSyn = 0x02
	tcpFlagRst = 0x04
	tcpFlagAck = 0x10
)

func tcpSyn(f Flow, port uint16) []byte {
	b := make([]byte, tcpHeader)
	be.PutUint16(b, port)
	be.PutUint16(b[2:], f.Port)
	be.PutUint32(b[4:], uint32(port)<<8) // sequence number
	b[12] = tcpHeader / 4 << 4
	b[13] = tcpFlagSyn
	be.PutUint16(b[14:], 65535) // window
	be.PutUint16(b[16:], checksum(f, b))
	return b
}

// parseTCP takes a SYN ACK for an answer, and a reset for a refusal.
func parseTCP(b []byte) (answer, bool) {
	if len(b) < tcpHeader {
		return answer{}, false
	}
	flags := b[13]
	a := answer{srcPort: be.Uint16(b), dstPort: be.Uint16(b[2:]), refused: flags&tcpFlagRst != 0}
	return a, a.refused || flags&(tcpFlagSyn|tcpFlagAck) == tcpFlagSyn|tcpFlagAck
}

func udpRequest(f Flow, port uint16) []byte {
	b := append(make([]byte, udpHeader), request...)
	be.PutUint16(b, port)
	be.PutUint16(b[2:], f.Port)
	be.PutUint16(b[4:], uint16(len(b)))
	be.PutUint16(b[6:], checksum(f, b))
	return b
}

const (
	echoHeader  = 8
	echoV4      = 8
	echoReplyV4 = 0
	echoV6      = 128
	echoReplyV6 = 129
)

func echoRequest(f Flow, id uint16) []byte {
	b := make([]byte, echoHeader)
	b[0] = echoV4
	if f.Dst.Is6() {
		b[0] = echoV6
	}
	be.PutUint16(b[4:], id)
	if f.Dst.Is4() { // for ICMPv6 the kernel does it (RFC 3542, section 3.1)
		be.PutUint16(b[2:], ^sum(0, b))
	}
	return b
}

func parseEchoReply(protocol policy.Protocol, b []byte) (answer, bool) {
	want := byte(echoReplyV4)
	if protocol == policy.ICMPv6 {
		want = echoReplyV6
	}
	if len(b) < echoHeader || b[0] != want {
		return answer{}, false
	}
	return answer{dstPort: be.Uint16(b[4:])}, true
}

// experimental is a packet of the protocol that no kernel knows: an identifier and a text.
func experimental(id uint16, text string) []byte {
	return append(be.AppendUint16(nil, id), text...)
}

func parseExperimental(b []byte) (answer, bool) {
	if len(b) < 2 {
		return answer{}, false
	}
	return answer{dstPort: be.Uint16(b), identity: string(b[2:])}, true
}

// checksum is that of TCP and UDP (RFC 9293, section 3.1; RFC 8200, section 8.1).
func checksum(f Flow, b []byte) uint16 {
	pseudo := append(f.Src.AsSlice(), f.Dst.AsSlice()...)
	pseudo = be.AppendUint32(pseudo, uint32(len(b)))
	pseudo = be.AppendUint32(pseudo, uint32(f.protocol()))
	c := ^sum(sum(0, pseudo), b)
	if c == 0 && f.Protocol == policy.UDP {
		return 0xffff // zero would mean that there is none
	}
	return c
}

// sum adds up b in ones' complement (RFC 1071).
func sum(initial uint16, b []byte) uint16 {
	s := uint32(initial)
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(be.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// sctp is an SCTP packet with one chunk (RFC 9260, section 3).
type sctp struct {
	srcPort, dstPort uint16
	verificationTag  uint32
	kind             byte
	initiateTag      uint32 // of INIT and INIT ACK
	cookie           string // of INIT ACK
}

const (
	sctpInit    = 1
	sctpInitAck = 2
	sctpAbort   = 6

	sctpHeader      = 12
	sctpChunkHeader = 4
	sctpInitChunk   = 20
	sctpStateCookie = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// marshal writes an INIT or an INIT ACK.
func (s sctp) marshal() []byte {
	b := make([]byte, sctpHeader+sctpInitChunk)
	be.PutUint16(b, s.srcPort)
	be.PutUint16(b[2:], s.dstPort)
	be.PutUint32(b[4:], s.verificationTag)
	chunk := b[sctpHeader:]
	chunk[0] = s.kind
	be.PutUint32(chunk[4:], s.initiateTag)
	be.PutUint32(chunk[8:], 65535) // receiver window
	be.PutUint16(chunk[12:], 1)    // outbound streams
	be.PutUint16(chunk[14:], 1)    // inbound streams
	be.PutUint32(chunk[16:], 1)    // initial TSN
	if s.cookie != "" {
		b = be.AppendUint16(b, sctpStateCookie)
		b = be.AppendUint16(b, uint16(4+len(s.cookie)))
		b = append(b, s.cookie...)
	}
	be.PutUint16(b[sctpHeader+2:], uint16(len(b)-sctpHeader)) // without the padding that follows
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	// The CRC goes over the packet with zeros in its place, and in Intel's byte order (appendix A).
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parseSCTP reads a packet whose first chunk is INIT, INIT ACK or ABORT.
func parseSCTP(b []byte) (sctp, bool) {
	if len(b) < sctpHeader+sctpChunkHeader {
		return sctp{}, false
	}
	s := sctp{
		srcPort: be.Uint16(b), dstPort: be.Uint16(b[2:]), verificationTag: be.Uint32(b[4:]), kind: b[sctpHeader],
	}
	if s.kind == sctpAbort {
		return s, true
	}
	if s.kind != sctpInit && s.kind != sctpInitAck || len(b) < sctpHeader+sctpInitChunk {
		return sctp{}, false
	}
	s.initiateTag = be.Uint32(b[sctpHeader+4:])
	if p := b[sctpHeader+sctpInitChunk:]; len(p) >= 4 && be.Uint16(p) == sctpStateCookie {
		if n := int(be.Uint16(p[2:])); n >= 4 && n <= len(p) {
			s.cookie = string(p[4:n])
		}
	}
	return s, true
}
