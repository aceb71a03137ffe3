// Package iptables turns a policy.Node into what the kernel is to hold, and compares that with what it holds.
//
//	policy.Node ── Render ──> Ruleset ┐
//	                 kernel ─> Ruleset ┴─ Diff ──> Plan
//
// Everything here is plain data and pure functions: rules are text in the form that iptables-save
// prints, so that a Ruleset, a Plan and the node's own tools all read the same. A [Renderer] keeps what it has made, to save time, and gives what Render gives.
//
// Invariants:
//   - every packet gets the verdict of [policy.Node.Allows];
//   - every chain and set of ours has a name that starts with [Prefix], and nothing else is ever touched;
//   - all of them carry their [Layout] in their names, but for those that one version takes over from another;
//   - Render is a function of its arguments alone: equal Nodes make equal Rulesets;
//   - Diff(x, x) is empty;
//   - a Plan that stops between any two of its steps leaves nothing open that neither the old nor the new policy allows;
//   - no way through the chains is longer than nf_tables takes (16 nested jumps and gotos).
//
// The package does no I/O, and reads no clock: package dataplane reads and writes the kernel. It does not judge what policy should be, and it shares no text
// with another back end (docs/adr/0022-two-back-ends-share-the-meaning.md): what others ask of a Plan is [Plan.Changes].
package iptables

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Family is an IP family, numbered as in Go's netip: the rules of each live in tables of their own.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both.
var Families = [...]Family{IPv4, IPv6}

// FamilyOf is the family of a.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// index is the place of the family in [Families].
func (f Family) index() int { return slices.Index(Families[:], f) }

// String is the name that ipset gives the family: "inet" or "inet6".
func (f Family) String() string {
	if f == IPv4 {
		return "inet"
	}
	return "inet6"
}

// Ruleset is the part of a node's netfilter state that is ours: as wanted, or as found in the kernel. Rulesets share rules and entries: nobody writes to them.
type Ruleset struct {
	Tables map[Family]Table
	Sets   policy.Map[string, Set] // by name
	// Guards are those of the node's links, by link.
	Guards map[string]Guard
	Inward Inward
	// KeepGuards is set where it is not known which guards there should be, nor what bridges may bring: those that are there stay.
	KeepGuards bool
	// Points are, by ID, those of the wanted rules. What is found in the kernel has none: they are neither compared nor printed.
	Points policy.Map[string, policy.Point]
}

// Table is our part of one family's table.
type Table struct {
	// Name is the iptables table: "security", or "mangle" on a kernel without it.
	Name string
	// Jumps holds, for each base chain, the positions, counted from 1, of the rules that jump to a
	// chain of ours. Wanted is one, in front.
	Jumps map[string][]int
	// Chains are our chains by name.
	Chains policy.Map[string, []Rule]
}

// Rule is one rule as iptables-save prints it, without the leading "-A CHAIN ".
type Rule string

// SetType is an ipset type, by the name that ipset gives it.
type SetType string

// The types that we use.
const (
	HashIP     SetType = "hash:ip"
	HashNet    SetType = "hash:net"
	HashIPPort SetType = "hash:ip,port"
	// HashIPPortIP is the type of [CutSet]: what such a set holds is no part of a ruleset.
	HashIPPortIP SetType = "hash:ip,port,ip"
)

// Timed reports whether entries of such a set come and go by time. They are no part of a ruleset: nobody compares them, or repairs them.
func (t SetType) Timed() bool { return t == HashIPPortIP }

// Set is one ipset.
type Set struct {
	Name   string
	Type   SetType
	Family Family
	// Members are what a set of addresses holds, with ports or without. Of a set of pods they stand in the memory of the node's set.
	Members policy.Members
	// Nets are what a hash:net holds, sorted by [Entry.Compare], each once.
	Nets []Entry
}

// Len is how many entries the set has.
func (s Set) Len() int { return s.Members.Len() + len(s.Nets) }

// All are the entries in the order of [Entry.Compare].
func (s Set) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for m := range s.Members.All() {
			if !yield(entryOf(m)) {
				return
			}
		}
		for _, e := range s.Nets {
			if !yield(e) {
				return
			}
		}
	}
}

// Entries are the entries in a list of their own. A set may hold every pod of the cluster: see [Set.All].
func (s Set) Entries() []Entry { return slices.Collect(s.All()) }

// Holding is the set with these entries, which are sorted, each once, in the place of its own.
func (s Set) Holding(entries []Entry) Set {
	if s.Type == HashNet {
		s.Members, s.Nets = policy.Members{}, entries
		return s
	}
	members := make([]policy.Member, 0, len(entries))
	for _, e := range entries {
		members = append(members, memberOf(e))
	}
	s.Members, s.Nets = policy.MembersOf(members), nil
	return s
}

