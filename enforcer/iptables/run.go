package iptables

import (
	"hash/fnv"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// run are steps that stand together in a list. Those of a united one have the same ports, and their peers are sets: a match on these ports and on the union of
// the sets matches exactly the packets that one of the steps matches.
type run struct {
	steps  []step
	united bool
	ports  policy.Ports // of all steps, of a united one
}

// cutRuns cuts steps into runs. Packets to other ports than those of within do not come, nil for all.
func (pl *pipeline) cutRuns(steps []step, within *policy.PortRange) []run {
	var runs []run
	for len(steps) > 0 {
		n, unites, ports, key := 1, pl.unites(steps[0]), steps[0].rule.Ports, steps[0].portsWithin(within)
		for n < len(steps) && pl.unites(steps[n]) == unites && (!unites || steps[n].portsWithin(within) == key) {
			n++
		}
		if unites {
			if key == allPorts {
				ports = policy.Ports{Kind: policy.AnyPort}
			}
			for _, r := range cutStretch(steps[:n], pl.listLength()) {
				r.ports = ports
				runs = append(runs, r)
			}
		} else {
			runs = append(runs, run{steps: steps[:n]})
		}
		steps = steps[n:]
	}
	return runs
}

// allPorts is the key of any port.
var allPorts = portsKey(policy.Ports{Kind: policy.AnyPort})

// portsWithin tells the ports that a step has yet to be asked about.
func (s step) portsWithin(within *policy.PortRange) string {
	if within != nil && covers(s.rule.Ports, *within) {
		return allPorts
	}
	return s.ports
}

// unites reports whether a union may take in the peers of a step. Those of the node's own sets it may not: their entries come and go at other times.
func (pl *pipeline) unites(s step) bool {
	r := s.rule
	if s.whole || r.Peer.Kind != policy.InSet || r.Ports.Kind != policy.AnyPort && r.Ports.Kind != policy.InRanges {
		return false
	}
	naming := namingOf(pl.node, r.Peer.Set)
	return !naming.known && !naming.shut && pl.kept.unites(pl.node, r.Peer.Set)
}

// cutStretch cuts steps that can be united into runs of at most so many. A policy with many of them has runs of its own, which all lists share that have it;
// others are put together. Where there are more than a run takes, it ends at steps that are told by what they are about: one that comes or goes
// changes the runs next to it, and not all that follow.
func cutStretch(steps []step, length int) []run {
	var runs []run
	for len(steps) > 0 {
		n := samePolicySteps(steps)
		if n < max(2, length/2) {
			for n < len(steps) {
				next := samePolicySteps(steps[n:])
				if next >= max(2, length/2) {
					break
				}
				n += next
			}
		}
		runs = append(runs, cutLong(steps[:n], length)...)
		steps = steps[n:]
	}
	return runs
}

// samePolicySteps is how many steps in front are of one policy.
func samePolicySteps(steps []step) int {
	n := slices.IndexFunc(steps, func(s step) bool { return s.policy != steps[0].policy })
	if n < 0 {
		return len(steps)
	}
	return n
}

// cutLong cuts steps into runs of at most so many. What is too short to be worth a set stays as it is.
func cutLong(steps []step, length int) []run {
	shortest := max(2, length/4)
	var runs []run
	for first := 0; first < len(steps); {
		n := 1
		for first+n < len(steps) && n < length {
			mayEnd := len(steps) > length && n >= shortest && len(steps)-first-n >= shortest
			if mayEnd && steps[first+n-1].isEnd(length/2) {
				break
			}
			n++
		}
		runs = append(runs, run{steps: steps[first : first+n], united: n >= shortest})
		first += n
	}
	return runs
}

// isEnd reports whether a run may end behind a step, which is so of one in so many. It depends on nothing but what the step is about.
func (s step) isEnd(oneIn int) bool {
	h := fnv.New64a()
	h.Write([]byte(s.policy.Ref.Name + " " + s.match))
	return (h.Sum64()>>32)%uint64(max(1, oneIn)) == 0 // the lower bits of such a hash are those of the text
}
