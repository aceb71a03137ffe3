package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// The kernel's limits on what a rule names: XT_EXTENSION_MAXNAMELEN and XT_MAX_COMMENT_LEN, less the final zero each.
const (
	maxChainName = 28
	maxComment   = 255
)

// verdicts are the targets that are no chains.
var verdicts = []string{"ACCEPT", "DROP", "RETURN", "REJECT", "LOG", "NFLOG", "MARK", ""}

// restored is the table after iptables-restore --noflush has read input: all of it, or an error and the table as it was.
func (t savedTable) restored(name, input string, hasSet func(string) error) (savedTable, error) {
	next := savedTable{order: slices.Clone(t.order), chains: map[string][]iptables.Rule{}, packets: maps.Clone(t.packets)}
	for chain, rules := range t.chains {
		next.chains[chain] = slices.Clone(rules)
	}
	begun, done := false, false
	for n, line := range strings.Split(input, "\n") {
		var err error
		switch {
		case line == "", line[0] == '#':
		case !begun && line == "*"+name:
			begun = true
		case !begun || done:
			err = errors.New("it stands in no table")
		case line == "COMMIT":
			done = true
		default:
			err = next.take(line, hasSet)
		}
		if err != nil {
			return t, &ToolError{Tool: "the fake iptables-restore", Line: n + 1, Text: line, Err: err}
		}
	}
	if !done {
		return t, &ToolError{Tool: "the fake iptables-restore", Err: errors.New("there is no COMMIT")}
	}
	return next, nil
}

// take carries out one line.
func (t *savedTable) take(line string, hasSet func(string) error) error {
	if chain, ok := strings.CutPrefix(line, ":"); ok {
		chain, _, _ = strings.Cut(chain, " ")
		if len(chain) > maxChainName {
			return fmt.Errorf("the name of the chain %s is too long", chain)
		}
		t.declare(chain)
		return nil
	}
	command, rest, _ := strings.Cut(line, " ")
	chain, text, _ := strings.Cut(rest, " ")
	if _, ok := t.chains[chain]; !ok {
		return fmt.Errorf("there is no chain %s", chain)
	}
	switch command {
	case "-A":
		return t.insert(chain, len(t.chains[chain]), iptables.Rule(text), hasSet)
	case "-I":
		at, rule, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(at)
		if err != nil || n < 1 || n > len(t.chains[chain])+1 {
			return fmt.Errorf("%s is no position in the chain %s", at, chain)
		}
		return t.insert(chain, n-1, iptables.Rule(rule), hasSet)
	case "-D":
		return t.remove(chain, iptables.Rule(text))
	case "-F":
		t.chains[chain] = nil
		delete(t.packets, chain)
		return nil
	case "-X":
		return t.removeChain(chain)
	}
	return fmt.Errorf("%s is no command", command)
}

// declare empties a chain, and makes it if it is not there.
func (t *savedTable) declare(chain string) {
	if _, ok := t.chains[chain]; !ok {
		t.order = append(t.order, chain)
	}
	t.chains[chain] = nil
	delete(t.packets, chain)
}

func (t *savedTable) insert(chain string, at int, r iptables.Rule, hasSet func(string) error) error {
	target := targetOf(r)
	if _, ok := t.chains[target]; !ok && !slices.Contains(verdicts, target) {
		return fmt.Errorf("there is no target %s", target)
	}
	for _, set := range matchedSets(r) {
		if err := hasSet(set); err != nil {
			return err
		}
	}
	if c := valueOf(r, "--comment"); len(c) > maxComment {
		return fmt.Errorf("a comment of %d bytes would be cut to %d", len(c), maxComment)
	}
	if at == 0 {
		delete(t.packets, chain)
	}
	t.chains[chain] = slices.Insert(t.chains[chain], at, r)
	return nil
}

func (t *savedTable) remove(chain string, r iptables.Rule) error {
	same := func(x iptables.Rule) bool { return Canonical(x) == Canonical(r) }
	i := slices.IndexFunc(t.chains[chain], same)
	if i < 0 {
		return fmt.Errorf("the chain %s has no such rule", chain)
	}
	if i == 0 {
		delete(t.packets, chain)
	}
	t.chains[chain] = slices.Delete(t.chains[chain], i, i+1)
	return nil
}

func (t *savedTable) removeChain(chain string) error {
	if len(t.chains[chain]) > 0 {
		return fmt.Errorf("the chain %s is not empty", chain)
	}
	for _, other := range slices.Sorted(maps.Keys(t.chains)) {
		for _, r := range t.chains[other] {
			if targetOf(r) == chain {
				return fmt.Errorf("a rule of the chain %s refers to %s", other, chain)
			}
		}
	}
	delete(t.chains, chain)
	delete(t.packets, chain)
	t.order = slices.DeleteFunc(t.order, func(c string) bool { return c == chain })
	return nil
}

// text is the table as iptables-save prints it.
func (t savedTable) text(name string) string {
	var chains, rules strings.Builder
	for _, c := range t.order {
		policy := "ACCEPT"
		if !slices.Contains(hookChains[:], c) {
			policy = "-"
		}
		fmt.Fprintf(&chains, ":%s %s [0:0]\n", c, policy)
		for _, r := range t.chains[c] {
			fmt.Fprintf(&rules, "-A %s %s\n", c, r)
		}
	}
	return fmt.Sprintf("*%s\n%s%sCOMMIT\n", name, chains.String(), rules.String())
}

// matchedSets are the sets that a rule names.
func matchedSets(r iptables.Rule) []string {
	var sets []string
	ws := words(string(r))
	for i := 0; i+1 < len(ws); i++ {
		if ws[i].is("--match-set") {
			sets = append(sets, ws[i+1].text)
		}
	}
	return sets
}

// valueOf is the value of a rule's option, empty if it has none.
func valueOf(r iptables.Rule, option string) string {
	ws := words(string(r))
	for i := 0; i+1 < len(ws); i++ {
		if ws[i].is(option) {
			return ws[i+1].text
		}
	}
	return ""
}
