package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// everyKind is a node with something of each kind that has a name: trees of several levels, lists, groups, what is audited and what is logged, and sets of every
// type.
func everyKind() policy.Node {
	n := policy.Node{Sets: policy.MapOf(map[policy.SetID]policy.Set{
		"pods": {Kind: policy.Addresses, Members: policy.MembersOf([]policy.Member{
			{Addr: policy.AddrOf(netip.MustParseAddr("10.0.0.1"))}, {Addr: policy.AddrOf(netip.MustParseAddr("fd00::1"))}})},
		"ports": {Kind: policy.AddressPorts, Members: policy.MembersOf([]policy.Member{{Addr: policy.AddrOf(netip.MustParseAddr("10.0.0.1")), Protocol: policy.TCP, Port: 80}})},
	})}
	peers := []policy.Peer{{Kind: policy.AnyPeer}, {Kind: policy.InSet, Set: "pods"}, {Kind: policy.InBlocks}}
	for i := range 9 { // more blocks than a rule each
		peers[2].Blocks = append(peers[2].Blocks, policy.Block{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i), 0, 0}), 16)},
			policy.Block{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i)}), 16)})
	}
	ports := policy.Ports{Kind: policy.InPorts, Set: "ports", Protocol: policy.TCP}
	for _, stage := range policy.Stages {
		for _, audit := range []bool{false, true} {
			p := policy.Policy{Ref: policy.Ref{Kind: "Kind", Name: fmt.Sprintf("%d-%v", stage, audit)}, Stage: stage, Audit: audit}
			for _, d := range policy.Directions {
				for i, action := range []policy.Action{policy.Accept, policy.Deny, policy.Pass} {
					p.Rules[d] = append(p.Rules[d],
						policy.Rule{Action: action, Index: i, Peer: peers[i], Ports: policy.Ports{Kind: policy.AnyPort}, Log: true},
						policy.Rule{Action: action, Index: i, Peer: peers[0], Ports: ports})
				}
			}
			n.Policies = append(n.Policies, p)
		}
	}
	for i := range 40 {
		e := policy.Endpoint{Namespace: "x", Name: fmt.Sprint(i), Addrs: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.AddrFrom16([16]byte{0xfd, 15: byte(i)})}}
		for k, p := range n.Policies {
			for _, d := range policy.Directions {
				if p.Audit == (i%2 == 0) {
					e.Applies[d][p.Stage] = append(e.Applies[d][p.Stage], k)
				}
			}
		}
		n.Endpoints = append(n.Endpoints, e)
	}
	return n
}

// renderedIn is everyKind's ruleset by the version of a layout. Another version has another fan-out, too.
func renderedIn(layout Layout) Ruleset {
	o := Options{Families: Families[:], Table: "security", SelfMatch: true, HoldCut: true, NFLogGroup: DefaultNFLogGroup, Layout: layout}
	if layout != OwnLayout {
		o.FanOut = 5
	}
	return Render(everyKind(), o)
}

// names are those of all chains and sets.
func (r Ruleset) names() []string {
	names := slices.Collect(r.Sets.Keys())
	for _, t := range r.Tables {
		names = slices.AppendSeq(names, t.Chains.Keys())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// shared are the names that stand for the same in every layout.
var shared = []string{"RF-4-CUT", "RF-6-CUT", "RF-FORWARD", "RF-INPUT"}

func TestEveryNameSaysItsLayoutButForThoseThatAreTakenOver(t *testing.T) {
	for _, one := range []Layout{OwnLayout, "2", "10"} {
		names := renderedIn(one).names()
		for _, name := range names {
			if one.IsOther(name) {
				t.Errorf("%s is taken for a name of another layout than %s", name, one)
			}
		}
		for _, other := range []Layout{OwnLayout, "2", "10", "100"} {
			same := slices.DeleteFunc(slices.Clone(names), other.IsOther)
			if diff := cmp.Diff(shared, same); diff != "" && other != one {
				t.Errorf("names of layout %s that are also of %s (-want +got):\n%s", one, other, diff)
			}
		}
	}
	for name, want := range map[string]bool{
		"RF-DENY": true, "RF-IG-6p4kmnggvqjbbhrz": true, "RF-4A-6p4kmnggvqjbbhrz": true, // of the version before there were layouts
		"RF-v11-DENY": true, "RF-v1": true, "RF-1-DENY": true, "RF-": true, "RF-v1-DENY": false, "RFC": false, "OTHER-RF-v2-DENY": false, "": false,
	} {
		if got := OwnLayout.IsOther(name); got != want {
			t.Errorf("%q is of another layout: %v, want %v", name, got, want)
		}
	}
}

// What differs between two versions is more than names: else a test of a takeover would show little.
func TestAnotherLayoutHasOtherChains(t *testing.T) {
	own, other := renderedIn(OwnLayout), renderedIn("2")
	a, b := own.Tables[IPv4].Chains.Len(), other.Tables[IPv4].Chains.Len()
	if a == b {
		t.Errorf("both layouts have %d chains", a)
	}
}

// From one layout to another each family takes one restore, which leaves the jumps alone; new sets come before it and the old ones go behind it, as they were.
func TestATakeoverIsOneRestorePerFamily(t *testing.T) {
	for _, way := range [][2]Layout{{OwnLayout, "2"}, {"2", OwnLayout}} {
		have, want := renderedIn(way[0]), renderedIn(way[1])
		plan := Diff(want, have)
		if len(plan.AddEntries)+len(plan.DelEntries)+len(plan.Jumps) > 0 {
			t.Errorf("%v: the takeover changes sets or jumps that are in force:\n%s", way, plan)
		}
		var created, destroyed []string
		for _, s := range plan.CreateSets {
			created = append(created, s.Name)
		}
		for _, s := range plan.DestroySets {
			destroyed = append(destroyed, s.Name)
			if s.Family != have.Sets.Get(s.Name).Family {
				t.Errorf("%v: %s is to be destroyed as a set of %s", way, s.Name, s.Family)
			}
		}
		ofLayout := func(r Ruleset) []string {
			return slices.DeleteFunc(slices.Sorted(r.Sets.Keys()), func(name string) bool { return slices.Contains(shared, name) })
		}
		if diff := cmp.Diff(ofLayout(want), created); diff != "" {
			t.Errorf("%v: sets that are created (-want +got):\n%s", way, diff)
		}
		if diff := cmp.Diff(ofLayout(have), destroyed); diff != "" {
			t.Errorf("%v: sets that are destroyed (-want +got):\n%s", way, diff)
		}
		for _, f := range Families {
			text := plan.Restore[f]
			for chain := range have.Tables[f].Chains.All() {
				if gone := strings.Contains(text, "\n-X "+chain+"\n"); gone == slices.Contains(shared, chain) {
					t.Errorf("%v: %s removes %s: %v", way, f, chain, gone)
				}
			}
			for chain := range want.Tables[f].Chains.All() {
				if !strings.Contains(text, "\n:"+chain+" - [0:0]\n") {
					t.Errorf("%v: %s does not write %s", way, f, chain)
				}
			}
		}
	}
}
