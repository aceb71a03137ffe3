package compile

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// knownSet is a set that policies of the last snapshot name. It follows the pods that come and go, rather than being looked up again: no two pods hold one
// address, so that the members of one pod are no other's.
type knownSet struct {
	ruleSet
	names  portNames // of ruleSet.names
	scopes []*scope  // of all selectors, each once
	// weights are how many pods the selectors of each scope take the time of together, for one that they are compared with.
	weights []int
	wide    int // how many selectors look for namespaces

	size    int             // how many members it has, more than objectBudget.entries if those are too many to count; -1 if nobody has looked
	members []policy.Member // only while a policy of the node names it
	looks   int             // in this snapshot
	uses    int             // how many policies of the node name it
	payer   *account        // the last that it was counted for
	needed  bool            // in this snapshot
	listed  bool            // among knownSets.listed
	gone    bool            // it is found out anew: this one follows nothing
}

// scope is where a selector looks for pods.
type scope struct {
	namespace  string
	namespaces labels.Selector
	pods       int // that policy can see there
	needed     bool
}

// covers reports whether a scope has a namespace, of which ns is what is known.
func (s *scope) covers(name string, ns *Namespace) bool {
	if s.namespaces == nil {
		return s.namespace == name
	}
	return ns != nil && s.namespaces.Matches(&ns.Labels)
}

// knownSets are those that policies of the last snapshot name, and where these look for pods.
type knownSets struct {
	*cluster
	sets   map[policy.SetID]*knownSet
	scopes map[string]*scope // by the text of the selector of namespaces, or the name
	listed map[policy.SetID]policy.Set
	// refused is how many policies the last snapshot refused: so many may be again.
	refused int
	// Of this snapshot:
	edits edits
	lists map[policy.Ends][]policy.Member // that several sets may have; nil before anybody has asked
}

// sharedFrom is from how many members on a list is worth the search for another one like it.
const sharedFrom = 64

// listOf is a list of the members of a set that may stay: one that was there before or that another set has, or a copy.
func (k *knownSets) listOf(id policy.SetID, members []policy.Member) []policy.Member {
	if len(members) < sharedFrom {
		return k.likeBefore(id, members)
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
		list = k.likeBefore(id, members)
		k.lists[policy.EndsOf(members)] = list
	}
	return list
}

// forget has all sets found out anew.
func (k *knownSets) forget() {
	for _, set := range k.sets {
		set.gone = true
	}
	k.sets, k.scopes, k.listed = map[policy.SetID]*knownSet{}, map[string]*scope{}, nil
}

// follow takes the sets to the present snapshot.
func (k *knownSets) follow(c *cluster, all *changes) {
	k.cluster, k.edits, k.lists = c, edits{}, nil
	if all == nil || k.sets == nil {
		k.forget()
		return
	}
	for _, s := range k.scopes {
		for _, one := range all.in {
			if s.covers(one.name, one.before) {
				s.pods -= len(one.gone)
			}
			if s.covers(one.name, one.after) {
				s.pods += len(one.come)
			}
		}
		s.needed = false
	}
	for _, set := range k.sets {
		set.looks, set.uses, set.payer, set.needed = k.looksFor(set), 0, nil, false
		if set.size >= 0 {
			k.followSet(set, all)
		}
	}
}

func (k *knownSets) followSet(set *knownSet, all *changes) {
	if len(set.nodes) > 0 {
		if all.nodes {
			set.size = -1
		}
		return
	}
	var gone, come []policy.Member
	for _, one := range all.in {
		if set.isElsewhere(one.name) {
			continue
		}
		gone = set.appendMembers(gone, one.gone, one.before, k.node)
		come = set.appendMembers(come, one.come, one.after, k.node)
	}
	if len(gone)+len(come) == 0 {
		return
	}
	if set.size > objectBudget.entries {
		set.size = -1
		return
	}
	gone, come = without(inOrder(gone), inOrder(come))
	if len(set.members) == set.size {
		set.members = k.edits.of(set.members, gone, come)
	}
	set.size += len(come) - len(gone)
}

