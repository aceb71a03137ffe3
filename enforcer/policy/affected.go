package policy

import (
	"net/netip"
	"slices"
)

// Affected are the connections that changes may have come to deny, by the addresses at their ends. The zero Affected are none.
type Affected struct {
	// All is set if it may be any connection.
	All bool
	// Between lists them, if it is not any.
	Between []Between
	// Urgent is set unless nothing has happened but that addresses have left sets, and no other set of the node has them: a pod of another node is gone, and
	// with it one end of its connections.
	Urgent bool
}

// Between are the connections from one of Sources to one of Destinations. The ends are as policy sees them: behind destination NAT, before masquerading.
type Between struct{ Sources, Destinations End }

// End is one end of connections.
type End struct {
	// Any is set if it may be any address.
	Any bool
	// Addrs lists them, if it is not any: sorted, without duplicates.
	Addrs []netip.Addr
}

func (e End) has(a netip.Addr) bool {
	if e.Any {
		return true
	}
	_, found := slices.BinarySearchFunc(e.Addrs, a, netip.Addr.Compare)
	return found
}

func (e End) equal(o End) bool { return e.Any == o.Any && slices.Equal(e.Addrs, o.Addrs) }

func (e End) with(o End) End {
	if e.Any || o.Any {
		return End{Any: true}
	}
	return End{Addrs: sorted(slices.Concat(e.Addrs, o.Addrs))}
}

