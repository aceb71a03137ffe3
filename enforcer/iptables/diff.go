package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Diff is the plan that takes the kernel from have to want. It changes nothing where they agree: a chain is rewritten only
// if one of its rules differs, a set only in the entries that differ.
func Diff(want, have Ruleset) Plan {
	p := Plan{Restore: map[Family]string{}}
	diffSets(&p, want.Sets, have.Sets)
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
	if !want.KeepGuards {
		diffGuards(&p, want, have)
	}
	return p
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// diffSets looks only into sets that are not one with those that are there: most are.
func diffSets(p *Plan, want, have policy.Map[string, Set]) {
	var differ, retired []string
	want.Since(have, func(name string, h, w *Set) {
		switch {
		case w == nil:
			retired = append(retired, name)
		case h == nil || h.Type != w.Type || h.Family != w.Family || !w.isOne(*h):
			differ = append(differ, name)
		}
	})
	slices.Sort(differ)
	slices.Sort(retired)
	for _, name := range differ {
		diffSet(p, want.Get(name), have)
	}
	unionsFirst(p.DelEntries) // the names of unions come behind those of their parts, and so do the entries that are added
	for _, name := range retired {
		p.DestroySets = append(p.DestroySets, SetRef{name, have.Get(name).Family})
	}
}

func diffSet(p *Plan, want Set, sets policy.Map[string, Set]) {
	have, ok := sets.Lookup(want.Name)
	if !ok || have.Type != want.Type || have.Family != want.Family {
		p.CreateSets = append(p.CreateSets, want)
		return
	}
	if want.Type.Timed() {
		return // whoever cuts connections fills it, and time empties it
	}
	adding, deleting := &p.AddEntries, &p.DelEntries
	if opens(want.Name) {
		adding, deleting = &p.Open, &p.Close
	}
	add, del := diffMembers(want.Members, have.Members)
	if want.Type == HashNet {
		add, del = diffNets(want.Nets, have.Nets)
	}
	if len(add) > 0 {
		*adding = append(*adding, SetEntries{want.Name, want.Type, want.Family, add})
	}
	if len(del) > 0 {
		*deleting = append(*deleting, SetEntries{want.Name, want.Type, want.Family, del})
	}
}

// diffMembers looks at what the two do not share. Of a set that holds every pod of the cluster mostly one has come or gone.
func diffMembers(want, have policy.Members) (add, del []Entry) {
	want.Since(have, func(m policy.Member, wanted bool) {
		if wanted {
			add = append(add, entryOf(m))
		} else {
			del = append(del, entryOf(m))
		}
	})
	return add, del
}

// diffNets goes through both sorted lists at once. An entry that is there with the other NoMatch is to be added: that replaces it.
func diffNets(want, have []Entry) (add, del []Entry) {
	for len(want) > 0 && len(have) > 0 {
		switch c := want[0].Compare(have[0]); {
		case c < 0:
			add, want = append(add, want[0]), want[1:]
		case c > 0:
			del, have = append(del, have[0]), have[1:]
		default:
			if want[0].NoMatch != have[0].NoMatch {
				add = append(add, want[0])
			}
			want, have = want[1:], have[1:]
		}
	}
	return append(add, want...), append(del, have...)
}

// diffChains is the input of iptables-restore that rewrites the chains that differ and removes those that are not wanted, empty
// if there are none. Declaring a chain empties it: what is retired refers to nothing by the time that it is removed.
func diffChains(want Table, have policy.Map[string, []Rule]) string {
	var changed, retired []string
	want.Chains.Since(have, func(c string, found, rules *[]Rule) {
		switch {
		case rules == nil:
			retired = append(retired, c)
		case found == nil || !policy.IsOneSlice(*found, *rules) && !slices.Equal(*found, *rules):
			changed = append(changed, c)
		}
	})
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
		writeRules(&b, c, want.Chains.Get(c))
	}
	for _, c := range retired {
		fmt.Fprintf(&b, "-X %s\n", c)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}
