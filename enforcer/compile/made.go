package compile

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// made is what the policy becomes. Its rules depend on the text alone: they are the same again as long as it stands.
func (one *resolution) made() *policy.Policy {
	p := one.parsed
	if one.refused {
		if one.closed == nil {
			one.closed = p.made(p.closed)
		}
		return one.closed
	}
	if one.inDoubt != nil {
		return one.inDoubt
	}
	if one.open == nil {
		one.open = p.made(func(rules []parsedRule) []parsedRule { return rules })
	}
	return one.open
}

// made is the node's policy with these of the rules.
func (p *parsedPolicy) made(these func([]parsedRule) []parsedRule) *policy.Policy {
	made := &policy.Policy{Ref: p.ref, Part: p.part, Stage: p.stage, Audit: p.audit, Log: p.logged}
	for _, d := range policy.Directions {
		if !p.applies[d] {
			continue
		}
		rules := these(p.rules[d])
		for i := range rules {
			made.Rules[d] = append(made.Rules[d], p.resolve(&rules[i])...)
		}
	}
	return made
}

// resolve makes the rules of the node's policy that one of the policy's rules becomes.
func (p *parsedPolicy) resolve(r *parsedRule) []policy.Rule { return p.log(r.resolve()) }

// log has those of the rules that deny be logged, if all that the policy denies is.
func (p *parsedPolicy) log(rules []policy.Rule) []policy.Rule {
	for i := range rules {
		rules[i].Log = rules[i].Log || p.logged && rules[i].Action == policy.Deny
	}
	return rules
}

// resolve makes the rules of the node's policy that the rule becomes.
func (r *parsedRule) resolve() []policy.Rule {
	var numbered []policy.Ports
	switch {
	case r.anyPort:
		numbered = []policy.Ports{{Kind: policy.AnyPort}}
	case len(r.ranges) > 0:
		numbered = []policy.Ports{{Kind: policy.InRanges, Ranges: r.ranges}}
	}
	named := inPorts(r.sets.ports)
	var rules []policy.Rule
	add := func(peer policy.Peer, all []policy.Ports) {
		for _, ports := range all {
			rules = append(rules, policy.Rule{Index: r.index, Name: r.name, Action: r.action, Log: r.log, Peer: peer, Ports: ports})
		}
	}
	for _, ends := range slices.Backward(r.sets.ends[:]) {
		for i := range ends {
			add(ends[i].peer(), numbered)
			if !ends[i].ownPorts {
				add(ends[i].peer(), named)
			}
		}
	}
	add(policy.Peer{Kind: policy.AnyPeer}, inPorts(r.sets.podPorts)) // whose set says the address too
	return rules
}

func inPorts(sets []ruleSet) []policy.Ports {
	var all []policy.Ports
	for _, s := range sets {
		all = append(all, policy.Ports{Kind: policy.InPorts, Set: s.id, Protocol: s.protocol})
	}
	return all
}
