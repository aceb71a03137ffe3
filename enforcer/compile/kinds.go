package compile

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// kind are the pods of a namespace that have the same labels, as those of one workload do. A selector is asked about each kind, not about each pod.
type kind struct {
	number int
	labels Labels
	pods   []*Pod
	asked  int // the last question that it was among the answers to
}

// kinds finds the pods that selectors select. What it finds out it keeps until the snapshot is compiled.
type kinds struct {
	in         map[string][]*kind // by namespace
	count      int
	asked      int                 // questions so far
	namespaces map[string][]string // by a selector of namespaces, as a text
	order      []placed            // all addresses in order, once a large set has asked for it
}

// placed is an address and whose it is.
type placed struct {
	addr policy.Addr
	kind int
}

// kindsIn are those of a namespace.
func (c *cluster) kindsIn(namespace string) []*kind {
	if all, ok := c.kinds.in[namespace]; ok {
		return all
	}
	byLabels := map[*Label]*kind{} // lists of labels are shared; where one is not, its pod is a kind of its own
	var all []*kind
	for _, p := range c.byNamespace[namespace] {
		var first *Label
		if len(p.Labels) > 0 {
			first = &p.Labels[0]
		}
		k := byLabels[first]
		if k == nil || len(k.labels) != len(p.Labels) {
			k = &kind{number: c.kinds.count, labels: p.Labels}
			c.kinds.count++
			byLabels[first] = k
			all = append(all, k)
		}
		k.pods = append(k.pods, p)
	}
	if c.kinds.in == nil {
		c.kinds.in = map[string][]*kind{}
	}
	c.kinds.in[namespace] = all
	return all
}

// namespacesOf are the names of the namespaces that a settled selector selects in.
func (c *cluster) namespacesOf(s podSelector) []string {
	if s.namespaces == nil {
		return []string{s.namespace}
	}
	if names, ok := c.kinds.namespaces[s.within]; ok {
		return names
	}
	var names []string
	for _, ns := range c.namespaces {
		if s.namespaces.Matches(&ns.Labels) {
			names = append(names, ns.Name)
		}
	}
	if c.kinds.namespaces == nil {
		c.kinds.namespaces = map[string][]string{}
	}
	c.kinds.namespaces[s.within] = names
	return names
}

// selectedBy are the kinds that any of the selectors selects, each once.
func (c *cluster) selectedBy(selectors []podSelector) []*kind {
	c.kinds.asked++
	var selected []*kind
	for _, s := range selectors {
		for _, ns := range c.namespacesOf(s) {
			for _, k := range c.kindsIn(ns) {
				if k.asked != c.kinds.asked && s.pods.Matches(&k.labels) {
					k.asked = c.kinds.asked
					selected = append(selected, k)
				}
			}
		}
	}
	return selected
}

// addresses are the addresses of kinds of pods, in order.
func (c *cluster) addresses(selected []*kind) []policy.Member {
	count := 0
	for _, k := range selected {
		for _, p := range k.pods {
			count += len(p.Addrs)
		}
	}
	c.members = slices.Grow(c.members[:0], count)
	if count < manyAddresses {
		for _, k := range selected {
			for _, p := range k.pods {
				for _, a := range p.Addrs {
					c.members = append(c.members, policy.Member{Addr: policy.AddrOf(a)})
				}
			}
		}
		return c.sorted()
	}
	isSelected := make([]bool, c.kinds.count)
	for _, k := range selected {
		isSelected[k.number] = true
	}
	for _, p := range c.inOrder() {
		if p.kind < len(isSelected) && isSelected[p.kind] {
			c.members = append(c.members, policy.Member{Addr: p.addr})
		}
	}
	return c.members
}

// manyAddresses is from how many addresses on a set is read off all addresses in their order, rather than sorted by itself.
const manyAddresses = 2048

// inOrder is all addresses of pods in order.
func (c *cluster) inOrder() []placed {
	if c.kinds.order != nil {
		return c.kinds.order
	}
	for ns := range c.byNamespace {
		for _, k := range c.kindsIn(ns) {
			for _, p := range k.pods {
				for _, a := range p.Addrs {
					c.kinds.order = append(c.kinds.order, placed{policy.AddrOf(a), k.number})
				}
			}
		}
	}
	slices.SortFunc(c.kinds.order, func(a, b placed) int { return a.addr.Compare(b.addr) })
	return c.kinds.order
}
