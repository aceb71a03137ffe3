package compile

import (
	"cmp"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// resolver makes the node's policies and sets, within the budgets.
//
// It counts the policies of each account by themselves, and keeps that as long as none of them comes or goes, and no set that they were weighed by becomes
// larger or smaller. What the node holds is the sum over the accounts, in which a set that several name counts once: what an account had is taken away before
// it is counted again. Where policies are refused for the sake of the node, all are counted again with the next snapshot.
type resolver struct {
	*knownSets
	of       *selected
	accounts map[string]*account // by namespace
	order    []*account          // as in of.byAge
	total    spending            // what the node holds: a set that several name counts once
	folds    uint64              // counts the times that an account was counted
	held     []Problem           // of the policies that were refused for the sake of the node
	turned   bool                // another policy is refused than before, or one of these no more
	problems []Problem
}

// account is what the policies of a namespace have taken. A set that several of them name counts once.
type account struct {
	all   []*resolution // the oldest first
	dirty bool          // to be counted again
	spending
	lost spending // on policies that were refused
	// why is what refuses all policies that are newer, once something does.
	why      string
	refused  [2]Problem // the problem of each then, but for its name: of those that are not ranked, and of those that are
	problems []Problem
}

// pay adds what a policy takes.
func (r *resolver) pay(a *account, one *resolution) {
	a.add(one.spending)
	for i := range one.seen {
		set := one.seen[i].set
		if set.fold == r.folds {
			a.take(spending{sets: 1, entries: set.size})
		}
		set.fold = r.folds
	}
}

// resolveAll makes the policies that are used, and the sets that they name. Those of a namespace are made in the order of their age. One that is over its
// budget is refused, and so are those that come when the namespace has used up its own. If the node's is used up, the newest of the namespace go that takes
// most of it.
func (r *resolver) resolveAll(s *selected) []Problem {
	said := r.of != s
	r.turned = said
	if r.group(s); len(r.held) > 0 {
		for _, a := range r.order {
			r.mark(a)
		}
	}
	if len(r.dirty) == 0 && !said {
		return r.problems
	}
	for _, a := range r.dirty {
		r.takeBack(a)
	}
	for _, a := range r.dirty {
		before := len(a.problems)
		r.admitAll(a)
		said = said || before+len(a.problems) > 0
	}
	before := len(r.held)
	r.held = r.holdNode()
	if said = said || before+len(r.held) > 0; said {
		r.problems = nil
		for _, a := range r.order {
			r.problems = append(r.problems, a.problems...)
		}
		r.problems = append(r.problems, r.held...)
	}
	r.turned = r.turned || said && slices.ContainsFunc(s.used, func(one *resolution) bool { return one.refused != one.madeRefused })
	return r.problems
}

// begin forgets everything that was counted, of sets that are found out anew.
func (r *resolver) begin() {
	for _, a := range r.accounts {
		for _, one := range a.all {
			one.counted = false
		}
	}
	r.of, r.accounts, r.order, r.total, r.held = nil, map[string]*account{}, nil, spending{}, nil
}

// group has an account for the policies of each namespace: the same as before, if these are the same.
func (r *resolver) group(s *selected) {
	if r.of == s {
		return
	}
	r.of, r.order = s, nil
	of := map[string][]*resolution{}
	var names []string
	for all := s.byAge; len(all) > 0; {
		name := all[0].parsed.ref.Namespace
		n := slices.IndexFunc(all, func(one *resolution) bool { return one.parsed.ref.Namespace != name })
		if n < 0 {
			n = len(all)
		}
		of[name], names, all = all[:n], append(names, name), all[n:]
	}
	for name, a := range r.accounts {
		if slices.Equal(a.all, of[name]) {
			continue
		}
		r.takeBack(a)
		stays := setOf(of[name])
		for _, one := range a.all {
			if !stays[one] {
				r.release(a, one)
			}
		}
		if a.all = of[name]; len(a.all) == 0 {
			a.dirty = false
			delete(r.accounts, name)
			r.dirty = slices.DeleteFunc(r.dirty, func(o *account) bool { return o == a })
			continue
		}
		r.mark(a)
	}
	for _, name := range names {
		a := r.accounts[name]
		if a == nil {
			a = &account{all: of[name]}
			r.accounts[name] = a
			r.mark(a)
		}
		r.order = append(r.order, a)
	}
}

// takeBack takes away what the policies of an account were counted for.
func (r *resolver) takeBack(a *account) {
	for _, one := range a.all {
		if one.counted {
			r.discount(one)
		}
	}
}

// admitAll counts the policies of an account.
func (r *resolver) admitAll(a *account) {
	r.folds++
	*a = account{all: a.all, problems: make([]Problem, 0, len(a.problems))}
	for _, one := range a.all {
		one.refused = false
		r.admit(one, a)
	}
}

// admit makes one policy, if its own budget and what its namespace has left allow it. It takes time to find out that a policy is over its budget. A
// namespace has twice as much for that as for what is allowed: then all that are newer are refused unseen, since many such policies would cost what one may
// not.
func (r *resolver) admit(one *resolution, a *account) {
	p := one.parsed
	budget, of := r.budgets.namespace, "the policies of the namespace that are as old or older have "
	if p.ref.Namespace == "" {
		budget, of = r.budgets.node, "the cluster-wide policies that are as old or older have "
	}
	if a.why == "" {
		a.why = cmp.Or(a.over(budget), a.lost.over(budget.twice()))
	}
	if a.why != "" {
		r.release(a, one)
		one.weighed, one.refused = false, true
		a.problems = append(a.problems, a.refusalOf(p, of))
		return
	}
	if !one.isCurrent() && !r.reweigh(one) {
		r.weigh(a, one)
	}
	if one.why != "" {
		a.lost.add(one.spending)
		one.refused = true
		r.dropUnused(one)
		a.problems = append(a.problems, p.tooLargeHere(one.field, "it has "+one.why))
		return
	}
	r.pay(a, one)
	if a.why = a.over(budget); a.why != "" {
		one.refused = true
		r.dropUnused(one)
		a.problems = append(a.problems, a.refusalOf(p, of))
		return
	}
	r.use(one)
}

// refusalOf says that a policy is refused for what older ones have taken. There may be thousands of them.
func (a *account) refusalOf(p *parsedPolicy, of string) Problem {
	ranked := 0
	if p.isRanked() {
		ranked = 1
	}
	if a.refused[ranked].Detail == "" {
		a.refused[ranked] = p.tooLargeHere("spec", of+a.why)
	}
	problem := a.refused[ranked]
	problem.Ref = p.ref
	return problem
}

// use counts what a policy takes as the node's.
func (r *resolver) use(one *resolution) {
	one.counted = true
	r.total.add(spending{rules: one.rules, looks: one.looks})
	for i := range one.seen {
		set := one.seen[i].set
		if set.uses == 0 {
			r.stir(set)
			set.counted = set.size
			r.total.add(spending{sets: 1, entries: set.counted})
		}
		set.uses++
	}
}

// discount takes back what [resolver.use] has counted.
func (r *resolver) discount(one *resolution) {
	one.counted = false
	r.total.take(spending{rules: one.rules, looks: one.looks})
	for i := range one.seen {
		set := one.seen[i].set
		if set.uses--; set.uses == 0 {
			r.stir(set)
			r.total.take(spending{sets: 1, entries: set.counted})
		}
	}
}

// dropUnused forgets what is in the sets that a policy names and no other: how large they are is enough to know.
func (r *resolver) dropUnused(one *resolution) {
	for i := range one.seen {
		if set := one.seen[i].set; set.uses == 0 {
			set.members = policy.Members{}
		}
	}
}
