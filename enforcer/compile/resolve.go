package compile

import (
	"cmp"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// resolver makes the node's policies and sets, within the budgets.
type resolver struct {
	*cluster
	sets  map[policy.SetID]policy.Set
	uses  map[policy.SetID]int // how many policies name a set
	all   []*resolution        // the oldest first
	spent map[string]*account  // by namespace; cluster-wide policies under the empty name
	total spending             // what the node holds: a set that several name counts once
}

// account is what the policies of a namespace have taken. A set that several of them name counts once.
type account struct {
	spending
	sets map[policy.SetID]bool
	lost spending // on policies that were refused
}

// pay adds what a policy takes.
func (a *account) pay(one *resolution) {
	a.add(one.spending)
	for id, entries := range one.named {
		if a.sets[id] {
			a.take(spending{sets: 1, entries: entries})
		}
		a.sets[id] = true
	}
}

// resolution is one policy with what it takes.
type resolution struct {
	at     int // in the list of parsed policies
	parsed *parsedPolicy
	made   policy.Policy
	named  map[policy.SetID]int // its sets, with the number of entries
	spending
	refused bool
}

// resolveAll makes the policies that are used, and the sets that they name. Those of a namespace are made in the order of their age. One that is over its
// budget is refused, and so are those that come when the namespace has used up its own. If the node's is used up, the newest of the namespace go that takes
// most of it.
func (c *cluster) resolveAll(parsed []*parsedPolicy, used []bool, sets map[policy.SetID]policy.Set) (made []policy.Policy, problems []Problem) {
	r := &resolver{cluster: c, sets: sets, uses: map[policy.SetID]int{}, spent: map[string]*account{}}
	for i, p := range parsed {
		if used[i] {
			r.all = append(r.all, &resolution{at: i, parsed: p})
		}
	}
	slices.SortStableFunc(r.all, func(a, b *resolution) int {
		return cmp.Or(cmp.Compare(a.parsed.born, b.parsed.born), a.parsed.compare(b.parsed))
	})
	for _, one := range r.all {
		problems = append(problems, r.admit(one)...)
	}
	problems = append(problems, r.holdNode()...)
	made = make([]policy.Policy, len(parsed))
	for _, one := range r.all {
		made[one.at] = one.made
	}
	return made, problems
}

// admit makes one policy, if its own budget and what its namespace has left allow it. It takes time to find out that a policy is over its budget. A
// namespace has twice as much for that as for what is allowed: then all that are newer are refused unseen, since many such policies would cost what one may
// not.
func (r *resolver) admit(one *resolution) []Problem {
	p := one.parsed
	spent := r.spent[p.ref.Namespace]
	if spent == nil {
		spent = &account{sets: map[policy.SetID]bool{}}
		r.spent[p.ref.Namespace] = spent
	}
	budget, of := namespaceBudget, "the policies of the namespace that are as old or older have "
	if p.ref.Namespace == "" {
		budget, of = nodeBudget, "the cluster-wide policies that are as old or older have "
	}
	if why := cmp.Or(spent.over(budget), spent.lost.over(budget.twice())); why != "" {
		r.refuse(one)
		return []Problem{p.tooLargeHere("spec", of+why)}
	}
	field, why := r.make(one)
	if why != "" {
		spent.lost.add(one.spending)
		r.refuse(one)
		return []Problem{p.tooLargeHere(field, "it has "+why)}
	}
	spent.pay(one)
	if why := spent.over(budget); why != "" {
		r.refuse(one)
		return []Problem{p.tooLargeHere("spec", of+why)}
	}
	return nil
}

// make makes the rules of a policy, and the sets that they name. If these are over the budget of an object, it says where and why.
func (r *resolver) make(one *resolution) (field, why string) {
	p := one.parsed
	one.made = policy.Policy{Ref: p.ref, Part: p.part, Stage: p.stage, Audit: p.audit}
	for _, d := range policy.Directions {
		if !p.applies[d] {
			continue
		}
		one.sets++ // of the pods that it isolates, where many policies share a chain
		for i := range p.rules[d] {
			rule := &p.rules[d][i]
			one.rules += rule.size(d)
			if why := r.needAll(one, rule); why != "" {
				return p.ruleField(d, rule.index), why
			}
			one.made.Rules[d] = append(one.made.Rules[d], rule.resolve(d)...)
		}
	}
	return "spec", one.over(objectBudget)
}

// needAll adds the sets of a rule.
func (r *resolver) needAll(one *resolution, rule *parsedRule) (why string) {
	s := &rule.sets
	for _, sets := range [][]ruleSet{s.pods, s.nodes, s.ports, s.podPorts} {
		for i := range sets {
			if why := r.need(one, &sets[i]); why != "" {
				return why
			}
		}
	}
	if rule.sets.blocks != "" {
		one.sets++
		for _, b := range rule.blocks {
			one.entries += 1 + len(b.Except)
		}
	}
	return one.over(objectBudget)
}

// need adds one set that a policy names.
func (r *resolver) need(one *resolution, s *ruleSet) (why string) {
	if _, ok := one.named[s.id]; ok {
		return ""
	}
	one.sets++
	one.looks += r.looks(s)
	if why := one.over(objectBudget); why != "" {
		return why
	}
	set, have := r.sets[s.id]
	if !have {
		kind := policy.Addresses
		if len(s.names) > 0 {
			kind = policy.AddressPorts
		}
		members, ok := r.membersOf(s, objectBudget.entries-one.entries)
		if !ok {
			one.entries = objectBudget.entries + 1
			return spending{entries: one.entries}.over(objectBudget)
		}
		r.addSet(r.sets, s.id, kind, members)
		set = r.sets[s.id]
	}
	if r.uses[s.id] == 0 {
		r.total.add(spending{sets: 1, entries: len(set.Members)})
	}
	r.uses[s.id]++
	if one.named == nil {
		one.named = map[policy.SetID]int{}
	}
	one.named[s.id] = len(set.Members)
	one.entries += len(set.Members)
	return one.over(objectBudget)
}

// refuse takes away what a policy would allow, and the sets that nobody else names.
func (r *resolver) refuse(one *resolution) {
	for id := range one.named {
		if r.uses[id]--; r.uses[id] == 0 {
			r.total.take(spending{sets: 1, entries: len(r.sets[id].Members)})
			delete(r.sets, id)
		}
	}
	p := one.parsed
	one.refused, one.named = true, nil
	one.made = policy.Policy{Ref: p.ref, Part: p.part, Stage: p.stage, Audit: p.audit}
	for _, d := range policy.Directions {
		for _, rule := range p.closed(p.rules[d]) {
			one.made.Rules[d] = append(one.made.Rules[d], rule.resolve(d)...)
		}
	}
}

// holdNode refuses policies until the rest is within the budget of the node.
func (r *resolver) holdNode() []Problem {
	var problems []Problem
	for {
		total := r.total
		for _, one := range r.all {
			if !one.refused {
				total.rules, total.looks = total.rules+one.rules, total.looks+one.looks
			}
		}
		why := total.over(nodeBudget)
		if why == "" {
			return problems
		}
		one := r.newestOfTheLargest()
		if one == nil {
			return problems
		}
		r.refuse(one)
		problems = append(problems, one.parsed.tooLargeHere("spec", "all policies of a node have "+why+", and those of this namespace the most"))
	}
}

// newestOfTheLargest is the newest policy of the namespace that takes most. Cluster-wide policies are an administrator's: they go last.
func (r *resolver) newestOfTheLargest() *resolution {
	standing := map[string]*account{}
	newest := map[string]*resolution{}
	for _, one := range r.all {
		if one.refused {
			continue
		}
		ns := one.parsed.ref.Namespace
		if standing[ns] == nil {
			standing[ns] = &account{sets: map[policy.SetID]bool{}}
		}
		standing[ns].pay(one)
		newest[ns] = one
	}
	largest := ""
	for ns, a := range standing {
		if ns == "" {
			continue
		}
		if largest == "" || cmp.Or(cmp.Compare(a.share(nodeBudget), standing[largest].share(nodeBudget)), cmp.Compare(ns, largest)) > 0 {
			largest = ns
		}
	}
	return newest[largest]
}

// resolve makes the rules of the node's policy that the rule becomes.
func (r *parsedRule) resolve(d policy.Direction) []policy.Rule {
	var numbered []policy.Ports
	switch {
	case r.anyPort:
		numbered = []policy.Ports{{Kind: policy.AnyPort}}
	case len(r.ranges) > 0:
		numbered = []policy.Ports{{Kind: policy.InRanges, Ranges: r.ranges}}
	}
	named := inPorts(r.sets.ports)
	var rules []policy.Rule
	add := func(peer policy.Peer, all ...policy.Ports) {
		for _, ports := range all {
			rules = append(rules, policy.Rule{Index: r.index, Name: r.name, Action: r.action, Log: r.log, Peer: peer, Ports: ports})
		}
	}
	addAll := func(peer policy.Peer) {
		add(peer, numbered...)
		add(peer, named...)
	}
	anyPeer := policy.Peer{Kind: policy.AnyPeer}
	if r.anyPeer {
		addAll(anyPeer)
	}
	if len(r.blocks) > 0 {
		addAll(policy.Peer{Kind: policy.InBlocks, Set: r.sets.blocks, Blocks: r.blocks})
	}
	for _, s := range r.sets.nodes {
		addAll(policy.Peer{Kind: policy.InSet, Set: s.id})
	}
	for _, s := range r.sets.pods {
		peer := policy.Peer{Kind: policy.InSet, Set: s.id}
		if d == policy.Ingress {
			addAll(peer)
		} else {
			add(peer, numbered...)
		}
	}
	// The port belongs to the remote pod: one set says both.
	add(anyPeer, inPorts(r.sets.podPorts)...)
	return rules
}

func inPorts(sets []ruleSet) []policy.Ports {
	var all []policy.Ports
	for _, s := range sets {
		all = append(all, policy.Ports{Kind: policy.InPorts, Set: s.id, Protocol: s.protocol})
	}
	return all
}
