package iptables

import (
	"cmp"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// portPart are the steps of a list that packets to some ports can be matched by, in their order.
type portPart struct {
	ports policy.PortRange
	steps []step
}

// splitByPorts cuts a list into parts, one for each of some disjoint ranges of ports, and what packets to all other ports can be matched by. Without a gain
// there are no parts, and all steps are the rest. For instance, of
//
//	tcp/80 from a, any port from b, tcp/8080 from c, udp/53 from d
//
// the parts might be
//
//	tcp/0-4095: tcp/80 from a, any port from b
//	tcp/4096-16383: any port from b, tcp/8080 from c
//	udp/53: any port from b, udp/53 from d
//	the rest: any port from b
//
// A rule of single ports stands in the parts of these. Any other may match packets to ports of several parts, and stands in all of them. That is bounded: the
// parts together have at most twice the steps of the list.
//
// Ranges are halves of halves of all ports, as prefixes are of addresses. So a rule that comes or goes changes the part that it stands in, and the others
// seldom.
func splitByPorts(steps []step, length int) (parts []portPart, rest []step) {
	size := length // what a part has at most of rules of single ports, if it is not of one port
	for size*size < len(steps) {
		size *= 2
	}
	points := pointsOf(steps)
	for ; size < len(steps); size *= 2 {
		parts = fill(cutPorts(points, size), steps)
		rest = slices.DeleteFunc(slices.Clone(steps), isOfSinglePorts)
		if isGain(parts, rest, len(steps)) {
			return parts, rest
		}
	}
	return nil, steps
}

// isGain reports whether a packet meets less rules by parts than without, and whether these are few enough.
func isGain(parts []portPart, rest []step, steps int) bool {
	longest, all := 0, len(rest)
	for _, p := range parts {
		longest, all = max(longest, len(p.steps)), all+len(p.steps)
	}
	return len(parts) > 0 && all <= 2*steps && 4*(len(parts)+max(longest, len(rest))) <= 3*steps
}

// isOfSinglePorts reports whether a step is about single ports alone.
func isOfSinglePorts(s step) bool {
	return !s.whole && s.rule.Ports.Kind == policy.InRanges &&
		!slices.ContainsFunc(s.rule.Ports.Ranges, func(r policy.PortRange) bool { return r.First != r.Last })
}

// portPoint is a port that so many steps are about.
type portPoint struct {
	protocol policy.Protocol
	port     uint16
	steps    int
}

func (p portPoint) compare(o portPoint) int {
	return cmp.Or(cmp.Compare(p.protocol, o.protocol), cmp.Compare(p.port, o.port))
}

// pointsOf are the ports that steps of single ports are about, in order.
func pointsOf(steps []step) []portPoint {
	var points []portPoint
	for _, s := range steps {
		if isOfSinglePorts(s) {
			for _, r := range s.rule.Ports.Ranges {
				points = append(points, portPoint{r.Protocol, r.First, 1})
			}
		}
	}
	slices.SortFunc(points, portPoint.compare)
	var merged []portPoint
	for _, p := range points {
		if last := len(merged) - 1; last >= 0 && merged[last].compare(p) == 0 {
			merged[last].steps++
		} else {
			merged = append(merged, p)
		}
	}
	return merged
}

// cutPorts halves the ports of each protocol until none of the ranges that have a point has more than size steps, or it has a single point.
func cutPorts(points []portPoint, size int) []policy.PortRange {
	var ranges []policy.PortRange
	for len(points) > 0 {
		n := 0
		for n < len(points) && points[n].protocol == points[0].protocol {
			n++
		}
		ranges = appendHalves(ranges, policy.AllPorts(points[0].protocol), points[:n], size)
		points = points[n:]
	}
	return ranges
}

func appendHalves(ranges []policy.PortRange, within policy.PortRange, points []portPoint, size int) []policy.PortRange {
	steps := 0
	for _, p := range points {
		steps += p.steps
	}
	switch {
	case len(points) == 0:
		return ranges
	case len(points) == 1:
		within.First, within.Last = points[0].port, points[0].port
		return append(ranges, within)
	case steps <= size:
		return append(ranges, within)
	}
	lower, upper := within, within
	lower.Last = within.First + (within.Last-within.First)/2
	upper.First = lower.Last + 1
	i, _ := slices.BinarySearchFunc(points, upper.First, func(p portPoint, port uint16) int { return cmp.Compare(p.port, port) })
	return appendHalves(appendHalves(ranges, lower, points[:i], size), upper, points[i:], size)
}

// fill gives each range the steps that packets to it can be matched by.
func fill(ranges []policy.PortRange, steps []step) []portPart {
	parts := make([]portPart, len(ranges))
	for i, r := range ranges {
		parts[i].ports = r
		for _, s := range steps {
			if s.mayMatch(r) {
				parts[i].steps = append(parts[i].steps, s)
			}
		}
	}
	return parts
}

// mayMatch reports whether a step may match a packet to one of the ports.
func (s step) mayMatch(ports policy.PortRange) bool {
	switch p := s.rule.Ports; {
	case s.whole, p.Kind == policy.AnyPort:
		return true
	case p.Kind == policy.InPorts:
		return p.Protocol == 0 || p.Protocol == ports.Protocol
	case p.Kind == policy.InRanges:
		return slices.ContainsFunc(p.Ranges, func(r policy.PortRange) bool {
			return r.Protocol == ports.Protocol && r.First <= ports.Last && ports.First <= r.Last
		})
	}
	return false
}

// covers reports whether ports have all of a range.
func covers(p policy.Ports, all policy.PortRange) bool {
	return p.Kind == policy.AnyPort || p.Kind == policy.InRanges && slices.ContainsFunc(p.Ranges, func(r policy.PortRange) bool {
		return r.Protocol == all.Protocol && r.First <= all.First && all.Last <= r.Last
	})
}
