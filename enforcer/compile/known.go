package compile

import (
	"maps"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// knownSet is a set that policies of the last snapshot name. It follows what changes, rather than being looked up again.
type knownSet struct {
	id     policy.SetID
	kind   policy.SetKind
	finder finder

	size    int             // how many members it has, more than the budget of an object if those are too many to count; -1 if nobody has looked
	members []policy.Member // only while a policy of the node names it
	looks   int             // in this snapshot
	uses    int             // how many policies of the node name it
	payer   *account        // the last that it was counted for
	needed  bool            // in this snapshot
	listed  bool            // among knownSets.listed
	gone    bool            // it is found out anew: this one follows nothing
}

// knownSets are those that policies of the last snapshot name, and where these look for pods.
type knownSets struct {
	*cluster
	sets   map[policy.SetID]*knownSet
	scopes scopes
	listed map[policy.SetID]policy.Set
	// refused is how many policies the last snapshot refused: so many may be again.
	refused int
	// budgets are the documented ones, unless they were set before the first snapshot.
	budgets budgets
	// Of this snapshot:
	edits edits
	lists map[policy.Ends][]policy.Member // that several sets may have; nil before anybody has asked
}

// sharedFrom is from how many members on a list is worth the search for another one like it.
const sharedFrom = 64

// listOf is a list of the members of a set that may stay: one that was there before or that another set has, or a copy.
func (k *knownSets) listOf(id policy.SetID, members []policy.Member) []policy.Member {
	if len(members) < sharedFrom {
		return k.reused(id, members)
	}
	if k.lists == nil {
		k.lists = map[policy.Ends][]policy.Member{}
		for _, set := range k.sets {
			if len(set.members) >= sharedFrom {
				k.lists[policy.EndsOf(set.members)] = set.members
			}
		}
	}
	list, ok := k.lists[policy.EndsOf(members)]
	if !ok || !slices.Equal(list, members) {
		list = k.reused(id, members)
		k.lists[policy.EndsOf(members)] = list
	}
	return list
}

// forget has all sets found out anew.
func (k *knownSets) forget() {
	for _, set := range k.sets {
		set.gone = true
	}
	k.sets, k.scopes, k.listed = map[policy.SetID]*knownSet{}, scopes{}, nil
}

// follow takes the sets to the present snapshot.
func (k *knownSets) follow(c *cluster, all *changes) {
	k.cluster, k.edits, k.lists = c, edits{}, nil
	if all == nil || k.sets == nil {
		k.forget()
		return
	}
	k.scopes.follow(all)
	for _, set := range k.sets {
		set.looks, set.uses, set.payer, set.needed = set.finder.looks(c), 0, nil, false
		if set.size >= 0 {
			k.followSet(set, all)
		}
	}
}

func (k *knownSets) followSet(set *knownSet, all *changes) {
	gone, come, ok := set.finder.follow(k.cluster, all)
	if ok && len(gone)+len(come) == 0 {
		return
	}
	if !ok || set.size > k.budgets.object.entries {
		set.size = -1
		return
	}
	gone, come = without(inOrder(gone), inOrder(come))
	if len(set.members) == set.size {
		set.members = k.edits.of(set.members, gone, come)
	}
	set.size += len(come) - len(gone)
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

// edits are lists of members, by the first of them, as they were edited. Sets with the same members share a list: a tenant may have many sets of every pod of
// the cluster.
type edits map[*policy.Member][]edit

type edit struct{ before, gone, come, after []policy.Member }

// of is [edited], once for each list and edit.
func (all edits) of(members, gone, come []policy.Member) []policy.Member {
	if len(members) == 0 {
		return edited(members, gone, come)
	}
	for _, e := range all[&members[0]] {
		if len(e.before) == len(members) && slices.Equal(e.gone, gone) && slices.Equal(e.come, come) {
			return e.after
		}
	}
	after := edited(members, gone, come)
	all[&members[0]] = append(all[&members[0]], edit{members, gone, come, after})
	return after
}

// edited are members in order without those that have gone and with those that have come. The list that was there stays as it is.
func edited(members, gone, come []policy.Member) []policy.Member {
	if len(gone)+len(come) == 0 {
		return members
	}
	if len(gone) == len(members) && len(come) == 0 {
		return nil
	}
	out := make([]policy.Member, 0, len(members)+len(come)-len(gone))
	for len(gone)+len(come) > 0 {
		comes := len(gone) == 0 || len(come) > 0 && come[0].Compare(gone[0]) < 0
		if comes {
			i, _ := slices.BinarySearchFunc(members, come[0], policy.Member.Compare)
			out = append(append(out, members[:i]...), come[0])
			members, come = members[i:], come[1:]
			continue
		}
		i, _ := slices.BinarySearchFunc(members, gone[0], policy.Member.Compare)
		out = append(out, members[:i]...)
		members, gone = members[i+1:], gone[1:]
	}
	return append(out, members...)
}

// need is the known set that a rule names.
func (k *knownSets) need(s *ruleSet) *knownSet {
	set := k.sets[s.id]
	if set == nil {
		set = &knownSet{id: s.id, kind: policy.Addresses, finder: s.of.finder(k, s.names), size: -1}
		if len(s.names) > 0 {
			set.kind = policy.AddressPorts
		}
		set.looks = set.finder.looks(k.cluster)
		k.sets[s.id] = set
	}
	set.needed = true
	return set
}

// count finds out how many members a set has, if nobody knows.
func (k *knownSets) count(set *knownSet) {
	if set.size < 0 {
		k.find(set)
	}
}

// find finds out which members a set has.
func (k *knownSets) find(set *knownSet) {
	members, ok := set.finder.find(k.cluster, k.budgets.object.entries)
	if !ok {
		set.size, set.members = k.budgets.object.entries+1, nil
		return
	}
	set.size = len(members)
	set.members = k.listOf(set.id, members)
}

// used are the sets that policies of the node name. Those that none of the snapshot does are forgotten.
func (k *knownSets) used() map[policy.SetID]policy.Set {
	if k.listed == nil {
		k.listed = map[policy.SetID]policy.Set{}
	}
	for id, set := range k.sets {
		switch {
		case set.needed && set.uses > 0:
			k.list(id, set)
		case set.listed:
			delete(k.listed, id)
			set.listed = false
		}
		if !set.needed {
			delete(k.sets, id)
			continue
		}
		if set.uses == 0 {
			set.members = nil
		}
	}
	k.scopes.keepThoseOf(k.sets)
	return maps.Clone(k.listed)
}

func (k *knownSets) list(id policy.SetID, set *knownSet) {
	if len(set.members) != set.size {
		k.find(set)
	}
	if set.listed && policy.IsOneSlice(k.listed[id].Members, set.members) {
		return
	}
	k.listed[id], set.listed = policy.Set{Kind: set.kind, Members: set.members}, true
}
