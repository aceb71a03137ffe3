package dataplane

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// fixJump makes j.Rule the first rule of the base chain and the only one that leads to us. It goes by what stands in the
// chain now, not by the positions that the plan saw: by number it might hit a rule that another program has
// inserted since.
func (t *tools) fixJump(ctx context.Context, j iptables.JumpFix) error {
	present, err := t.baseChain(ctx, j)
	if chainUnshown(err) == j.Chain {
		return t.fixUnshownJump(ctx, j)
	}
	if err != nil {
		return fmt.Errorf("listing the chain %s: %w", j.Chain, err)
	}
	stale := jumpsToUs(present)
	switch {
	case jumpIsRight(j, present, stale):
		return nil
	case len(stale) == 0:
		hooks, spec := t.family[j.Family].hooks, texts(j.Rule)
		return t.locked(ctx, func(context.Context) error { return hooks.Insert(j.Table, j.Chain, 1, spec...) })
	}
	return t.restore(ctx, j.Family, moveJump(j, stale))
}

// baseChain are the rules of the fix's base chain.
func (t *tools) baseChain(ctx context.Context, j iptables.JumpFix) ([]iptables.Rule, error) {
	hooks := t.family[j.Family].hooks
	var lines []string
	err := t.locked(ctx, func(context.Context) (err error) {
		lines, err = hooks.List(j.Table, j.Chain)
		return err
	})
	var rules []iptables.Rule
	for _, line := range lines {
		if _, rule, ok := appended(line); ok { // the first line is the chain's policy
			rules = append(rules, rule)
		}
	}
	return rules, err
}

// jumpIsRight reports that the rule stands in front already, and no other leads to us.
func jumpIsRight(j iptables.JumpFix, present, stale []iptables.Rule) bool {
	return len(stale) == 1 && Canonical(present[0]) == Canonical(j.Rule)
}

// jumpsToUs are the rules that lead to a chain of ours.
func jumpsToUs(rules []iptables.Rule) []iptables.Rule {
	return slices.DeleteFunc(slices.Clone(rules), func(r iptables.Rule) bool {
		return !isOurs(targetOf(r))
	})
}

// moveJump is the input of iptables-restore that replaces the stale jumps by one in front, at once: the chain is at no
// moment without a jump to us. A rule is deleted by what it says, so that only ours can be hit; if one of them is gone by
// then, the whole is refused and nothing has happened.
func moveJump(j iptables.JumpFix, stale []iptables.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", j.Table)
	for _, r := range stale {
		fmt.Fprintf(&b, "-D %s %s\n", j.Chain, r)
	}
	fmt.Fprintf(&b, "-I %s 1 %s\nCOMMIT\n", j.Chain, j.Rule)
	return b.String()
}

// texts are the rule's words as arguments of a program.
func texts(r iptables.Rule) []string {
	var args []string
	for _, w := range words(string(r)) {
		args = append(args, w.text)
	}
	return args
}
