package iptables

import (
	"net/netip"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// piece is a chain and what its rules lead to, in one family. It stands in rulesets as long as something that stands there leads to it, and so does all that it
// leads to itself: what stays costs a render nothing.
type piece struct {
	name    string // of the chain; empty if the piece merely stands for what is below it
	rules   []Rule
	below   []*piece
	parents int           // how many lead to it
	sets    []*podSet     // what these hold may change
	unions  []*unionSet   // likewise
	fixed   []string      // sets whose names say what they hold
	point   *policy.Point // whose rules these are
	text    *texted       // whose rules these are
	own     bool          // it is of the node's own rules
}

// section is what was made for the endpoints of a namespace, in one family and direction.
type section struct {
	piece
	asks   needs // of these endpoints
	needs  needs // of all of the node's, when it was made
	made   bool
	leaves map[treeKind][]leaf
	groups map[netip.Addr]*piece // the chains of enforced NetworkPolicies, by the first address of each endpoint that has one for its list alone
}

// chain adds a chain, unless it is there already, and returns its name.
func (t *rendering) chain(name string, rules func() []Rule) string {
	p := t.table.pieces[name]
	if p == nil {
		p = &piece{name: name}
		t.table.pieces[name] = p
		t.into(p, func() { p.rules = rules() })
		t.table.edits[name] = &p.rules
	}
	t.leadTo(p)
	return name
}

// into has what is added meanwhile be below p.
func (t *rendering) into(p *piece, add func()) {
	around := t.making
	t.making = p
	add()
	t.making = around
}

// leadTo notes that what is being made leads to a piece.
func (t *rendering) leadTo(p *piece) {
	if m := t.making; len(m.below) == 0 || m.below[len(m.below)-1] != p {
		m.below = append(m.below, p)
		p.parents++
	}
}

// end takes a piece away that nothing leads to any more, with all that nothing but it led to. Texts wait until all is made: they may be needed again.
func (t *rendering) end(p *piece) {
	if p.text != nil {
		t.table.loose = append(t.table.loose, p)
		return
	}
	t.leave(p)
	if p.name != "" {
		delete(t.table.pieces, p.name)
		t.table.edits[p.name] = nil
	}
}

// leave takes away what a piece leads to.
func (t *rendering) leave(p *piece) {
	for _, b := range p.below {
		if b.parents--; b.parents == 0 {
			t.end(b)
		}
	}
	i := t.family.index()
	for _, s := range p.sets {
		s.parents[i]--
		t.kept.stirred = append(t.kept.stirred, s)
	}
	for _, u := range p.unions {
		u.parents--
		t.kept.loose = append(t.kept.loose, u)
	}
	for _, name := range p.fixed {
		t.kept.letGo(name)
	}
	if p.point != nil {
		t.kept.letPointGo(p.point.ID)
	}
}

// endTexts takes away the texts that no chain has any more.
func (t *rendering) endTexts() {
	for _, p := range t.table.loose {
		if p.parents == 0 && p.text != nil {
			t.leave(p)
			delete(t.table.texts, *p.text)
			p.text = nil
		}
	}
	t.table.loose = nil
}

// fixedSet adds a set whose name says what it holds.
func (t *rendering) fixedSet(name string, kind SetType, entries func() []Entry) {
	if h := t.kept.held[name]; h != nil {
		t.fix(h.set)
	} else {
		t.fix(Set{Name: name, Type: kind, Family: t.family}.Holding(entries()))
	}
}

// fix adds a set for what is being made.
func (t *rendering) fix(s Set) {
	t.kept.hold(s)
	t.making.fixed = append(t.making.fixed, s.Name)
}
