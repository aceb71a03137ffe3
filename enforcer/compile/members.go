package compile

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// membersOf are what is in a set now, sorted, each once. It is room that the next call takes again. If they are more than limit, it gives up.
func (c *cluster) membersOf(s *ruleSet, limit int) (members []policy.Member, ok bool) {
	if len(s.names) == 0 {
		members = c.addresses(c.selectedBy(s.selectors))
		if len(s.nodes) > 0 {
			members = c.withNodes(s.nodes)
		}
		return members, len(members) <= limit
	}
	c.members = c.members[:0]
	names := newPortNames(s.names)
	switch {
	case len(s.selectors) > 0:
		for _, k := range c.selectedBy(s.selectors) {
			c.addPorts(k.pods, names, limit)
		}
	case s.to == policy.Ingress:
		c.addPorts(c.local, names, limit)
	default:
		for _, pods := range c.byNamespace {
			c.addPorts(pods, names, limit)
		}
	}
	if len(c.members) > limit {
		return nil, false
	}
	return c.sorted(), true
}

// withNodes are the collected members and the addresses of the nodes that any of the selectors selects.
func (c *cluster) withNodes(selectors []labels.Selector) []policy.Member {
	c.eachOfNodes(selectors, func(a netip.Addr) { c.members = append(c.members, policy.Member{Addr: policy.AddrOf(a)}) })
	return c.sorted()
}

// addPorts collects the named ports of pods, until there are more than limit.
func (c *cluster) addPorts(pods []*Pod, names portNames, limit int) {
	for _, p := range pods {
		if len(c.members) > limit {
			return
		}
		c.members = appendPorts(c.members, p, names)
	}
}

// appendPorts adds the ports of a pod that have one of the names, at each of its addresses. One that several containers name is one member.
func appendPorts(to []policy.Member, p *Pod, names portNames) []policy.Member {
	first := len(to)
	for _, port := range p.Ports {
		if !names.have(port) {
			continue
		}
		for _, a := range p.Addrs {
			to = append(to, policy.Member{Addr: policy.AddrOf(a), Protocol: port.Protocol, Port: port.Port})
		}
	}
	return to[:first+len(inOrder(to[first:]))]
}

// portNames are names of ports to look ports up in.
type portNames map[portName]bool

func newPortNames(names []portName) portNames {
	set := make(portNames, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}

// have reports whether the port is one of those that a name stands for.
func (n portNames) have(p NamedPort) bool {
	return n[portName{p.Protocol, p.Name}] || n[portName{0, p.Name}]
}

// addSet adds a set with its members, which are copied.
func (c *cluster) addSet(sets map[policy.SetID]policy.Set, id policy.SetID, kind policy.SetKind, members []policy.Member) {
	sets[id] = policy.Set{Kind: kind, Members: c.likeBefore(id, members)}
}

// likeBefore are those that a set had, if they are the same, or a copy; nil if there are none.
func (c *cluster) likeBefore(id policy.SetID, members []policy.Member) []policy.Member {
	if len(members) == 0 {
		return nil
	}
	if same := c.like[id].Members; slices.Equal(same, members) {
		return same
	}
	return slices.Clone(members)
}
