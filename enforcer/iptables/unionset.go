package iptables

import (
	"cmp"
	"maps"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// unionSet has the addresses of some sets of the node, in one family.
type unionSet struct {
	of      []policy.SetID // in order
	set     Set
	parents int // how many pieces name it
}

// unionSet adds the set of the addresses of several sets of the node, and returns its name. One alone is that set.
//
// Whatever is in the union is in one of its parts at every instant: an address comes to the parts first, and leaves the union first (see [Diff]).
func (t *rendering) unionSet(ids []policy.SetID) string {
	if len(ids) == 1 {
		return t.podSet(ids[0])
	}
	name := t.Layout.unionSet(t.family, ids)
	u := t.kept.unions[name]
	if u == nil {
		u = &unionSet{of: ids, set: Set{Name: name, Type: HashIP, Family: t.family, Members: t.reuse.Get(name).Members}}
		u.refresh(t.node)
		t.kept.unions[name] = u
		for _, id := range ids {
			t.kept.unionsOf[id] = append(t.kept.unionsOf[id], u)
		}
		t.kept.hold(u.set)
	}
	u.parents++
	t.making.unions = append(t.making.unions, u)
	return name
}

// refresh gives the set what its parts hold now.
func (u *unionSet) refresh(n *policy.Node) {
	own := make([][]policy.Member, len(u.of))
	for i, id := range u.of {
		own[i] = ofFamily(u.set.Family, n.Sets.Get(id).Members).Content()
	}
	if all := merged(own); !u.set.Members.Holds(all) {
		u.set.Members = policy.MembersOf(all)
	}
}

// merged are the members of sorted lists, sorted and each once.
func merged(lists [][]policy.Member) []policy.Member {
	switch len(lists) {
	case 0:
		return nil
	case 1:
		return lists[0]
	}
	a, b := merged(lists[:len(lists)/2]), merged(lists[len(lists)/2:])
	if len(a) == 0 {
		return b
	}
	all := make([]policy.Member, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].Compare(b[0]); {
		case c < 0:
			all, a = append(all, a[0]), a[1:]
		case c > 0:
			all, b = append(all, b[0]), b[1:]
		default:
			all, a, b = append(all, a[0]), a[1:], b[1:]
		}
	}
	return append(append(all, a...), b...)
}

// maxUnited bounds what unions take of a set: the set may be in as many of them as rules of lists name it, and each then holds the set's members, and is a
// message when one comes or goes. An empty set counts too, since pods may come. A set of 90 addresses may be named by 38 rules, and one of a single address
// by 240.
const (
	maxUnited   = 4096
	emptyUnited = 16
)

// unites reports whether unions may take in a set of the node, and notes that it was asked: what was made by the answer goes with it.
func (r *Renderer) unites(n *policy.Node, id policy.SetID) bool {
	united := r.isWithinUnions(n, id)
	r.united[id] = united
	return united
}

func (r *Renderer) isWithinUnions(n *policy.Node, id policy.SetID) bool {
	return (n.Sets.Get(id).Members.Len()+emptyUnited)*r.named[id] <= maxUnited
}

// refreshUnions gives the unions of sets that have changed what they hold now. It reports false if the answer about a set that lists have been cut by is
// another one now.
func (r *Renderer) refreshUnions(n *policy.Node, changed []policy.SetID) bool {
	asked := changed
	if r.named == nil || !policy.IsOneSlice(n.Policies, r.policies) {
		r.named = namedByLists(n.Policies)
		asked = slices.Collect(maps.Keys(r.united))
	}
	for _, id := range asked {
		if was, united := r.united[id]; united && n.Sets.Has(id) && was != r.isWithinUnions(n, id) {
			return false
		}
	}
	refreshed := map[*unionSet]bool{}
	for _, id := range changed {
		for _, u := range r.unionsOf[id] {
			if !refreshed[u] {
				refreshed[u] = true
				u.refresh(n)
				r.update(u.set)
			}
		}
	}
	return true
}

// namedByLists counts the rules of lists that name a set.
func namedByLists(policies []policy.Policy) map[policy.SetID]int {
	named := map[policy.SetID]int{}
	for i := range policies {
		if policies[i].Stage.Isolates() {
			continue
		}
		for _, rules := range policies[i].Rules {
			for k := range rules {
				if rules[k].Peer.Kind == policy.InSet {
					named[rules[k].Peer.Set]++
				}
			}
		}
	}
	return named
}

// endUnions takes away the unions that no piece names any more, and what is known of sets that no rule names.
func (r *Renderer) endUnions() {
	for _, u := range r.loose {
		if u.parents > 0 || r.unions[u.set.Name] != u {
			continue
		}
		delete(r.unions, u.set.Name)
		r.letGo(u.set.Name)
		for _, id := range u.of {
			r.unionsOf[id] = slices.DeleteFunc(r.unionsOf[id], func(o *unionSet) bool { return o == u })
			if len(r.unionsOf[id]) == 0 {
				delete(r.unionsOf, id)
			}
		}
	}
	r.loose = nil
	maps.DeleteFunc(r.united, func(id policy.SetID, _ bool) bool { return r.sets[id] == nil })
}

// unionsFirst puts what unions lose in front of what other sets lose. So what a union has, one of its parts has; without that a packet could be led to the
// rules of a run, and none of them would match it.
func unionsFirst(all []SetEntries) {
	slices.SortStableFunc(all, func(a, b SetEntries) int { return cmp.Compare(behindUnions(a), behindUnions(b)) })
}

func behindUnions(s SetEntries) int {
	if isUnion(s.Set) {
		return 0
	}
	return 1
}
