package iptables

import "github.com/ringfence-io/ringfence/enforcer/policy"

// piece is a chain and what its rules lead to, in one family. A chain that stands again in a later ruleset brings all of that with it, whoever made it.
type piece struct {
	name   string // of the chain; empty if the piece merely brings what is below it
	rules  []Rule
	below  []*piece
	sets   []*podSet     // what these hold may change: it is looked up in each render
	unions []*unionSet   // likewise
	fixed  []Set         // what these hold does not
	point  *policy.Point // whose rules these are
	round  uint64        // the last in which it stood
}

// section is what was made for the endpoints of a namespace, in one family and direction.
type section struct {
	piece
	asks   needs // of these endpoints
	needs  needs // of all of the node's, when it was made
	made   bool
	leaves map[treeKind][]leaf
}

// bring adds a piece that was made in an earlier render.
func (t *rendering) bring(p *piece) {
	if p.round == t.kept.round {
		return
	}
	p.round = t.kept.round
	if p.name != "" {
		t.chains[p.name] = p.rules
	}
	if p.point != nil {
		t.points[p.point.ID] = *p.point
	}
	for _, s := range p.sets {
		t.bringSet(s)
	}
	for _, u := range p.unions {
		t.bringUnion(u)
	}
	for _, s := range p.fixed {
		t.sets[s.Name] = s
	}
	for _, b := range p.below {
		t.bring(b)
	}
}

// chain adds a chain, unless it is there already, and returns its name.
func (t *rendering) chain(name string, rules func() []Rule) string {
	p := t.table.pieces[name]
	if p == nil || p.round != t.kept.round {
		p = &piece{name: name, round: t.kept.round}
		t.table.pieces[name] = p
		t.into(p, func() { p.rules = rules() })
		t.chains[name] = p.rules
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

// leadTo notes that what is being made leads to a piece of this render. Outside of pieces nobody asks: that is made anew each time.
func (t *rendering) leadTo(p *piece) {
	if m := t.making; m != nil && (len(m.below) == 0 || m.below[len(m.below)-1] != p) {
		m.below = append(m.below, p)
	}
}

// fixedSet adds a set whose name says what it holds.
func (t *rendering) fixedSet(name string, kind SetType, entries func() []Entry) {
	s, ok := t.sets[name]
	if !ok {
		s = Set{Name: name, Type: kind, Family: t.family, Entries: entries()}
		t.sets[name] = s
	}
	t.making.fixed = append(t.making.fixed, s)
}
