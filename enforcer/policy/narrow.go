package policy

import "slices"

// narrowing compares what applies to endpoints, and remembers which policies it has compared: many endpoints share them.
type narrowing struct {
	before, after *Node
	// same is whether the policy with an index allows less than the one with the same index before, and some whether any does. Most changes leave indexes
	// alone.
	same [2][]bool
	some [2]bool
	// others are those with different indexes.
	others map[policyPair]bool
}

// policyPair are the indexes of a policy in two nodes.
type policyPair struct {
	direction Direction
	was, is   int
}

func newNarrowing(before, after *Node) *narrowing {
	n := &narrowing{before: before, after: after, others: map[policyPair]bool{}}
	if len(before.Policies) != len(after.Policies) || IsOneSlice(before.Policies, after.Policies) {
		return n
	}
	for _, d := range Directions {
		n.same[d] = make([]bool, len(after.Policies))
		for i := range after.Policies {
			n.same[d][i] = narrower(d, &before.Policies[i], &after.Policies[i])
			n.some[d] = n.some[d] || n.same[d][i]
		}
	}
	return n
}

// endpoint reports whether some connection in a direction that was allowed may be denied, for all that can be told without looking at members of sets. It
// errs towards true.
func (n *narrowing) endpoint(d Direction, b, e *Endpoint) bool {
	for stage := range e.Applies[d] {
		was, is := b.Applies[d][stage], e.Applies[d][stage]
		if len(was) != len(is) {
			return true
		}
		if !n.some[d] && len(n.before.Policies) == len(n.after.Policies) && (IsOneSlice(was, is) || slices.Equal(was, is)) {
			continue
		}
		for k := range is {
			if n.policy(d, was[k], is[k]) {
				return true
			}
		}
	}
	return false
}

func (n *narrowing) policy(d Direction, was, is int) bool {
	if was == is && n.same[d] != nil {
		return n.same[d][is]
	}
	pair := policyPair{d, was, is}
	narrows, known := n.others[pair]
	if !known {
		narrows = narrower(d, &n.before.Policies[was], &n.after.Policies[is])
		n.others[pair] = narrows
	}
	return narrows
}

// narrower reports whether a policy may allow less in a direction than it did before. Where policies add up it may have more rules; where the first rule
// decides, it is to have the same.
func narrower(d Direction, b, a *Policy) bool {
	switch {
	case b.Ref != a.Ref || b.Part != a.Part || b.Stage != a.Stage || b.Audit != a.Audit:
		return true
	case IsOneSlice(b.Rules[d], a.Rules[d]):
		return false
	case !a.Stage.Isolates():
		return !slices.EqualFunc(b.Rules[d], a.Rules[d], Rule.Equal)
	}
	return slices.ContainsFunc(b.Rules[d], func(r Rule) bool { return !slices.ContainsFunc(a.Rules[d], r.Equal) })
}
