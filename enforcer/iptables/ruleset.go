// Package iptables turns a policy.Node into what the kernel is to hold, and compares that with what it holds.
//
//	policy.Node ── Render ──> Ruleset ┐
//	                 kernel ─> Ruleset ┴─ Diff ──> Plan
//
// Everything here is plain data and pure functions: rules are text in the form that iptables-save
// prints, so that a Ruleset, a Plan and the node's own tools all read the same. A [Renderer] keeps what it has made, to save time, and gives what Render gives.
//
// Invariants:
//   - every chain and set of ours has a name that starts with [Prefix], and nothing else is ever touched;
//   - all of them but what a version takes over from another carry the version of their layout in their names;
//   - Render is a function of its arguments alone: equal Nodes make equal Rulesets;
//   - Diff(x, x) is empty.
package iptables

import (
	"cmp"
	"net/netip"
	"slices"

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
	Sets   map[string]Set // by name
	// Guards are those of the node's links, by link.
	Guards map[string]Guard
	Inward Inward
	// KeepGuards is set where it is not known which guards there should be, nor what bridges may bring: those that are there stay.
	KeepGuards bool
	// Points are, by ID, those of the wanted rules. What is found in the kernel has none: they are neither compared nor printed.
	Points map[string]Point
}

// Table is our part of one family's table.
type Table struct {
	// Name is the iptables table: "security", or "mangle" on a kernel without it.
	Name string
	// Jumps holds, for each base chain, the positions, counted from 1, of the rules that jump to a
	// chain of ours. Wanted is one, in front.
	Jumps map[string][]int
	// Chains are our chains by name.
	Chains map[string][]Rule
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
	// Entries are sorted by [Entry.Compare], each once: a set may hold every pod of the cluster, and a map of them would take
	// several times the memory.
	Entries []Entry
}

// Entry is one entry of a set. Unused fields are zero.
type Entry struct {
	Prefix   policy.Prefix   // a full-length prefix in hash:ip and hash:ip,port
	Protocol policy.Protocol // hash:ip,port only
	NoMatch  bool            // hash:net only: addresses in Prefix are not in the set
	Port     uint16          // hash:ip,port only
}

// SortEntries brings entries into the order of [Set.Entries], in place, and drops doubles.
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

// Plan is what takes the kernel from one ruleset to another. Its steps are applied in the order of its
// fields: at every instant between them the kernel holds the old policy or the new one, and a process that dies
// between any two leaves nothing open.
type Plan struct {
	// CreateSets are new sets with all their entries; nothing refers to them yet. A set of the same name
	// but of another type is destroyed first.
	CreateSets []Set
	// Close takes entries out of sets whose entries pass a rule that drops all else: what is not known any more is closed before the rules that were about
	// it go.
	Close []SetEntries
	// AddEntries come before the rules that rely on them.
	AddEntries []SetEntries
	// Restore is, per family, the input of one iptables-restore --noflush: changed chains rewritten,
	// retired ones removed, all at once. A family without changes is absent.
	Restore map[Family]string
	// Jumps are the base chains whose jump to us is missing, doubled or not in front.
	Jumps []JumpFix
	// Guards are to be written, each in place of what its link has. They come behind the rules, which are about an address before a guard lets it send, and
	// are of no family: neither waits for the other.
	Guards []Guard
	// Unguard are links whose guards go.
	Unguard []string
	// Inward is to be what bridges bring to ports, nil if it is that already.
	Inward *Inward
	// Elsewhere is set in the first plan of a run: what an earlier run has left in another table or another back end goes. Policy is in force here by
	// now, and rules there may rely on what goes next.
	Elsewhere bool
	// DelEntries come after the rules that relied on them are gone.
	DelEntries []SetEntries
	// Open adds entries to the sets of Close: what has come to be known is open once everything about it is in force.
	Open []SetEntries
	// DestroySets are sets that nothing refers to any more.
	DestroySets []SetRef
}

// SetRef names a set.
type SetRef struct {
	Name   string
	Family Family // as found: a name of another layout does not say it
}

// SetEntries are entries to add to a set, or to delete from it.
type SetEntries struct {
	Set     string
	Type    SetType
	Family  Family
	Entries []Entry
}

// JumpFix puts our jump in front of a base chain and removes its copies elsewhere.
type JumpFix struct {
	Family Family
	Table  string
	Chain  string
	Rule   Rule  // the jump
	Found  []int // positions, counted from 1, of the jumps to us that are there now
}

// Empty reports whether the plan changes nothing.
func (p Plan) Empty() bool {
	guards := len(p.Guards) + len(p.Unguard)
	if p.Inward != nil {
		guards++
	}
	changes := guards + len(p.CreateSets) + len(p.Close) + len(p.AddEntries) + len(p.Restore) + len(p.Jumps) +
		len(p.DelEntries) + len(p.Open) + len(p.DestroySets)
	return changes == 0 && !p.Elsewhere
}
