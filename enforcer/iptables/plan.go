package iptables

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

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

// Changes are what the plan changes, in words that every back end has.
func (p Plan) Changes() policy.Changes {
	c := policy.Changes{
		Tables: len(p.Restore), Jumps: len(p.Jumps), Sets: len(p.CreateSets) + len(p.DestroySets),
		Added: sizeOf(p.AddEntries), Removed: sizeOf(p.Close) + sizeOf(p.DelEntries), Opened: sizeOf(p.Open),
		Others:   len(p.Guards) + len(p.Unguard),
		WereAway: slices.ContainsFunc(p.Jumps, func(j JumpFix) bool { return len(j.Found) == 0 }),
	}
	for _, is := range []bool{p.Inward != nil, p.Elsewhere} {
		if is {
			c.Others++
		}
	}
	if !c.Empty() {
		c.Text = p
	}
	return c
}

func sizeOf(all []SetEntries) (n int) {
	for _, s := range all {
		n += len(s.Entries)
	}
	return n
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

// Keeping is the plan without destroying the sets that keep is true for.
func (p Plan) Keeping(keep func(set string) bool) Plan {
	p.DestroySets = slices.DeleteFunc(p.DestroySets, func(s SetRef) bool { return keep(s.Name) })
	return p
}

// MakingRoom is a plan that destroys the sets which this one has made before it failed: no rule refers to them yet, and what they take is what others lack.
func (p Plan) MakingRoom() Plan {
	var made []SetRef
	for _, set := range p.CreateSets {
		made = append(made, SetRef{Name: set.Name, Family: set.Family})
	}
	return Plan{DestroySets: made}
}

// Work is how much it takes to make a set, in entries: the set itself takes as long as some [WorkOfSet] of them.
func (s Set) Work() int { return WorkOfSet + s.Len() }

// WorkOfSet is how many entries take as long as a set.
const WorkOfSet = 100

// MakingSets is a plan that makes sets of a wanted ruleset which are not there yet, and which no rule names until the rest of it comes: as many as take work,
// by their names. It says whether these are all that are missing.
func MakingSets(want, have Ruleset, work int) (p Plan, all bool) {
	var missing []string
	for name := range want.Sets.All() {
		if !have.Sets.Has(name) {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	for _, name := range missing {
		if work <= 0 {
			return p, false
		}
		p.CreateSets = append(p.CreateSets, want.Sets.Get(name))
		work -= want.Sets.Get(name).Work()
	}
	return p, true
}

// WithSets is the ruleset with the sets that a plan makes.
func (r Ruleset) WithSets(p Plan) Ruleset {
	made := map[string]*Set{}
	for _, set := range p.CreateSets {
		made[set.Name] = &set
	}
	r.Sets = r.Sets.Edited(made)
	return r
}

// KeepingSets is the ruleset with the sets of another one that it lacks.
func (r Ruleset) KeepingSets(o Ruleset) Ruleset {
	lacking := map[string]*Set{}
	for name, set := range o.Sets.All() {
		if !r.Sets.Has(name) {
			lacking[name] = &set
		}
	}
	r.Sets = r.Sets.Edited(lacking)
	return r
}
