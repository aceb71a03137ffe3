package compile

import (
	"fmt"
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
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
	s := Snapshot{Node: "n", Policies: ObjectsOf(np)}.WithPods(&Pod{Namespace: np.Namespace, Name: "p", UID: "p", Node: "n",
		Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}})
	node, problems := Compile(s)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, d := range policy.Directions {
		counted := 0
		for i := range parsed.rules[d] {
			counted += parsed.rules[d][i].size()
		}
		one := node
		one.Endpoints = []policy.Endpoint{node.Endpoints[0]}
		one.Endpoints[0].Applies[1-d] = [len(policy.Stages)][]int{}
		for f, table := range iptables.Render(one, iptables.Options{Families: iptables.Families[:], Table: "security"}).Tables {
			rendered := -1 // the denial
			for chain, rules := range table.Chains.All() {
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

// TestAShareWithoutItsNewestIsThatOfTheRest: a set that several policies of a namespace name counts as long as one of them is left.
func TestAShareWithoutItsNewestIsThatOfTheRest(t *testing.T) {
	sets := []*knownSet{{size: 1}, {size: 10}, {size: 100}}
	policies := make([]*resolution, 4)
	for i, named := range [][]int{{0, 1}, {1, 2}, {0, 2}, {2}} {
		one := &resolution{spending: spending{rules: 1 + i, sets: 1, looks: 10 * i}}
		for _, n := range named {
			one.sets, one.entries, one.seen = one.sets+1, one.entries+sets[n].size, append(one.seen, seenSet{set: sets[n]})
		}
		policies[i] = one
	}
	shareOf := func(n int) *share {
		s := &share{uses: map[*knownSet]int{}}
		for _, one := range policies[:n] {
			s.with(one)
		}
		return s
	}
	if got, want := shareOf(4).spending, (spending{rules: 10, sets: 4 + 3, entries: 111, looks: 60}); got != want {
		t.Errorf("four policies have %+v, want %+v", got, want)
	}
	rest := shareOf(4)
	for n := 3; n >= 0; n-- {
		if one := rest.withoutNewest(); one != policies[n] || rest.spending != shareOf(n).spending {
			t.Errorf("without all but %d there is %+v, want %+v", n, rest.spending, shareOf(n).spending)
		}
	}
}
