package compile

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// podGroup are the pods of a namespace that have the same labels, as those of one workload do. A selector is asked about each group, not about each pod.
type podGroup struct {
	number int
	labels Labels
	pods   []*Pod
	asked  int // the last question that it was among the answers to
}

// podGroups finds the pods that selectors select. What it finds out it keeps until the snapshot is compiled.
type podGroups struct {
	in         map[string][]*podGroup // by namespace
	count      int
	asked      int                 // questions so far
	namespaces map[string][]string // by a selector of namespaces, as a text
	large      int                 // sets of many addresses so far
	order      []groupAddr         // all addresses in order, once a second large set has asked for it
}

// groupAddr is an address, and the group of its pod.
type groupAddr struct {
	addr  policy.Addr
	group uint32
}

// groupsIn are those of a namespace.
func (c *cluster) groupsIn(namespace string) []*podGroup {
	if all, ok := c.groups.in[namespace]; ok {
		return all
	}
	byLabels := map[*Label]*podGroup{} // lists of labels are shared; where one is not, its pod is a group of its own
	var all []*podGroup
	for _, p := range c.byNamespace[namespace] {
		var first *Label
		if len(p.Labels) > 0 {
			first = &p.Labels[0]
		}
		g := byLabels[first]
		if g == nil || len(g.labels) != len(p.Labels) {
			g = &podGroup{number: c.groups.count, labels: p.Labels}
			c.groups.count++
			byLabels[first] = g
			all = append(all, g)
		}
		g.pods = append(g.pods, p)
	}
	if c.groups.in == nil {
		c.groups.in = map[string][]*podGroup{}
	}
	c.groups.in[namespace] = all
	return all
}

// namespacesOf are the names of the namespaces that a settled selector selects in.
func (c *cluster) namespacesOf(s podSelector) []string {
	if s.namespaces == nil {
		return []string{s.namespace}
	}
	if names, ok := c.groups.namespaces[s.within]; ok {
		return names
	}
	var names []string
	for _, ns := range c.namespaces {
		if s.namespaces.Matches(&ns.Labels) {
			names = append(names, ns.Name)
		}
	}
	if c.groups.namespaces == nil {
		c.groups.namespaces = map[string][]string{}
	}
	c.groups.namespaces[s.within] = names
	return names
}

// selectedBy are the groups that any of the selectors selects, each once.
func (c *cluster) selectedBy(selectors []podSelector) []*podGroup {
	c.groups.asked++
	var selected []*podGroup
	for _, s := range selectors {
		for _, ns := range c.namespacesOf(s) {
			for _, g := range c.groupsIn(ns) {
				if g.asked != c.groups.asked && s.pods.Matches(&g.labels) {
					g.asked = c.groups.asked
					selected = append(selected, g)
				}
			}
		}
	}
	return selected
}

// addresses are the addresses of groups of pods, in order.
func (c *cluster) addresses(selected []*podGroup) []policy.Member {
	count := 0
	for _, g := range selected {
		count += addressesOf(g.pods)
	}
	c.members = slices.Grow(c.members[:0], count)
	if count >= manyAddresses {
		c.groups.large++
	}
	if count < manyAddresses || c.groups.large == 1 {
		for _, g := range selected {
			for _, p := range g.pods {
				for _, a := range p.Addrs {
					c.members = append(c.members, policy.Member{Addr: policy.AddrOf(a)})
				}
			}
		}
		return c.sorted()
	}
	isSelected := make([]bool, c.groups.count)
	for _, g := range selected {
		isSelected[g.number] = true
	}
	for _, p := range c.inOrder() {
		if int(p.group) < len(isSelected) && isSelected[p.group] {
			c.members = append(c.members, policy.Member{Addr: p.addr})
		}
	}
	return c.members
}

// manyAddresses is from how many addresses on a set is read off all addresses in their order, rather than sorted by itself. The first such set is sorted: where
// it is the only one, there is no need for a list of all addresses beside it.
const manyAddresses = 2048

// inOrder is all addresses of pods in order.
func (c *cluster) inOrder() []groupAddr {
	if c.groups.order != nil {
		return c.groups.order
	}
	count := 0
	for _, pods := range c.byNamespace {
		count += addressesOf(pods)
	}
	c.groups.order = make([]groupAddr, 0, count)
	for ns := range c.byNamespace {
		for _, g := range c.groupsIn(ns) {
			for _, p := range g.pods {
				for _, a := range p.Addrs {
					c.groups.order = append(c.groups.order, groupAddr{policy.AddrOf(a), uint32(g.number)})
				}
			}
		}
	}
	slices.SortFunc(c.groups.order, func(a, b groupAddr) int { return a.addr.Compare(b.addr) })
	return c.groups.order
}
