package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/trace"
)

var listOptions = Options{Families: Families[:], Table: "security", SelfMatch: true, NFLogGroup: DefaultNFLogGroup}

// asked is a node with one pod, 10.0.0.1, that policies with these rules are about, for ingress and in the stage Admin rules. Each set that they name has one
// address of either family: see addressOf.
func asked(policies ...[]policy.Rule) policy.Node {
	n := policy.Node{Sets: policy.MapOf(map[policy.SetID]policy.Set{})}
	e := policy.Endpoint{Namespace: "x", Name: "pod", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}
	for i, rules := range policies {
		p := policy.Policy{Ref: policy.Ref{Kind: "ClusterNetworkPolicy", Name: fmt.Sprintf("p%d", i)}, Stage: policy.AdminRules}
		p.Rules[policy.Ingress] = rules
		n.Policies = append(n.Policies, p)
		e.Applies[policy.Ingress][policy.AdminRules] = append(e.Applies[policy.Ingress][policy.AdminRules], i)
		for _, r := range rules {
			if id := r.Peer.Set; id != "" {
				n.Sets = n.Sets.With(id, policy.Set{Kind: policy.Addresses, Members: membersOf(id)})
			}
		}
	}
	n.Endpoints = []policy.Endpoint{e}
	return n
}

// membersOf are the addresses of a set: its own, and those of the sets that its ID names too.
func membersOf(id policy.SetID) policy.Members {
	var all []policy.Member
	for _, f := range Families {
		for _, one := range strings.Split(string(id), ",") {
			all = append(all, policy.Member{Addr: policy.AddrOf(addressOf(f, one))})
		}
	}
	slices.SortFunc(all, policy.Member.Compare)
	return policy.MembersOf(all)
}

// addressOf is the address of the pod whose set is called "s1", or alike.
func addressOf(f Family, name string) netip.Addr {
	var i int
	if _, err := fmt.Sscanf(name, "s%d", &i); err != nil {
		panic(err)
	}
	if f == IPv4 {
		return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 14: byte(i >> 8), 15: byte(i)})
}

// The parts of rules, by short names: "any", "s1" and "s1,s2" are peers; "any", "tcp/80" and "udp/1-1023 tcp/80" are ports.

func peerNamed(name string) policy.Peer {
	if name == "any" {
		return policy.Peer{Kind: policy.AnyPeer}
	}
	return policy.Peer{Kind: policy.InSet, Set: policy.SetID(name)}
}

func portsNamed(names string) policy.Ports {
	if names == "any" {
		return policy.Ports{Kind: policy.AnyPort}
	}
	p := policy.Ports{Kind: policy.InRanges}
	for _, name := range strings.Fields(names) {
		r := policy.PortRange{Protocol: map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP}[name[:strings.IndexByte(name, '/')]]}
		ports := name[strings.IndexByte(name, '/')+1:]
		if n, _ := fmt.Sscanf(ports, "%d-%d", &r.First, &r.Last); n == 1 {
			r.Last = r.First
		}
		p.Ranges = append(p.Ranges, r)
	}
	return p
}

func ruleNamed(index int, a policy.Action, peer, ports string) policy.Rule {
	return policy.Rule{Index: index, Action: a, Peer: peerNamed(peer), Ports: portsNamed(ports)}
}

var actions = []policy.Action{policy.Accept, policy.Deny, policy.Pass}

// rulesFor are n rules; which says of each its peer and its ports.
func rulesFor(n int, which func(i int) (peer, ports string)) []policy.Rule {
	var rules []policy.Rule
	for i := range n {
		peer, ports := which(i)
		rules = append(rules, ruleNamed(i, actions[i%3], peer, ports))
	}
	return rules
}

func otherPorts(i int) (peer, ports string) {
	return fmt.Sprintf("s%d", i%9), fmt.Sprintf("udp/%d", 20000+i)
}
func aSetEach(i int) (peer, ports string) { return fmt.Sprintf("s%d", i), "tcp/443" }
func tenPorts(i int) (peer, ports string) {
	return fmt.Sprintf("s%d", i), fmt.Sprintf("tcp/%d", 8000+i%10)
}
func aFewForAll(i int) (peer, ports string) {
	if i%100 == 50 {
		return fmt.Sprintf("s%d", i), "any"
	}
	return otherPorts(i)
}

