package dataplane

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Pieces of packets, in hexadecimal. Addresses are 10.0.0.1 to 10.0.0.2 and fd00::1 to fd00::2, ports 40000 to 80.
const (
	ends4 = "0a000001" + "0a000002"
	ends6 = "fd000000000000000000000000000001" + "fd000000000000000000000000000002"
	ports = "9c400050"
	syn   = ports + "0000000000000000" + "5002" + "ffff" + "00000000"
)

// ip4 is an IPv4 header of 60 bytes in all: its length in words, flags with fragment offset, and protocol.
func ip4(words, offset, protocol string) string {
	return "4" + words + "00003c" + "0000" + offset + "40" + protocol + "0000" + ends4
}

// ip6 is an IPv6 header, with 60 bytes behind it.
func ip6(next string) string { return "60000000" + "003c" + next + "40" + ends6 }

var packetRows = []struct {
	name, bytes string
	want        Packet
}{
	{"TCP", ip4("5", "0000", "06") + syn, v4(Packet{Protocol: policy.TCP, SrcPort: 40000, DstPort: 80, TCPFlags: 2})},
	{"UDP", ip4("5", "0000", "11") + ports, v4(Packet{Protocol: policy.UDP, SrcPort: 40000, DstPort: 80})},
	{"SCTP", ip4("5", "0000", "84") + ports, v4(Packet{Protocol: policy.SCTP, SrcPort: 40000, DstPort: 80})},
	{"ICMP", ip4("5", "0000", "01") + "0300", v4(Packet{Protocol: policy.ICMP, ICMPType: 3})},
	{"another protocol", ip4("5", "0000", "2f") + ports, v4(Packet{Protocol: 47})},
	{"IPv4 options", ip4("7", "0000", "11") + "9404000000000000" + ports, v4(Packet{Protocol: policy.UDP, SrcPort: 40000, DstPort: 80})},
	{"the first fragment", ip4("5", "2000", "11") + ports, v4(Packet{Protocol: policy.UDP, SrcPort: 40000, DstPort: 80})},
	{"a later fragment", ip4("5", "00b9", "11") + ports, v4(Packet{Protocol: policy.UDP})},
	{"options beyond the copy", ip4("f", "0000", "11") + ports, v4(Packet{Protocol: policy.UDP})},
	{"a header shorter than headers are", ip4("4", "0000", "11") + ports, v4(Packet{Protocol: policy.UDP})},
	{"ports beyond the copy", ip4("5", "0000", "11") + ports[:6], v4(Packet{Protocol: policy.UDP})},
	{"TCP flags beyond the copy", ip4("5", "0000", "06") + syn[:26], v4(Packet{Protocol: policy.TCP, SrcPort: 40000, DstPort: 80})},
	{"addresses beyond the copy", ip4("5", "0000", "06")[:38], Packet{}},

	{"TCP over IPv6", ip6("06") + syn, v6(Packet{Protocol: policy.TCP, SrcPort: 40000, DstPort: 80, TCPFlags: 2})},
	{"ICMPv6", ip6("3a") + "8000", v6(Packet{Protocol: policy.ICMPv6, ICMPType: 128})},
	{"no next header", ip6("3b"), v6(Packet{Protocol: 59})},
	{"extension headers", ip6("00") + "2b00000000000000" + "3c02000000000000" + zeros(16) + "1100000000000000" + ports,
		v6(Packet{Protocol: policy.UDP, SrcPort: 40000, DstPort: 80})},
	{"an authentication header", ip6("33") + "1104000000000000" + zeros(16) + ports,
		v6(Packet{Protocol: policy.UDP, SrcPort: 40000, DstPort: 80})},
	{"the first fragment of IPv6", ip6("2c") + "1100000100000000" + ports, v6(Packet{Protocol: policy.UDP, SrcPort: 40000, DstPort: 80})},
	{"a later fragment of IPv6", ip6("2c") + "1100000800000000" + ports, v6(Packet{Protocol: policy.UDP})},
	{"an extension header that ends beyond the copy", ip6("3c") + "11ff000000000000" + ports, v6(Packet{Protocol: policy.UDP})},
	{"an extension header that begins at the end of the copy", ip6("2c") + "110000", v6(Packet{Protocol: fragment})},
	{"IPv6 addresses beyond the copy", ip6("06")[:78], Packet{}},

	{"nothing", "", Packet{}},
	{"no IP", "0001080006040001", Packet{}},
}

func v4(p Packet) Packet {
	p.Src, p.Dst, p.Length = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 60
	return p
}

func v6(p Packet) Packet {
	p.Src, p.Dst, p.Length = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 100
	return p
}

var equalAddrs = cmpopts.EquateComparable(netip.Addr{})

func zeros(n int) string { return strings.Repeat("00", n) }

func TestPackets(t *testing.T) {
	for _, r := range packetRows {
		b, err := hex.DecodeString(r.bytes)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		var got Packet
		got.parse(b)
		if diff := cmp.Diff(r.want, got, equalAddrs); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.name, diff)
		}
	}
}

// FuzzPacket: whatever bytes are sampled, reading them ends, and bytes beyond the copy change nothing but by being there: what is read of
// the start of a packet is read of the whole.
func FuzzPacket(f *testing.F) {
	for _, r := range packetRows {
		b, err := hex.DecodeString(r.bytes)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(len(b)/2))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		var whole, start Packet
		whole.parse(b)
		start.parse(b[:min(int(cut), len(b))])
		if start.Src.IsValid() && (start.Src != whole.Src || start.Dst != whole.Dst) {
			t.Errorf("addresses %s -> %s of the start, %s -> %s of the whole", start.Src, start.Dst, whole.Src, whole.Dst)
		}
		if start.DstPort != 0 && (start.Protocol != whole.Protocol || start.DstPort != whole.DstPort) {
			t.Errorf("port %s %d of the start, %s %d of the whole", start.Protocol, start.DstPort, whole.Protocol, whole.DstPort)
		}
	})
}
