package query

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

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

// Edges are what may be reached from where, by From and To. What cannot be reached at any port has no edge. They share lists, so nobody writes to these.
func (c *Cluster) Edges(s Selection) []Edge {
	takes := func(f func(namespace, workload string) bool, w *workload) bool {
		return f == nil || f(w.namespace, w.name)
	}
	var from, to, toEither []*workload
	either := map[*workload]bool{}
	for _, w := range c.workloads() {
		if either[w] = takes(s.Either, w); takes(s.From, w) {
			from = append(from, w)
		}
		if takes(s.To, w) {
			if to = append(to, w); either[w] {
				toEither = append(toEither, w)
			}
		}
	}
	t := &tour{Cluster: c, reached: map[[2]int]*reach{}, edges: []Edge{}}
	for _, w := range from {
		others := to
		if !either[w] {
			others = toEither
		}
		for _, other := range others {
			t.between(w, other)
		}
	}
	if s.Outside {
		untaken := func(w *workload) bool { return !either[w] }
		t.outside(s, slices.DeleteFunc(from, untaken), slices.DeleteFunc(to, untaken))
	}
	slices.SortFunc(t.edges, func(a, b Edge) int { return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To)) })
	return t.edges
}

// tour goes from one pair of workloads to the next.
type tour struct {
	*Cluster
	reached map[[2]int]*reach // by what is alike of both ends: one pair is asked about for all
	edges   []Edge
	room    []*reach // of the pair of workloads at hand
}

// reach is what may be reached at one end from another.
type reach struct {
	lists [][]PortsVerdict // by each family of addresses that both have
	edge  Edge             // without its ends
}

// between adds the edge from one workload to another, if there is one.
func (t *tour) between(from, to *workload) {
	t.room = t.room[:0]
	for i := range from.classes {
		for k := range to.classes {
			if src, dst, ok := apart(&from.classes[i], &to.classes[k]); ok {
				t.room = append(t.room, t.reach(from.classes[i].alike, to.classes[k].alike, src, dst))
			}
		}
	}
	t.add(from.name, to.name)
}

// outside adds the edges from some workloads to addresses outside of the cluster, and from these to others.
func (t *tour) outside(s Selection, from, to []*workload) {
	takes := func(f func(namespace, workload string) bool, b *End) bool { return f == nil || f("", b.Name) } // they are in no namespace
	for i, b := range t.outsides(append(t.blocks(), s.Blocks...)) {
		block := &workload{name: b.Name, classes: []class{{alike: -1 - i, ends: []End{b}}}}
		for _, w := range from {
			if takes(s.To, &b) {
				t.between(w, block)
			}
		}
		for _, w := range to {
			if takes(s.From, &b) {
				t.between(block, w)
			}
		}
	}
}

// apart are two ends of two classes that are not one and the same.
func apart(from, to *class) (src, dst *End, ok bool) {
	src, dst = &from.ends[0], &to.ends[0]
	if src.Name != dst.Name {
		return src, dst, true
	}
	if len(to.ends) < 2 {
		return src, dst, false
	}
	return src, &to.ends[1], true
}

// reach is what may be reached from one end at another, by each family of addresses that both have. Both are what their classes have in common.
func (t *tour) reach(fromAlike, toAlike int, from, to *End) *reach {
	key := [2]int{fromAlike, toAlike}
	if known := t.reached[key]; known != nil {
		return known
	}
	var lists [][]PortsVerdict
	var by []string
	for _, a := range from.Addrs {
		for _, b := range to.Addrs {
			if a.Is4() != b.Is4() {
				continue
			}
			src, dst := *from, *to
			src.Addrs, dst.Addrs = []netip.Addr{a}, []netip.Addr{b}
			ports, rules := t.open(src, dst)
			lists, by = append(lists, ports), append(by, rules...)
		}
	}
	t.reached[key] = newReach(lists, by)
	return t.reached[key]
}

func newReach(lists [][]PortsVerdict, by []string) *reach {
	slices.Sort(by)
	ports := unite(lists)
	partly := slices.ContainsFunc(lists, func(p []PortsVerdict) bool { return !slices.Equal(p, ports) })
	return &reach{lists, Edge{Ports: ports, Partly: partly, By: slices.Compact(by)}}
}

// add adds the edge of what the pairs of the classes of two workloads may reach.
func (t *tour) add(from, to string) {
	var all *reach
	switch len(t.room) {
	case 0:
		return
	case 1:
		all = t.room[0]
	default:
		var lists [][]PortsVerdict
		var by []string
		for _, one := range t.room {
			lists, by = append(lists, one.lists...), append(by, one.edge.By...)
		}
		all = newReach(lists, by)
	}
	if len(all.edge.Ports) > 0 {
		e := all.edge
		e.From, e.To = from, to
		t.edges = append(t.edges, e)
	}
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
