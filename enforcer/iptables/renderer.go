package iptables

import (
	"maps"
	"reflect"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Renderer renders one node after the other, and gives for each what [Render] gives. It keeps what it has made for each namespace. Where nothing has changed
// that this was made from, it stands in the next ruleset again: the very same slices, which [Diff] need not look into. So a render costs as much as what has
// changed, however much the other tenants of a node have.
//
// What was made from policies is theirs as long as they are the same. Lists of rules and members of sets that stand in the same memory are taken to be the
// same: nobody writes to what stands in a node. Nobody may write to what stands in a ruleset either.
//
// It keeps nothing that its last ruleset does not have. The zero value is ready. It is not safe for concurrent use.
type Renderer struct {
	options   Options
	policies  []policy.Policy // of the last node
	sampled   []bool          // which of them have a point that is sampled
	samplings map[string]int  // how many of a namespace have
	endpoints map[string][]*policy.Endpoint
	sets      map[policy.SetID]*podSet
	unions    map[string]*unionSet
	united    map[policy.SetID]bool // sets that lists have been cut by: whether unions may take them in
	named     map[policy.SetID]int  // by how many rules of lists
	tables    map[Family]*keptTable
	alike     alike     // of this render
	guarding  *guarding // of the last node whose links were known; nil before
	round     uint64    // counts the renders
	size      struct{ sets, points int }
}

// keptTable is what stays of one family's table.
type keptTable struct {
	pieces   map[string]*piece // by the names of their chains
	texts    map[texted]text   // of NetworkPolicies and isolations
	sections [len(policy.Directions)]map[string]*section
	trees    [len(policy.Directions)]map[treeKind]*tree
	chains   int // how many there were
}

// namespace are the endpoints of one.
type namespace struct {
	name      string
	endpoints []*policy.Endpoint
	same      bool // as in the last render: all that their sections were made from, but for the trees that there are
}

// Render says what the kernel must hold to enforce n. Where a set of reuse has the entries that are wanted, they stand in the result: a ruleset that
// differs little from another takes little memory of its own.
func (r *Renderer) Render(n policy.Node, o Options, reuse Ruleset) Ruleset {
	if !reflect.DeepEqual(r.options, o) || !r.refresh(&n) {
		round := r.round
		*r = Renderer{options: o, round: round}
		r.options.Families = slices.Clone(o.Families)
	}
	if r.tables == nil {
		r.tables, r.sets, r.alike = map[Family]*keptTable{}, map[policy.SetID]*podSet{}, alike{}
		r.unions, r.united, r.named = map[string]*unionSet{}, map[policy.SetID]bool{}, namedByLists(n.Policies)
	}
	r.round++
	namespaces := r.follow(&n)
	to := Ruleset{
		Tables: map[Family]Table{}, Sets: make(map[string]Set, r.size.sets), Guards: map[string]Guard{}, Points: make(map[string]policy.Point, r.size.points),
	}
	for _, f := range o.Families {
		if r.tables[f] == nil {
			r.tables[f] = &keptTable{pieces: map[string]*piece{}, texts: map[texted]text{}}
		}
		t := &rendering{
			Options: o, node: &n, family: f, reuse: reuse.Sets, kept: r, table: r.tables[f],
			chains: make(map[string][]Rule, r.tables[f].chains), sets: to.Sets, points: to.Points,
		}
		t.render(namespaces)
		to.Tables[f] = Table{Name: o.Table, Jumps: wantedJumps(), Chains: t.chains}
		t.table.chains = len(t.chains)
	}
	r.forget()
	r.size.sets, r.size.points = len(to.Sets), len(to.Points)
	if to.KeepGuards = n.LinksUnread; o.Guards {
		if !r.guarding.isOf(&n) {
			r.guarding = guardingOf(&n, o)
		}
		to.addGuards(r.guarding)
	}
	return to
}

// refresh gives the sets that are kept what they hold now. It reports false if one would have another name: then rules name it that are kept too.
func (r *Renderer) refresh(n *policy.Node) bool {
	var changed []policy.SetID
	for id, s := range r.sets {
		now, there := n.Sets.Lookup(id)
		if there && namingOf(n, id) != s.naming {
			return false
		}
		if !policy.IsOneSlice(now.Members, s.members) {
			changed = append(changed, id)
			for i, f := range Families {
				if own := &s.own[i]; own.Name != "" {
					have, were := own.Entries, ofFamily(f, s.members)
					own.Entries = r.alike.entries(ofFamily(f, now.Members), func(are []policy.Member) []Entry { return changedEntries(have, were, are) })
				}
			}
			s.members = now.Members
		}
	}
	return r.refreshUnions(n, changed)
}

// follow takes in a node, and says what of it is as it was in the last.
func (r *Renderer) follow(n *policy.Node) []namespace {
	was, unchanged := r.were(n.Policies), policy.IsOneSlice(n.Policies, r.policies)
	rated := r.countSampled(n.Policies, was)
	r.policies = n.Policies
	all := byNamespace(n.Endpoints)
	endpoints := make(map[string][]*policy.Endpoint, len(all))
	for i := range all {
		ns := &all[i]
		before, there := r.endpoints[ns.name]
		ns.same = there && slices.EqualFunc(before, ns.endpoints, func(a, b *policy.Endpoint) bool { return sameEndpoint(a, b, was, unchanged) }) &&
			!(len(rated) > 0 && ns.isSubjectTo(func(p int) bool { return rated[n.Policies[p].Ref.Namespace] }))
		endpoints[ns.name] = ns.endpoints
	}
	r.endpoints = endpoints
	return all
}

// byNamespace are the endpoints of each namespace, in the order in which they come.
func byNamespace(endpoints []policy.Endpoint) []namespace {
	var all []namespace
	index := map[string]int{}
	for i := range endpoints {
		e := &endpoints[i]
		k, ok := index[e.Namespace]
		if !ok {
			k = len(all)
			index[e.Namespace] = k
			all = append(all, namespace{name: e.Namespace})
		}
		all[k].endpoints = append(all[k].endpoints, e)
	}
	return all
}

// isSubjectTo reports whether a policy of some kind applies to an endpoint.
func (ns *namespace) isSubjectTo(which func(p int) bool) bool {
	for _, e := range ns.endpoints {
		for d := range e.Applies {
			for _, policies := range e.Applies[d] {
				if slices.ContainsFunc(policies, which) {
					return true
				}
			}
		}
	}
	return false
}

// sameEndpoint reports whether the same is made for both. was tells for each policy that applies to b which one of a's it is; unchanged is set if each is the
// one at the same place.
func sameEndpoint(a, b *policy.Endpoint, was []int, unchanged bool) bool {
	if !slices.Equal(a.Addrs, b.Addrs) {
		return false
	}
	for d := range a.Applies {
		for stage := range a.Applies[d] {
			before, now := a.Applies[d][stage], b.Applies[d][stage]
			if unchanged && policy.IsOneSlice(before, now) {
				continue
			}
			if len(before) != len(now) {
				return false
			}
			for k, p := range now { // of a namespace all endpoints together may have some hundred thousand
				if was[p] != before[k] {
					return false
				}
			}
		}
	}
	return true
}

// were says for each policy which one of the last node's it is, unchanged; -1 for none.
func (r *Renderer) were(policies []policy.Policy) []int {
	was := make([]int, len(policies))
	if policy.IsOneSlice(policies, r.policies) {
		for i := range was {
			was[i] = i
		}
		return was
	}
	var byName map[policyName]int
	next := 0 // most stand behind each other as they did
	for i := range policies {
		p := &policies[i]
		was[i] = -1
		if next >= len(r.policies) || nameOf(&r.policies[next]) != nameOf(p) {
			if byName == nil {
				byName = namesOf(r.policies)
			}
			at, ok := byName[nameOf(p)]
			if !ok {
				continue
			}
			next = at
		}
		if samePolicy(&r.policies[next], p) {
			was[i] = next
		}
		next++
	}
	return was
}

// policyName tells the policies of a node from each other.
type policyName struct {
	ref  policy.Ref
	part string
}

func nameOf(p *policy.Policy) policyName { return policyName{p.Ref, p.Part} }

func namesOf(policies []policy.Policy) map[policyName]int {
	all := make(map[policyName]int, len(policies))
	for i := range policies {
		all[nameOf(&policies[i])] = i
	}
	return all
}

// samePolicy reports whether two policies of one name make the same chains.
func samePolicy(a, b *policy.Policy) bool {
	return a.Stage == b.Stage && a.Audit == b.Audit && nameOf(a) == nameOf(b) &&
		sameRules(a.Rules[policy.Ingress], b.Rules[policy.Ingress]) && sameRules(a.Rules[policy.Egress], b.Rules[policy.Egress])
}

func sameRules(a, b []policy.Rule) bool {
	return policy.IsOneSlice(a, b) || slices.EqualFunc(a, b, func(x, y policy.Rule) bool { return x.Index == y.Index && x.Name == y.Name && x.Equal(y) })
}

// forget drops what the ruleset of this round does not have.
func (r *Renderer) forget() {
	clear(r.alike)
	maps.DeleteFunc(r.sets, func(_ policy.SetID, s *podSet) bool {
		for i := range s.own {
			if s.round[i] != r.round {
				s.own[i] = Set{}
			}
		}
		return s.round[0] != r.round && s.round[1] != r.round
	})
	r.forgetUnions()
	for _, t := range r.tables {
		maps.DeleteFunc(t.pieces, func(_ string, p *piece) bool { return p.round != r.round })
		maps.DeleteFunc(t.texts, func(_ texted, one text) bool { return one.names.round != r.round })
	}
}
