package iptables

import "github.com/ringfence-io/ringfence/enforcer/policy"

// podSet is a set of the node that rules of sections name, with what it held last in each family.
type podSet struct {
	id      policy.SetID
	naming  naming
	own     [len(Families)]Set
	parents [len(Families)]int // how many pieces name it
}

// podSet adds this family's part of a set of the node, and returns its name.
func (t *rendering) podSet(id policy.SetID) string {
	i := t.family.index()
	if t.making.own { // the node's own rules are made anew each time
		s := t.newPodSet(id)
		t.fix(s)
		return s.Name
	}
	s := t.kept.sets[id]
	if s == nil {
		s = &podSet{id: id, naming: namingOf(t.node, id)}
		t.kept.sets[id] = s
	}
	if s.own[i].Name == "" {
		s.own[i] = t.newPodSet(id)
		t.kept.hold(s.own[i])
	}
	s.parents[i]++
	t.making.sets = append(t.making.sets, s)
	return s.own[i].Name
}

// endSets takes away the sets of the node that no piece names any more.
func (r *Renderer) endSets() {
	for _, s := range r.stirred {
		for i := range s.own {
			if s.parents[i] == 0 && s.own[i].Name != "" {
				r.letGo(s.own[i].Name)
				s.own[i] = Set{}
			}
		}
		if s.parents == [len(Families)]int{} && r.sets[s.id] == s {
			delete(r.sets, s.id)
		}
	}
	r.stirred = nil
}

func (t *rendering) newPodSet(id policy.SetID) Set {
	set := t.node.Sets.Get(id)
	name := namingOf(t.node, id).name(t.Layout, t.family, id)
	return Set{Name: name, Type: podSetType(set.Kind), Family: t.family, Members: ofFamily(t.family, set.Members)}
}

// ofFamily are the members of a family, in the same memory.
func ofFamily(f Family, members policy.Members) policy.Members { return members.Of(f == IPv4) }

// alike are members of sets that have changed in one render, by their ends. Sets with the same members share them: a tenant may have many sets of every pod of
// the cluster.
type alike map[policy.Ends]policy.Members

// members are those of a set that had others before, in the memory of a set that was seen with the same, or in that of before if these are the same.
func (a alike) members(are, were policy.Members) policy.Members {
	if were.Equal(are) {
		are = were
	}
	if are.Len() < sharedFrom {
		return are
	}
	seen, there := a[are.Ends()]
	switch {
	case !there:
		a[are.Ends()] = are
	case seen.Equal(are):
		return seen
	}
	return are
}

// sharedFrom is from how many members on a set is worth the search for another one like it.
const sharedFrom = 64

// naming is what the name of a set of the node depends on, beside its ID.
type naming struct {
	kind        policy.SetKind
	known, shut bool // those of the node's own rules
}

func namingOf(n *policy.Node, id policy.SetID) naming {
	return naming{n.Sets.Get(id).Kind, id == n.Closed.Known, id == n.Shut}
}

func (k naming) name(l Layout, f Family, id policy.SetID) string {
	switch {
	case k.shut:
		return l.shutSet(f)
	case k.known:
		return l.knownSet(f, string(id))
	}
	return l.setName(podSetType(k.kind), f, string(id))
}

func podSetType(k policy.SetKind) SetType {
	if k == policy.AddressPorts {
		return HashIPPort
	}
	return HashIP
}
