package ruleset

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Diff is the plan that takes the kernel from have to want. It changes nothing where they agree: a chain is rewritten only
// if one of its rules differs, a set only in the entries that differ.
func Diff(want, have Ruleset) Plan {
	p := Plan{Restore: map[Family]string{}}
	for _, name := range slices.Sorted(maps.Keys(want.Sets)) {
		diffSet(&p, want.Sets[name], have.Sets)
	}
	for _, name := range slices.Sorted(maps.Keys(have.Sets)) {
		if _, ok := want.Sets[name]; !ok {
			p.DestroySets = append(p.DestroySets, name)
		}
	}
	for _, f := range Families {
		t, ok := want.Tables[f]
		if !ok {
			continue
		}
		if text := diffChains(t, have.Tables[f].Chains); text != "" {
			p.Restore[f] = text
		}
		for _, base := range slices.Sorted(maps.Keys(t.Jumps)) {
			if found := have.Tables[f].Jumps[base]; !slices.Equal(found, t.Jumps[base]) {
				p.Jumps = append(p.Jumps, JumpFix{Family: f, Table: t.Name, Chain: base, Rule: JumpRule(base), Found: found})
			}
		}
	}
	return p
}

func diffSet(p *Plan, want Set, sets map[string]Set) {
	have, ok := sets[want.Name]
	if !ok || have.Type != want.Type || have.Family != want.Family {
		p.CreateSets = append(p.CreateSets, want)
		return
	}
	if add := missing(want, have); len(add) > 0 {
		p.AddEntries = append(p.AddEntries, SetEntries{want.Name, want.Type, want.Family, add})
	}
	del := slices.DeleteFunc(missing(have, want), func(e Entry) bool {
		e.NoMatch = !e.NoMatch // the same prefix with the other meaning: adding it has replaced this one
		_, replaced := want.Entries[e]
		return replaced
	})
	if len(del) > 0 {
		p.DelEntries = append(p.DelEntries, SetEntries{want.Name, want.Type, want.Family, del})
	}
}

// missing are the entries of a that b lacks, sorted.
func missing(a, b Set) []Entry {
	var entries []Entry
	for e := range a.Entries {
		if _, ok := b.Entries[e]; !ok {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, Entry.Compare)
	return entries
}

// diffChains is the input of iptables-restore that rewrites the chains that differ and removes those that are not wanted, empty
// if there are none. Declaring a chain empties it: what is retired refers to nothing by the time that it is removed.
func diffChains(want Table, have map[string][]Rule) string {
	var changed, retired []string
	for c, rules := range want.Chains {
		if found, ok := have[c]; !ok || !slices.Equal(found, rules) {
			changed = append(changed, c)
		}
	}
	for c := range have {
		if _, ok := want.Chains[c]; !ok {
			retired = append(retired, c)
		}
	}
	if len(changed)+len(retired) == 0 {
		return ""
	}
	slices.Sort(changed)
	slices.Sort(retired)

	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", want.Name)
	for _, c := range slices.Concat(changed, retired) {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	for _, c := range changed {
		writeRules(&b, c, want.Chains[c])
	}
	for _, c := range retired {
		fmt.Fprintf(&b, "-X %s\n", c)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}
