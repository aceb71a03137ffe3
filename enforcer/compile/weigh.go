package compile

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// resolution is one policy with what it takes. It is kept while the policy applies to a pod of the node.
type resolution struct {
	parsed *parsedPolicy
	spending
	seen         []seenSet // the sets that its spending comes from
	weighed      bool      // the spending is known, of when the sets were as they have been seen
	field, why   string    // where and why it is over its own budget
	refused      bool
	counted      bool           // as the node's
	madeRefused  bool           // it was refused when it was made last
	open, closed *policy.Policy // what it becomes, and what it becomes where it is refused
	inDoubt      *policy.Policy // what it becomes while pods are not known that it names; nil while all are
}

// seenSet is a set with what a policy was weighed by.
type seenSet struct {
	set         *knownSet
	size, looks int // size is -1 if the looks were too many already
}

// isCurrent reports whether what the policy was weighed as still holds.
func (one *resolution) isCurrent() bool {
	if !one.weighed {
		return false
	}
	for i := range one.seen {
		s := &one.seen[i]
		if s.set.gone || s.looks != s.set.looks || s.size >= 0 && s.size != s.set.size {
			return false
		}
	}
	return true
}

// reweigh weighs a policy by what its sets have become since. It reports false if more is to be found out: which set is too much is for [resolver.weigh] to
// say.
func (r *resolver) reweigh(one *resolution) bool {
	if !one.weighed || one.why != "" {
		return false
	}
	now := one.spending
	for i := range one.seen {
		s := &one.seen[i]
		if s.set.gone {
			return false
		}
		r.count(s.set)
		now.add(spending{entries: s.set.size - s.size, looks: s.set.looks - s.looks})
	}
	if now.over(r.budgets.object) != "" {
		return false
	}
	one.spending = now
	for i := range one.seen {
		s := &one.seen[i]
		s.size, s.looks = s.set.size, s.set.looks
	}
	return true
}

// weigh finds out what a policy takes, or where and why that is over the budget of an object.
func (r *resolver) weigh(a *account, one *resolution) {
	before := one.seen
	one.spending, one.seen, one.field, one.why, one.weighed = spending{}, nil, "", "", true
	r.addAll(one)
	for i := range one.seen {
		one.seen[i].set.ask(a, 1)
	}
	for i := range before {
		r.unask(a, before[i].set)
	}
}

// addAll adds what a policy takes.
func (r *resolver) addAll(one *resolution) {
	p := one.parsed
	named := map[policy.SetID]bool{}
	for _, d := range policy.Directions {
		if !p.applies[d] {
			continue
		}
		one.sets++ // of the pods that it isolates, where many policies share a chain
		for i := range p.rules[d] {
			rule := &p.rules[d][i]
			one.rules += rule.size()
			if one.why = r.needAll(one, rule, named); one.why != "" {
				one.field = p.ruleField(d, rule.index)
				return
			}
		}
	}
	if one.why = one.over(r.budgets.object); one.why != "" {
		one.field = "spec"
	}
}

// ask notes that n more policies of an account were weighed by the set.
func (s *knownSet) ask(a *account, n int) {
	i := slices.IndexFunc(s.asks, func(one asking) bool { return one.account == a })
	if i < 0 {
		i, s.asks = len(s.asks), append(s.asks, asking{account: a})
	}
	if s.asks[i].n += n; s.asks[i].n == 0 {
		s.asks = slices.Delete(s.asks, i, i+1)
	}
}

// unask is the contrary.
func (r *resolver) unask(a *account, set *knownSet) {
	if set.ask(a, -1); len(set.asks) == 0 {
		r.stir(set)
	}
}

// release forgets what a policy was weighed by.
func (r *resolver) release(a *account, one *resolution) {
	for i := range one.seen {
		r.unask(a, one.seen[i].set)
	}
	one.seen = nil
}

// needAll adds the sets of a rule.
func (r *resolver) needAll(one *resolution, rule *parsedRule, named map[policy.SetID]bool) (why string) {
	for set := range rule.sets.all() {
		if named[set.id] {
			continue
		}
		named[set.id] = true
		if why := r.add(one, r.need(set)); why != "" {
			return why
		}
	}
	for e := range rule.sets.of(policy.InBlocks) {
		one.sets++
		for _, b := range e.blocks {
			one.entries += 1 + len(b.Except)
		}
	}
	return one.over(r.budgets.object)
}

// add adds one set that a policy names. By how many its members are too many is not reported: they are not counted to the end.
func (r *resolver) add(one *resolution, set *knownSet) (why string) {
	one.sets++
	one.looks += set.looks
	if why := one.over(r.budgets.object); why != "" {
		one.seen = append(one.seen, seenSet{set, -1, set.looks})
		return why
	}
	r.count(set)
	one.seen = append(one.seen, seenSet{set, set.size, set.looks})
	if one.entries += set.size; one.entries > r.budgets.object.entries {
		one.entries = r.budgets.object.entries + 1
	}
	return one.over(r.budgets.object)
}
