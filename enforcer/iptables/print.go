package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// String is the ruleset as iptables-save and ipset save print it: families one after the other, then the sets, all sorted by name.
// It is canonical: equal rulesets have equal texts.
func (r Ruleset) String() string {
	var b strings.Builder
	for _, f := range Families {
		if t, ok := r.Tables[f]; ok {
			fmt.Fprintf(&b, "# %s\n%s", f, t)
		}
	}
	for _, name := range slices.Sorted(r.Sets.Keys()) {
		b.WriteString(r.Sets.Get(name).String())
	}
	for _, link := range sortedKeys(r.Guards) {
		b.WriteString(r.Guards[link].String())
	}
	b.WriteString(r.Inward.String())
	return b.String()
}

// String is the table as iptables-restore takes it.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", t.Name)
	chains := slices.Sorted(t.Chains.Keys())
	for _, c := range chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	for _, base := range slices.Sorted(maps.Keys(t.Jumps)) {
		for range t.Jumps[base] {
			fmt.Fprintf(&b, "-A %s %s\n", base, JumpRule(base))
		}
	}
	for _, c := range chains {
		writeRules(&b, c, t.Chains.Get(c))
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

func writeRules(b *strings.Builder, chain string, rules []Rule) {
	for _, r := range rules {
		b.WriteString("-A ")
		b.WriteString(chain)
		b.WriteByte(' ')
		b.WriteString(string(r))
		b.WriteByte('\n')
	}
}

// String is the set as ipset restore takes it.
func (s Set) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "create %s %s family %s\n", s.Name, s.Type, s.Family)
	for e := range s.All() {
		fmt.Fprintf(&b, "add %s %s\n", s.Name, e.Text(s.Type))
	}
	return b.String()
}

// Text is the entry as ipset prints it in a set of type t.
func (e Entry) Text(t SetType) string {
	switch {
	case t == HashIP:
		return e.Prefix.Addr().String()
	case t == HashIPPort:
		return fmt.Sprintf("%s,%s:%d", e.Prefix.Addr(), e.Protocol, e.Port)
	case e.NoMatch:
		return e.Prefix.String() + " nomatch"
	}
	return e.Prefix.String()
}

// String shows what the plan does, step by step, in the words of the tools that would do it by hand.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.CreateSets {
		b.WriteString(s.String())
	}
	writeEntries(&b, "del", p.Close)
	writeEntries(&b, "add", p.AddEntries)
	for _, f := range Families {
		if text, ok := p.Restore[f]; ok {
			fmt.Fprintf(&b, "# %s\n%s", f, text)
		}
	}
	for _, j := range p.Jumps {
		fmt.Fprintf(&b, "# %s, %s: our jump stands at %v, wanted is [1]\n-I %s 1 %s\n", j.Family, j.Table, j.Found, j.Chain, j.Rule)
	}
	for _, g := range p.Guards {
		b.WriteString(g.String())
	}
	for _, link := range p.Unguard {
		fmt.Fprintf(&b, "unguard %s\n", link)
	}
	if p.Inward != nil {
		fmt.Fprintf(&b, "# what bridges bring to ports\n%s", p.Inward)
	}
	if p.Elsewhere {
		b.WriteString("# what is left of us in other tables and back ends goes\n")
	}
	writeEntries(&b, "del", p.DelEntries)
	writeEntries(&b, "add", p.Open)
	for _, s := range p.DestroySets {
		fmt.Fprintf(&b, "destroy %s\n", s.Name)
	}
	return b.String()
}

func writeEntries(b *strings.Builder, verb string, all []SetEntries) {
	for _, s := range all {
		for _, e := range s.Entries {
			fmt.Fprintf(b, "%s %s %s\n", verb, s.Set, e.Text(s.Type))
		}
	}
}

func joinNonEmpty(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}
