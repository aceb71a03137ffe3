package compile

import (
	"cmp"
)

// holdNode refuses policies until the rest is within the budget of the node.
func (r *resolver) holdNode() []Problem {
	var problems []Problem
	var shares map[string]*share
	for {
		why := r.total.over(r.budgets.node)
		if why == "" {
			return problems
		}
		if shares == nil {
			shares = r.shares()
		}
		largest := r.largestOf(shares)
		if largest == nil {
			return problems
		}
		one := largest.withoutNewest()
		one.refused = true
		r.discount(one)
		r.dropUnused(one)
		problems = append(problems, one.parsed.tooLargeHere("spec", "all policies of a node have "+why+", and those of this namespace the most"))
	}
}

// share is what a namespace takes of the node.
type share struct {
	spending
	all  []*resolution // that are not refused, the oldest first
	uses map[*knownSet]int
}

// shares are those of all namespaces.
func (r *resolver) shares() map[string]*share {
	shares := map[string]*share{}
	for _, one := range r.of.byAge {
		if one.refused {
			continue
		}
		ns := one.parsed.ref.Namespace
		if shares[ns] == nil {
			shares[ns] = &share{uses: map[*knownSet]int{}}
		}
		shares[ns].with(one)
	}
	return shares
}

func (s *share) with(one *resolution) {
	s.all = append(s.all, one)
	s.add(one.spending)
	for i := range one.seen {
		set := one.seen[i].set
		if s.uses[set] > 0 {
			s.take(spending{sets: 1, entries: set.size})
		}
		s.uses[set]++
	}
}

// withoutNewest takes away the newest policy.
func (s *share) withoutNewest() *resolution {
	one := s.all[len(s.all)-1]
	s.all = s.all[:len(s.all)-1]
	s.take(one.spending)
	for i := range one.seen {
		set := one.seen[i].set
		if s.uses[set]--; s.uses[set] > 0 {
			s.add(spending{sets: 1, entries: set.size})
		}
	}
	return one
}

// largestOf is the share of the namespace that takes most. Cluster-wide policies are an administrator's: they go last.
func (r *resolver) largestOf(shares map[string]*share) *share {
	largest := ""
	for ns, s := range shares {
		if ns == "" || len(s.all) == 0 {
			continue
		}
		if largest == "" || cmp.Or(cmp.Compare(s.share(r.budgets.node), shares[largest].share(r.budgets.node)), cmp.Compare(ns, largest)) > 0 {
			largest = ns
		}
	}
	if s := shares[largest]; s != nil && len(s.all) > 0 {
		return s
	}
	return nil
}
