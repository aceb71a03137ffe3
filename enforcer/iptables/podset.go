package iptables

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// podSet is a set of the node that rules of sections name, with what it held last.
type podSet struct {
	id      policy.SetID
	naming  naming
	members []policy.Member // that the entries were made from
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
		s = &podSet{id: id, naming: namingOf(t.node, id), members: t.node.Sets.Get(id).Members}
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
	s := Set{Name: namingOf(t.node, id).name(t.Layout, t.family, id), Type: podSetType(set.Kind), Family: t.family}
	s.Entries = t.kept.alike.entries(ofFamily(t.family, set.Members), func(own []policy.Member) []Entry { return ownEntries(own, t.reuse.Get(s.Name).Entries) })
	return s
}

// alike are lists of members with the entries that were made from them. Sets with the same members share their entries: a tenant may have many sets of every
// pod of the cluster.
type alike map[policy.Ends][]madeEntries

// mostAlike is how many lists with the same ends are remembered: each further one is compared with all of them.
const mostAlike = 4

type madeEntries struct {
	members []policy.Member
	entries []Entry
}

// holds reports whether the entries were made from these members, which have the same ends.
func (m madeEntries) holds(members []policy.Member) bool {
	if policy.IsOneSlice(m.members, members) {
		return true
	}
	front, _ := inCommon(m.members, members)
	return front == len(members)
}

// entries are those of members of one family. Short lists are not worth the search.
func (a alike) entries(members []policy.Member, entries func([]policy.Member) []Entry) []Entry {
	if len(members) < atOnce {
		return entries(members)
	}
	key := policy.EndsOf(members)
	for _, made := range a[key] {
		if made.holds(members) {
			return made.entries
		}
	}
	made := madeEntries{members, entries(members)}
	if len(a[key]) < mostAlike {
		a[key] = append(a[key], made)
	}
	return made.entries
}

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

// ownEntries are those of members of one family; they are have, if that holds just these.
func ownEntries(members []policy.Member, have []Entry) []Entry {
	if len(members) > 0 && slices.EqualFunc(members, have, func(m policy.Member, e Entry) bool { return e == entryOf(m) }) {
		return have
	}
	return appendEntries(make([]Entry, 0, len(members)), members)
}

// changedEntries are the entries of members of one family, where others were have. Of a set that holds every pod of the cluster mostly one has come or gone.
func changedEntries(have []Entry, were, are []policy.Member) []Entry {
	front, back := inCommon(were, are)
	if front == len(were) && front == len(are) {
		return have
	}
	entries := append(make([]Entry, 0, len(are)), have[:front]...)
	entries = appendEntries(entries, are[front:len(are)-back])
	return append(entries, have[len(have)-back:]...)
}

// ofFamily are the members of a family: those of IPv4 come first.
func ofFamily(f Family, members []policy.Member) []policy.Member {
	first, _ := slices.BinarySearchFunc(members, false, func(m policy.Member, _ bool) int {
		if m.Addr.Is4() {
			return -1
		}
		return 0
	})
	if f == IPv4 {
		return members[:first]
	}
	return members[first:]
}

func appendEntries(entries []Entry, members []policy.Member) []Entry {
	for _, m := range members {
		entries = append(entries, entryOf(m))
	}
	return entries
}

// atOnce is how many elements are compared in one go, which takes a tenth of the time.
const atOnce = 64

// inCommon is how many elements two lists have in common in front, and how many more at their ends.
func inCommon[T comparable](a, b []T) (front, back int) {
	n := min(len(a), len(b))
	for front+atOnce <= n && *(*[atOnce]T)(a[front:]) == *(*[atOnce]T)(b[front:]) {
		front += atOnce
	}
	for front < n && a[front] == b[front] {
		front++
	}
	a, b, n = a[front:], b[front:], n-front
	for back+atOnce <= n && *(*[atOnce]T)(a[len(a)-back-atOnce:]) == *(*[atOnce]T)(b[len(b)-back-atOnce:]) {
		back += atOnce
	}
	for back < n && a[len(a)-back-1] == b[len(b)-back-1] {
		back++
	}
	return front, back
}

func entryOf(m policy.Member) Entry {
	return Entry{Prefix: m.Addr.Whole(), Protocol: m.Protocol, Port: m.Port}
}
