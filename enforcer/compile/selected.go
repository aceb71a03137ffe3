package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// selected is which policies apply to which pods of the node, and what follows from that alone. It stays as it is until a policy, a pod of the node, or the
// namespace of one changes.
type selected struct {
	parsed        []*parsedPolicy
	local, losers []*Pod

	endpoints []policy.Endpoint
	used      []*resolution   // the policies that apply to one of them, in the order in which they are asked
	byAge     []*resolution   // likewise, by account, each with the oldest first
	made      []policy.Policy // what those that are used were made last
	ties      []Problem
	objects   []policy.Object
	digests   []uint64
	addrs     map[uint64][]netip.Addr
}

// selectedFor is the last selection, if it still holds, or a new one.
func (k *Compiler) selectedFor(c *cluster, parsed []*parsedPolicy, all *changes) *selected {
	last := k.selected
	if last != nil && all != nil && policy.IsOneSlice(last.parsed, parsed) &&
		policy.IsOneSlice(last.local, c.local) && policy.IsOneSlice(last.losers, c.losers) && !all.reach(c.local) && !all.reach(c.losers) {
		return last
	}
	s := &selected{parsed: parsed, local: c.local, losers: c.losers}
	subjects := make([]subject, len(c.local))
	used := make([]bool, len(parsed))
	concerned := newConcerns(c)
	for i, p := range parsed {
		selected := c.selectLocal(p.subject)
		for _, pod := range selected {
			subjects[pod].add(i, p)
		}
		concerned.add(p, selected)
		concerned.addLosers(p)
	}
	for i := range subjects {
		subjects[i].settle(parsed, used)
	}
	s.ties = ties(parsed, subjects)
	sorted := concerned.sorted()
	s.objects, s.digests, s.addrs = sorted.Objects, sorted.Pods, sorted.Addrs
	s.apply(subjects, s.keep(last, used))
	return s
}

// reach reports whether the namespace of a pod has changed.
func (all *changes) reach(pods []*Pod) bool {
	return slices.ContainsFunc(pods, func(p *Pod) bool {
		one := all.in[p.Namespace]
		return one != nil && !one.before.Equal(one.after)
	})
}

// keep lists the policies that are used, with what the last selection knows of them. It returns the place of each parsed policy among those that are used.
func (s *selected) keep(last *selected, used []bool) (index []int) {
	known := map[*parsedPolicy]*resolution{}
	if last != nil {
		for _, one := range last.used {
			known[one.parsed] = one
		}
	}
	index = make([]int, len(s.parsed))
	for i, p := range s.parsed {
		if !used[i] {
			continue
		}
		one := known[p]
		if one == nil {
			one = &resolution{parsed: p}
		}
		index[i] = len(s.used)
		s.used = append(s.used, one)
	}
	s.byAge = slices.Clone(s.used)
	slices.SortStableFunc(s.byAge, func(a, b *resolution) int {
		return cmp.Or(cmp.Compare(a.parsed.ref.Namespace, b.parsed.ref.Namespace), cmp.Compare(a.parsed.born, b.parsed.born), a.parsed.compare(b.parsed))
	})
	return index
}

// apply makes the endpoints. index has the place of each parsed policy among those that are used.
func (s *selected) apply(subjects []subject, index []int) {
	for i, pod := range s.local {
		e := policy.Endpoint{Namespace: pod.Namespace, Name: pod.Name, Addrs: pod.Addrs, Applies: subjects[i]}
		for d := range e.Applies {
			for stage := range e.Applies[d] {
				for k, p := range e.Applies[d][stage] {
					e.Applies[d][stage][k] = index[p]
				}
			}
		}
		if e.IsSubject(policy.Ingress) || e.IsSubject(policy.Egress) {
			s.endpoints = append(s.endpoints, e)
		}
	}
}

// policies are what the policies that are used become. The list is the same again if no other is refused than before, or in doubt, which turned says.
func (s *selected) policies(turned bool) []policy.Policy {
	if !turned && len(s.made) == len(s.used) || len(s.used) == 0 {
		return s.made
	}
	s.made = make([]policy.Policy, len(s.used))
	for i, one := range s.used {
		s.made[i], one.madeRefused = *one.made(), one.refused
	}
	return s.made
}