// Now is another set as it is found, with these entries, which are sorted, each once. What s holds too stands in its memory: of a set that holds every pod of
// the cluster there is no second copy.
func (s Set) Now(is Set, entries []Entry) Set {
	if is.Type == HashNet {
		if is.Nets = s.Nets; !slices.Equal(s.Nets, entries) {
			is.Nets = slices.Clone(entries)
		}
		return is
	}
	var gone, come []policy.Member
	for m := range s.Members.All() {
		for len(entries) > 0 && memberOf(entries[0]).Compare(m) < 0 {
			come, entries = append(come, memberOf(entries[0])), entries[1:]
		}
		if len(entries) > 0 && memberOf(entries[0]) == m {
			entries = entries[1:]
		} else {
			gone = append(gone, m)
		}
	}
	for _, e := range entries {
		come = append(come, memberOf(e))
	}
	is.Members = s.Members.Edited(gone, come)
	return is
}

// isOne reports whether two sets of one type hold what stands in one memory.
func (s Set) isOne(o Set) bool {
	return s.Members.IsOne(o.Members) && policy.IsOneSlice(s.Nets, o.Nets)
}

func entryOf(m policy.Member) Entry {
	return Entry{Prefix: m.Addr.Whole(), Protocol: m.Protocol, Port: m.Port}
}

func memberOf(e Entry) policy.Member {
	return policy.Member{Addr: e.Prefix.First, Protocol: e.Protocol, Port: e.Port}
}

// Entry is one entry of a set. Unused fields are zero.
type Entry struct {
	Prefix   policy.Prefix   // a full-length prefix in hash:ip and hash:ip,port
	Protocol policy.Protocol // hash:ip,port only
	NoMatch  bool            // hash:net only: addresses in Prefix are not in the set
	Port     uint16          // hash:ip,port only
}

// SortEntries brings entries into the order of a [Set], in place, and drops doubles.
func SortEntries(entries []Entry) []Entry {
	slices.SortFunc(entries, Entry.Compare)
	return slices.CompactFunc(entries, func(a, b Entry) bool { return a.Compare(b) == 0 })
}

// Compare orders entries as their text reads: by address, length, protocol and port. The kernel knows an entry by these: two that
// differ in NoMatch alone are never in one set.
func (e Entry) Compare(o Entry) int {
	return cmp.Or(
		e.Prefix.Compare(o.Prefix),
		cmp.Compare(e.Protocol, o.Protocol), cmp.Compare(e.Port, o.Port))
}

// Size is how much a ruleset holds.
type Size struct{ Chains, Rules, Sets, Entries int }

// Size counts what the ruleset holds, in both families.
func (r Ruleset) Size() Size {
	return r.SizeSince(Ruleset{}, Size{})
}

// SizeSince is [Ruleset.Size], found by what differs from a ruleset whose size is known.
func (r Ruleset) SizeSince(before Ruleset, size Size) Size {
	for _, f := range Families {
		r.Tables[f].Chains.Since(before.Tables[f].Chains, func(_ string, was, is *[]Rule) {
			if was != nil {
				size.Chains, size.Rules = size.Chains-1, size.Rules-len(*was)
			}
			if is != nil {
				size.Chains, size.Rules = size.Chains+1, size.Rules+len(*is)
			}
		})
	}
	r.Sets.Since(before.Sets, func(_ string, was, is *Set) {
		if was != nil {
			size.Sets, size.Entries = size.Sets-1, size.Entries-was.Len()
		}
		if is != nil {
			size.Sets, size.Entries = size.Sets+1, size.Entries+is.Len()
		}
	})
	return size
}

// Comparable is the part of a wanted ruleset that can be compared with what could be read: a family whose table could not be read keeps what it has, and does
// not hold up the other.
func (r Ruleset) Comparable(read Ruleset) Ruleset {
	tables := map[Family]Table{}
	for f := range read.Tables {
		tables[f] = r.Tables[f]
	}
	some := Ruleset{Tables: tables, Sets: r.Sets, Guards: r.Guards, Inward: r.Inward, KeepGuards: r.KeepGuards}
	some.KeepGuards = some.KeepGuards || read.Guards == nil // nobody knows which there are
	return some
}

// Matches are the matches of all rules of a family, without what happens then: where a rule leads to depends on what else there is.
func (r Ruleset) Matches(f Family) map[string]bool {
	all := map[string]bool{}
	for _, rules := range r.Tables[f].Chains.All() {
		for _, rule := range rules {
			all[rule.Match()] = true
		}
	}
	return all
}

// Match is the rule without its target.
func (r Rule) Match() string {
	text := string(r)
	for _, target := range []string{"-j ", "-g "} {
		if i := strings.LastIndex(text, target); i >= 0 {
			text = text[:i]
		}
	}
	return text
}
