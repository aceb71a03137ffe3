package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// iptables-nft-save leaves out, with a zero exit status, a whole table in which one rule stands that is not iptables' own: another program has put it there
// with nft, or by netlink. Taking such a table for an empty one would have us write the same rules again and again, and taking it for unreadable would stop
// us. Chains that hold none of it can be shown all the same, one by one; and so our part of the table is read:
//
//	names of chains      netlink
//	our chains           "-S CHAIN" for each, as lines of one input of iptables-nft-restore, which prints them and changes nothing
//	jumps to our chains  "-S" of the base chain; if the foreign rule stands there, netlink, and "-C" for whether one of them is as it should be
//
// What comes of it is the text that iptables-save would print of our part; of other programs' chains it has the names.

// unshownRule stands for a rule that iptables cannot show: no rule of ours reads so.
const unshownRule = `-m comment --comment "a rule that iptables cannot show" -j RETURN`

// inTable is the line that iptables-nft-save prints in the place of a table.
var inTable = regexp.MustCompile("(?m)^# Table `([^']+)' is incompatible")

// unshownTables are the tables that iptables-nft-save says it leaves out.
func unshownTables(out []byte) []string {
	var names []string
	for _, m := range inTable.FindAllSubmatch(out, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// declared are chains of a table, as iptables-save would print them without their rules.
func declared(table string, chains []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%s\n", table)
	for _, name := range chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", name)
	}
	return b.Bytes()
}

// saysUnshown begins the line that iptables-nft-save prints in the place of a table.
func saysUnshown(table string) string { return "# Table `" + table + "' is incompatible" }

// withoutLine is text without the lines that begin so.
func withoutLine(text []byte, begin string) []byte {
	var rest []byte
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(begin)) {
			rest = append(rest, line...)
		}
	}
	return rest
}

// withUnshown is what iptables-save has printed, with our part of what it has left out.
func (t *tools) withUnshown(ctx context.Context, f iptables.Family, out []byte, counters bool) ([]byte, error) {
	for _, table := range unshownTables(out) {
		if !slices.Contains(tables[:], table) {
			continue
		}
		text, err := t.showOurs(ctx, f, table, counters)
		if err != nil {
			return nil, fmt.Errorf("reading Ringfence's part of the table %s, which holds rules that are not iptables' (see nft list table %s %s): %w",
				table, map[iptables.Family]string{iptables.IPv4: "ip", iptables.IPv6: "ip6"}[f], table, err)
		}
		out = append(withoutLine(out, saysUnshown(table)), text...)
	}
	return out, nil
}

// showOurs is our part of a table, as iptables-save would print it.
func (t *tools) showOurs(ctx context.Context, f iptables.Family, table string, counters bool) ([]byte, error) {
	names, err := nftChains(f, table)
	if err != nil {
		return nil, err
	}
	ours := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !isOurs(name) })
	rules, err := t.listChains(ctx, f, table, ours, counters)
	if err != nil {
		return nil, err
	}
	for _, base := range hookChains {
		if !slices.Contains(names, base) {
			continue
		}
		jumps, err := t.showJumps(ctx, f, table, base)
		if err != nil {
			return nil, err
		}
		rules = append(rules, jumps...)
	}
	text := declared(table, names)
	for _, r := range rules {
		text = append(text, r+"\n"...)
	}
	return append(text, "COMMIT\n"...), nil
}

// inChain is what iptables-nft says of a chain that it cannot show.
var inChain = regexp.MustCompile("chain `([^']+)' in table `[^']+' is incompatible")

// maxUnshown is how many chains of ours are found one by one to hold a rule that is not iptables'. If more do, all that have not been shown count as such,
// and are written anew.
const maxUnshown = 20

// listChains are the rules of chains, each as "-A CHAIN rule".
func (t *tools) listChains(ctx context.Context, f iptables.Family, table string, chains []string, counters bool) ([]string, error) {
	var unshown []string
	for len(chains) > 0 {
		rules, err := t.listShown(ctx, f, table, chains, counters)
		if err == nil {
			return append(rules, unshown...), nil
		}
		bad := chainUnshown(err)
		i := slices.Index(chains, bad)
		if i < 0 {
			return nil, err
		}
		unshown = append(unshown, "-A "+bad+" "+unshownRule)
		chains = slices.Delete(chains, i, i+1)
		if len(unshown) == maxUnshown {
			for _, c := range chains {
				unshown = append(unshown, "-A "+c+" "+unshownRule)
			}
			break
		}
	}
	if counters {
		for i := range unshown {
			unshown[i] = "[0:0] " + unshown[i]
		}
	}
	return unshown, nil
}

// chainUnshown is the chain that the error says cannot be shown, empty if it says something else.
func chainUnshown(err error) string {
	var ours *ToolError
	var theirs *goiptables.Error
	said := ""
	switch {
	case errors.As(err, &ours):
		said = ours.Stderr
	case errors.As(err, &theirs):
		said = theirs.Error()
	}
	if m := inChain.FindStringSubmatch(said); m != nil {
		return m[1]
	}
	return ""
}

