package dataplane

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// prefixText is an address or prefix as netip prints it, masked and with its length. C libraries disagree on where to
// shorten an IPv6 address, and on ::10.0.0.1.
func prefixText(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()).String()
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked().String()
	}
	return s // a mask with holes; nothing of ours
}

// protocolText is a protocol as policy.Protocol prints it. iptables prints its own names, then those of /etc/protocols,
// which a container image may lack, then numbers.
func protocolText(s string) string {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && n > 0 {
		return policy.Protocol(n).String()
	}
	if n, ok := protocolNames[s]; ok {
		return n.String()
	}
	if n, ok := systemProtocols()[s]; ok {
		return n.String()
	}
	return s
}

// protocolNames are those that iptables knows by itself.
var protocolNames = map[string]policy.Protocol{
	"icmp": policy.ICMP, "tcp": policy.TCP, "udp": policy.UDP, "icmpv6": policy.ICMPv6, "ipv6-icmp": policy.ICMPv6,
	"sctp": policy.SCTP, "esp": 50, "ah": 51, "mh": 135, "ipv6-mh": 135, "udplite": 136,
}

var systemProtocols = sync.OnceValue(func() map[string]policy.Protocol {
	text, err := os.ReadFile("/etc/protocols")
	if err != nil {
		return nil // then iptables has no names to print either
	}
	return parseProtocols(text)
})

// parseProtocols reads protocols(5): a name, a number and aliases in each line, and comments behind #.
func parseProtocols(text []byte) map[string]policy.Protocol {
	names := map[string]policy.Protocol{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(f[1], 10, 8); err == nil {
			for _, name := range slices.Concat(f[:1], f[2:]) {
				names[name] = policy.Protocol(n)
			}
		}
	}
	return names
}

// portsText writes out the ends that a range may leave away, and a range of one port as that port.
func portsText(s string) string {
	items := strings.Split(s, ",")
	for i, item := range items {
		first, last, isRange := strings.Cut(item, ":")
		if !isRange {
			continue
		}
		if first == "" {
			first = "0"
		}
		if last == "" {
			last = "65535"
		}
		if items[i] = first + ":" + last; first == last {
			items[i] = first
		}
	}
	return strings.Join(items, ",")
}

// states are connection tracking's, in the order in which iptables prints them.
var states = []string{"INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"}

func statesText(s string) string {
	items := strings.Split(s, ",")
	slices.SortStableFunc(items, func(a, b string) int { return slices.Index(states, a) - slices.Index(states, b) })
	return strings.Join(items, ",")
}
