package iptables

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// jumpStack is how many nested jumps and gotos nf_tables takes, counted from the base chain (NFT_JUMP_STACK_SIZE).
const jumpStack = 16

// everyWay is a node with enough endpoints for each way through the stages: each stage has no policy, an enforced one or an audited one. Every tree is as high
// as it may be, and every rule is logged.
func everyWay() policy.Node {
	n := policy.Node{Sets: policy.MapOf(map[policy.SetID]policy.Set{})}
	for _, stage := range policy.Stages {
		for _, audit := range []bool{false, true} {
			p := policy.Policy{Ref: policy.Ref{Kind: "Kind", Name: fmt.Sprintf("%d-%v", stage, audit)}, Stage: stage, Audit: audit}
			for _, d := range policy.Directions {
				for i, action := range []policy.Action{policy.Accept, policy.Deny, policy.Pass} {
					p.Rules[d] = append(p.Rules[d], policy.Rule{
						Action: action, Index: i, Peer: policy.Peer{Kind: policy.AnyPeer}, Ports: policy.Ports{Kind: policy.AnyPort}, Log: true,
					})
				}
			}
			n.Policies = append(n.Policies, p)
		}
	}
	for i := range 3 * 3 * 3 * 3 * 3 * 8 {
		e := policy.Endpoint{Namespace: "x", Name: fmt.Sprint(i), Addrs: []netip.Addr{addresses["in a row"](i), randomIPv6(uint64(i))}}
		way := i
		for stage := range policy.Stages {
			if which := way % 3; which > 0 {
				for _, d := range policy.Directions {
					e.Applies[d][stage] = []int{2*stage + which - 1}
				}
			}
			way /= 3
		}
		n.Endpoints = append(n.Endpoints, e)
	}
	return n
}

// longWays is everyWay with lists that are cut down by ports, and the rules for each port in runs. Those that are enforced have an object in the dry run behind
// them.
func longWays() policy.Node {
	n := everyWay()
	for i := range n.Policies {
		p := &n.Policies[i]
		if p.Stage.Isolates() {
			continue
		}
		for d := range p.Rules {
			p.Rules[d] = nil
			for k := range 36 {
				set := policy.SetID(fmt.Sprintf("s%d", k))
				n.Sets = n.Sets.With(set, policy.Set{Kind: policy.Addresses})
				p.Rules[d] = append(p.Rules[d], policy.Rule{
					Action: actions[k/9%3], Index: k, Log: true, Peer: policy.Peer{Kind: policy.InSet, Set: set}, Ports: portsNamed(fmt.Sprintf("tcp/%d", 1+k/9*1000)),
				})
			}
		}
	}
	for i := range n.Endpoints {
		applies := &n.Endpoints[i].Applies
		for _, d := range policy.Directions {
			for _, s := range policy.Stages {
				if enforced := int(2 * s); !s.Isolates() && slices.Equal(applies[d][s], []int{enforced}) {
					applies[d][s] = []int{enforced, enforced + 1}
				}
			}
		}
	}
	return n
}

// leadsTo is where a rule leads, if that is a chain of ours.
var leadsTo = regexp.MustCompile(` ?-[jg] (RF-\S+)$`)

// nesting is the longest way from a chain on, in jumps and gotos.
func nesting(t *testing.T, chains map[string][]Rule, chain string, known map[string]int) int {
	t.Helper()
	if n, ok := known[chain]; ok {
		if n < 0 {
			t.Fatalf("a way from %s comes back to it", chain)
		}
		return n
	}
	known[chain] = -1 // being looked at
	longest := 0
	for _, r := range chains[chain] {
		if m := leadsTo.FindStringSubmatch(string(r)); m != nil {
			longest = max(longest, 1+nesting(t, chains, m[1], known))
		}
	}
	known[chain] = longest
	return longest
}

// The longest way takes all that [needs.height] leaves, and no more than nf_tables takes.
func TestNoWayIsLongerThanNFTablesTakes(t *testing.T) {
	for name, tt := range map[string]struct {
		node   policy.Node
		change func(*Options)
		want   int
	}{
		"all there is":    {everyWay(), func(*Options) {}, 15},
		"shared chains":   {everyWay(), func(o *Options) { o.ShareAlways = true }, 15},
		"no samples":      {everyWay(), func(o *Options) { o.NFLogGroup, o.LogDenied = 0, false }, 15},
		"a small fan-out": {everyWay(), func(o *Options) { o.FanOut = 2 }, 15},
		"long lists":      {longWays(), func(o *Options) { o.ListLength = 4 }, 15},
	} {
		n := tt.node
		t.Run(name, func(t *testing.T) {
			o := Options{Families: Families[:], Table: "security", SelfMatch: true, HoldCut: true, NFLogGroup: DefaultNFLogGroup, LogDenied: true}
			tt.change(&o)
			for f, table := range Render(n, o).Tables {
				for _, h := range hooks {
					chains := map[string][]Rule{h.base: {JumpRule(h.base)}}
					for chain, rules := range table.Chains.All() {
						chains[chain] = rules
					}
					got := nesting(t, chains, h.base, map[string]int{})
					if got != tt.want || got >= jumpStack {
						t.Errorf("%s: from %s on packets are led on %d times, want %d, and less than %d", f, h.base, got, tt.want, jumpStack)
					}
				}
			}
		})
	}
}
