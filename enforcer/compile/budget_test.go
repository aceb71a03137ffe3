package compile

import (
	"fmt"
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/enforcer/ruleset"
)

// TestBudgetsCountWhatIsRendered: a rule is counted as at least as many rules as a table of either family gets of it.
func TestBudgetsCountWhatIsRendered(t *testing.T) {
	list := func(n int, text func(i int) string) (all string) {
		for i := range n {
			all += text(i) + ", "
		}
		return all
	}
	counts := []int{0, 1, 5, 40}
	for _, selectors := range counts {
		for _, blocks := range counts {
			for _, ports := range counts {
				for _, names := range []int{0, 5} {
					peers := list(selectors, func(i int) string { return fmt.Sprintf("{podSelector: {matchLabels: {a: v%d}}}", i) }) +
						list(blocks, func(i int) string {
							return fmt.Sprintf("{ipBlock: {cidr: 10.%d.0.0/24}}, {ipBlock: {cidr: 'fd00:%x::/64'}}", 2*i, 2*i)
						})
					numbers := list(ports, func(i int) string {
						return fmt.Sprintf("{protocol: %s, port: %d, endPort: %d}", []string{"TCP", "UDP", "SCTP"}[i%3], 10*i+1, 10*i+1+i%2)
					}) + list(names, func(i int) string { return fmt.Sprintf("{port: p%d}", i) })
					p := fmt.Sprintf("{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [%s], ports: [%s]}], egress: [{to: [%s], ports: [%s]}]}",
						peers, numbers, peers, numbers)
					checkSize(t, networkPolicy(p).NetworkPolicy)
				}
			}
		}
	}
}

func checkSize(t *testing.T, np *networkingv1.NetworkPolicy) {
	t.Helper()
	parsed := parse(np)
	s := Snapshot{Node: "n", Policies: []*networkingv1.NetworkPolicy{np}, Pods: []*Pod{{Namespace: np.Namespace, Name: "p", UID: "p", Node: "n",
		Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}}}
	node, problems := Compile(s)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, d := range policy.Directions {
		counted := 0
		for i := range parsed.rules[d] {
			counted += parsed.rules[d][i].size(d)
		}
		one := node
		one.Endpoints = []policy.Endpoint{node.Endpoints[0]}
		one.Endpoints[0].Applies[1-d] = [len(policy.Stages)][]int{}
		for f, table := range ruleset.Render(one, ruleset.Options{Families: ruleset.Families[:], Table: "security"}).Tables {
			rendered := -1 // the denial
			for chain, rules := range table.Chains {
				if len(chain) > len("RF-v1-IG-") && (chain[:9] == "RF-v1-IG-" || chain[:9] == "RF-v1-EG-") {
					rendered += len(rules)
				}
			}
			if rendered > counted {
				t.Errorf("%s of %s: %d rules for %s, counted as %d:\n%v", d, np.Name, rendered, f, counted, np.Spec)
			}
		}
	}
}
