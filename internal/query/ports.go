package query

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Port is what a connection goes to.
type Port struct {
	Protocol policy.Protocol
	Number   uint16 // 0 of a protocol without ports
}

// String is "tcp/80", or "icmp".
func (p Port) String() string {
	if !p.Protocol.HasPorts() {
		return p.Protocol.String()
	}
	return fmt.Sprintf("%s/%d", p.Protocol, p.Number)
}

// PortsVerdict says whether connections to some ports are allowed.
type PortsVerdict struct {
	// Protocol is tcp, udp, sctp, or icmp. What is said of icmp goes for every protocol without ports.
	Protocol string `json:"protocol"`
	First    uint16 `json:"first,omitempty"`
	Last     uint16 `json:"last,omitempty"`
	Allowed  bool   `json:"allowed"`
}

// String is "tcp 80-90", "tcp" for all its ports, or "icmp".
func (p PortsVerdict) String() string {
	switch {
	case p.First <= 1 && (p.First == 0 || p.Last == lastPort):
		return p.Protocol
	case p.First == p.Last:
		return fmt.Sprintf("%s %d", p.Protocol, p.First)
	}
	return fmt.Sprintf("%s %d-%d", p.Protocol, p.First, p.Last)
}

const lastPort = 65535

// withPorts are the protocols whose ports policies name.
var withPorts = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// Ports says of each port of the protocols with ports, and of all protocols that have none, whether a connection is allowed. Neighbouring ports that are
// treated alike are one range. Without addresses of one family nothing is.
func (c *Cluster) Ports(from, to End) []PortsVerdict {
	var all []PortsVerdict
	for _, protocol := range withPorts {
		firsts := c.firsts(from, to, protocol)
		for i, first := range firsts {
			last := uint16(lastPort)
			if i+1 < len(firsts) {
				last = firsts[i+1] - 1
			}
			allowed := c.allows(from, to, Port{protocol, first})
			if n := len(all); n > 0 && all[n-1].Protocol == protocol.String() && all[n-1].Allowed == allowed {
				all[n-1].Last = last
				continue
			}
			all = append(all, PortsVerdict{protocol.String(), first, last, allowed})
		}
	}
	return append(all, PortsVerdict{Protocol: policy.ICMP.String(), Allowed: c.allows(from, to, Port{Protocol: policy.ICMP})})
}

// allowedPorts are those of Ports that are allowed.
func (c *Cluster) allowedPorts(from, to End) []PortsVerdict {
	return slices.DeleteFunc(c.Ports(from, to), func(p PortsVerdict) bool { return !p.Allowed })
}

// allows is whether [Cluster.Why] says that a connection is allowed, without the reasons.
func (c *Cluster) allows(from, to End, port Port) bool {
	paths := 0
	for _, src := range from.Addrs {
		for _, dst := range to.Addrs {
			if src.Is4() != dst.Is4() {
				continue
			}
			for _, one := range asks(from, to) {
				if f := c.flow(one, src, dst, port); one.end.isPod() && !c.admits(one.end, f, one.direction) {
					return false
				}
			}
			paths++
		}
	}
	return paths > 0
}

// admits reports whether an end allows a flow.
func (c *Cluster) admits(e End, f policy.Flow, d policy.Direction) bool {
	node := c.node(e.Node)
	local := f.Src
	if d == policy.Ingress {
		local = f.Dst
	}
	endpoint := node.endpoints[local]
	return endpoint == nil || node.Admits(endpoint, f, d)
}

// firsts are the ports of a protocol at which rules may begin to say something else, ascending from 1. Port 0 is nobody's.
func (c *Cluster) firsts(from, to End, protocol policy.Protocol) []uint16 {
	firsts := []uint16{1}
	add := func(first, last uint16) {
		firsts = append(firsts, max(first, 1))
		if last < lastPort {
			firsts = append(firsts, last+1)
		}
	}
	for _, one := range asks(from, to) {
		if !one.end.isPod() {
			continue
		}
		node := c.node(one.end.Node)
		for _, a := range one.end.Addrs {
			e := node.endpoints[a]
			if e == nil {
				continue
			}
			for _, policies := range e.Applies[one.direction] {
				for _, i := range policies {
					for _, r := range node.Policies[i].Rules[one.direction] {
						node.eachPort(r.Ports, protocol, to.Addrs, add)
					}
				}
			}
		}
	}
	slices.Sort(firsts)
	return slices.Compact(firsts)
}

// eachPort shows the ranges of a rule's ports that are of a protocol, and those of them that have a name, as some addresses have it.
func (n *compiledNode) eachPort(p policy.Ports, protocol policy.Protocol, addrs []netip.Addr, show func(first, last uint16)) {
	switch p.Kind {
	case policy.InRanges:
		for _, r := range p.Ranges {
			if r.Protocol == protocol {
				show(r.First, r.Last)
			}
		}
	case policy.InPorts:
		for _, a := range addrs {
			for _, m := range n.membersAt(p.Set)[policy.AddrOf(a)] {
				if m.Protocol == protocol {
					show(m.Port, m.Port)
				}
			}
		}
	}
}

// membersAt are the members of a set by their address. They are found once: a set may have all pods of a cluster, and is asked about for each of them.
func (n *compiledNode) membersAt(id policy.SetID) map[policy.Addr][]policy.Member {
	if n.members[id] == nil {
		n.members[id] = map[policy.Addr][]policy.Member{}
		for m := range n.Sets.Get(id).Members.All() {
			n.members[id][m.Addr] = append(n.members[id][m.Addr], m)
		}
	}
	return n.members[id]
}

// PortsText is what some ports are called together: "all", or "tcp 80, udp 53".
func PortsText(ports []PortsVerdict) string {
	var texts []string
	for _, p := range ports {
		texts = append(texts, p.String())
	}
	if slices.Equal(texts, []string{"tcp", "udp", "sctp", "icmp"}) {
		return "all"
	}
	return strings.Join(texts, ", ")
}
