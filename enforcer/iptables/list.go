package iptables

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// DefaultListLength is how many rules of a list a packet meets one after the other before the list is cut down.
const DefaultListLength = 16

// ruleList is a list of rules that are asked in their order: the first that matches decides. A packet pays for each that it meets, so that a long list is cut
// down before it is walked (docs/adr/0023-long-lists-are-cut-down.md), in two ways:
//
//	RF-v1-ER-…   -p udp -m udp --dport 0:1023 -g RF-v1-EP-…                       ports: the rules that a packet to these ports can be matched by,
//	             …                                                                 in their order, and nothing else
//	             the rules that packets to all other ports can be matched by
//	             -g RF-v1-EGRESS
//
//	RF-v1-EP-…   -m set --match-set RF-v1-4U-… dst -g RF-v1-EU-…                   a run: rules that stand together and have the same ports, behind one
//	             …                                                                 match on the union of their peers
//	             -g RF-v1-EGRESS
//
//	RF-v1-EU-…   the rules of the run
//	             -j DROP                                                           no packet gets here: one of the rules has matched
//
// No packet meets two copies of a rule, and none meets its rules in another order. A packet that has been led to ports or to a run has left the list: whatever
// it is compared with there leads on by itself. That is what the two ways have in common, and why there is no third: a chain that packets come back from can
// only deny, since RETURN has its one meaning (docs/adr/0002-directions-return.md), and chains that lead on to each other are nested too deep for nf_tables.
type ruleList struct {
	steps []step
	// target is what becomes of a packet that a step matches.
	target func(step) string
	end    []Rule // what stands behind all steps
	lost   []Rule // what stands behind the steps of a run
}

// step is one of a list: a rule of a policy, or a whole policy in the dry run, which is asked and lets every packet go on.
type step struct {
	policy *policy.Policy
	rule   policy.Rule
	whole  bool
	keys   []string // tell it from all others, in either family
	match  string   // tells what the rule matches
	ports  string   // tells the rule's ports
}

// stepsOf are those of a policy in a list: its rules, or the whole of it if it is in the dry run. Lists that have the policy share them.
func (pl *pipeline) stepsOf(i int, l *ruleList) []step {
	steps, ok := pl.steps[i]
	if !ok {
		if p := &pl.node.Policies[i]; p.Audit {
			whole := step{policy: p, whole: true}
			whole.keys = []string{l.target(whole)}
			steps = []step{whole}
		} else {
			steps = pl.ruleSteps(p, l)
		}
		pl.steps[i] = steps
	}
	return steps
}

// ruleSteps are the rules of a policy.
func (pl *pipeline) ruleSteps(p *policy.Policy, l *ruleList) []step {
	steps := make([]step, 0, len(p.Rules[pl.direction]))
	for _, r := range p.Rules[pl.direction] {
		if r.Action == policy.NoAction {
			continue
		}
		s := step{policy: p, rule: r, ports: portsKey(r.Ports)}
		s.match = matchKey(r, s.ports)
		s.keys = []string{l.target(s), ruleComment(p.Ref, pl.direction, r), s.match}
		steps = append(steps, s)
	}
	return steps
}

// listLength is how many steps a list may have that is not cut down.
func (o Options) listLength() int { return cmp.Or(o.ListLength, DefaultListLength) }

// isLong reports whether a list of policies, or one of these, may have to be cut down.
func (pl *pipeline) isLong(policies []int) bool {
	steps := 0
	for _, i := range policies {
		p := &pl.node.Policies[i]
		rules := len(p.Rules[pl.direction])
		if p.Audit {
			if rules > pl.listLength() {
				return true
			}
			rules = 1
		}
		steps += rules
	}
	return steps > pl.listLength()
}

// listRules are the rules of a list's chain.
func (pl *pipeline) listRules(l ruleList) []Rule {
	steps := pl.reachable(l.steps)
	if len(steps) <= pl.listLength() {
		return append(pl.plainRules(l, steps), l.end...)
	}
	var rules []Rule
	parts, rest := splitByPorts(steps, pl.listLength())
	for _, part := range parts {
		rules = append(rules, Rule(portText([]policy.PortRange{part.ports})+" -g "+pl.portChain(l, part)))
	}
	return slices.Concat(rules, pl.cutRules(l, rest, nil), l.end)
}

