package compile

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// knownSet is a set that policies of the node name. It follows what changes, rather than being looked up again.
type knownSet struct {
	id     policy.SetID
	kind   policy.SetKind
	finder finder

	size    int            // how many members it has, more than the budget of an object if those are too many to count; -1 if nobody has looked
	members policy.Members // only while a policy of the node names it that is not refused
	looks   int
	asks    []asking // who was weighed by it
	uses    int      // how many policies of the node name it that are not refused
	counted int      // how many members the node was counted for
	round   uint64   // the last snapshot that may have changed it
	fold    uint64   // the last time that the policies of an account were counted by which it was
	stirred bool     // it is among knownSets.stirred
	gone    bool     // it is found out anew: this one follows nothing
}

// asking is how many policies of an account were weighed by a set.
type asking struct {
	account *account
	n       int
}

// knownSets are those that policies of the last snapshot name, and where these look for pods. A change of pods reaches those that look where the pods are, and
// no others: these are not even visited.
type knownSets struct {
	*cluster
	sets   map[policy.SetID]*knownSet
	scopes scopes
	others map[*knownSet]bool // that have no scope: they may be changed by any pod or node
	listed policy.Map[policy.SetID, policy.Set]
	// budgets are the documented ones, unless they were set before the first snapshot.
	budgets budgets
	// namespaces is how many there are: whoever selects namespaces looks at each.
	namespaces int
	round      uint64
	// Of this snapshot:
	dirty   []*account  // whose policies were weighed by a set that has changed since
	stirred []*knownSet // that may have come into use or out of use, or have other members
	edits   edits
	lists   map[policy.Ends]policy.Members // that several sets may have; nil before anybody has asked
}

// sharedFrom is from how many members on a list is worth the search for another one like it.
const sharedFrom = 64

// listOf is a list of the members of a set that may stay: one that was there before or that another set has, or a copy.
func (k *knownSets) listOf(id policy.SetID, members []policy.Member) policy.Members {
	if len(members) < sharedFrom {
		return k.reused(id, members)
	}
	if k.lists == nil {
		k.lists = map[policy.Ends]policy.Members{}
		for _, set := range k.sets {
			if set.members.Len() >= sharedFrom {
				k.lists[set.members.Ends()] = set.members
			}
		}
	}
	ends := policy.Ends{Length: len(members), First: members[0], Last: members[len(members)-1]}
	list, ok := k.lists[ends]
	if !ok || !list.Holds(members) {
		list = k.reused(id, members)
		k.lists[ends] = list
	}
	return list
}

// forget has all sets found out anew.
func (k *knownSets) forget() {
	for _, set := range k.sets {
		set.gone = true
	}
	k.sets, k.scopes, k.others = map[policy.SetID]*knownSet{}, newScopes(), map[*knownSet]bool{}
	k.listed = policy.Map[policy.SetID, policy.Set]{}
}

// follow takes the sets to the present snapshot. It reports false if all are found out anew.
func (k *knownSets) follow(c *cluster, all *changes) bool {
	k.cluster, k.edits, k.lists = c, edits{}, nil
	k.dirty, k.stirred = nil, nil
	k.round++
	otherNamespaces := k.namespaces != len(c.namespaces)
	if k.namespaces = len(c.namespaces); all == nil || k.sets == nil {
		k.forget()
		return false
	}
	for _, s := range k.scopes.follow(all, otherNamespaces) {
		for set := range s.sets {
			k.followSet(set, all)
		}
	}
	for set := range k.others {
		k.followSet(set, all)
	}
	return true
}

// followSet takes a set to the present snapshot. What was weighed by it is weighed again if it has become larger or smaller.
func (k *knownSets) followSet(set *knownSet, all *changes) {
	if set.round == k.round {
		return
	}
	looks, size := set.looks, set.size
	set.round, set.looks = k.round, set.finder.looks(k.cluster)
	if set.size >= 0 {
		k.followMembers(set, all)
	}
	if set.looks != looks || set.size != size {
		for _, one := range set.asks {
			k.mark(one.account)
		}
	}
}

// mark has the policies of an account counted again.
func (k *knownSets) mark(a *account) {
	if !a.dirty {
		a.dirty = true
		k.dirty = append(k.dirty, a)
	}
}

// stir has a set looked at once all policies are counted.
func (k *knownSets) stir(set *knownSet) {
	if !set.stirred {
		set.stirred = true
		k.stirred = append(k.stirred, set)
	}
}

