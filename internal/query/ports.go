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
	c.eachRange(from, to, func(first Port, last uint16) {
		protocol, allowed := first.Protocol.String(), c.allows(from, to, first)
		if n := len(all); n > 0 && all[n-1].Protocol == protocol && all[n-1].Allowed == allowed {
			all[n-1].Last = last
			return
		}
		all = append(all, PortsVerdict{protocol, first.Number, last, allowed})
	})
	return all
}

// allowedPorts are those of Ports that are allowed.
func (c *Cluster) allowedPorts(from, to End) []PortsVerdict {
	return slices.DeleteFunc(c.Ports(from, to), func(p PortsVerdict) bool { return !p.Allowed })
}

// open is allowedPorts for ends with one address each, with the rules that allow the first port of each range.
func (c *Cluster) open(from, to End) (ports []PortsVerdict, by []string) {
	c.eachRange(from, to, func(first Port, last uint16) {
		var decisions [2]policy.Decision
		for i, one := range asks(from, to) {
			if decisions[i] = c.decide(one, c.flow(one, from.Addrs[0], to.Addrs[0], first)); !decisions[i].Allowed {
				return
			}
		}
		protocol := first.Protocol.String()
		if n := len(ports); n > 0 && ports[n-1].Protocol == protocol && ports[n-1].Last+1 == first.Number {
			ports[n-1].Last = last
			return
		}
		ports = append(ports, PortsVerdict{protocol, first.Number, last, true})
		for _, d := range decisions {
			if d.Ground == policy.RuleMatches {
				by = append(by, d.String())
			}
		}
	})
	return ports, by
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
				if !c.decide(one, c.flow(one, src, dst, port)).Allowed {
					return false
				}
			}
			paths++
		}
	}
	return paths > 0
}

// decide is what an end says of a flow. One that no policy can apply to allows it.
func (c *Cluster) decide(one ask, f policy.Flow) policy.Decision {
	if !one.end.isPod() || f.FromNode {
		return policy.Decision{Allowed: true}
	}
	node := c.at(one.end)
	endpoint := node.endpoints[local(f, one.direction)]
	if endpoint == nil {
		return policy.Decision{Allowed: true}
	}
	return node.DecideAt(endpoint, f, one.direction)
}

// local is the end of a flow whose policies are asked in a direction.
func local(f policy.Flow, d policy.Direction) netip.Addr {
	if d == policy.Ingress {
		return f.Dst
	}
	return f.Src
}

// eachRange shows the ranges of ports within which no rule of either end tells one from another, by protocol and ascending; then all protocols without ports.
func (c *Cluster) eachRange(from, to End, show func(first Port, last uint16)) {
	for _, protocol := range withPorts {
		firsts := c.firsts(from, to, protocol)
		for i, first := range firsts {
			last := uint16(lastPort)
			if i+1 < len(firsts) {
				last = firsts[i+1] - 1
			}
			show(Port{protocol, first}, last)
		}
	}
	show(Port{Protocol: policy.ICMP}, 0)
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
		node := c.at(one.end)
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
