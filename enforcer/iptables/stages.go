package iptables

import (
	"cmp"
	"fmt"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The chains of the stages: lists of rules that are asked in their order, and groups of policies that isolate together.

// rules adds the chain of a list of policies whose rules are asked in their order, and returns its name, empty for an empty list. What
// matches none goes on to one tree, what a rule passes to another.
func (pl *pipeline) rules(policies []int, next, pass treeKind) string {
	if len(policies) == 0 {
		return ""
	}
	l := ruleList{lost: []Rule{"-j DROP"}}
	l.target = func(s step) string {
		switch {
		case s.whole:
			return "-j " + pl.auditedRules(s.policy)
		case s.rule.Action == policy.Deny:
			return pl.denial(s.policy, s.rule)
		case s.rule.Action == policy.Pass:
			return pl.to(pass)
		}
		return "-j RETURN"
	}
	return pl.chain(pl.Layout.listChain(pl.direction, pl.names(policies)), func() []Rule {
		for _, i := range policies {
			l.steps = append(l.steps, pl.stepsOf(i, &l)...)
		}
		if pl.has(next) {
			l.end = []Rule{Rule(pl.to(next))}
		}
		return pl.listRules(l)
	})
}

// auditedRules adds the chain of an audited policy whose rules are asked in their order. It always returns.
func (pl *pipeline) auditedRules(p *policy.Policy) string {
	var l ruleList
	l.target = func(s step) string {
		if s.rule.Action == policy.Deny {
			return "-g " + pl.note(p)
		}
		return "-j RETURN"
	}
	return pl.chain(pl.Layout.auditChain(pl.direction, []string{p.Ref.Kind, p.Ref.Namespace, p.Ref.Name, p.Part}), func() []Rule {
		l.steps = pl.ruleSteps(p, &l)
		return pl.listRules(l)
	})
}

// isolation adds the chain of the policies that isolate an endpoint together, and returns its name; without policies it is the chain that
// follows.
//
// The rules of all policies stand in it, because only a chain that is entered by goto can return from the whole direction.
func (pl *pipeline) isolation(policies []int, next string) string {
	if len(policies) == 0 {
		return next
	}
	first := &pl.node.Policies[policies[0]]
	if first.Audit {
		return pl.auditedIsolation(policies, next)
	}
	accept := "-j RETURN"
	names := pl.names(policies)
	if first.Stage == policy.AdminIsolation && next != "" {
		accept = "-g " + next
		names = append(names, next)
	}
	return pl.chain(pl.Layout.groupChain(pl.direction, names), func() []Rule {
		return append(pl.accepting(policies, accept), pl.isolationDenial(policies)...)
	})
}

// group is isolation by the NetworkPolicies of an endpoint, which may be a thousand. Where the endpoint is as it was, so is its chain.
func (pl *pipeline) group(e *policy.Endpoint) string {
	policies := e.Applies[pl.direction][policy.NetworkPolicies]
	key := listKey(policies)
	p := pl.groups[key]
	if p == nil {
		p = pl.staying[e.Addrs[0]]
	}
	if p == nil {
		p = pl.table.pieces[pl.isolation(policies, "")]
	} else {
		pl.leadTo(p)
	}
	pl.groups[key], pl.section.groups[e.Addrs[0]] = p, p
	return p.name
}

// accepting are the rules of policies that add up.
func (pl *pipeline) accepting(policies []int, target string) []Rule {
	var rules []Rule
	named := pl.areNamed(policies)
	for _, i := range policies {
		rules = append(rules, pl.acceptingOf(i, "", target, named)...)
	}
	return rules
}

// DefaultNamedRules is up to how many rules of NetworkPolicies a chain has comments that say where each comes from. They are for people, and nobody reads a
// longer chain from top to bottom. With iptables-legacy the kernel takes 288 bytes for a comment, half of a rule, and every change copies the whole table
// four times.
const DefaultNamedRules = 50

// areNamed reports whether the rules that policies add up to in a chain have comments.
func (pl *pipeline) areNamed(policies []int) bool {
	rules := 0
	for _, i := range policies {
		rules += len(pl.node.Policies[i].Rules[pl.direction])
	}
	return rules <= cmp.Or(pl.NamedRules, DefaultNamedRules)
}

// acceptingOf are the rules of one policy that accept, for the pods that a match on the subject leaves; empty is all that come. Named ones have comments.
// Chains that have them share their texts, in one render after the other: where one policy of a namespace has changed, those of the others are not written
// anew.
func (pl *pipeline) acceptingOf(i int, subject, target string, named bool) []Rule {
	p := &pl.node.Policies[i]
	rules := p.Rules[pl.direction]
	if len(rules) == 0 {
		return nil
	}
	key := texted{pl.direction, &rules[0], len(rules), p.Ref, subject, target, named}
	made, ok := pl.table.texts[key]
	if !ok {
		made.names = &piece{text: &key}
		pl.into(made.names, func() {
			for _, r := range rules {
				if r.Action != policy.Accept {
					continue
				}
				comment := ""
				if named {
					comment = ruleComment(p.Ref, pl.direction, r)
				}
				made.rules = append(made.rules, pl.ruleTexts(pl.direction, r, subject, comment, target)...)
			}
		})
		pl.table.texts[key] = made
	}
	pl.leadTo(made.names)
	return made.rules
}

// auditedIsolation notes what the policies would deny together, and goes on.
func (pl *pipeline) auditedIsolation(policies []int, next string) string {
	audit := pl.chain(pl.Layout.auditChain(pl.direction, pl.names(policies)), func() []Rule {
		rules := pl.accepting(policies, "-j RETURN")
		if pl.isStageOfNetworkPolicies(policies) {
			rules = append(rules, pl.selfRules()...)
		}
		for _, i := range policies {
			rules = append(rules, Rule("-j "+pl.note(&pl.node.Policies[i])))
		}
		return rules
	})
	return pl.behindAudit(audit, next)
}

// behindAudit is the chain that asks audited policies and goes on.
func (pl *pipeline) behindAudit(audit, next string) string {
	if next == "" {
		return audit
	}
	return pl.chain(pl.Layout.groupChain(pl.direction, []string{audit, next}), func() []Rule {
		return []Rule{Rule("-j " + audit), Rule("-g " + next)}
	})
}

func (pl *pipeline) isStageOfNetworkPolicies(policies []int) bool {
	return pl.node.Policies[policies[0]].Stage == policy.NetworkPolicies
}

// selfRules let a pod reach itself through its Service, which NetworkPolicies do not forbid.
func (pl *pipeline) selfRules() []Rule {
	if !pl.SelfMatch {
		return nil
	}
	return []Rule{Rule(fmt.Sprintf("-m bpf --bytecode %q -j RETURN", selfMatch[pl.family]))}
}

// names tell a list of policies from all others.
func (pl *pipeline) names(policies []int) []string {
	names := make([]string, 0, 4*len(policies))
	for _, i := range policies {
		p := &pl.node.Policies[i]
		names = append(names, p.Ref.Kind, p.Ref.Namespace, p.Ref.Name)
		if p.Part != "" {
			names = append(names, p.Part)
		}
	}
	return names
}
