package query

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Edge is what may be reached from a workload, a node or a block of addresses, at a workload or such a block.
type Edge struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Ports are those at which every pod of one reaches every pod of the other by each family of addresses; or if Partly is set, some do, or by some.
	Ports  []PortsVerdict `json:"ports"`
	Partly bool           `json:"partly,omitempty"`
	// By says who decides that: rules, or that no policy does.
	By []string `json:"by"`
}

// Class are pods that no policy tells apart: they have a namespace, labels and named ports in common, and the same blocks of policies contain their addresses.
type class struct {
	workload string
	ends     []End // by name
}

// classes are all of the cluster's pods that policy is about, by workload, and within one by their first pod.
func (c *Cluster) classes() []class {
	blocks := slices.DeleteFunc(c.blocks(), func(b netip.Prefix) bool { return b.Bits() == 0 })
	slices.SortFunc(blocks, netip.Prefix.Compare)
	blocks = slices.Compact(blocks)
	several := map[netip.Addr]int{}
	for _, p := range c.parts.pods {
		for _, a := range p.Addrs {
			several[a]++
		}
	}
	byKey := map[string]*class{}
	for i, pod := range c.objects.Pods {
		small := c.parts.pods[i]
		if small.HostNetwork || small.Finished || len(small.Addrs) == 0 {
			continue
		}
		key := fmt.Sprint(Workload(pod), small.Labels, small.Ports, len(small.Addrs))
		for _, a := range small.Addrs {
			if several[a] > 1 {
				key += fmt.Sprint(" is ", small.Name)
			}
			for i, b := range blocks {
				if b.Contains(a) {
					key += fmt.Sprint(" in ", i)
				}
			}
		}
		if byKey[key] == nil {
			byKey[key] = &class{workload: Workload(pod)}
		}
		byKey[key].ends = append(byKey[key].ends, podEnd(pod))
	}
	var all []class
	for _, k := range byKey {
		slices.SortFunc(k.ends, func(a, b End) int { return cmp.Compare(a.Name, b.Name) })
		all = append(all, *k)
	}
	slices.SortFunc(all, func(a, b class) int {
		return cmp.Or(cmp.Compare(a.workload, b.workload), cmp.Compare(a.ends[0].Name, b.ends[0].Name))
	})
	return all
}

// Selection says which edges are asked for: those between the ends that From and To take, by their names; nil takes all. Addresses outside of the cluster are
// in the namespace of the empty name.
type Selection struct {
	From, To func(namespace, workload string) bool
	// Either has only edges that it takes an end of.
	Either func(namespace, workload string) bool
	// Outside has edges from and to addresses outside of the cluster too.
	Outside bool
	// Blocks are told apart among these addresses, besides those that the cluster's own policies name.
	Blocks []netip.Prefix
}

func takes(f func(namespace, workload string) bool, k class) bool {
	return f == nil || f(k.ends[0].Pod.Namespace, k.workload)
}

// takesOutside is for addresses outside of the cluster, which are in no namespace.
func takesOutside(f func(namespace, workload string) bool, b End) bool {
	return f == nil || f("", b.Name)
}

// Edges are what may be reached from where, by From and To. What cannot be reached at any port has no edge.
func (c *Cluster) Edges(s Selection) []Edge {
	classes := c.classes()
	found := map[[2]string]*edge{}
	for _, from := range classes {
		if !takes(s.From, from) {
			continue
		}
		for _, to := range classes {
			if src, dst, ok := apart(from, to); ok && takes(s.To, to) && (takes(s.Either, from) || takes(s.Either, to)) {
				c.take(found, from.workload, to.workload, src, dst)
			}
		}
	}
	if s.Outside {
		blocks := c.outsides(append(c.blocks(), s.Blocks...))
		for _, k := range classes {
			if !takes(s.Either, k) {
				continue
			}
			for _, b := range blocks {
				if takes(s.From, k) && takesOutside(s.To, b) {
					c.take(found, k.workload, b.Name, k.ends[0], b)
				}
				if takes(s.To, k) && takesOutside(s.From, b) {
					c.take(found, b.Name, k.workload, b, k.ends[0])
				}
			}
		}
	}
	return edges(found)
}

// apart are two pods of two classes that are not one and the same.
func apart(from, to class) (src, dst End, ok bool) {
	src, dst = from.ends[0], to.ends[0]
	if src.Name != dst.Name {
		return src, dst, true
	}
	if len(to.ends) < 2 {
		return src, dst, false
	}
	return src, to.ends[1], true
}

// edge is an Edge under way.
type edge struct {
	ports [][]PortsVerdict // of each pair of classes
	by    map[string]bool
}

// take takes in what may be reached at one end from another, by each family of addresses that both have.
func (c *Cluster) take(found map[[2]string]*edge, from, to string, src, dst End) {
	for _, a := range src.Addrs {
		for _, b := range dst.Addrs {
			if a.Is4() != b.Is4() {
				continue
			}
			src, dst := src, dst
			src.Addrs, dst.Addrs = []netip.Addr{a}, []netip.Addr{b}
			e := found[[2]string{from, to}]
			if e == nil {
				e = &edge{by: map[string]bool{}}
				found[[2]string{from, to}] = e
			}
			e.ports = append(e.ports, c.allowedPorts(src, dst))
			for _, by := range c.deciding(src, dst, e.ports[len(e.ports)-1]) {
				e.by[by] = true
			}
		}
	}
}

