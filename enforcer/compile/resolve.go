package compile

import (
	"cmp"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// resolver makes the node's policies and sets, within the budgets.
type resolver struct {
	*knownSets
	all   []*resolution // by account, each with the oldest first
	total spending      // what the node holds: a set that several name counts once
}

// account is what the policies of a namespace have taken. A set that several of them name counts once.
type account struct {
	spending
	lost spending // on policies that were refused
	// why is what refuses all policies that are newer, once something does.
	why     string
	refused [2]Problem // the problem of each then, but for its name: of those that are not ranked, and of those that are
}

// pay adds what a policy takes.
func (a *account) pay(one *resolution) {
	a.add(one.spending)
	for i := range one.seen {
		set := one.seen[i].set
		if set.payer == a {
			a.take(spending{sets: 1, entries: set.size})
		}
		set.payer = a
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
	madeRefused  bool           // it was refused when it was made last
	open, closed *policy.Policy // what it becomes, and what it becomes where it is refused
	inDoubt      *policy.Policy // what it becomes while pods are not known that it names; nil while all are
	madeInDoubt  *policy.Policy // what inDoubt was when it was made last
}

// seenSet is a set with what a policy was weighed by.
type seenSet struct {
	set         *knownSet
	size, looks int // size is -1 if the looks were too many already
}

// isCurrent reports whether what the policy was weighed as still holds, and then marks its sets as needed.
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
	for i := range one.seen {
		one.seen[i].set.needed = true
	}
	return true
}

// resolveAll makes the policies that are used, and the sets that they name. Those of a namespace are made in the order of their age. One that is over its
// budget is refused, and so are those that come when the namespace has used up its own. If the node's is used up, the newest of the namespace go that takes
// most of it.
func (k *knownSets) resolveAll(all []*resolution) (problems []Problem) {
	r := &resolver{knownSets: k, all: all}
	problems = make([]Problem, 0, k.refused)
	var spent *account
	for i, one := range all {
		if i == 0 || one.parsed.ref.Namespace != all[i-1].parsed.ref.Namespace {
			spent = &account{}
		}
		one.refused = false
		problems = r.admit(one, spent, problems)
	}
	problems = append(problems, r.holdNode()...)
	k.refused = len(problems)
	return problems
}

// admit makes one policy, if its own budget and what its namespace has left allow it. It takes time to find out that a policy is over its budget. A
// namespace has twice as much for that as for what is allowed: then all that are newer are refused unseen, since many such policies would cost what one may
// not.
func (r *resolver) admit(one *resolution, spent *account, problems []Problem) []Problem {
	p := one.parsed
	budget, of := r.budgets.namespace, "the policies of the namespace that are as old or older have "
	if p.ref.Namespace == "" {
		budget, of = r.budgets.node, "the cluster-wide policies that are as old or older have "
	}
	if spent.why == "" {
		spent.why = cmp.Or(spent.over(budget), spent.lost.over(budget.twice()))
	}
	if spent.why != "" {
		one.seen, one.weighed, one.refused = nil, false, true
		return append(problems, spent.refusalOf(p, of))
	}
	if !one.isCurrent() {
		r.weigh(one)
	}
	if one.why != "" {
		spent.lost.add(one.spending)
		one.refused = true
		r.dropUnused(one)
		return append(problems, p.tooLargeHere(one.field, "it has "+one.why))
	}
	spent.pay(one)
	if spent.why = spent.over(budget); spent.why != "" {
		one.refused = true
		r.dropUnused(one)
		return append(problems, spent.refusalOf(p, of))
	}
	r.use(one)
	return problems
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

// weigh finds out what a policy takes, or where and why that is over the budget of an object.
func (r *resolver) weigh(one *resolution) {
	p := one.parsed
	one.spending, one.seen, one.field, one.why, one.weighed = spending{}, nil, "", "", true
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
	r.total.add(spending{rules: one.rules, looks: one.looks})
	for i := range one.seen {
		set := one.seen[i].set
		if set.uses == 0 {
			r.total.add(spending{sets: 1, entries: set.size})
		}
		set.uses++
	}
}

// refuse takes back what [resolver.use] has counted.
func (r *resolver) refuse(one *resolution) {
	one.refused = true
	r.total.take(spending{rules: one.rules, looks: one.looks})
	for i := range one.seen {
		set := one.seen[i].set
		if set.uses--; set.uses == 0 {
			r.total.take(spending{sets: 1, entries: set.size})
		}
	}
	r.dropUnused(one)
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
		r.refuse(one)
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
	for _, one := range r.all {
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