// portChain adds the chain of the steps that packets to some ports can be matched by, and returns its name. It is named after what stands in it: lists that
// have the same rules for these ports share it, and one that has become another list keeps it.
func (pl *pipeline) portChain(l ruleList, part portPart) string {
	texts := []string{fmt.Sprintf("%s/%d-%d", part.ports.Protocol, part.ports.First, part.ports.Last), fmt.Sprint(l.end)}
	return pl.chain(pl.Layout.portChain(pl.direction, append(texts, keysOf(part.steps)...)), func() []Rule {
		return append(pl.cutRules(l, part.steps, &part.ports), l.end...)
	})
}

// cutRules are the rules of steps, cut into runs if that is worth it. Packets to other ports than those of within do not come, nil for all.
func (pl *pipeline) cutRules(l ruleList, steps []step, within *policy.PortRange) []Rule {
	if len(steps) <= pl.listLength()/2 {
		return pl.plainRules(l, steps)
	}
	var rules []Rule
	for _, r := range pl.cutRuns(steps, within) {
		if r.united {
			rules = append(rules, pl.runRules(l, r)...)
		} else {
			rules = append(rules, pl.plainRules(l, r.steps)...)
		}
	}
	return rules
}

// plainRules are the rules of steps, one behind the other.
func (pl *pipeline) plainRules(l ruleList, steps []step) []Rule {
	var rules []Rule
	for _, s := range steps {
		if s.whole {
			rules = append(rules, Rule(l.target(s)))
		} else {
			rules = append(rules, pl.ruleTexts(pl.direction, s.rule, "", ruleComment(s.policy.Ref, pl.direction, s.rule), l.target(s))...)
		}
	}
	return rules
}

// runRules lead to a run, and add its chain.
func (pl *pipeline) runRules(l ruleList, r run) []Rule {
	var ids []policy.SetID
	for _, s := range r.steps {
		ids = append(ids, s.rule.Peer.Set)
	}
	slices.Sort(ids)
	texts := append([]string{fmt.Sprint(l.lost)}, keysOf(r.steps)...)
	chain := pl.chain(pl.Layout.runChain(pl.direction, texts), func() []Rule { return slices.Concat(pl.plainRules(l, r.steps), l.lost) })
	side := " src"
	if pl.direction == policy.Egress {
		side = " dst"
	}
	set := "-m set --match-set " + pl.unionSet(slices.Compact(ids)) + side
	var rules []Rule
	for _, ports := range pl.portMatches(r.ports) {
		rules = append(rules, Rule(joinNonEmpty(ports.port, set)+" -g "+chain))
	}
	return rules
}

func keysOf(steps []step) []string {
	keys := make([]string, 0, 3*len(steps))
	for _, s := range steps {
		keys = append(keys, s.keys...)
	}
	return keys
}

// matchKey tells what a rule matches; ports are its [portsKey].
func matchKey(r policy.Rule, ports string) string {
	key := make([]byte, 0, len(r.Peer.Set)+len(ports)+16)
	key = strconv.AppendInt(key, int64(r.Peer.Kind), 10)
	for _, id := range []policy.SetID{r.Peer.Set, r.Ports.Set} {
		key = append(append(append(strconv.AppendInt(append(key, ' '), int64(len(id)), 10), ':'), id...), ' ')
	}
	key = append(key, ports...)
	if r.Peer.Kind == policy.InBlocks {
		key = append(key, fmt.Sprint(r.Peer.Blocks)...)
	}
	return string(key)
}

// portsKey tells ports by their numbers from others.
func portsKey(p policy.Ports) string {
	key := strconv.AppendInt(nil, int64(p.Kind), 10)
	for _, r := range append([]policy.PortRange{{Protocol: p.Protocol}}, p.Ranges...) {
		for _, n := range []uint16{uint16(r.Protocol), r.First, r.Last} {
			key = strconv.AppendUint(append(key, ' '), uint64(n), 10)
		}
	}
	return string(key)
}
