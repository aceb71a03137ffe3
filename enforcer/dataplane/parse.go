package dataplane

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// hookChains are the base chains in which a jump to us can stand.
var hookChains = [...]string{"INPUT", "FORWARD", "OUTPUT"}

// policedChains are those of them in which it does.
var policedChains = [...]string{"INPUT", "FORWARD"}

// savedTable is one table as iptables-save prints it: each chain, in the printed order, and its rules without "-A CHAIN ".
type savedTable struct {
	order   []string
	chains  map[string][]iptables.Rule
	packets map[string]uint64 // in a Fake, what each chain's first rule has counted
}

// yieldEach lets other goroutines run now and then while many rules are read, one after the other. Go itself would have a sync that waits for something of the
// kernel's, and goes on with it, wait for ten milliseconds each time where there is one processor.
func yieldEach(n int) {
	if n%64 == 63 {
		runtime.Gosched()
	}
}

// logicalLines are the lines of what iptables-save prints, without blanks at their ends. A comment may hold line breaks, and is printed as it is: a line that
// ends within quotes goes on.
func logicalLines(out []byte) []string {
	var lines []string
	open, joined := false, ""
	for line := range strings.Lines(string(out)) {
		yieldEach(len(lines))
		open = endsInQuotes(line, open)
		if open {
			joined += line
			continue
		}
		lines, joined = append(lines, strings.TrimRight(joined+line, " \r\n")), ""
	}
	if joined != "" { // what was not closed has eaten what follows it: that is read line by line
		for _, line := range strings.Split(joined, "\n") {
			lines = append(lines, strings.TrimRight(line, " \r\n"))
		}
	}
	return lines
}

// endsInQuotes reports whether a rule's text ends within double quotes, if it began within them or not. Other lines have none.
func endsInQuotes(line string, quoted bool) bool {
	if !quoted && !strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "[") {
		return false
	}
	for i := 0; i < len(line); i++ {
		switch {
		case quoted && line[i] == '\\':
			i++
		case line[i] == '"':
			quoted = !quoted
		}
	}
	return quoted
}

// parseSave reads the output of iptables-save: several tables, or one. A line that cannot be read is an error in the tables that can hold our chains, and
// otherwise other programs' business.
func parseSave(out []byte) (map[string]savedTable, error) {
	all := map[string]savedTable{}
	name := ""
	for n, line := range logicalLines(out) {
		yieldEach(n)
		if err := foreignTable(line); err != nil {
			return nil, err
		}
		switch {
		case line == "", line[0] == '#', line == "COMMIT":
		case line[0] == '*':
			name = line[1:]
			all[name] = savedTable{chains: map[string][]iptables.Rule{}}
		case name == "":
			return nil, fmt.Errorf("reading iptables-save: line %d stands in no table: %s", n+1, line)
		case line[0] == ':':
			t := all[name]
			chain, _, _ := strings.Cut(line[1:], " ")
			t.order = append(t.order, chain)
			t.chains[chain] = nil
			all[name] = t
		default:
			chain, rule, ok := appended(line)
			if !ok && !slices.Contains(tables[:], name) {
				continue
			}
			if !ok {
				return nil, fmt.Errorf("reading iptables-save: line %d is no rule: %s", n+1, line)
			}
			all[name].chains[chain] = append(all[name].chains[chain], rule)
		}
	}
	return all, nil
}

// foreignTable recognises what iptables-nft-save prints, with a zero exit status, for a table that holds nftables expressions
// that it cannot show. Taking such a table for an empty one would have us write the same rules again and again.
func foreignTable(line string) error {
	for _, t := range tables {
		if strings.HasPrefix(line, saysUnshown(t)) {
			return fmt.Errorf("the table %s holds rules that are not iptables' (see nft list table ip %s)", t, t)
		}
	}
	return nil
}

// appended takes "-A CHAIN rule" apart, with or without counters in front.
func appended(line string) (chain string, rule iptables.Rule, ok bool) {
	if line[0] == '[' {
		_, line, _ = strings.Cut(line, "] ")
	}
	line, ok = strings.CutPrefix(line, "-A ")
	chain, text, _ := strings.Cut(line, " ")
	return chain, iptables.Rule(text), ok && chain != ""
}

func isOurs(name string) bool { return strings.HasPrefix(name, iptables.Prefix) }

// ours is our part of the table.
func (t savedTable) ours(name string) iptables.Table {
	table := iptables.Table{Name: name, Jumps: map[string][]int{}}
	chains := map[string][]iptables.Rule{}
	for chain, rules := range t.chains {
		if !isOurs(chain) {
			continue
		}
		canonical := make([]iptables.Rule, len(rules))
		for i, r := range rules {
			yieldEach(i)
			canonical[i] = Canonical(r)
		}
		chains[chain] = canonical
	}
	table.Chains = policy.MapOf(chains)
	for _, base := range hookChains {
		if found := jumpPositions(base, t.chains[base]); len(found) > 0 {
			table.Jumps[base] = found
		}
	}
	return table
}

// jumpPositions are the positions, counted from 1, of our jump among a base chain's rules. Any other rule that leads to a chain of ours, because
// it matches other packets, is a goto, or leads elsewhere, counts as position 0: wherever it stands, it is not what is wanted.
func jumpPositions(base string, rules []iptables.Rule) []int {
	var found []int
	wanted := Canonical(iptables.JumpRule(base))
	for i, r := range rules {
		switch {
		case !isOurs(targetOf(r)):
		case Canonical(r) == wanted:
			found = append(found, i+1)
		default:
			found = append(found, 0)
		}
	}
	return found
}

// targetOf is the chain or verdict that a rule leads to, by a jump or a goto.
func targetOf(r iptables.Rule) string {
	var target string
	for _, p := range split(words(string(r))) {
		if name, value := p.option(); name == "-j" || name == "-g" {
			target = value
		}
	}
	return target
}
