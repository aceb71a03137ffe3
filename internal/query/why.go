package query

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Answer says what becomes of a connection, and why.
type Answer struct {
	From string `json:"from"`
	To   string `json:"to"`
	Port string `json:"port"`
	// Allowed is set if the connection is allowed by each of Paths.
	Allowed bool `json:"allowed"`
	// Paths are the ways that it can take: one for each family of addresses that both ends have.
	Paths []Path `json:"paths"`

	from, to End
	port     Port
}

// Path is a connection between two addresses.
type Path struct {
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	Allowed     bool       `json:"allowed"`
	// Verdicts are those of the ends, the source's first. An end that no policy can apply to has none.
	Verdicts []Verdict `json:"verdicts,omitempty"`
}

// Verdict is what one end says of a connection.
type Verdict struct {
	Direction string `json:"direction"` // egress, which the source's node decides about, or ingress
	Pod       string `json:"pod"`
	Node      string `json:"node,omitempty"` // empty if no node runs the pod yet
	Allowed   bool   `json:"allowed"`
	Tier      string `json:"tier,omitempty"` // that decided: Admin, NetworkPolicy or Baseline
	// Policies decided: the one whose rule matched, or those that isolate the pod, and none of whose rules did.
	Policies []string `json:"policies,omitempty"`
	// Rule is the index of the rule that matched in the policy's list; -1 for one that stands in no list.
	Rule   *int   `json:"rule,omitempty"`
	Reason string `json:"reason"`
	// Problems are what of these policies is not understood, or over a budget, and what is enforced in its place.
	Problems []string `json:"problems,omitempty"`
	// AlsoDenied says what would deny the connection if the above did not, one after the other.
	AlsoDenied []string `json:"alsoDenied,omitempty"`
	// Applied are the policies that apply to the pod in this direction, in the order in which they are asked.
	Applied []string `json:"applied,omitempty"`
	// WouldDeny are the policies in mode Audit that would deny it.
	WouldDeny []string `json:"wouldDeny,omitempty"`

	decision *policy.Decision
}

// Why says what becomes of a connection between two ends.
func (c *Cluster) Why(from, to End, port Port) Answer {
	a := Answer{From: from.Name, To: to.Name, Port: port.String(), Allowed: true, from: from, to: to, port: port}
	for _, src := range from.Addrs {
		for _, dst := range to.Addrs {
			if src.Is4() == dst.Is4() {
				p := c.path(from, to, src, dst, port)
				a.Allowed, a.Paths = a.Allowed && p.Allowed, append(a.Paths, p)
			}
		}
	}
	a.Allowed = a.Allowed && len(a.Paths) > 0
	return a
}

// ask is one end of a connection, which is asked about it.
type ask struct {
	end, other End
	direction  policy.Direction
}

// asks are both ends, in the order in which they are asked.
func asks(from, to End) [2]ask {
	return [...]ask{{from, to, policy.Egress}, {to, from, policy.Ingress}}
}

// flow is the first packet between two addresses, as the node of the end that is asked sees it.
func (c *Cluster) flow(a ask, src, dst netip.Addr, port Port) policy.Flow {
	f := policy.Flow{Src: src, Dst: dst, Protocol: familys(port.Protocol, src), DstPort: port.Number}
	f.ICMPType = echo[f.Protocol]
	f.ToNode = c.owns(a.end.Node, dst)
	f.FromNode = a.direction == policy.Ingress && a.other.isHost() && a.other.Node == a.end.Node
	return f
}

// path asks both ends about a connection between two of their addresses.
func (c *Cluster) path(from, to End, src, dst netip.Addr, port Port) Path {
	p := Path{Source: src, Destination: dst, Allowed: true}
	for _, one := range asks(from, to) {
		if one.end.isPod() {
			v := c.verdict(one.end, c.flow(one, src, dst, port), one.direction)
			p.Allowed, p.Verdicts = p.Allowed && v.Allowed, append(p.Verdicts, v)
		}
	}
	return p
}

// echo are the types of the requests of ping.
var echo = map[policy.Protocol]uint8{policy.ICMP: 8, policy.ICMPv6: 128}

// familys is the protocol by which an address speaks of itself, if p is ICMP.
func familys(p policy.Protocol, a netip.Addr) policy.Protocol {
	if p == policy.ICMP && a.Is6() {
		return policy.ICMPv6
	}
	return p
}

// verdict asks one end.
func (c *Cluster) verdict(e End, f policy.Flow, d policy.Direction) Verdict {
	v := Verdict{Direction: d.String(), Pod: e.Name, Node: e.Node, Allowed: true}
	if f.FromNode {
		v.Reason = "a node always reaches its own pods"
		return v
	}
	node := c.node(e.Node)
	endpoint := node.endpoints[local(f, d)]
	if endpoint == nil || !endpoint.IsSubject(d) {
		v.Reason = "no policy is about the " + d.String() + " of " + e.Name
		return v
	}
	decision := node.DecideAt(endpoint, f, d)
	v.decision, v.Allowed, v.Reason = &decision, decision.Allowed, decision.String()
	if decision.Ground != policy.NothingDecides {
		v.Tier = decision.Stage.Tier()
	}
	for _, policies := range decision.Endpoint.Applies[d] {
		for _, i := range policies {
			v.Applied = append(v.Applied, node.Policies[i].Ref.String())
		}
	}
	v.Applied = slices.Compact(v.Applied)
	for _, p := range decision.By() {
		v.Policies = append(v.Policies, p.Ref.String())
		for _, problem := range node.problems {
			if problem.Ref == p.Ref {
				v.Problems = append(v.Problems, problem.String())
			}
		}
	}
	if decision.Ground == policy.RuleMatches {
		v.Rule = &decision.Rule.Index
	}
	for other := decision; !other.Allowed; {
		if other = node.Otherwise(f, other); !other.Allowed {
			v.AlsoDenied = append(v.AlsoDenied, other.String())
		}
	}
	for _, w := range decision.WouldDeny {
		v.WouldDeny = append(v.WouldDeny, w.Ref.String())
	}
	return v
}