func (k *knownSets) followMembers(set *knownSet, all *changes) {
	gone, come, ok := set.finder.follow(k.cluster, all)
	if ok && len(gone)+len(come) == 0 {
		return
	}
	if !ok || set.size > k.budgets.object.entries {
		set.size = -1
		k.stir(set)
		return
	}
	gone, come = without(inOrder(gone), inOrder(come))
	if set.members.Len() == set.size {
		set.members = k.edits.of(set.members, gone, come)
	}
	set.size += len(come) - len(gone)
	k.stir(set)
}

// without are the members of each list that are not in the other.
func without(gone, come []policy.Member) (goneOnly, comeOnly []policy.Member) {
	in := func(all []policy.Member) func(policy.Member) bool {
		return func(m policy.Member) bool {
			_, has := slices.BinarySearchFunc(all, m, policy.Member.Compare)
			return has
		}
	}
	return slices.DeleteFunc(slices.Clone(gone), in(come)), slices.DeleteFunc(come, in(gone))
}

// edits are members, by their ends, as they were edited. Sets with the same members share them: a tenant may have many sets of every pod of the
// cluster.
type edits map[policy.Ends][]edit

type edit struct {
	before, after policy.Members
	gone, come    []policy.Member
}

// of are the members as edited, once for all that are one and have the same edit.
func (all edits) of(members policy.Members, gone, come []policy.Member) policy.Members {
	if members.Len() == 0 {
		return members.Edited(gone, come)
	}
	ends := members.Ends()
	for _, e := range all[ends] {
		if e.before.IsOne(members) && slices.Equal(e.gone, gone) && slices.Equal(e.come, come) {
			return e.after
		}
	}
	after := members.Edited(gone, come)
	all[ends] = append(all[ends], edit{members, after, gone, come})
	return after
}

// need is the known set that a rule names.
func (k *knownSets) need(s *ruleSet) *knownSet {
	set := k.sets[s.id]
	if set != nil {
		return set
	}
	set = &knownSet{id: s.id, kind: policy.Addresses, finder: s.of.finder(k, s.names), size: -1}
	if len(s.names) > 0 {
		set.kind = policy.AddressPorts
	}
	set.looks = set.finder.looks(k.cluster)
	k.sets[s.id] = set
	if f, ok := set.finder.(*podFinder); ok {
		for _, scope := range f.scopes {
			scope.sets[set] = true
		}
	} else {
		k.others[set] = true
	}
	k.stir(set)
	return set
}

// drop forgets a set that nothing was weighed by.
func (k *knownSets) drop(set *knownSet) {
	delete(k.sets, set.id)
	delete(k.others, set)
	if f, ok := set.finder.(*podFinder); ok {
		for _, scope := range f.scopes {
			if delete(scope.sets, set); len(scope.sets) == 0 {
				k.scopes.drop(scope)
			}
		}
	}
}

// count finds out how many members a set has, if nobody knows.
func (k *knownSets) count(set *knownSet) {
	if set.size < 0 {
		k.find(set)
	}
}

// find finds out which members a set has.
func (k *knownSets) find(set *knownSet) {
	k.stir(set)
	members, ok := set.finder.find(k.cluster, k.budgets.object.entries)
	if !ok {
		set.size, set.members = k.budgets.object.entries+1, policy.Members{}
		return
	}
	set.size = len(members)
	set.members = k.listOf(set.id, members)
}

// used are the sets that policies of the node name which are not refused. Those that no policy was weighed by are forgotten.
func (k *knownSets) used() policy.Map[policy.SetID, policy.Set] {
	edits := map[policy.SetID]*policy.Set{}
	for i := 0; i < len(k.stirred); i++ { // one that is looked for is stirred again
		set := k.stirred[i]
		set.stirred = false
		if k.sets[set.id] != set {
			continue // gone
		}
		was, listed := k.listed.Lookup(set.id)
		switch {
		case set.uses > 0:
			if set.members.Len() != set.size {
				k.find(set)
			}
			if !listed || !was.Members.IsOne(set.members) {
				edits[set.id] = &policy.Set{Kind: set.kind, Members: set.members}
			}
			continue
		case listed:
			edits[set.id] = nil
		}
		if set.members = (policy.Members{}); len(set.asks) == 0 {
			k.drop(set)
		}
	}
	k.stirred, k.edits, k.lists = nil, nil, nil
	k.listed = k.listed.Edited(edits)
	return k.listed
}
