package dataplane

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// everyKind is a node with each kind of peer and of ports, in both directions and both families.
func everyKind(t *testing.T) policy.Node {
	t.Helper()
	addr := func(text string) policy.Addr { return policy.AddrOf(netip.MustParseAddr(text)) }
	pods := policy.Set{Kind: policy.Addresses, Members: policy.MembersOf([]policy.Member{{Addr: addr("10.0.1.1")}, {Addr: addr("fd00:1::1")}})}
	named := policy.Set{Kind: policy.AddressPorts, Members: policy.MembersOf([]policy.Member{
		{Addr: addr("10.0.1.1"), Protocol: policy.TCP, Port: 80}, {Addr: addr("fd00:1::1"), Protocol: policy.TCP, Port: 8080},
	})}
	var blocks, many []policy.Block
	for _, b := range []string{"10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0"} {
		p := mustPrefix(t, b)
		except := netip.PrefixFrom(p.Addr(), p.Bits()+8)
		blocks = append(blocks, policy.Block{Prefix: p, Except: []netip.Prefix{except}})
	}
	for i := range 20 {
		many = append(many, policy.Block{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)},
			policy.Block{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i)}), 16)})
	}
	var rules []policy.Rule
	for _, peer := range []policy.Peer{
		{Kind: policy.AnyPeer}, {Kind: policy.InSet, Set: "pods"}, {Kind: policy.InBlocks, Blocks: blocks}, {Kind: policy.InBlocks, Blocks: many},
	} {
		for _, ports := range []policy.Ports{
			{Kind: policy.AnyPort},
			{Kind: policy.InRanges, Ranges: []policy.PortRange{policy.AllPorts(policy.TCP)}},
			{Kind: policy.InRanges, Ranges: []policy.PortRange{{Protocol: policy.TCP, First: 80, Last: 80}, {Protocol: policy.TCP, First: 443, Last: 445},
				{Protocol: policy.UDP, First: 53, Last: 53}, {Protocol: policy.SCTP, First: 1, Last: 65535}}},
			{Kind: policy.InPorts, Set: "named", Protocol: policy.TCP},
		} {
			rules = append(rules, policy.Rule{Index: len(rules), Action: policy.Accept, Peer: peer, Ports: ports})
		}
	}
	node := policy.Node{
		Policies: []policy.Policy{{
			Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "team-a", Name: "everything"}, Stage: policy.NetworkPolicies, Rules: [2][]policy.Rule{rules, rules},
		}},
		Sets: policy.MapOf(map[policy.SetID]policy.Set{"pods": pods, "named": named}),
	}
	for i := range 40 {
		node.Endpoints = append(node.Endpoints, policy.Endpoint{
			Namespace: "team-a", Name: string(rune('A' + i)), Applies: everyDirection(policy.NetworkPolicies, 0),
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})},
		})
	}
	return node
}

// everyDirection is one policy that applies in both directions.
func everyDirection(s policy.Stage, p int) (applies [2][len(policy.Stages)][]int) {
	applies[policy.Ingress][s], applies[policy.Egress][s] = []int{p}, []int{p}
	return applies
}

// tiered is a node of many pods in which every stage has policies, enforced and audited ones: the longest ways that a packet may take. The rules
// are those of everyKind, with every action.
func tiered(t *testing.T) policy.Node {
	t.Helper()
	node := everyKind(t)
	rules := node.Policies[0].Rules[policy.Ingress]
	node.Policies, node.Endpoints = nil, nil
	add := func(kind string, s policy.Stage, audit bool) int {
		p := policy.Policy{Ref: policy.Ref{Kind: kind, Name: s.String()}, Stage: s, Audit: audit}
		if audit {
			p.Ref.Name += ", audited"
		}
		for i, r := range rules {
			r.Name = `a name with "quotes", a \ and a '`
			if !s.Isolates() {
				r.Action, r.Log = []policy.Action{policy.Accept, policy.Deny, policy.Pass}[i%3], i%2 == 0
			}
			for d := range p.Rules {
				p.Rules[d] = append(p.Rules[d], r)
			}
		}
		node.Policies = append(node.Policies, p)
		return len(node.Policies) - 1
	}
	var enforced, audited [len(policy.Stages)]int
	for _, s := range policy.Stages {
		enforced[s], audited[s] = add("Enforced", s, false), add("Audited", s, true)
	}
	for i := range 600 {
		e := policy.Endpoint{Namespace: "team-a", Name: string(rune('A' + i)), Addrs: []netip.Addr{
			netip.AddrFrom4([4]byte{10, byte(i * 7), byte(i >> 4), byte(i * 13)}), netip.AddrFrom16([16]byte{0: 0xfd, 3: byte(i * 7), 14: byte(i >> 8), 15: byte(i)}),
		}}
		for d := range e.Applies {
			for _, s := range policy.Stages {
				switch {
				case i>>s%2 == 1 && i < 300: // every combination of stages
				case !s.Isolates():
					e.Applies[d][s] = []int{enforced[s], audited[s]}
				case s == policy.NetworkPolicies || i%5 == 0:
					e.Applies[d][s] = []int{audited[s]}
				default:
					e.Applies[d][s] = []int{enforced[s]}
				}
			}
		}
		node.Endpoints = append(node.Endpoints, e)
	}
	return node
}

// The kernel takes the longest ways, and what it holds reads back as what was rendered, with and without all denials logged, and with lists that are cut down.
func TestEveryStageReadsBackWithoutADifference(t *testing.T) {
	node := tiered(t)
	onEach(t, func(t *testing.T, d subject) {
		c := d.Capabilities()
		for length, log := range []bool{false, true, true} { // length 0 is the default, 1 has no runs, 2 has all
			options := iptables.Options{
				Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut, NFLogGroup: 4210, LogDenied: log, ListLength: length,
			}
			want := iptables.Render(node, options)
			mustApply(t, d, iptables.Diff(want, mustObserve(t, d)))
			if p := iptables.Diff(want, mustObserve(t, d)); !p.Empty() {
				t.Errorf("a difference is left: %+v", p)
			}
		}
	})
}

// What Render wants, Apply writes and Observe reads: then there is no difference left, and after a change of the node only the
// change is.
func TestWhatIsRenderedReadsBackWithoutADifference(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		c := d.Capabilities()
		options := iptables.Options{Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut}
		node := everyKind(t)
		for _, isolated := range []int{40, 7, 0, 40} {
			node := node
			node.Endpoints = node.Endpoints[:isolated]
			want := iptables.Render(node, options)
			mustApply(t, d, iptables.Diff(want, mustObserve(t, d)))
			got := mustObserve(t, d)
			if p := iptables.Diff(want, got); !p.Empty() {
				t.Errorf("with %d endpoints a difference is left: %+v", isolated, p)
			}
			if diff := cmp.Diff(want, got, addrs, empty); diff != "" {
				t.Errorf("with %d endpoints (-want +got):\n%s", isolated, diff)
			}
		}
	})
}
