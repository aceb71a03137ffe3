package iptables

import (
	"maps"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Interim is what plans have changed while the kernel was being read, by name: what was read of it is of before, of after or of between, and says nothing. The
// zero Interim is nothing.
type Interim struct {
	chains map[Family]map[string]bool
	sets   map[string]bool
	guards map[string]bool // by link
	jumps  map[Family]bool
	inward bool
}

// Note adds what a plan has changed that took the kernel from one ruleset to another.
func (i *Interim) Note(before, after Ruleset, p Plan) {
	if i.chains == nil {
		*i = Interim{chains: map[Family]map[string]bool{}, sets: map[string]bool{}, guards: map[string]bool{}, jumps: map[Family]bool{}}
	}
	for _, f := range Families {
		if i.chains[f] == nil {
			i.chains[f] = map[string]bool{}
		}
		after.Tables[f].Chains.Since(before.Tables[f].Chains, func(name string, was, is *[]Rule) {
			if was == nil || is == nil || !policy.IsOneSlice(*was, *is) {
				i.chains[f][name] = true
			}
		})
	}
	after.Sets.Since(before.Sets, func(name string, was, is *Set) {
		if was == nil || is == nil || !was.isOne(*is) {
			i.sets[name] = true
		}
	})
	for _, s := range p.DestroySets { // one that was left before stands in neither
		i.sets[s.Name] = true
	}
	for _, j := range p.Jumps {
		i.jumps[j.Family] = true
	}
	for _, g := range p.Guards {
		i.guards[g.Link] = true
	}
	for _, link := range p.Unguard {
		i.guards[link] = true
	}
	i.inward = i.inward || p.Inward != nil
}

// Sets are the names of those that have changed, sorted. Plans change single entries of them, so that what others have changed is still there: they are to be
// read again. A chain is written in whole.
func (i *Interim) Sets() []string { return sortedKeys(i.sets) }

// Over is what was read, and of what has changed meanwhile what is known: known is what the last plan has taken the kernel to, and sets are those of
// [Interim.Sets] as they were read again.
func (i *Interim) Over(read, known Ruleset, sets map[string]Set) Ruleset {
	now := read
	now.Tables = maps.Clone(read.Tables)
	for f, t := range read.Tables {
		t.Chains = t.Chains.Edited(editsOf(i.chains[f], known.Tables[f].Chains))
		if i.jumps[f] {
			t.Jumps = known.Tables[f].Jumps
		}
		now.Tables[f] = t
	}
	now.Sets = read.Sets.Edited(editsOf(i.sets, policy.MapOf(sets)))
	if read.Guards != nil {
		now.Guards = maps.Clone(read.Guards)
		for link := range i.guards {
			delete(now.Guards, link)
			if g, there := known.Guards[link]; there {
				now.Guards[link] = g
			}
		}
	}
	if i.inward {
		now.Inward = known.Inward
	}
	return now
}

// editsOf give names what they have in a map.
func editsOf[V any](names map[string]bool, in policy.Map[string, V]) map[string]*V {
	edits := map[string]*V{}
	for name := range names {
		edits[name] = nil
		if value, there := in.Lookup(name); there {
			edits[name] = &value
		}
	}
	return edits
}
