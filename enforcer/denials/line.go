package denials

import (
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The messages of packets.
const (
	denied      = "denied"
	wouldDeny   = "would be denied"
	unknownWhat = "denied, or would be" // by a rule that is gone: nobody knows which of the two
)

// unknownPolicy stands for the policy of a rule that is gone.
const unknownPolicy = "unknown"

// describe is the line of one packet: its message, and its fields as pairs of key and value. What the packet does not have, as an ICMP packet
// has no ports, is left out; an end that is no pod is an empty name.
func describe(p dataplane.Packet, point policy.Point, known bool, src, dst string) (msg string, fields []any) {
	add := func(key string, value any) { fields = append(fields, key, value) }
	switch {
	case !known:
		msg = unknownWhat
		add("policy", unknownPolicy)
		add("id", p.ID)
	default:
		msg = denied
		if point.Audit {
			msg = wouldDeny
		}
		add("policy", point.Ref.String())
		if point.Index >= 0 {
			add("rule", point.Index)
		}
		add("direction", point.Direction.String())
	}
	ports := p.SrcPort != 0 || p.DstPort != 0
	add("src", src)
	if p.Src.IsValid() {
		add("srcIP", p.Src.String())
	}
	if ports {
		add("srcPort", p.SrcPort)
	}
	add("dst", dst)
	if p.Dst.IsValid() {
		add("dstIP", p.Dst.String())
	}
	if ports {
		add("dstPort", p.DstPort)
	}
	add("protocol", ProtocolName(p.Protocol))
	switch p.Protocol {
	case policy.TCP:
		if p.TCPFlags != 0 {
			add("tcpFlags", tcpFlags(p.TCPFlags))
		}
	case policy.ICMP, policy.ICMPv6:
		add("icmpType", p.ICMPType)
		add("icmpCode", p.ICMPCode)
	}
	add("in", p.In)
	add("out", p.Out)
	add("length", p.Length)
	if p.Lost > 0 {
		add("lostBefore", p.Lost)
	}
	return msg, fields
}

// ProtocolName is the name of a protocol as the API writes it, its number if the API has no name for it.
func ProtocolName(p policy.Protocol) string {
	if p == policy.ICMPv6 {
		return "ICMPv6"
	}
	return strings.ToUpper(p.String())
}

// tcpFlagNames are those of RFC 9293, from the lowest bit.
var tcpFlagNames = [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}

func tcpFlags(set uint8) string {
	var names []string
	for bit, name := range tcpFlagNames {
		if set&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