// deciding are the rules by which some ports are allowed.
func (c *Cluster) deciding(src, dst End, ports []PortsVerdict) []string {
	var by []string
	for _, p := range ports {
		for _, path := range c.Why(src, dst, Port{ProtocolNamed(p.Protocol), p.First}).Paths {
			for _, v := range path.Verdicts {
				if len(v.Policies) > 0 {
					by = append(by, v.Reason)
				}
			}
		}
	}
	return by
}

// ProtocolNamed is tcp, udp, sctp or icmp, 0 if a name is none of them.
func ProtocolNamed(name string) policy.Protocol {
	for _, p := range append(withPorts, policy.ICMP) {
		if p.String() == name {
			return p
		}
	}
	return 0
}

// edges are those at which something can be reached.
func edges(found map[[2]string]*edge) []Edge {
	all := []Edge{}
	for ends, e := range found {
		ports := unite(e.ports)
		if len(ports) == 0 {
			continue
		}
		partly := slices.ContainsFunc(e.ports, func(p []PortsVerdict) bool { return !slices.Equal(p, ports) })
		all = append(all, Edge{ends[0], ends[1], ports, partly, slices.Sorted(maps.Keys(e.by))})
	}
	slices.SortFunc(all, func(a, b Edge) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return all
}

// unite are the ports of any of some lists.
func unite(lists [][]PortsVerdict) []PortsVerdict {
	if len(lists) == 1 {
		return lists[0]
	}
	var all []PortsVerdict
	for _, protocol := range append(withPorts, policy.ICMP) {
		var of []PortsVerdict
		for _, list := range lists {
			for _, p := range list {
				if p.Protocol == protocol.String() {
					of = append(of, p)
				}
			}
		}
		slices.SortFunc(of, func(a, b PortsVerdict) int { return cmp.Compare(a.First, b.First) })
		for _, p := range of {
			if n := len(all); n > 0 && all[n-1].Protocol == p.Protocol && int(p.First) <= int(all[n-1].Last)+1 {
				all[n-1].Last = max(all[n-1].Last, p.Last)
				continue
			}
			all = append(all, p)
		}
	}
	return all
}

// outsides are ends for all addresses that no pod and no node has: one for each set of blocks that policies tell apart.
func (c *Cluster) outsides(blocks []netip.Prefix) []End {
	taken := map[netip.Addr]bool{}
	for _, p := range c.parts.pods {
		for _, a := range p.Addrs {
			taken[a] = true
		}
	}
	for _, n := range c.parts.nodes {
		for _, a := range n.Addrs {
			taken[a] = true
		}
	}
	byMembership := map[string]*End{}
	var names []string
	for _, r := range ranges(blocks) {
		a := r.first
		for taken[a] && a.Less(r.last) {
			a = a.Next()
		}
		if taken[a] {
			continue
		}
		text := fmt.Sprint(r.first.Is4())
		for i, b := range blocks {
			if b.Contains(a) {
				text += fmt.Sprint(" ", i)
			}
		}
		if e := byMembership[text]; e != nil {
			e.Name += ", " + r.String()
			continue
		}
		byMembership[text] = &End{Name: r.String(), Addrs: []netip.Addr{a}}
		names = append(names, text)
	}
	var ends []End
	for _, text := range names {
		ends = append(ends, *byMembership[text])
	}
	return ends
}

// addrRange are the addresses from one to another, both included.
type addrRange struct{ first, last netip.Addr }

// String is the range as a block, if it is one.
func (r addrRange) String() string {
	for bits := 0; bits <= r.first.BitLen(); bits++ {
		p := netip.PrefixFrom(r.first, bits)
		if p.Masked() == p && lastOf(p) == r.last {
			return p.String()
		}
	}
	return r.first.String() + "-" + r.last.String()
}

// lastOf is the last address of a block.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(bytes)
	return a
}

// ranges are all addresses of both families, cut at the edges of blocks: each block contains all of a range, or nothing of it.
func ranges(blocks []netip.Prefix) []addrRange {
	var all []addrRange
	for _, whole := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		firsts := []netip.Addr{whole.Addr()}
		for _, b := range blocks {
			if b.Addr().Is4() != whole.Addr().Is4() {
				continue
			}
			firsts = append(firsts, b.Masked().Addr())
			if next := lastOf(b).Next(); next.IsValid() {
				firsts = append(firsts, next)
			}
		}
		slices.SortFunc(firsts, netip.Addr.Compare)
		firsts = slices.Compact(firsts)
		for i, first := range firsts {
			last := lastOf(whole)
			if i+1 < len(firsts) {
				last = firsts[i+1].Prev()
			}
			all = append(all, addrRange{first, last})
		}
	}
	return all
}

// InNamespace takes the workloads of one namespace.
func InNamespace(name string) func(namespace, workload string) bool {
	return func(namespace, _ string) bool { return namespace == name }
}

// IsOneOf takes the workloads that some ends belong to.
func IsOneOf(ends []End) func(namespace, workload string) bool {
	names := map[string]bool{}
	for _, e := range ends {
		if e.Pod != nil {
			names[Workload(e.Pod)] = true
		}
	}
	return func(_, workload string) bool { return names[workload] }
}
