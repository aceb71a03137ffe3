package compile

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// appendMembers adds what a pod is in a set: its addresses, or, if the set has names of ports, these ports at each of its addresses.
func appendMembers(to []policy.Member, p *Pod, names portNames) []policy.Member {
	if len(names) > 0 {
		return appendPorts(to, p, names)
	}
	for _, a := range p.Addrs {
		to = append(to, policy.Member{Addr: policy.AddrOf(a)})
	}
	return to
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

// addPorts collects the named ports of pods, until there are more than limit.
func (c *cluster) addPorts(pods []*Pod, names portNames, limit int) {
	for _, p := range pods {
		if len(c.members) > limit {
			return
		}
		c.members = appendPorts(c.members, p, names)
	}
}

// sorted are the collected members in order, each once.
func (c *cluster) sorted() []policy.Member { return inOrder(c.members) }

// sortedWithin are the collected members likewise; ok is false if they are more than limit.
func (c *cluster) sortedWithin(limit int) (members []policy.Member, ok bool) {
	if len(c.members) > limit {
		return nil, false
	}
	return c.sorted(), true
}

// inOrder sorts members and drops copies.
func inOrder(members []policy.Member) []policy.Member {
	slices.SortFunc(members, policy.Member.Compare)
	return slices.Compact(members)
}

// addSet adds a set with its members, of which it keeps a copy.
func (c *cluster) addSet(node *policy.Node, id policy.SetID, kind policy.SetKind, members []policy.Member) {
	node.Sets = node.Sets.With(id, policy.Set{Kind: kind, Members: c.reused(id, members)})
}

// reused are those that a set had, if they are the same, or a copy.
func (c *cluster) reused(id policy.SetID, members []policy.Member) policy.Members {
	if same := c.reuse.Get(id).Members; same.Holds(members) {
		return same
	}
	return policy.MembersOf(members)
}
