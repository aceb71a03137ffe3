package iptables

import (
	"fmt"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// shutRules drop what an address sends and is sent whose pod is gone from the API, while its interface is still there: the container runs on, and no policy
// is about it any more. They cost one set match for each end of a first packet, on nodes that have such an address.
func (t *rendering) shutRules(directions []policy.Direction) []Rule {
	if t.node.Shut == "" {
		return nil
	}
	set := t.podSet(t.node.Shut)
	var rules []Rule
	for _, d := range directions {
		side := "dst"
		if d == policy.Egress {
			side = "src"
		}
		rules = append(rules, Rule(fmt.Sprintf(`-m set --match-set %s %s -m comment --comment "its pod is gone" -j DROP`, set, side)))
	}
	return rules
}
