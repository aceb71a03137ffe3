package compile

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// closeTo closes the snapshot's ranges to all but the local pods that policy can see, whether a policy selects them or not. A pod of another node opens
// nothing: whoever can write its status there is not asked whom this node lets through.
func (c *cluster) closeTo(s Snapshot, node *policy.Node) {
	if len(s.Closed) == 0 {
		return
	}
	parts := []string{"known in"}
	for _, r := range s.Closed {
		node.Closed.Ranges = append(node.Closed.Ranges, r.Masked())
	}
	node.Closed.Ranges = dropCovered(node.Closed.Ranges)
	for _, r := range node.Closed.Ranges {
		parts = append(parts, r.String()) // other ranges are another set, which is complete before the first rule names it
	}
	node.Closed.Known = setID(parts...)
	inRange := func(a netip.Addr) bool {
		return slices.ContainsFunc(node.Closed.Ranges, func(r netip.Prefix) bool { return r.Contains(a) })
	}
	c.members = c.members[:0]
	eachAddress(c.local, func(_ *Pod, a netip.Addr) {
		if inRange(a) {
			c.members = append(c.members, policy.Member{Addr: policy.AddrOf(a)})
		}
	})
	c.addSet(node.Sets, node.Closed.Known, policy.Addresses, c.sorted())
	for _, pods := range c.byNamespace {
		eachAddress(pods, func(p *Pod, a netip.Addr) {
			switch in := inRange(a); {
			case p.Node == s.Node && !in:
				node.Concerns.Outside.Add(a)
			case p.Node != s.Node && in:
				node.Concerns.Strange.Add(a)
			}
		})
	}
}

func eachAddress(pods []*Pod, visit func(*Pod, netip.Addr)) {
	for _, p := range pods {
		for _, a := range p.Addrs {
			visit(p, a)
		}
	}
}
