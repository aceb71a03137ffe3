package compile

import (
	"cmp"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// resolver makes the node's policies and sets, within the budgets.
//
// It counts the policies of each account by themselves, and keeps that as long as none of them comes or goes, and no set that they were weighed by becomes
// larger or smaller. What the node holds is the sum over the accounts, in which a set that several name counts once: what an account had is taken away before it
// is counted again. Where policies are refused for the sake of the node, all are counted again with the next snapshot.
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

// reweigh weighs a policy by what its sets have become since. It reports false if more is to be found out: which set is too much is for [resolver.weigh] to say.
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
			set.members = nil
		}
	}
}

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

// made is what the policy becomes. Its rules depend on the text alone: they are the same again as long as it stands.
func (one *resolution) made() *policy.Policy {
	p := one.parsed
	if one.refused {
		if one.closed == nil {
			one.closed = p.made(p.closed)
		}
		return one.closed
	}
	if one.inDoubt != nil {
		return one.inDoubt
	}
	if one.open == nil {
		one.open = p.made(func(rules []parsedRule) []parsedRule { return rules })
	}
	return one.open
}

// made is the node's policy with these of the rules.
func (p *parsedPolicy) made(these func([]parsedRule) []parsedRule) *policy.Policy {
	made := &policy.Policy{Ref: p.ref, Part: p.part, Stage: p.stage, Audit: p.audit}
	for _, d := range policy.Directions {
		if !p.applies[d] {
			continue
		}
		rules := these(p.rules[d])
		for i := range rules {
			made.Rules[d] = append(made.Rules[d], rules[i].resolve()...)
		}
	}
	return made
}

// resolve makes the rules of the node's policy that the rule becomes.
func (r *parsedRule) resolve() []policy.Rule {
	var numbered []policy.Ports
	switch {
	case r.anyPort:
		numbered = []policy.Ports{{Kind: policy.AnyPort}}
	case len(r.ranges) > 0:
		numbered = []policy.Ports{{Kind: policy.InRanges, Ranges: r.ranges}}
	}
	named := inPorts(r.sets.ports)
	var rules []policy.Rule
	add := func(peer policy.Peer, all []policy.Ports) {
		for _, ports := range all {
			rules = append(rules, policy.Rule{Index: r.index, Name: r.name, Action: r.action, Log: r.log, Peer: peer, Ports: ports})
		}
	}
	for _, ends := range slices.Backward(r.sets.ends[:]) {
		for i := range ends {
			add(ends[i].peer(), numbered)
			if !ends[i].ownPorts {
				add(ends[i].peer(), named)
			}
		}
	}
	add(policy.Peer{Kind: policy.AnyPeer}, inPorts(r.sets.podPorts)) // whose set says the address too
	return rules
}

func inPorts(sets []ruleSet) []policy.Ports {
	var all []policy.Ports
	for _, s := range sets {
		all = append(all, policy.Ports{Kind: policy.InPorts, Set: s.id, Protocol: s.protocol})
	}
	return all
}
