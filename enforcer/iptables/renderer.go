package iptables

import (
	"net/netip"
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
// A ruleset is made of the last one by what has come, changed and gone. All that stands in it, and does so for the sake of something else, is counted by that:
// chains by the chains and sections that lead to them ([piece]), sets by the chains whose rules name them. What is counted by nothing goes. So it keeps nothing
// that its last ruleset does not have.
//
// The zero value is ready. It is not safe for concurrent use.
type Renderer struct {
	options   Options
	policies  []policy.Policy // of the last node
	pods      []policy.Endpoint
	nodeSets  policy.Map[policy.SetID, policy.Set] // likewise
	own       [2]policy.SetID                      // likewise: the sets of the node's own rules
	sampled   []bool                               // which of the policies have a point that is sampled
	samplings map[string]int                       // how many of a namespace have
	endpoints map[string][]*policy.Endpoint
	sets      map[policy.SetID]*podSet
	unions    map[string]*unionSet
	unionsOf  map[policy.SetID][]*unionSet
	united    map[policy.SetID]bool // sets that lists have been cut by: whether unions may take them in
	named     map[policy.SetID]int  // by how many rules of lists
	tables    map[Family]*keptTable
	held      map[string]*heldSet // by name
	points    map[string]int      // by how many pieces and guards, by ID
	guarding  *guarding           // of the last node whose links were known; nil before
	last      Ruleset

	// Of this render:
	alike      alike
	stirred    []*podSet   // that a piece names no more
	loose      []*unionSet // likewise
	setEdits   map[string]*Set
	pointEdits map[string]*policy.Point
}

// heldSet is a set of the ruleset, and how many hold it there.
type heldSet struct {
	set Set
	n   int
}

// keptTable is what stays of one family's table.
type keptTable struct {
	pieces   map[string]*piece    // by the names of their chains
	texts    map[texted]text      // of NetworkPolicies and isolations
	sizes    map[*policy.Rule]int // how many rules are made of a policy's, by the first of these
	sections [len(policy.Directions)]map[string]*section
	trees    [len(policy.Directions)]map[treeKind]*tree
	roots    map[policy.Direction]string
	own      piece // what the node's own rules lead to
	hooks    map[string][]Rule
	edits    map[string]*[]Rule // of chains, in this render
	loose    []*piece           // texts that no chain had for a moment
}

func newKeptTable() *keptTable {
	return &keptTable{
		pieces: map[string]*piece{}, texts: map[texted]text{}, sizes: map[*policy.Rule]int{}, hooks: map[string][]Rule{}, own: piece{own: true},
	}
}

// namespace are the endpoints of one.
type namespace struct {
	name      string
	endpoints []*policy.Endpoint
	same      bool // as in the last render: all that their sections were made from, but for the trees that there are
	// stay are those that are as they were, by their first address, where not all are.
	stay map[netip.Addr]bool
}

// Render says what the kernel must hold to enforce n. Where a set of reuse has the entries that are wanted, they stand in the result: a ruleset that
// differs little from another takes little memory of its own.
func (r *Renderer) Render(n policy.Node, o Options, reuse Ruleset) Ruleset {
	r.begin()
	if !reflect.DeepEqual(r.options, o) || !r.refresh(&n) {
		*r = Renderer{options: o, nodeSets: n.Sets, own: ownSets(&n)}
		r.options.Families = slices.Clone(o.Families)
		r.begin()
	}
	if r.tables == nil {
		r.tables, r.sets, r.held, r.points = map[Family]*keptTable{}, map[policy.SetID]*podSet{}, map[string]*heldSet{}, map[string]int{}
		r.unions, r.unionsOf, r.united = map[string]*unionSet{}, map[policy.SetID][]*unionSet{}, map[policy.SetID]bool{}
		r.named = namedByLists(n.Policies)
	}
	namespaces, same := r.follow(&n)
	to := Ruleset{Tables: map[Family]Table{}, Guards: map[string]Guard{}}
	for _, f := range o.Families {
		if r.tables[f] == nil {
			r.tables[f] = newKeptTable()
		}
		t := &rendering{Options: o, node: &n, family: f, reuse: reuse.Sets, kept: r, table: r.tables[f]}
		t.table.edits = map[string]*[]Rule{}
		t.render(namespaces, same)
		to.Tables[f] = Table{Name: o.Table, Jumps: wantedJumps(), Chains: r.last.Tables[f].Chains.Edited(t.table.edits)}
	}
	r.endSets()
	if !same {
		r.endUnions()
	}
	if to.KeepGuards = n.LinksUnread; o.Guards {
		r.guard(&to, &n)
	}
	to.Sets, to.Points = r.last.Sets.Edited(r.setEdits), r.last.Points.Edited(r.pointEdits)
	r.last, r.alike = to, nil
	return to
}

// begin begins a render.
func (r *Renderer) begin() {
	r.alike, r.setEdits, r.pointEdits = alike{}, map[string]*Set{}, map[string]*policy.Point{}
}

// guard adds what holds the node's links.
func (r *Renderer) guard(to *Ruleset, n *policy.Node) {
	if !r.guarding.isOf(n) {
		before := r.guarding
		r.guarding = guardingOf(n, r.options)
		for i := range r.guarding.points {
			r.holdPoint(r.guarding.points[i])
		}
		if before != nil {
			for i := range before.points {
				r.letPointGo(before.points[i].ID)
			}
		}
	}
	to.Guards, to.Inward = r.guarding.byLink, r.guarding.inward
}

// hold has a set stand in the ruleset, for one more that needs it there.
func (r *Renderer) hold(s Set) {
	h := r.held[s.Name]
	if h == nil {
		h = &heldSet{}
		r.held[s.Name] = h
	}
	h.n++
	r.update(s)
}

// update gives a set that is held what it is now.
func (r *Renderer) update(s Set) {
	h := r.held[s.Name]
	if h.set.Name == s.Name && h.set.isOne(s) {
		if _, edited := r.setEdits[s.Name]; !edited {
			return // it stands there as it is
		}
	}
	h.set = s
	r.setEdits[s.Name] = &s
}

// letGo is the contrary of [Renderer.hold].
func (r *Renderer) letGo(name string) {
	if h := r.held[name]; h.n > 1 {
		h.n--
		return
	}
	delete(r.held, name)
	r.setEdits[name] = nil
}

// holdPoint has a point stand in the ruleset, for one more that has it.
func (r *Renderer) holdPoint(p policy.Point) {
	if r.points[p.ID]++; r.points[p.ID] == 1 {
		r.pointEdits[p.ID] = &p
	}
}

// letPointGo is the contrary.
func (r *Renderer) letPointGo(id string) {
	if r.points[id]--; r.points[id] == 0 {
		delete(r.points, id)
		r.pointEdits[id] = nil
	}
}

// ownSets are those of a node's own rules.
func ownSets(n *policy.Node) [2]policy.SetID { return [2]policy.SetID{n.Closed.Known, n.Shut} }

// refresh gives the sets that are kept what they hold now. It reports false if one would have another name: then rules name it that are kept too.
func (r *Renderer) refresh(n *policy.Node) bool {
	own := ownSets(n)
	for i, id := range own {
		if id != r.own[i] && (r.sets[id] != nil || r.sets[r.own[i]] != nil) {
			return false
		}
	}
	var changed []policy.SetID
	same := true
	n.Sets.Since(r.nodeSets, func(id policy.SetID, was, is *policy.Set) {
		if was == nil {
			was = &policy.Set{}
		}
		gone := is == nil
		if gone {
			is = &policy.Set{Kind: was.Kind}
		}
		if was.Members.IsOne(is.Members) && was.Kind == is.Kind {
			return
		}
		changed = append(changed, id)
		s := r.sets[id]
		if s == nil {
			return
		}
		same = same && (gone || s.naming == namingOf(n, id))
		for i, f := range Families {
			if own := &s.own[i]; own.Name != "" {
				own.Members = r.alike.members(ofFamily(f, is.Members), own.Members)
				r.update(*own)
			}
		}
	})
	r.nodeSets, r.own = n.Sets, own
	return same && r.refreshUnions(n, changed)
}

// follow takes in a node, and says what of it is as it was in the last, and whether all of it is.
func (r *Renderer) follow(n *policy.Node) (all []namespace, same bool) {
	if r.endpoints != nil && policy.IsOneSlice(n.Policies, r.policies) && policy.IsOneSlice(n.Endpoints, r.pods) {
		return nil, true
	}
	was, unchanged := r.were(n.Policies), policy.IsOneSlice(n.Policies, r.policies)
	rated := r.countSampled(n.Policies, was)
	r.policies, r.pods = n.Policies, n.Endpoints
	all = byNamespace(n.Endpoints)
	endpoints := make(map[string][]*policy.Endpoint, len(all))
	for i := range all {
		ns := &all[i]
		if before, there := r.endpoints[ns.name]; there && !(len(rated) > 0 && ns.isSubjectTo(func(p int) bool { return rated[n.Policies[p].Ref.Namespace] })) {
			ns.compare(before, func(a, b *policy.Endpoint) bool { return sameEndpoint(a, b, was, unchanged) })
		}
		endpoints[ns.name] = ns.endpoints
	}
	r.endpoints = endpoints
	return all, false
}

// compare finds out which endpoints are as they were.
func (ns *namespace) compare(before []*policy.Endpoint, same func(a, b *policy.Endpoint) bool) {
	if ns.same = slices.EqualFunc(before, ns.endpoints, same); ns.same {
		return
	}
	was := make(map[netip.Addr]*policy.Endpoint, len(before))
	for _, e := range before {
		for _, a := range e.Addrs[:min(1, len(e.Addrs))] {
			was[a] = e
		}
	}
	ns.stay = map[netip.Addr]bool{}
	for _, e := range ns.endpoints {
		for _, a := range e.Addrs[:min(1, len(e.Addrs))] {
			ns.stay[a] = was[a] != nil && same(was[a], e)
		}
	}
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
	return a.Stage == b.Stage && a.Audit == b.Audit && a.Log == b.Log && nameOf(a) == nameOf(b) &&
		sameRules(a.Rules[policy.Ingress], b.Rules[policy.Ingress]) && sameRules(a.Rules[policy.Egress], b.Rules[policy.Egress])
}

func sameRules(a, b []policy.Rule) bool {
	return policy.IsOneSlice(a, b) || slices.EqualFunc(a, b, func(x, y policy.Rule) bool { return x.Index == y.Index && x.Name == y.Name && x.Equal(y) })
}
