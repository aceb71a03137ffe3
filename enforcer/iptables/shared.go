package iptables

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// shareFrom is from how many rules of groups on it is asked whether they share a chain: fewer are written in a few milliseconds.
const shareFrom = 2048

// sharedRules is the chain of pods of one namespace whose lists of NetworkPolicies are long and differ, in a direction. Each policy's rules stand in it
// once, and ask first whether the pod is one that the policy isolates:
//
//	-p tcp -m tcp --dport 80 -m set --match-set RF-v1-4S-… dst -m set --match-set RF-v1-4A-… src … -j RETURN
//	…
//	-g RF-v1-DENY
//
// A group has the rules of its policies without that question, and so costs a packet less; but rules of a policy stand in each group that has it. A thousand
// policies, of which each of a hundred pods lacks another one, would be a hundred thousand times their rules.
type sharedRules struct {
	chain    string
	policies []int // ascending
}

// sharing says which pods share a chain: those of a namespace, enforced or audited, with lists of about the same length. So a pod with a short list does not
// pay for long ones.
type sharing struct {
	namespace string
	audit     bool
	length    int // half the logarithm of the number of rules, to the base 2
}

// candidate are the lists of policies that might share a chain.
type candidate struct {
	lists map[string][]int
	rules int // of all lists
}

// policies are those that stand in a list, ascending.
func (c *candidate) policies() []int {
	var all []int
	for _, list := range c.lists {
		all = append(all, list...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// findShared says which pods share chains: where they would have more than shareFrom rules together, and more than twice as many as with one chain. It does
// not depend on anything but the node, and of that on nothing but the endpoints of their namespace.
func (pl *pipeline) findShared(endpoints []*policy.Endpoint) {
	pl.sharings = map[*policy.Endpoint]sharing{}
	candidates := map[sharing]*candidate{}
	for _, e := range endpoints {
		policies := e.Applies[pl.direction][policy.NetworkPolicies]
		if len(policies) == 0 || !slices.ContainsFunc(e.Addrs, pl.inFamily) {
			continue
		}
		rules := pl.rulesOf(policies)
		at := sharing{e.Namespace, pl.node.Policies[policies[0]].Audit, bits.Len(uint(rules)) / 2}
		if pl.ShareAlways {
			at.length = 0
		}
		pl.sharings[e] = at
		c := candidates[at]
		if c == nil {
			c = &candidate{map[string][]int{}, 0}
			candidates[at] = c
		}
		if list := listKey(policies); c.lists[list] == nil {
			c.lists[list] = policies
			c.rules += rules
		}
	}
	pl.shared = map[sharing]*sharedRules{}
	for at, c := range candidates {
		if len(c.lists) == 1 || c.rules <= shareFrom && !pl.ShareAlways {
			continue
		}
		if all := c.policies(); pl.ShareAlways || c.rules > 2*pl.rulesOf(all) {
			pl.shared[at] = &sharedRules{pl.Layout.sharedChain(pl.direction, at), all}
		}
	}
	pl.findSubjects(endpoints)
}

// rulesOf is how many rules policies have together.
func (pl *pipeline) rulesOf(policies []int) (n int) {
	named := pl.areNamed(policies) // makes no difference but for the texts, which will be asked for again
	for _, i := range policies {
		rules := pl.node.Policies[i].Rules[pl.direction]
		if len(rules) == 0 {
			continue
		}
		size, known := pl.table.sizes[&rules[0]]
		if !known {
			size = len(pl.acceptingOf(i, "", "-j RETURN", named))
			pl.table.sizes[&rules[0]] = size
		}
		n += size
	}
	return n
}

// forgetSizes leaves out what is known of policies that are gone, where that is most of it.
func (t *keptTable) forgetSizes(n *policy.Node) {
	if len(t.sizes) <= 2*len(policy.Directions)*len(n.Policies)+shareFrom {
		return
	}
	sizes := map[*policy.Rule]int{}
	for i := range n.Policies {
		for _, rules := range n.Policies[i].Rules {
			if len(rules) > 0 {
				if size, known := t.sizes[&rules[0]]; known {
					sizes[&rules[0]] = size
				}
			}
		}
	}
	t.sizes = sizes
}

// listKey tells lists from each other.
func listKey(policies []int) string {
	key := make([]byte, 0, 3*len(policies))
	for _, p := range policies {
		key = binary.AppendUvarint(key, uint64(p))
	}
	return string(key)
}

// findSubjects collects, for each policy, the pods that it isolates, of those that share chains. A NetworkPolicy is about pods of its own namespace alone.
func (pl *pipeline) findSubjects(endpoints []*policy.Endpoint) {
	pl.subjects = map[int][]Entry{}
	for _, e := range endpoints {
		at, ok := pl.sharings[e]
		if !ok || pl.shared[at] == nil {
			continue
		}
		for _, p := range e.Applies[pl.direction][policy.NetworkPolicies] {
			for _, a := range e.Addrs {
				if pl.inFamily(a) {
					pl.subjects[p] = append(pl.subjects[p], Entry{Prefix: policy.AddrOf(a).Whole()})
				}
			}
		}
	}
}

// subjectMatch adds the set of the pods that a policy isolates, and returns the match on it.
func (pl *pipeline) subjectMatch(p int, named bool) string {
	name := pl.Layout.subjectSet(pl.family, pl.direction, pl.node.Policies[p].Ref, pl.acceptingOf(p, "", "-j RETURN", named))
	pl.fixedSet(name, HashIP, func() []Entry { return SortEntries(pl.subjects[p]) })
	side := " dst"
	if pl.direction == policy.Egress {
		side = " src"
	}
	return "-m set --match-set " + name + side
}

// sharedIsolation adds the chain that pods share, and returns its name.
func (pl *pipeline) sharedIsolation(s *sharedRules) string {
	return pl.chain(s.chain, func() []Rule {
		return append(pl.acceptingSubjects(s), pl.isolationDenial(s.policies)...)
	})
}

// sharedAudit adds the chain that audited pods share. It always returns.
func (pl *pipeline) sharedAudit(s *sharedRules) string {
	return pl.chain(s.chain, func() []Rule {
		rules := append(pl.acceptingSubjects(s), pl.selfRules()...)
		named := pl.areNamed(s.policies)
		for _, i := range s.policies {
			rules = append(rules, Rule(pl.subjectMatch(i, named)+" -j "+pl.note(&pl.node.Policies[i])))
		}
		return rules
	})
}

// acceptingSubjects are the rules of policies that add up, each for the pods that its policy isolates.
func (pl *pipeline) acceptingSubjects(s *sharedRules) []Rule {
	var rules []Rule
	named := pl.areNamed(s.policies)
	for _, i := range s.policies {
		rules = append(rules, pl.acceptingOf(i, pl.subjectMatch(i, named), "-j RETURN", named)...)
	}
	return rules
}