// TestAPacketMeetsFewRulesOfALongList: the longest way through 500 rules, in rules.
func TestAPacketMeetsFewRulesOfALongList(t *testing.T) {
	for name, tt := range map[string]struct {
		which func(int) (string, string)
		want  int
	}{
		"each for another port":                {otherPorts, 64},
		"each with another set":                {aSetEach, 72},
		"ten ports, and each with another set": {tenPorts, 40},
		"a few for all ports":                  {aFewForAll, 72},
	} {
		t.Run(name, func(t *testing.T) {
			chains := Render(asked(rulesFor(500, tt.which)), listOptions).Tables[IPv4].Chains
			list := ""
			for chain := range chains.All() {
				if strings.HasPrefix(chain, "RF-v1-IR-") {
					list = chain
				}
			}
			if got := longestWay(chains.Content(), list); got > tt.want || got < 16 {
				t.Errorf("a packet may meet %d rules, want at most %d", got, tt.want)
			}
		})
	}
}

// longestWay is how many rules a packet meets at most in a chain and those that it goes on to.
func longestWay(chains map[string][]Rule, chain string) int {
	longest := len(chains[chain])
	for i, r := range chains[chain] {
		if m := leadsTo.FindStringSubmatch(string(r)); m != nil {
			longest = max(longest, i+1+longestWay(chains, m[1]))
		}
	}
	return longest
}

// TestOneRuleOfALongListIsFewChains: a rule that comes, goes or changes in the middle of 500 rewrites what it stands in, and not the rest of the list.
func TestOneRuleOfALongListIsFewChains(t *testing.T) {
	for name, which := range map[string]func(int) (string, string){
		"other ports": otherPorts, "a set each": aSetEach, "ten ports": tenPorts, "a few for all ports": aFewForAll,
	} {
		for _, alone := range []bool{false, true} { // in a policy each, or all in one
			rules := func() [][]policy.Rule {
				all := rulesFor(500, which)
				for i := range all {
					all[i].Index = 0 // or all comments change behind a rule that comes
				}
				return [][]policy.Rule{all[:230], all[230:231], all[231:]}
			}
			before := rules()
			for change, after := range map[string][][]policy.Rule{
				"goes":    {before[0], nil, before[2]},
				"comes":   {before[0], {before[1][0], ruleNamed(0, policy.Deny, "s777", "udp/20230")}, before[2]},
				"changes": {before[0], {ruleNamed(0, policy.Deny, "s777", "tcp/443")}, before[2]},
			} {
				t.Run(fmt.Sprintf("%s/%s/alone=%v", name, change, alone), func(t *testing.T) {
					node := func(all [][]policy.Rule) policy.Node {
						if !alone {
							return asked(slices.Concat(all...))
						}
						var each [][]policy.Rule
						for _, r := range slices.Concat(all...) {
							each = append(each, []policy.Rule{r})
						}
						n := asked(each...)
						for i := range n.Policies { // not by their places
							r := n.Policies[i].Rules[policy.Ingress][0]
							n.Policies[i].Ref.Name = matchKey(r, portsKey(r.Ports))
						}
						return n
					}
					plan := Diff(Render(node(after), listOptions), Render(node(before), listOptions))
					rewritten := 0
					for line := range strings.Lines(plan.Restore[IPv4]) {
						if strings.HasPrefix(line, "-A") {
							rewritten++
						}
					}
					if rewritten == 0 || rewritten > 150 {
						t.Errorf("%d rules are written, want at most 150 of 500:\n%s", rewritten, plan)
					}
					if n := len(plan.CreateSets); n > 16 {
						t.Errorf("%d sets are made, want at most 16", n)
					}
				})
			}
		}
	}
}

