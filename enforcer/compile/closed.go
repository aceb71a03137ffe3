package compile

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// closing are the ranges that are closed to all but the local pods that policy can see, and the pods of other nodes that hold an address in one of them.
type closing struct {
	as      []netip.Prefix // of the snapshot
	ranges  []netip.Prefix
	strange map[*Pod]bool
}

// follow takes in which pods that hold an address have gone and come.
func (k *closing) follow(c *cluster, ranges []netip.Prefix, gone, come []*Pod) {
	if !slices.Equal(k.as, ranges) {
		*k = closing{as: ranges, strange: map[*Pod]bool{}}
		for _, r := range ranges {
			k.ranges = append(k.ranges, r.Masked())
		}
		k.ranges = dropCovered(k.ranges)
		for _, pods := range c.byNamespace {
			k.add(c, pods)
		}
		return
	}
	if len(ranges) == 0 {
		return
	}
	for _, p := range gone {
		delete(k.strange, p)
	}
	k.add(c, come)
}

func (k *closing) add(c *cluster, pods []*Pod) {
	for _, p := range pods {
		if !c.isLocal(p) && slices.ContainsFunc(p.Addrs, k.has) {
			k.strange[p] = true
		}
	}
}

// has reports whether an address is in one of the ranges.
func (k *closing) has(a netip.Addr) bool {
	return slices.ContainsFunc(k.ranges, func(r netip.Prefix) bool { return r.Contains(a) })
}

// closeTo closes the ranges to all but the local pods that policy can see, whether a policy selects them or not. A pod of another node opens nothing: whoever
// can write its status there is not asked whom this node lets through.
func (c *cluster) closeTo(node *policy.Node) {
	k := &c.closing
	if len(k.as) == 0 {
		return
	}
	parts := []string{"known in"}
	node.Closed.Ranges = slices.Clone(k.ranges)
	for _, r := range k.ranges {
		parts = append(parts, r.String()) // other ranges are another set, which is complete before the first rule names it
	}
	node.Closed.Known = setID(parts...)
	c.members = c.members[:0]
	for _, p := range c.local {
		for _, a := range p.Addrs {
			if k.has(a) {
				c.members = append(c.members, policy.Member{Addr: policy.AddrOf(a)})
			} else {
				node.Concerns.Outside.Add(a)
			}
		}
	}
	c.addSet(node, node.Closed.Known, policy.Addresses, c.sorted())
	for p := range k.strange {
		for _, a := range p.Addrs {
			if k.has(a) {
				node.Concerns.Strange.Add(a)
			}
		}
	}
}
