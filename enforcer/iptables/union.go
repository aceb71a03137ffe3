package iptables

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// unionEntries are the union of blocks, of one family, as entries of a hash:net set, in which the longest prefix that holds an address decides. An exception
// takes away from its own block alone: what another block holds of it is in the union.
//
// All prefixes of blocks and exceptions form a forest, since of two prefixes one holds the other or they share nothing. What lies in a prefix, and in none of
// those below it, is in the same blocks and exceptions throughout: it is in the union if one of these blocks has none of these exceptions. A prefix is an
// entry where that is another answer than in the prefix around it. So 10.0.0.0/8 except 10.0.1.0/24, together with 10.0.1.5/32, are
//
//	10.0.0.0/8
//	10.0.1.0/24 nomatch
//	10.0.1.5/32
//
// The type takes no prefix of length 0: two halves stand for it.
func unionEntries(blocks []policy.Block) []Entry {
	var marks []mark
	for i, b := range blocks {
		for _, p := range halvesOfAll(b.Prefix) {
			marks = append(marks, mark{policy.PrefixOf(p), i, false})
		}
		for _, x := range b.Except {
			for _, p := range halvesOfAll(x) {
				marks = append(marks, mark{policy.PrefixOf(p), i, true})
			}
		}
	}
	slices.SortFunc(marks, func(a, b mark) int { return a.prefix.Compare(b.prefix) })
	u := union{blocks: make([]coverage, len(blocks))}
	for first := 0; first < len(marks); {
		after := first + 1
		for after < len(marks) && marks[after].prefix == marks[first].prefix {
			after++
		}
		u.enter(marks[first:after])
		first = after
	}
	return u.entries // in order: the marks are
}

// mark is where a block or one of its exceptions begins.
type mark struct {
	prefix    policy.Prefix
	block     int
	exception bool
}

// union goes through a forest of prefixes from the left, parents first.
type union struct {
	open    []level
	blocks  []coverage
	count   int // blocks that have the prefix which it has come to
	entries []Entry
}

// coverage says how many of the open levels are a block's own prefix, and how many are its exceptions.
type coverage struct{ own, exceptions int }

func (c coverage) has() bool { return c.own > 0 && c.exceptions == 0 }

// level is a prefix around the one that union has come to.
type level struct {
	prefix netip.Prefix
	marks  []mark
	in     bool // what lies in it, and in none below it, is in the union
}

// enter comes to the next prefix.
func (u *union) enter(marks []mark) {
	prefix := marks[0].prefix.IPs()
	for len(u.open) > 0 && !u.open[len(u.open)-1].prefix.Contains(prefix.Addr()) {
		u.leave()
	}
	for _, m := range marks {
		u.apply(m, 1)
	}
	around := len(u.open) > 0 && u.open[len(u.open)-1].in
	in := u.count > 0
	if in != around {
		u.entries = append(u.entries, Entry{Prefix: marks[0].prefix, NoMatch: !in})
	}
	u.open = append(u.open, level{prefix, marks, in})
}

// leave goes back to the prefix around.
func (u *union) leave() {
	last := u.open[len(u.open)-1]
	u.open = u.open[:len(u.open)-1]
	for _, m := range last.marks {
		u.apply(m, -1)
	}
}

// apply counts a mark in, or out again.
func (u *union) apply(m mark, by int) {
	b := &u.blocks[m.block]
	before := b.has()
	if m.exception {
		b.exceptions += by
	} else {
		b.own += by
	}
	switch after := b.has(); {
	case after && !before:
		u.count++
	case before && !after:
		u.count--
	}
}