func sorted(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// Empty reports whether no connection is affected.
func (a Affected) Empty() bool { return !a.All && len(a.Between) == 0 }

// Has reports whether a connection between two ends is affected.
func (a Affected) Has(source, destination netip.Addr) bool {
	return a.All || slices.ContainsFunc(a.Between, func(b Between) bool { return b.Sources.has(source) && b.Destinations.has(destination) })
}

// Filter is [Affected.Has] for very many connections, few of which are affected.
func (a Affected) Filter() func(source, destination netip.Addr) bool {
	sources, destinations, some := map[netip.Addr]bool{}, map[netip.Addr]bool{}, false
	for _, b := range a.Between {
		for _, s := range b.Sources.Addrs {
			sources[s] = true
		}
		for _, d := range b.Destinations.Addrs {
			destinations[d] = true
		}
		some = some || b.Sources.Any && b.Destinations.Any
	}
	if a.All || some {
		return a.Has
	}
	return func(source, destination netip.Addr) bool {
		return (sources[source] || destinations[destination]) && a.Has(source, destination)
	}
}

// maxBetween is how many Between are kept apart. What comes beyond makes all connections affected: to find so many kinds takes longer than to look at all.
const maxBetween = 64

// With are the connections that are affected by either.
func (a Affected) With(o Affected) Affected {
	both := Affected{All: a.All || o.All, Urgent: a.Urgent || o.Urgent}
	if both.All {
		return both
	}
	both.Between = slices.Clone(a.Between)
	for _, b := range o.Between {
		both.add(b)
	}
	if len(both.Between) > maxBetween {
		both.All, both.Between = true, nil
	}
	return both
}

// add unites what has the sources or the destinations in common: of many pods that leave one set, one after the other, one Between is left.
func (a *Affected) add(b Between) {
	for i := range a.Between {
		switch have := &a.Between[i]; {
		case have.Destinations.equal(b.Destinations):
			have.Sources = have.Sources.with(b.Sources)
			return
		case have.Sources.equal(b.Sources):
			have.Destinations = have.Destinations.with(b.Destinations)
			return
		}
	}
	a.Between = append(a.Between, b)
}

// AffectedBy are the connections that before allows and after may deny. It errs towards more: a connection that it does not have is denied by after only if
// before denies it too. Without before, nobody knows what was in force. "Policy p of an endpoint got one rule more" affects none; "a policy came to apply to
// an endpoint" affects all that are from it, or to it; "an address left a set that a rule accepts" affects those between the address and the endpoints that
// the rule is about. What before denies in doubt counts as allowed.
func AffectedBy(before, after *Node) Affected {
	return AffectedByStep(Step{Before: before, After: after})
}

// Step is what [AffectedByStep] compares.
type Step struct {
	Before, After *Node
	// Held reports whether some pod is known to have an address after the step. Without it, those of the sets of After are known.
	Held func(netip.Addr) bool
}

// AffectedByStep is [AffectedBy] for who knows more pods than those in sets. That makes a difference to what is urgent.
func AffectedByStep(s Step) Affected {
	before, after := s.Before, s.After
	if before == nil {
		return Affected{All: true, Urgent: true}
	}
	c := comparing{before: before, after: after, holds: s.Held, sets: map[SetID]*difference{}, held: map[netip.Addr]bool{}}
	if c.closesMore() {
		return Affected{All: true, Urgent: true}
	}
	c.narrowedEndpoints()
	c.changedSets()
	c.endedDoubts()
	return c.found
}

// comparing compares two nodes.
type comparing struct {
	before, after *Node
	holds         func(netip.Addr) bool // may be nil
	sets          map[SetID]*difference // those that differ
	held          map[netip.Addr]bool   // whether a pod is known to have an address
	found         Affected
}

// between notes connections of one family after the other, since no address has a connection with one of the other.
func (c *comparing) between(sources, destinations End, urgent bool) {
	for _, four := range []bool{true, false} {
		b := Between{sources.of(four), destinations.of(four)}
		if (b.Sources.Any || len(b.Sources.Addrs) > 0) && (b.Destinations.Any || len(b.Destinations.Addrs) > 0) {
			c.found.add(b)
			c.found.Urgent = c.found.Urgent || urgent
		}
	}
}

// of is the end with the addresses of one family.
func (e End) of(four bool) End {
	if e.Any {
		return e
	}
	return End{Addrs: slices.DeleteFunc(slices.Clone(e.Addrs), func(a netip.Addr) bool { return a.Is4() != four })}
}

// closesMore compares what gets nothing through, whatever policies say, and reports whether it is something that addresses do not tell.
func (c *comparing) closesMore() bool {
	b, a := c.before, c.after
	if a.LinkLocalHeld && !b.LinkLocalHeld {
		return true
	}
	if len(a.Closed.Ranges) > 0 {
		if b.Closed.Known != a.Closed.Known || !slices.Equal(b.Closed.Ranges, a.Closed.Ranges) {
			return true
		}
		c.eitherEnd(differenceOf(b.Sets[b.Closed.Known].Members, a.Sets[a.Closed.Known].Members).lost)
	}
	if a.Shut != "" {
		c.eitherEnd(differenceOf(b.Sets[b.Shut].Members, a.Sets[a.Shut].Members).gained)
	}
	return false
}

// endedDoubts finds the addresses that may have been those of pods which were not known, and are those of others now. Where a rule itself is in doubt no more,
// its policy is another one.
func (c *comparing) endedDoubts() {
	if c.before.IsInDoubt() && c.after.IsInDoubt() {
		c.eitherEnd(differenceOf(c.before.Held, c.after.Held).gained)
	}
}

func (c *comparing) eitherEnd(addrs []netip.Addr) {
	c.between(End{Any: true}, End{Addrs: addrs}, true)
	c.between(End{Addrs: addrs}, End{Any: true}, true)
}

// narrowedEndpoints compares what applies to endpoints, but for the members of sets.
func (c *comparing) narrowedEndpoints() {
	was := make(map[netip.Addr]*Endpoint, len(c.before.Endpoints))
	for i := range c.before.Endpoints {
		for _, a := range c.before.Endpoints[i].Addrs {
			was[a] = &c.before.Endpoints[i]
		}
	}
	n := newNarrowing(c.before, c.after)
	var narrowed [2][]netip.Addr
	for i := range c.after.Endpoints {
		e := &c.after.Endpoints[i]
		for _, a := range e.Addrs {
			for _, d := range Directions {
				if b := was[a]; b == nil && e.IsSubject(d) || b != nil && n.endpoint(d, b, e) {
					narrowed[d] = append(narrowed[d], a)
				}
			}
		}
	}
	c.between(End{Any: true}, End{Addrs: sorted(narrowed[Ingress])}, true)
	c.between(End{Addrs: sorted(narrowed[Egress])}, End{Any: true}, true)
}