// TestLongListsDecideAsShortOnes holds random lists, cut down to any length, to the reference semantics, and the points that their packets hit.
func TestLongListsDecideAsShortOnes(t *testing.T) {
	random := rand.New(rand.NewPCG(16, 1))
	pick := func(choices ...string) string { return choices[random.IntN(len(choices))] }
	inParts, inRuns, denied := 0, 0, 0
	for range 150 {
		var policies [][]policy.Rule
		kind := random.IntN(3)
		for range 1 + random.IntN(6) {
			var rules []policy.Rule
			for i := range random.IntN(20) {
				peer := pick("s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s1,s2", "s3,s4,s5", "s9,s1")
				ports := []string{"tcp/80", "udp/53", pick("tcp/80", "udp/53", "tcp/81", "sctp/9", "tcp/65535", "tcp/1", "tcp/80 udp/53", "udp/1-52", "tcp/81-9000")}[kind]
				if random.IntN(12) == 0 {
					peer, ports = pick("any", peer, peer), pick("any", ports, "tcp/0-65535")
				}
				r := ruleNamed(i, actions[random.IntN(3)], peer, ports)
				r.Log = random.IntN(4) == 0
				rules = append(rules, r)
			}
			policies = append(policies, rules)
		}
		n := asked(policies...)
		for i := range n.Policies {
			n.Policies[i].Audit = random.IntN(5) == 0
		}
		if random.IntN(2) == 0 { // what a list leads on to
			isolates := policy.Policy{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "x", Name: "own"}, Stage: policy.NetworkPolicies}
			isolates.Rules[policy.Ingress] = []policy.Rule{ruleNamed(0, policy.Accept, "s1,s2", "tcp/80"), ruleNamed(1, policy.Accept, "any", "udp/53")}
			n.Sets = n.Sets.With("s1,s2", policy.Set{Kind: policy.Addresses, Members: membersOf("s1,s2")})
			n.Endpoints[0].Applies[policy.Ingress][policy.NetworkPolicies] = []int{len(n.Policies)}
			n.Policies = append(n.Policies, isolates)
		}
		o := listOptions
		o.ListLength = random.IntN(8)
		rendered := Render(n, o)
		kernel, err := trace.Parse(rendered.String())
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			f := policy.Flow{Protocol: []policy.Protocol{policy.TCP, policy.TCP, policy.UDP, policy.SCTP, policy.ICMP}[random.IntN(5)]}
			if f.Protocol != policy.ICMP {
				f.DstPort = []uint16{80, 53, 81, 9, 65535, 1, 52, 8000}[random.IntN(8)]
			}
			f.Src, f.Dst = addressOf(IPv4, fmt.Sprintf("s%d", 1+random.IntN(10))), netip.MustParseAddr("10.0.0.1")
			want := n.Allows(f)
			got, err := kernel.Walk("FORWARD", trace.Packet{Src: f.Src, Dst: f.Dst, Protocol: uint8(f.Protocol), DstPort: f.DstPort})
			if err != nil {
				t.Fatal(err)
			}
			var notes, wanted []string
			for _, hit := range got.Hits {
				if m := noteHit.FindStringSubmatch(hit); m != nil {
					notes = append(notes, m[1])
				}
				if lostHit.MatchString(hit) {
					t.Errorf("%+v is led to a run, and no rule of it matches", f)
				}
				inParts, inRuns = inParts+strings.Count(hit, " -g RF-v1-IP-"), inRuns+strings.Count(hit, " -g RF-v1-IU-")
			}
			for _, d := range want.WouldDeny {
				wanted = append(wanted, d.Ref.String())
			}
			if !got.Passed {
				denied++
			}
			if got.Passed != want.Allowed || cmp.Diff(wanted, notes) != "" {
				t.Fatalf("length %d, %+v: the rules say %v and note %q, the policies %v and %q: %s\n%s\n%s",
					o.ListLength, f, got.Passed, notes, want.Allowed, wanted, want.Reason, strings.Join(got.Hits, "\n"), rendered)
			}
		}
	}
	if inParts < 400 || inRuns < 200 || denied < 400 {
		t.Errorf("%d packets were led to parts, %d to runs, and %d denied: that says little", inParts, inRuns, denied)
	}
}

var (
	noteHit = regexp.MustCompile(`^RF-v1-IW-\S+ -m comment --comment "would deny: (.*) ingress"$`)
	lostHit = regexp.MustCompile(`^RF-v1-[IE]U-\S+ -j DROP$`)
)

