package policy

import (
	"net/netip"
	"slices"
)

// difference are the addresses of members that a set has lost and gained, each sorted and once.
type difference struct{ lost, gained []netip.Addr }

// many members are compared in one go.
const many = 64

// differenceOf goes through both sorted lists at once. Most of their members are the same.
func differenceOf(before, after []Member) *difference {
	d := &difference{}
	if IsOneSlice(before, after) {
		return d
	}
	for len(before) > 0 && len(after) > 0 {
		if len(before) >= many && len(after) >= many && *(*[many]Member)(before) == *(*[many]Member)(after) {
			before, after = before[many:], after[many:]
			continue
		}
		if before[0] == after[0] {
			before, after = before[1:], after[1:]
			continue
		}
		if before[0].Compare(after[0]) < 0 {
			d.lost, before = append(d.lost, before[0].Addr.IP()), before[1:]
		} else {
			d.gained, after = append(d.gained, after[0].Addr.IP()), after[1:]
		}
	}
	for _, m := range before {
		d.lost = append(d.lost, m.Addr.IP())
	}
	for _, m := range after {
		d.gained = append(d.gained, m.Addr.IP())
	}
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
	by     []bool       // which policies name the sets, by index
}

// changedSets finds what is denied because the members of sets come or go. An audited policy denies nothing.
func (c *comparing) changedSets() {
	for id, set := range c.after.Sets {
		if d := differenceOf(c.before.Sets[id].Members, set.Members); len(d.lost)+len(d.gained) > 0 {
			c.sets[id] = d
		}
	}
	if len(c.sets) == 0 {
		return
	}
	for _, d := range Directions {
		h := harm{by: make([]bool, len(c.after.Policies))}
		for i := range c.after.Policies {
			for r := range c.after.Policies[i].Rules[d] {
				if !c.after.Policies[i].Audit && c.harmedBy(d, &c.after.Policies[i].Rules[d][r], &h) {
					h.by[i] = true
				}
			}
		}
		c.harmed(d, &h)
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
	for _, set := range n.Sets {
		i, _ := slices.BinarySearchFunc(set.Members, addr, func(m Member, a Addr) int { return m.Addr.Compare(a) })
		if i < len(set.Members) && set.Members[i].Addr == addr {
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
	for i := range c.after.Endpoints {
		if e := &c.after.Endpoints[i]; e.isSubjectTo(d, h.by) {
			here = append(here, e.Addrs...)
		}
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

// isSubjectTo reports whether one of some policies, by index, applies to the endpoint in a direction.
func (e *Endpoint) isSubjectTo(d Direction, some []bool) bool {
	for _, policies := range e.Applies[d] {
		if slices.ContainsFunc(policies, func(i int) bool { return some[i] }) {
			return true
		}
	}
	return false
}
