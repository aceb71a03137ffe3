package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// oneNamespace is a node whose pods are all of one namespace. It has a policy for each port that is not 0, and a pod for each list of policies, which are named
// by their places in ports.
func oneNamespace(ports []uint16, pods [][]int) policy.Node {
	n := policy.Node{}
	place := make([]int, len(ports))
	for i, port := range ports {
		place[i] = len(n.Policies)
		if port == 0 {
			continue
		}
		p := policy.Policy{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "one", Name: fmt.Sprint(i)}, Stage: policy.NetworkPolicies}
		for _, d := range policy.Directions {
			p.Rules[d] = []policy.Rule{{Action: policy.Accept, Peer: policy.Peer{Kind: policy.AnyPeer}, Ports: policy.Ports{Kind: policy.InRanges, Ranges: []policy.PortRange{{Protocol: policy.TCP, First: port, Last: port}}}}}
		}
		n.Policies = append(n.Policies, p)
	}
	for k, list := range pods {
		e := policy.Endpoint{Namespace: "one", Name: fmt.Sprint(k), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + k)})}}
		for _, i := range list {
			if ports[i] == 0 {
				continue
			}
			for _, d := range policy.Directions {
				e.Applies[d][policy.NetworkPolicies] = append(e.Applies[d][policy.NetworkPolicies], place[i])
			}
		}
		n.Endpoints = append(n.Endpoints, e)
	}
	return n
}

// A pod's chains are not made again for what happens to other pods of its namespace.
func TestAChangeLeavesWhatOtherPodsOfTheNamespaceHave(t *testing.T) {
	ports, pods := []uint16{80, 81, 82}, [][]int{{0, 1}, {1, 2}}
	for name, after := range map[string]policy.Node{
		"a policy of another changes":    oneNamespace([]uint16{90, 81, 82}, pods),
		"a policy of another goes":       oneNamespace([]uint16{0, 81, 82}, pods),
		"a policy comes in front":        oneNamespace([]uint16{80, 81, 82, 83}, [][]int{{0, 1, 3}, {1, 2}}),
		"another comes to lack a policy": oneNamespace(ports, [][]int{{1}, {1, 2}}),
		"another goes":                   {Policies: oneNamespace(ports, pods).Policies, Endpoints: oneNamespace(ports, pods).Endpoints[1:]},
	} {
		t.Run(name, func(t *testing.T) {
			var r Renderer
			before := oneNamespace(ports, pods)
			was := r.Render(before, keptOptions, Ruleset{})
			for i := range after.Policies { // what has not changed stands in the same memory, as compile has it
				for k := range before.Policies {
					if cmp.Equal(before.Policies[k], after.Policies[i]) {
						after.Policies[i] = before.Policies[k]
					}
				}
			}
			is := r.Render(after, keptOptions, was)
			same := 0
			for _, d := range policy.Directions {
				chain := keptOptions.Layout.groupChain(d, []string{"NetworkPolicy", "one", "1", "NetworkPolicy", "one", "2"})
				x, y := was.Tables[IPv4].Chains.Get(chain), is.Tables[IPv4].Chains.Get(chain)
				if same += len(x); !policy.IsOneSlice(x, y) {
					t.Errorf("%s is not what it was:\n%q\n%q", chain, x, y)
				}
			}
			if same < 4 {
				t.Errorf("%d rules were compared", same)
			}
		})
	}
}

// Whatever happens to policies and pods of a namespace, a kept renderer gives what one that begins anew gives.
func TestARendererFollowsANamespace(t *testing.T) {
	var r Renderer
	var last Ruleset
	ports, pods := make([]uint16, 6), make([][]int, 4)
	for step := range 3000 {
		rng := rand.New(rand.NewPCG(1, uint64(step)))
		for range 1 + rng.IntN(2) {
			switch rng.IntN(3) {
			case 0:
				ports[rng.IntN(len(ports))] = uint16(rng.IntN(4))
			case 1:
				pods = pods[:1+rng.IntN(cap(pods))]
			default:
				list := []int{}
				for i := range ports {
					if rng.IntN(2) == 0 {
						list = append(list, i)
					}
				}
				pods[rng.IntN(len(pods))] = list
			}
		}
		o := keptOptions
		o.ShareAlways, o.NamedRules = step >= 1500, 2
		n := oneNamespace(ports, pods)
		last = r.Render(n, o, last)
		if diff := cmp.Diff(Render(n, o), last, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Fatalf("step %d, ports %v, pods %v (-made anew +got):\n%s", step, ports, pods, diff)
		}
	}
}

// The comments of a long group would be half of what is copied with each change, and nobody reads it from top to bottom.
func TestAGroupOfManyRulesHasNoComments(t *testing.T) {
	commented := func(policies int) (rules, comments int) {
		ports, list := make([]uint16, policies), make([]int, policies)
		for i := range policies {
			ports[i], list[i] = uint16(1000+i), i
		}
		n := oneNamespace(ports, [][]int{list})
		for chain, all := range Render(n, keptOptions).Tables[IPv4].Chains.All() {
			for _, rule := range all {
				if strings.HasPrefix(chain, "RF-v1-IG-") && strings.Contains(string(rule), "--dport") {
					rules++
					comments += strings.Count(string(rule), "-m comment --comment \"NetworkPolicy one/")
				}
			}
		}
		return rules, comments
	}
	for policies, want := range map[int]int{DefaultNamedRules: DefaultNamedRules, DefaultNamedRules + 1: 0} {
		if rules, comments := commented(policies); rules != policies || comments != want {
			t.Errorf("%d policies of a rule each: %d rules, %d with comments, want %d", policies, rules, comments, want)
		}
	}
}
