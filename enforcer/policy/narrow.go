package policy

import "slices"

// narrowing compares what applies to endpoints, and remembers which policies it has compared: many endpoints share them.
type narrowing struct {
	before, after *Node
	policies      map[policyPair]bool // whether the second allows less than the first
}

// policyPair are the indexes of a policy in two nodes.
type policyPair struct {
	direction Direction
	was, is   int
}

// endpoint reports whether some connection in a direction that was allowed may be denied, for all that can be told without looking at members of sets. It errs
// towards true.
func (n *narrowing) endpoint(d Direction, b, e *Endpoint) bool {
	for stage := range e.Applies[d] {
		was, is := b.Applies[d][stage], e.Applies[d][stage]
		if len(was) != len(is) {
			return true
		}
		for k := range is {
			if n.policy(policyPair{d, was[k], is[k]}) {
				return true
			}
		}
	}
	return false
}

func (n *narrowing) policy(p policyPair) bool {
	narrows, known := n.policies[p]
	if !known {
		narrows = narrower(p.direction, &n.before.Policies[p.was], &n.after.Policies[p.is])
		n.policies[p] = narrows
	}
	return narrows
}

// narrower reports whether a policy may allow less in a direction than it did before. Where policies add up it may have more rules; where the first rule decides, it
// is to have the same.
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
