package policy

import (
	"net/netip"
	"slices"
)

// Narrows reports whether some connection that before allows may be denied by after, for all that can be told without looking at members of sets: whoever takes
// members away knows it. It errs towards true. "Policy p of an endpoint got one rule more" is false, "a policy came to apply to an endpoint that had none" is
// true.
func Narrows(before, after *Node) bool {
	if !slices.Equal(before.Closed.Ranges, after.Closed.Ranges) || before.Closed.Known != after.Closed.Known {
		return true
	}
	was := make(map[netip.Addr]*Endpoint, len(before.Endpoints))
	for i := range before.Endpoints {
		for _, a := range before.Endpoints[i].Addrs {
			was[a] = &before.Endpoints[i]
		}
	}
	n := narrowing{before: before, after: after, policies: map[[2]int]bool{}}
	for i := range after.Endpoints {
		e := &after.Endpoints[i]
		for _, a := range e.Addrs {
			if b := was[a]; b == nil || n.endpoint(b, e) {
				return true
			}
		}
	}
	return false
}

// narrowing compares endpoints, and remembers which policies it has compared: many endpoints share them.
type narrowing struct {
	before, after *Node
	policies      map[[2]int]bool // whether the second allows less than the first
}

func (n *narrowing) endpoint(b, e *Endpoint) bool {
	for d := range e.Applies {
		for stage := range e.Applies[d] {
			was, is := b.Applies[d][stage], e.Applies[d][stage]
			if len(was) != len(is) {
				return true
			}
			for k := range is {
				if n.policy(was[k], is[k]) {
					return true
				}
			}
		}
	}
	return false
}

func (n *narrowing) policy(was, is int) bool {
	key := [2]int{was, is}
	narrows, known := n.policies[key]
	if !known {
		narrows = narrower(&n.before.Policies[was], &n.after.Policies[is])
		n.policies[key] = narrows
	}
	return narrows
}

// narrower reports whether a policy may allow less than it did before. Where policies add up it may have more rules; where the first rule decides, it is to
// have the same.
func narrower(b, a *Policy) bool {
	if b.Ref != a.Ref || b.Part != a.Part || b.Stage != a.Stage || b.Audit != a.Audit {
		return true
	}
	for d := range a.Rules {
		if !a.Stage.Isolates() {
			if !slices.EqualFunc(b.Rules[d], a.Rules[d], Rule.Equal) {
				return true
			}
			continue
		}
		for _, r := range b.Rules[d] {
			if !slices.ContainsFunc(a.Rules[d], r.Equal) {
				return true
			}
		}
	}
	return false
}
