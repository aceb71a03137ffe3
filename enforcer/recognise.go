package enforcer

import (
	"context"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// recognise notes, where nothing of this process has been in force yet, what the kernel holds from the one before: each rule whose match is there.
func (e *Enforcer) recognise(ctx context.Context, n *policy.Node) {
	if e.refusals.settled {
		return
	}
	have, err := e.dataplane.ObserveReusing(ctx, iptables.Ruleset{})
	if err != nil {
		return
	}
	there := map[iptables.Family]map[string]bool{}
	for f := range have.Tables {
		there[f] = have.Matches(f)
	}
	for _, p := range n.Policies {
		kept := p.Closed(func(d policy.Direction, rule policy.Rule) bool { return e.isThere(*n, p, d, rule, there) })
		e.refusals.taken[part{p.Ref, p.Part}] = kept
	}
}

// isThere reports whether all matches of one rule of a policy are in force.
func (e *Enforcer) isThere(n policy.Node, p policy.Policy, d policy.Direction, rule policy.Rule, there map[iptables.Family]map[string]bool) bool {
	one := p
	one.Rules = [2][]policy.Rule{}
	one.Rules[d] = []policy.Rule{rule}
	n.Policies = slices.Clone(n.Policies)
	for i := range n.Policies {
		if n.Policies[i].Ref == p.Ref && n.Policies[i].Part == p.Part {
			n.Policies[i] = one
		}
	}
	comment := false
	for f, t := range e.aloneIn(n, []policy.Ref{p.Ref}).Tables {
		for _, rules := range t.Chains.All() {
			for _, r := range rules {
				if !strings.Contains(string(r), p.Ref.Name) {
					continue // of the tree
				}
				comment = true
				if !there[f][r.Match()] {
					return false
				}
			}
		}
	}
	return comment
}
