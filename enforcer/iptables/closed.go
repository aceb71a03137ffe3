package iptables

import (
	"fmt"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// unknownPod stands for the object of what is denied to or by an address that no known pod holds: "unknown pod".
var unknownPod = policy.Ref{Kind: "unknown", Name: "pod"}

// closedRules drop what an address that no known pod holds sends, and what it is sent. They stand before all trees, and cost one set match for each end of
// a first packet that is in a range, whatever the number of pods. The node's own addresses may lie in the range, as a bridge's does: the kernel knows them,
// and is asked only about what is not in the set.
//
// What the node itself takes in passes INPUT, where egress alone is decided: its destination needs no look.
func (t *rendering) closedRules(directions []policy.Direction) []Rule {
	var rules []Rule
	for _, d := range directions {
		option, side := "-d", "dst"
		if d == policy.Egress {
			option, side = "-s", "src"
		}
		for _, r := range t.node.Closed.Ranges {
			if FamilyOf(r.Addr()) == t.family {
				rules = append(rules, Rule(fmt.Sprintf("%s %s -m set ! --match-set %s %s -m addrtype ! --%s-type LOCAL -g %s",
					option, r, t.podSet(t.node.Closed.Known), side, side, t.unknownDenial(d))))
			}
		}
	}
	return rules
}

// unknownDenial adds the chain that counts and drops, and samples where all denials are logged. It counts in any case: nothing else on the node tells why
// such a packet is gone.
func (t *rendering) unknownDenial(d policy.Direction) string {
	return t.pointChain(policy.Point{Ref: unknownPod, Direction: d, Index: -1}, t.logs(false))
}