// TestListsShareTheRunsOfAPolicy: one pod is subject to more policies than another, and the rules of those that both have are there once.
func TestListsShareTheRunsOfAPolicy(t *testing.T) {
	aSetMore := func(i int) (string, string) { return aSetEach(100 + i) }
	n := asked(rulesFor(12, aSetEach), rulesFor(14, aSetMore))
	other := n.Endpoints[0]
	other.Name, other.Addrs = "other", []netip.Addr{netip.MustParseAddr("10.0.0.2")}
	third := rulesFor(9, func(i int) (string, string) { return aSetEach(200 + i) })
	p := n.Policies[0]
	p.Ref.Name = "p2"
	p.Rules[policy.Ingress] = third
	for _, r := range third {
		n.Sets = n.Sets.With(r.Peer.Set, policy.Set{Kind: policy.Addresses, Members: membersOf(r.Peer.Set)})
	}
	n.Policies = append(n.Policies, p)
	few := p // too few rules for a run, in front of the others
	few.Ref.Name, few.Rules[policy.Ingress] = "few", third[:3]
	n.Policies = append(n.Policies, few)
	other.Applies[policy.Ingress][policy.AdminRules] = []int{3, 0, 1, 2}
	n.Endpoints = append(n.Endpoints, other)
	lists, runs := 0, 0
	for chain := range Render(n, listOptions).Tables[IPv4].Chains.All() {
		lists, runs = lists+strings.Count(chain, "-IR-"), runs+strings.Count(chain, "-IU-")
	}
	if lists != 2 || runs != 3 {
		t.Errorf("%d lists have %d runs, want 2 and 3", lists, runs)
	}
}

// TestWhatDiffersIsInChainsOfItsOwn: rules that match the same, and whose comments are the same since the kernel takes no longer ones, and which do something else
// or stand in another tier.
func TestWhatDiffersIsInChainsOfItsOwn(t *testing.T) {
	same := func(a policy.Action) []policy.Rule {
		return slices.Concat(rulesFor(20, func(i int) (string, string) { return "s9", fmt.Sprintf("udp/%d", 1+i) }), func() (all []policy.Rule) {
			for i := range 20 {
				all = append(all, ruleNamed(100+i, a, fmt.Sprintf("s%d", i%9), fmt.Sprintf("tcp/%d", 80+i/9)))
			}
			return all
		}())
	}
	n := asked(same(policy.Accept), same(policy.Deny), same(policy.Accept))
	n.Policies[2].Stage = policy.BaselineRules
	n.Policies = append(n.Policies[:2:2], policy.Policy{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "x", Name: "nobody"}, Stage: policy.NetworkPolicies}, n.Policies[2])
	for _, i := range []int{0, 1, 3} {
		n.Policies[i].Ref.Name = strings.Repeat("x", 250) + fmt.Sprint(i)
	}
	n.Endpoints = nil
	for i, applies := range [][len(policy.Stages)][]int{
		{policy.AdminRules: {0}, policy.NetworkPolicies: {2}}, {policy.AdminRules: {1}}, {policy.BaselineRules: {3}},
	} {
		e := policy.Endpoint{Namespace: "x", Name: fmt.Sprint(i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})}}
		e.Applies[policy.Ingress] = applies
		n.Endpoints = append(n.Endpoints, e)
	}
	o := listOptions
	o.ListLength = 8
	rendered := Render(n, o)
	kernel, err := trace.Parse(rendered.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		pod    int
		from   string
		port   uint16
		passes bool
	}{
		{0, "s1", 80, true}, {0, "s3", 82, false}, {0, "s20", 80, false}, // what no rule is about, a NetworkPolicy denies
		{1, "s1", 80, false}, {1, "s20", 80, true},
		{2, "s1", 80, true}, {2, "s20", 80, true},
	} {
		p := trace.Packet{Src: addressOf(IPv4, tt.from), Dst: n.Endpoints[tt.pod].Addrs[0], Protocol: uint8(policy.TCP), DstPort: tt.port}
		got, err := kernel.Walk("FORWARD", p)
		if want := n.Allows(policy.Flow{Src: p.Src, Dst: p.Dst, Protocol: policy.TCP, DstPort: p.DstPort}); err != nil || got.Passed != tt.passes || want.Allowed != tt.passes {
			t.Errorf("%+v: the rules say %v (%v), the policies %v\n%s\n%s", tt, got.Passed, err, want.Allowed, strings.Join(got.Hits, "\n"), rendered)
		}
	}
}
