package iptables

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// jumpStack is how many nested jumps and gotos nf_tables takes, counted from the base chain (NFT_JUMP_STACK_SIZE).
const jumpStack = 16

// everyWay is a node with enough endpoints for each way through the stages: each stage has no policy, an enforced one or an audited one. Every tree is as high
// as it may be, and every rule is logged.
func everyWay() policy.Node {
	n := policy.Node{Sets: map[policy.SetID]policy.Set{}}
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

// The longest way takes all that [treeKind.depth] leaves, and no more than nf_tables takes.
func TestNoWayIsLongerThanNFTablesTakes(t *testing.T) {
	n := everyWay()
	for name, tt := range map[string]struct {
		change func(*Options)
		want   int
	}{
		"all there is":    {func(*Options) {}, 15},
		"shared chains":   {func(o *Options) { o.ShareAlways = true }, 15},
		"no samples":      {func(o *Options) { o.NFLogGroup, o.LogDenied = 0, false }, 15},
		"a small fan-out": {func(o *Options) { o.FanOut = 2 }, 15},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Families: Families[:], Table: "security", SelfMatch: true, HoldCut: true, NFLogGroup: DefaultNFLogGroup, LogDenied: true}
			tt.change(&o)
			for f, table := range Render(n, o).Tables {
				for _, h := range hooks {
					chains := map[string][]Rule{h.base: {JumpRule(h.base)}}
					for chain, rules := range table.Chains {
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
