package dataplane

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The kernel has no index of connections by address. It walks over its whole table for each dump, and writes out the entries that a filter (CTA_FILTER, Linux
// 5.8) lets through. To pass over an entry takes a seventh of what it takes to write it out, so that a few walks cost less than one that shows everything.

// side is the end of a connection that a walk is about.
type side uint8

// The sides as policy sees them: a source before masquerading is that of the original tuple, a destination behind destination NAT is the source of the
// replies.
const (
	bySource side = iota
	byDestination
)

// walk is one dump. Without an address it is of all entries of the family, or of those that belong to others.
type walk struct {
	family  iptables.Family // 0 for both
	side    side
	addr    netip.Addr
	related bool
}

// Costs of a dump, in entries that are passed over.
const (
	costOfShown   = 7      // an entry that is shown: 1.3 µs, where one that is passed over takes 0.18
	costOfBuckets = 20_000 // the table itself, empty: 3.5 ms for 262,144 buckets
)

// walks are the dumps that show all affected connections, and others, of some families, with the least effort: tracked is how many entries each family had
// lately, and filters says by which side of a family the kernel filters.
func walks(a policy.Affected, families []iptables.Family, tracked map[iptables.Family]int, filters func(iptables.Family, side) bool) []walk {
	all := 0
	for _, n := range tracked {
		all += n
	}
	everything := []walk{{}}
	if len(families) == 1 {
		everything[0].family = families[0]
	}
	if a.All {
		return everything
	}
	var some []walk
	cost := 0
	for _, f := range families {
		chosen := walksOf(f, a, filters)
		if len(chosen) == 1 && !chosen[0].addr.IsValid() {
			cost += costOfShown * tracked[f]
		}
		some, cost = append(some, chosen...), cost+len(chosen)*(costOfBuckets+all)
	}
	if cost > costOfBuckets+costOfShown*all {
		return everything
	}
	return some
}

// walksOf are those of one family: for each of Between one to each address at one end, whichever takes fewer, or one in all that shows everything.
func walksOf(f iptables.Family, a policy.Affected, filters func(iptables.Family, side) bool) []walk {
	var chosen []walk
	for _, b := range a.Between {
		ends := [...][]walk{bySource: walksTo(f, bySource, b.Sources), byDestination: walksTo(f, byDestination, b.Destinations)}
		if !b.Sources.Any && len(ends[bySource]) == 0 || !b.Destinations.Any && len(ends[byDestination]) == 0 {
			continue // it is of the other family
		}
		var best []walk
		for s, more := range ends {
			more = slices.DeleteFunc(more, func(w walk) bool { return slices.Contains(chosen, w) })
			if can := len(ends[s]) > 0 && filters(f, side(s)); can && (best == nil || len(more) < len(best)) {
				best = more
			}
		}
		if best == nil {
			return []walk{{family: f}}
		}
		chosen = append(chosen, best...)
	}
	return chosen
}

// walksTo are those to each address of a family at one end; none if that may be any.
func walksTo(f iptables.Family, s side, end policy.End) []walk {
	some := []walk{}
	for _, a := range end.Addrs {
		if !end.Any && iptables.FamilyOf(a) == f {
			some = append(some, walk{family: f, side: s, addr: a})
		}
	}
	return some
}
