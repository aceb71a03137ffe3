package enforcer

import (
	"maps"
	"slices"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Refused is a policy of which a part cannot be in force on this node: that part is closed, and nothing else is.
type Refused struct {
	Object policy.Object
	// TooLarge is set where it asks for more than a budget allows, and Unknown where pods are not known yet that it names. Else the kernel refuses it.
	TooLarge, Unknown bool
	// Word is the kernel's, or says the field, and by how much it is too large or which pods are not known.
	Word string
}

// When a policy that was refused is tried again: what was lacking may have come free. A new version is tried at once, a few times.
const (
	firstTry    = 30 * time.Second
	longestTry  = 10 * time.Minute
	freeChanges = 3 // new versions between two tries that are tried at once
	triedAtOnce = 8 // how many are tried again in one sync
)

// refusals are what the kernel has refused, and what it has taken.
type refusals struct {
	by map[policy.Ref]*objection
	// taken are the policies that are in force as far as is known, and sets what these name: a policy that is refused keeps what it has there.
	taken   map[part]policy.Policy
	sets    policy.Map[policy.SetID, policy.Set]
	settled bool            // a sync has succeeded
	of      []policy.Policy // what taken was made of
}

// part names one policy of a node.
type part struct {
	ref  policy.Ref
	part string
}

// objection is what the kernel has against one object.
type objection struct {
	object  policy.Object // the version that was refused
	word    string
	stuck   map[policy.SetID]bool // sets of it that take no more entries
	whole   bool                  // what was in force of it is refused too
	trying  bool                  // in this sync
	again   time.Time             // when it is tried again
	pause   time.Duration
	changes int // new versions since the last try
}

func newRefusals() *refusals {
	return &refusals{by: map[policy.Ref]*objection{}, taken: map[part]policy.Policy{}}
}

// begin decides which of the objects that were refused are tried again in this sync, those that ask for least first. One that is gone is remembered until it
// would have been tried again, so that it does not become new by going.
func (r *refusals) begin(n *policy.Node, now time.Time) {
	if len(r.by) == 0 {
		return
	}
	present := versions(n)
	var due []policy.Ref
	for ref, o := range r.by {
		o.trying = false
		version, there := present[ref]
		switch {
		case !there && !now.Before(o.again):
			delete(r.by, ref)
		case there && version != o.object && o.changes < freeChanges:
			o.changes++
			due = append(due, ref)
		case there && !now.Before(o.again):
			due = append(due, ref)
		}
	}
	r.bySize(n, due)
	for _, ref := range due[:min(len(due), triedAtOnce)] {
		r.by[ref].trying = true
	}
}

// versions are the objects of a node's policies.
func versions(n *policy.Node) map[policy.Ref]policy.Object {
	all := make(map[policy.Ref]policy.Object, len(n.Concerns.Objects))
	for _, o := range n.Concerns.Objects {
		all[o.Ref] = o
	}
	return all
}

// refuse notes that the kernel does not take an object, and reports whether that is news: whether less of it is asked for from now on.
func (r *refusals) refuse(object policy.Object, word string, stuck []policy.SetID, now time.Time) bool {
	o, news := r.by[object.Ref], true
	switch {
	case o == nil:
		o = &objection{pause: firstTry, stuck: map[policy.SetID]bool{}}
		r.by[object.Ref] = o
	case o.trying && !now.Before(o.again):
		o.pause, o.changes = min(2*o.pause, longestTry), 0
	case !o.trying: // what it was left is refused too
		news, o.whole = !o.whole, true
	}
	o.object, o.word, o.trying, o.again = object, word, false, now.Add(o.pause)
	for _, id := range stuck {
		news, o.stuck[id] = news || !o.stuck[id], true
	}
	return news
}

// remember is what is refused now, to come back to.
func (r *refusals) remember() map[policy.Ref]*objection {
	all := make(map[policy.Ref]*objection, len(r.by))
	for ref, o := range r.by {
		was := *o
		was.stuck = maps.Clone(o.stuck)
		all[ref] = &was
	}
	return all
}

// refuses reports whether something of an object is left out of this sync.
func (r *refusals) refuses(ref policy.Ref) bool { return r.by[ref] != nil && !r.by[ref].trying }

// close is n with what the kernel refuses closed. The rules of a refused policy that are in force already stay. A set that takes no more entries keeps those
// that it has, where that only allows less; where it would not, the rules that name it are closed.
func (r *refusals) close(n policy.Node) policy.Node {
	if len(r.by) == 0 {
		return n
	}
	closed := r.shrink(&n)
	n.Policies = slices.Clone(n.Policies)
	for i, p := range n.Policies {
		if !r.refuses(p.Ref) {
			continue
		}
		before, whole := r.taken[part{p.Ref, p.Part}], r.by[p.Ref].whole
		n.Policies[i] = p.Closed(func(d policy.Direction, rule policy.Rule) bool {
			same := func(was policy.Rule) bool {
				was.InDoubt = rule.InDoubt // it matches the same in the kernel
				return rule.Equal(was)
			}
			return !whole && !slices.ContainsFunc(closed, rule.Names) && slices.ContainsFunc(before.Rules[d], same)
		})
	}
	return n
}

// shrink leaves in the sets that take no more entries those that they have, and returns the sets where that may not be.
func (r *refusals) shrink(n *policy.Node) (closed []policy.SetID) {
	smaller := map[policy.SetID]*policy.Set{}
	for ref, o := range r.by {
		if !r.refuses(ref) {
			continue
		}
		for id := range o.stuck {
			set, wanted := n.Sets.Lookup(id)
			before, held := r.sets.Lookup(id)
			if !wanted || !held || !n.OnlyAccepts(id) {
				closed = append(closed, id)
				continue
			}
			smaller[id] = &policy.Set{Kind: set.Kind, Members: common(set.Members, before.Members)}
		}
	}
	n.Sets = n.Sets.Edited(smaller)
	return closed
}

// common are the members of both.
func common(a, b policy.Members) policy.Members {
	var only []policy.Member // in a
	a.Since(b, func(m policy.Member, inA bool) {
		if inA {
			only = append(only, m)
		}
	})
	return a.Edited(only, nil)
}

// hold is n with some policies as they are in force now, while it is found out which of them the kernel refuses. One that is new does not apply yet; before
// anything of this process was in force nobody knows what is new, and it is closed.
func (r *refusals) hold(n policy.Node, held map[policy.Ref]bool) policy.Node {
	more := map[policy.SetID]*policy.Set{}
	n.Policies = slices.Clone(n.Policies)
	fresh := map[policy.Ref]bool{}
	for i, p := range n.Policies {
		if !held[p.Ref] {
			continue
		}
		before, known := r.taken[part{p.Ref, p.Part}]
		switch {
		case known:
			n.Policies[i].Rules = before.Rules
			for id, set := range r.sets.All() {
				if !n.Sets.Has(id) && names(before, id) {
					more[id] = &set
				}
			}
		case r.settled:
			fresh[p.Ref] = true
		default:
			n.Policies[i] = p.Closed(func(policy.Direction, policy.Rule) bool { return false })
		}
	}
	n.Sets = n.Sets.Edited(more)
	if len(fresh) == 0 {
		return n
	}
	return n.Applying(func(p *policy.Policy) bool { return !fresh[p.Ref] })
}

func names(p policy.Policy, id policy.SetID) bool {
	return slices.ContainsFunc(slices.Concat(p.Rules[0], p.Rules[1]), func(r policy.Rule) bool { return r.Names(id) })
}

// accept notes that the kernel holds n.
func (r *refusals) accept(n policy.Node) {
	if !r.holds(n.Policies) {
		r.taken, r.of = make(map[part]policy.Policy, len(n.Policies)), n.Policies
		for _, p := range n.Policies {
			r.taken[part{p.Ref, p.Part}] = p
		}
	}
	r.sets, r.settled = n.Sets, true
	maps.DeleteFunc(r.by, func(_ policy.Ref, o *objection) bool { return o.trying })
}

// holds reports whether policies are, one by one, those that the kernel holds, without a look at them: most changes are of pods.
func (r *refusals) holds(policies []policy.Policy) bool {
	return r.settled && policy.IsOneSlice(policies, r.of)
}

// changed are the objects of n that ask for something which is not in force yet, in their order.
func (r *refusals) changed(n *policy.Node) []policy.Ref {
	var refs []policy.Ref
	seen := map[policy.Ref]bool{}
	for i := range n.Policies {
		p := &n.Policies[i]
		if !r.isInForce(p) && !r.refuses(p.Ref) && !seen[p.Ref] {
			seen[p.Ref] = true
			refs = append(refs, p.Ref)
		}
	}
	return refs
}

// isInForce reports whether the kernel holds a policy as it is.
func (r *refusals) isInForce(p *policy.Policy) bool {
	before, known := r.taken[part{p.Ref, p.Part}]
	same := known && before.Stage == p.Stage && before.Audit == p.Audit
	for d := range p.Rules {
		same = same && (policy.IsOneSlice(p.Rules[d], before.Rules[d]) || slices.EqualFunc(p.Rules[d], before.Rules[d], policy.Rule.Equal))
	}
	return same
}

// bySize sorts objects by what they ask for beyond what is in force, the smallest first. It is for choosing, and counts what is dear: a set takes as much as
// some hundred entries or rules.
func (r *refusals) bySize(n *policy.Node, refs []policy.Ref) {
	size, wanted := map[policy.Ref]int{}, setOf(refs)
	counted := map[policy.Ref]map[policy.SetID]bool{}
	for _, p := range n.Policies {
		if !wanted[p.Ref] {
			continue
		}
		if counted[p.Ref] == nil {
			counted[p.Ref] = map[policy.SetID]bool{}
		}
		for _, rule := range slices.Concat(p.Rules[0], p.Rules[1]) {
			size[p.Ref] += 1 + len(rule.Peer.Blocks)
			for _, id := range []policy.SetID{rule.Peer.Set, rule.Ports.Set} {
				if id != "" && !r.sets.Has(id) && !counted[p.Ref][id] {
					counted[p.Ref][id] = true
					size[p.Ref] += 100 + n.Sets.Get(id).Members.Len()
				}
			}
		}
	}
	slices.SortStableFunc(refs, func(a, b policy.Ref) int { return size[a] - size[b] })
}

// list are the objects that something is refused of, in order.
func (r *refusals) list(n *policy.Node) []Refused {
	if len(r.by) == 0 {
		return nil
	}
	var all []Refused
	for ref, version := range versions(n) {
		if r.refuses(ref) {
			all = append(all, Refused{Object: version, Word: r.by[ref].word})
		}
	}
	slices.SortFunc(all, func(a, b Refused) int { return a.Object.Ref.Compare(b.Object.Ref) })
	return all
}

// said is which objects are refused, by the last report, and what that was made of. As long as all of it stands in the same memory, so does what is said.
type said struct {
	problems []compile.Problem
	objects  []policy.Object
	present  map[policy.Ref]policy.Object // of objects
	refused  []Refused                    // for the sake of budgets, or in doubt, alone
	any      bool
}

// withProblems adds the objects that are over a budget on this node, or in doubt, each once.
func (s *said) withProblems(refused []Refused, problems []compile.Problem, n *policy.Node) []Refused {
	sameObjects := s.any && policy.IsOneSlice(s.objects, n.Concerns.Objects)
	if sameObjects && len(refused) == 0 && policy.IsOneSlice(s.problems, problems) {
		return s.refused
	}
	if !sameObjects {
		s.present = nil
	}
	*s = said{problems: problems, objects: n.Concerns.Objects, present: s.present, any: len(refused) == 0}
	if !slices.ContainsFunc(problems, func(p compile.Problem) bool { return p.Here }) {
		s.refused = refused
		return refused
	}
	if s.present == nil {
		s.present = versions(n)
	}
	said := make(map[policy.Ref]bool, len(refused))
	for _, r := range refused {
		said[r.Object.Ref] = true
	}
	word, of := "", compile.Problem{}
	for _, p := range problems {
		object, ok := s.present[p.Ref]
		if !p.Here || !ok || len(refused) > 0 && (said[p.Ref] || refused[len(refused)-1].Object.Ref == p.Ref) {
			continue
		}
		if word == "" || p.Field != of.Field || p.Detail != of.Detail { // of thousands all but the name may be the same
			word, of = p.Field+": "+p.Detail, p
		}
		refused = append(refused, Refused{Object: object, TooLarge: p.TooLarge, Unknown: p.Unknown, Word: word})
	}
	slices.SortFunc(refused, func(a, b Refused) int { return a.Object.Ref.Compare(b.Object.Ref) })
	s.refused = refused
	return refused
}

// problemsOf says of each what is done instead.
func problemsOf(refused []Refused) []compile.Problem {
	var all []compile.Problem
	for _, r := range refused {
		detail := "this node's kernel refuses a part of it, which is closed until it is taken: " + r.Word
		all = append(all, compile.Problem{Ref: r.Object.Ref, Field: "spec", Detail: detail})
	}
	return all
}
