package policy

import (
	"iter"
	"net/netip"
	"slices"
)

// difference are the addresses of members that a set has lost and gained, each sorted and once.
type difference struct{ lost, gained []netip.Addr }

func differenceOf(before, after Members) *difference {
	d := &difference{}
	after.Since(before, func(m Member, is bool) {
		if is {
			d.gained = append(d.gained, m.Addr.IP())
		} else {
			d.lost = append(d.lost, m.Addr.IP())
		}
	})
	d.lost, d.gained = slices.Compact(d.lost), slices.Compact(d.gained)
	return d
}

// harmful are those that a rule with an action comes to deny something with: those of a set that it accepts when they go, those of one that it denies when
// they come, and those of one that it passes to other tiers either way.
func (d *difference) harmful(a Action) (lost, gained []netip.Addr) {
	switch {
	case d == nil:
	case a == Accept:
		return d.lost, nil
	case a == Deny:
		return nil, d.gained
	case a == Pass:
		return d.lost, d.gained
	}
	return nil, nil
}

// harm is what changed sets may deny in one direction.
type harm struct {
	remote []netip.Addr // at the other end
	urgent bool         // for another reason than that these are gone
	local  []netip.Addr // at the endpoint itself, whose named ports have changed
	by     map[int]bool // which policies name the sets, by index
}

// changedSets finds what is denied because the members of sets come or go. An audited policy denies nothing.
func (c *comparing) changedSets() {
	c.after.Sets.Since(c.before.Sets, func(id SetID, was, is *Set) {
		if was == nil {
			was = &Set{}
		}
		if is == nil {
			return
		}
		if was.Members.Len() == 0 && !c.mayDenyGained(id) {
			return // every pod of the cluster, maybe, and it denies none of them
		}
		if d := differenceOf(was.Members, is.Members); len(d.lost)+len(d.gained) > 0 {
			c.sets[id] = d
		}
	})
	if len(c.sets) == 0 {
		return
	}
	h := [2]harm{{by: map[int]bool{}}, {by: map[int]bool{}}}
	for id := range c.sets {
		for _, one := range c.namers.of(c.after.Policies, id) {
			p := &c.after.Policies[one.policy]
			if !p.Audit && c.harmedBy(one.direction, &p.Rules[one.direction][one.rule], &h[one.direction]) {
				h[one.direction].by[one.policy] = true
			}
		}
	}
	for _, d := range Directions {
		c.harmed(d, &h[d])
	}
}

// mayDenyGained reports whether a rule names a set that denies, or passes, what comes to it.
func (c *comparing) mayDenyGained(id SetID) bool {
	return slices.ContainsFunc(c.namers.of(c.after.Policies, id), func(one namer) bool {
		return c.after.Policies[one.policy].Rules[one.direction][one.rule].Action != Accept
	})
}

// Namers are the rules of a node's policies that name a set. Whoever compares one node after the other keeps them: they are found once, as long as the policies
// stand in the same memory, so that what members of sets affect costs as much as the rules that name these sets.
type Namers struct {
	policies []Policy
	by       map[SetID][]namer
}

// namer is a rule that names a set.
type namer struct {
	direction    Direction
	policy, rule int
}

// of are the rules of some policies that name a set.
func (n *Namers) of(policies []Policy, id SetID) []namer {
	if n.by == nil || !IsOneSlice(n.policies, policies) {
		n.policies, n.by = policies, map[SetID][]namer{}
		for i := range policies {
			for _, d := range Directions {
				for r := range policies[i].Rules[d] {
					n.add(&policies[i].Rules[d][r], namer{d, i, r})
				}
			}
		}
	}
	return n.by[id]
}

func (n *Namers) add(r *Rule, one namer) {
	if r.Peer.Kind == InSet {
		n.by[r.Peer.Set] = append(n.by[r.Peer.Set], one)
	}
	if r.Ports.Kind == InPorts {
		n.by[r.Ports.Set] = append(n.by[r.Ports.Set], one)
	}
}

// harmedBy adds the harm of a rule, and reports whether it does any.
func (c *comparing) harmedBy(d Direction, r *Rule, h *harm) bool {
	var lost, gained []netip.Addr
	before := len(h.remote) + len(h.local)
	if r.Peer.Kind == InSet {
		lost, gained = c.sets[r.Peer.Set].harmful(r.Action)
	}
	if r.Ports.Kind == InPorts {
		l, g := c.sets[r.Ports.Set].harmful(r.Action)
		if d == Ingress { // ports are those of the destination
			h.local = append(append(h.local, l...), g...)
		} else {
			lost, gained = slices.Concat(lost, l), slices.Concat(gained, g)
		}
	}
	h.remote = append(append(h.remote, lost...), gained...)
	h.urgent = h.urgent || len(gained) > 0 || len(lost) > manyLost || slices.ContainsFunc(lost, c.isHeld)
	return len(h.remote)+len(h.local) > before
}

// manyLost is how many addresses leave one set before nobody asks whether they are gone.
const manyLost = 16

// isHeld reports whether a pod is known to have an address: it is still there then, and has become another one to policy.
func (c *comparing) isHeld(a netip.Addr) bool {
	held, known := c.held[a]
	if !known {
		held = c.holds != nil && c.holds(a) || c.after.endpoint(a) != nil || c.after.someSetHas(AddrOf(a))
		c.held[a] = held // which many rules ask
	}
	return held
}

func (n *Node) someSetHas(addr Addr) bool {
	for _, set := range n.Sets.All() {
		if set.Members.HasAddr(addr) {
			return true
		}
	}
	return false
}

// harmed notes the connections of the endpoints that the policies apply to.
func (c *comparing) harmed(d Direction, h *harm) {
	if len(h.remote)+len(h.local) == 0 {
		return
	}
	var here []netip.Addr
	for e := range c.after.subjectTo(d, h.by) {
		here = append(here, e.Addrs...)
	}
	here = sorted(here)
	remote, endpoints := End{Addrs: sorted(h.remote)}, End{Addrs: here}
	if d == Egress {
		c.between(endpoints, remote, h.urgent)
		return
	}
	c.between(remote, endpoints, h.urgent)
	local := slices.DeleteFunc(sorted(h.local), func(a netip.Addr) bool { return !endpoints.has(a) })
	c.between(End{Any: true}, End{Addrs: local}, true)
}

// subjectTo are the endpoints that one of some policies, by index, applies to in a direction. Of a NetworkPolicy those of its namespace are looked at alone.
func (n *Node) subjectTo(d Direction, some map[int]bool) iter.Seq[*Endpoint] {
	in, everywhere := map[string]bool{}, false
	for i := range some {
		if p := &n.Policies[i]; p.Stage == NetworkPolicies {
			in[p.Ref.Namespace] = true
		} else {
			everywhere = true
		}
	}
	return func(yield func(*Endpoint) bool) {
		for i := range n.Endpoints {
			if e := &n.Endpoints[i]; (everywhere || in[e.Namespace]) && e.isSubjectTo(d, some) && !yield(e) {
				return
			}
		}
	}
}

// isSubjectTo reports whether one of some policies, by index, applies to the endpoint in a direction.
func (e *Endpoint) isSubjectTo(d Direction, some map[int]bool) bool {
	for _, policies := range e.Applies[d] {
		if len(policies) < len(some) {
			if slices.ContainsFunc(policies, func(i int) bool { return some[i] }) {
				return true
			}
			continue
		}
		for i := range some {
			if _, applies := slices.BinarySearch(policies, i); applies {
				return true
			}
		}
	}
	return false
}