// listShown are the rules of chains that can be shown, or an error that names one which cannot.
func (t *tools) listShown(ctx context.Context, f iptables.Family, table string, chains []string, counters bool) ([]string, error) {
	var input strings.Builder
	fmt.Fprintf(&input, "*%s\n", table)
	for _, c := range chains {
		input.WriteString("-S " + c)
		if counters {
			input.WriteString(" -v")
		}
		input.WriteByte('\n')
	}
	input.WriteString("COMMIT\n")
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	out, err := t.family[f].restore.run(ctx, input.String(), "--noflush")
	if err != nil {
		return nil, err
	}
	var rules []string
	for _, line := range logicalLines(out) {
		if !strings.HasPrefix(line, "-A ") {
			continue // "-N CHAIN"
		}
		if counters {
			line = countersInFront(line)
		}
		rules = append(rules, line)
	}
	return rules, nil
}

// counterOption is how "-S -v" prints the counters of a rule, in its middle.
var counterOption = regexp.MustCompile(` -c (\d+) (\d+)( |$)`)

// countersInFront moves the counters of "-S -v" to where iptables-save -c has them. The last match is theirs: they stand behind all matches, whose values
// may read like anything, and in front of the target.
func countersInFront(line string) string {
	all := counterOption.FindAllStringSubmatchIndex(line, -1)
	if len(all) == 0 {
		return "[0:0] " + line
	}
	m := all[len(all)-1]
	rest := strings.TrimSuffix(line[:m[0]]+" "+line[m[1]:], " ")
	return fmt.Sprintf("[%s:%s] %s", line[m[2]:m[3]], line[m[4]:m[5]], rest)
}

// showJumps are the rules of a base chain as far as our jump's position depends on them: each as "-A CHAIN rule".
func (t *tools) showJumps(ctx context.Context, f iptables.Family, table, base string) ([]string, error) {
	rules, err := t.listShown(ctx, f, table, []string{base}, false)
	if chainUnshown(err) != base {
		return rules, err
	}
	jumps, err := nftJumps(f, table, base)
	if err != nil || len(jumps) == 0 {
		return nil, err
	}
	for len(rules) < jumps[len(jumps)-1].position {
		rules = append(rules, fmt.Sprintf("-A %s %s", base, unshownRule))
	}
	for _, j := range jumps {
		rules[j.position-1] = fmt.Sprintf("-A %s -j %s", base, j.to)
	}
	if exact, err := t.hasJump(f, table, base); err != nil || !exact || len(jumps) > 1 {
		return rules, err
	}
	rules[jumps[0].position-1] = fmt.Sprintf("-A %s %s", base, iptables.JumpRule(base))
	return rules, nil
}

// hasJump reports whether our jump stands in a base chain, wherever in it.
func (t *tools) hasJump(f iptables.Family, table, base string) (bool, error) {
	rule := iptables.JumpRule(base)
	if rule == "" {
		return false, nil
	}
	return t.family[f].hooks.Exists(table, base, texts(rule)...)
}

// fixUnshownJump makes the jump the first rule of a base chain that iptables cannot show, and the only one that leads to us. The new one comes first, and
// the others go by their handles, so that the chain is at no moment without one, and no other rule can be hit.
func (t *tools) fixUnshownJump(ctx context.Context, j iptables.JumpFix) error {
	stale, err := nftJumps(j.Family, j.Table, j.Chain)
	if err != nil {
		return err
	}
	if len(stale) == 1 && stale[0].position == 1 {
		if exact, err := t.hasJump(j.Family, j.Table, j.Chain); exact || err != nil {
			return err
		}
	}
	hooks, spec := t.family[j.Family].hooks, texts(j.Rule)
	if err := t.locked(ctx, func(context.Context) error { return hooks.Insert(j.Table, j.Chain, 1, spec...) }); err != nil {
		return err
	}
	return nftDelete(j.Family, j.Table, j.Chain, stale)
}

// dropUnshownJumps removes the jumps to those of our chains that are meant from those base chains of a table that iptables cannot show, and names these
// base chains.
func (t *tools) dropUnshownJumps(ctx context.Context, f iptables.Family, table string, meant func(chain string) bool) (chains []string, err error) {
	for _, base := range hookChains {
		jumps, err := nftJumps(f, table, base)
		if err != nil {
			return chains, err
		}
		jumps = slices.DeleteFunc(jumps, func(j nftJump) bool { return !meant(j.to) })
		if len(jumps) == 0 {
			continue
		}
		if _, err := t.listShown(ctx, f, table, []string{base}, false); chainUnshown(err) != base {
			continue // they can be removed by what they say
		}
		if err := nftDelete(f, table, base, jumps); err != nil {
			return chains, err
		}
		chains = append(chains, base)
	}
	return chains, nil
}