// isElsewhere reports whether the set certainly has no pod of a namespace.
func (s *knownSet) isElsewhere(namespace string) bool {
	return len(s.scopes) == 1 && s.scopes[0].namespaces == nil && s.scopes[0].namespace != namespace
}

// appendMembers adds what some pods of one namespace are in the set.
func (s *knownSet) appendMembers(to []policy.Member, pods []*Pod, ns *Namespace, node string) []policy.Member {
	for _, p := range pods {
		if !s.isAbout(p, ns, node) {
			continue
		}
		if len(s.names) == 0 {
			for _, a := range p.Addrs {
				to = append(to, policy.Member{Addr: policy.AddrOf(a)})
			}
			continue
		}
		to = appendPorts(to, p, s.names)
	}
	return to
}

// isAbout reports whether the set has what a pod holds.
func (s *knownSet) isAbout(p *Pod, ns *Namespace, node string) bool {
	if len(s.selectors) == 0 {
		return s.to == policy.Egress || p.Node == node
	}
	return slices.ContainsFunc(s.selectors, func(one podSelector) bool { return one.selects(p, ns) })
}

// inOrder sorts members and drops copies.
func inOrder(members []policy.Member) []policy.Member {
	slices.SortFunc(members, policy.Member.Compare)
	return slices.Compact(members)
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
		set = &knownSet{ruleSet: *s, size: -1}
		set.selectors, set.nodes, set.ruleSet.names = slices.Clone(s.selectors), slices.Clone(s.nodes), slices.Clone(s.names)
		if len(s.names) > 0 {
			set.names = newPortNames(s.names)
		}
		for _, one := range set.selectors {
			scope := k.scopeOf(one)
			i := slices.Index(set.scopes, scope)
			if i < 0 {
				i = len(set.scopes)
				set.scopes, set.weights = append(set.scopes, scope), append(set.weights, 0)
			}
			set.weights[i] += 1 + valuesOf(one.pods)/valuesPerLook
			if one.namespaces != nil {
				set.wide++
			}
		}
		set.looks = k.looksFor(set)
		k.sets[s.id] = set
	}
	set.needed = true
	return set
}

func (k *knownSets) scopeOf(s podSelector) *scope {
	text := "name " + s.namespace
	if s.namespaces != nil {
		text = "labels " + s.within
	}
	known := k.scopes[text]
	if known == nil {
		known = &scope{namespace: s.namespace, namespaces: s.namespaces}
		for _, name := range k.namespacesOf(s) {
			known.pods += len(k.byNamespace[name])
		}
		k.scopes[text] = known
	}
	return known
}

// looksFor is how many pods and namespaces have to be looked at for a set, at the most: what finding its members takes. It depends on the cluster alone, not
// on what is kept.
func (k *knownSets) looksFor(set *knownSet) int {
	n := len(set.nodes)*len(k.nodes) + set.wide*len(k.namespaces)
	for i, s := range set.scopes {
		n += set.weights[i] * s.pods
	}
	return n
}

// count finds out how many members a set has, if nobody knows.
func (k *knownSets) count(set *knownSet) {
	if set.size < 0 {
		k.find(set)
	}
}

// find finds out which members a set has.
func (k *knownSets) find(set *knownSet) {
	members, ok := k.membersOf(&set.ruleSet, objectBudget.entries)
	if !ok {
		set.size, set.members = objectBudget.entries+1, nil
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
		for _, s := range set.scopes {
			s.needed = true
		}
	}
	for text, s := range k.scopes {
		if !s.needed {
			delete(k.scopes, text)
		}
	}
	return maps.Clone(k.listed)
}

func (k *knownSets) list(id policy.SetID, set *knownSet) {
	if len(set.members) != set.size {
		k.find(set)
	}
	if set.listed && policy.IsOneSlice(k.listed[id].Members, set.members) {
		return
	}
	kind := policy.Addresses
	if len(set.names) > 0 {
		kind = policy.AddressPorts
	}
	k.listed[id], set.listed = policy.Set{Kind: kind, Members: set.members}, true
}
