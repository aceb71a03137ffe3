package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestWhatEarlierRulesMakeUnreachableIsLeftOut(t *testing.T) {
	const accept, deny, pass = policy.Accept, policy.Deny, policy.Pass
	rule := func(a policy.Action, peer, ports string) policy.Rule { return ruleNamed(0, a, peer, ports) }
	blocks := func(name string) policy.Rule {
		return policy.Rule{Action: accept, Ports: portsNamed("any"), Peer: policy.Peer{Kind: policy.InBlocks, Set: policy.SetID(name), Blocks: []policy.Block{block("10.9.0.0/16")}}}
	}
	named := func(set string) policy.Rule {
		return policy.Rule{Action: accept, Peer: peerNamed("s1"), Ports: policy.Ports{Kind: policy.InPorts, Set: policy.SetID(set)}}
	}
	logged := rule(deny, "s1", "tcp/80")
	logged.Log = true
	for name, tt := range map[string]struct {
		rules []policy.Rule
		left  []int
	}{
		"the same again":                       {[]policy.Rule{rule(accept, "s1", "tcp/80"), rule(deny, "s1", "tcp/80")}, []int{0}},
		"another peer":                         {[]policy.Rule{rule(accept, "s1", "tcp/80"), rule(deny, "s2", "tcp/80")}, []int{0, 1}},
		"another protocol":                     {[]policy.Rule{rule(accept, "s1", "tcp/80"), rule(deny, "s1", "udp/80")}, []int{0, 1}},
		"all ports before":                     {[]policy.Rule{rule(accept, "s1", "any"), rule(pass, "s1", "tcp/80 udp/1-9")}, []int{0}},
		"all ports behind":                     {[]policy.Rule{rule(accept, "s1", "tcp/80"), rule(deny, "s1", "any")}, []int{0, 1}},
		"all peers before":                     {[]policy.Rule{rule(accept, "any", "tcp/80"), rule(deny, "s1", "tcp/80")}, []int{0}},
		"all peers behind":                     {[]policy.Rule{rule(accept, "s1", "tcp/80"), rule(deny, "any", "tcp/80")}, []int{0, 1}},
		"a range around":                       {[]policy.Rule{rule(accept, "s1", "tcp/80-90"), rule(deny, "s1", "tcp/81-90")}, []int{0}},
		"a range that ends too soon":           {[]policy.Rule{rule(accept, "s1", "tcp/80-90"), rule(deny, "s1", "tcp/81-91")}, []int{0, 1}},
		"a range that begins too late":         {[]policy.Rule{rule(accept, "s1", "tcp/80-90"), rule(deny, "s1", "tcp/79-90")}, []int{0, 1}},
		"its ports in two rules":               {[]policy.Rule{rule(accept, "s1", "tcp/80"), rule(deny, "any", "udp/53"), rule(deny, "s1", "tcp/80 udp/53")}, []int{0, 1, 2}},
		"its ports in two rules of its peer":   {[]policy.Rule{rule(accept, "s1", "tcp/80"), rule(deny, "s1", "udp/53"), rule(deny, "s1", "udp/53 tcp/80")}, []int{0, 1}},
		"one of its ports":                     {[]policy.Rule{rule(accept, "s1", "tcp/80"), rule(deny, "s1", "tcp/80 tcp/81")}, []int{0, 1}},
		"what is logged stays, for its counts": {[]policy.Rule{rule(accept, "any", "any"), logged, rule(deny, "s1", "tcp/80")}, []int{0, 1}},
		"what is not asked hides nothing":      {[]policy.Rule{{Action: accept, Ports: portsNamed("any")}, rule(deny, "s1", "tcp/80")}, []int{1}},
		"blocks by their name":                 {[]policy.Rule{blocks("b"), blocks("c"), blocks("b")}, []int{0, 1}},
		"blocks without a name":                {[]policy.Rule{blocks(""), blocks("")}, []int{0, 1}},
		"named ports are not compared":         {[]policy.Rule{named("p"), named("p")}, []int{0, 1}},
		"named ports behind all":               {[]policy.Rule{rule(deny, "s1", "any"), named("p")}, []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			pl := &pipeline{rendering: &rendering{Options: listOptions}}
			var steps []step
			for i, r := range tt.rules {
				r.Index = i
				steps = append(steps, step{policy: &policy.Policy{}, rule: r})
			}
			var left []int
			for _, s := range pl.reachable(steps) {
				left = append(left, s.rule.Index)
			}
			if diff := cmp.Diff(tt.left, left); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestPartsOfPortsHaveAllThatMayMatch: for each port the part that it is in, or the rest, has all steps that may match it, in their order; no port is in two.
func TestPartsOfPortsHaveAllThatMayMatch(t *testing.T) {
	random := rand.New(rand.NewPCG(16, 2))
	split := 0
	for range 2000 {
		var steps []step
		wide := random.IntN(10)
		for i := range random.IntN(60) {
			protocol := []string{"tcp", "udp", "sctp"}[random.IntN(3)]
			ports := fmt.Sprintf("%s/%d", protocol, 1<<random.IntN(16)-random.IntN(2))
			switch {
			case random.IntN(10) == 0:
				ports += fmt.Sprintf(" tcp/%d", random.IntN(9))
			case random.IntN(10) < wide/3:
				ports = fmt.Sprintf("%s/%d-%d", protocol, random.IntN(40), 40+random.IntN(60000))
			case random.IntN(10) < wide/3:
				ports = "any"
			}
			steps = append(steps, step{policy: &policy.Policy{}, rule: ruleNamed(i, policy.Accept, "any", ports), whole: ports == "any" && i%2 == 0})
		}
		parts, rest := splitByPorts(steps, 1+random.IntN(5))
		all := len(rest)
		for _, p := range parts {
			all += len(p.steps)
		}
		if len(parts) > 0 {
			split++
			if all > 2*len(steps) {
				t.Fatalf("%d steps have become %d", len(steps), all)
			}
		}
		for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP} {
			for _, port := range []uint16{0, 1, 2, 3, 4, 7, 8, 15, 16, 255, 256, 1023, 1024, 32767, 32768, 65535} {
				at := policy.PortRange{Protocol: protocol, First: port, Last: port}
				got, in := rest, 0
				for _, p := range parts {
					if p.ports.Protocol == protocol && p.ports.First <= port && port <= p.ports.Last {
						got, in = p.steps, in+1
					}
				}
				indexes := func(steps []step) (all []int) {
					for _, s := range steps {
						if s.mayMatch(at) {
							all = append(all, s.rule.Index)
						}
					}
					return all
				}
				if diff := cmp.Diff(indexes(steps), indexes(got)); diff != "" || in > 1 {
					t.Fatalf("%s/%d is in %d parts, and may be matched by (-in the list +there):\n%s", protocol, port, in, diff)
				}
			}
		}
	}
	if split < 500 {
		t.Errorf("%d lists were split, which says little", split)
	}
}

// TestWhatIsSaidOfAllPortsOfAPart: a step that is for all of a part's ports need not be asked about them.
func TestWhatIsSaidOfAllPortsOfAPart(t *testing.T) {
	for ports, want := range map[string]bool{
		"any": true, "tcp/80-90": true, "tcp/0-65535": true, "udp/1 tcp/79-91": true,
		"tcp/81-90": false, "tcp/80-89": false, "udp/80-90": false, "tcp/80": false, "tcp/80-85 tcp/86-90": false,
	} {
		if got := covers(portsNamed(ports), policy.PortRange{Protocol: policy.TCP, First: 80, Last: 90}); got != want {
			t.Errorf("%s has all of tcp/80-90: %v, want %v", ports, got, want)
		}
	}
	if covers(policy.Ports{Kind: policy.InPorts}, policy.AllPorts(policy.TCP)) || covers(policy.Ports{}, policy.AllPorts(policy.TCP)) {
		t.Error("named ports, or none, are taken for all")
	}
}

// TestAUnionHasNothingThatNoPartHas at any step between the entries of two nodes: else a packet would be led to a run, and no rule of it would match.
func TestAUnionHasNothingThatNoPartHas(t *testing.T) {
	random := rand.New(rand.NewPCG(16, 3))
	node := func() policy.Node {
		n := asked(rulesFor(40, aSetEach))
		for id := range n.Sets.All() {
			var members []policy.Member
			for _, f := range Families {
				for range random.IntN(4) {
					members = append(members, policy.Member{Addr: policy.AddrOf(addressOf(f, fmt.Sprintf("s%d", random.IntN(60))))})
				}
			}
			slices.SortFunc(members, policy.Member.Compare)
			n.Sets = n.Sets.With(id, policy.Set{Kind: policy.Addresses, Members: policy.MembersOf(slices.Compact(members))})
		}
		return n
	}
	n := node()
	kept := Renderer{}
	have := kept.Render(n, listOptions, Ruleset{})
	partsOf := map[string][]string{}
	for name, u := range kept.unions {
		for _, id := range u.of {
			partsOf[name] = append(partsOf[name], OwnLayout.setName(HashIP, u.set.Family, string(id)))
		}
	}
	if len(partsOf) < 4 {
		t.Fatalf("there are %d unions", len(partsOf))
	}
	holds := map[string]map[Entry]bool{}
	for name, s := range have.Sets.All() {
		holds[name] = map[Entry]bool{}
		for e := range s.All() {
			holds[name][e] = true
		}
	}
	check := func(what string) {
		for union, parts := range partsOf {
			for e := range holds[union] {
				if !slices.ContainsFunc(parts, func(p string) bool { return holds[p][e] }) {
					t.Fatalf("%s: %v is in the union %s, and in none of its parts", what, e.Prefix, union)
				}
			}
		}
	}
	check("at first")
	steps := 0
	for range 30 {
		n = node()
		want := kept.Render(n, listOptions, have)
		plan := Diff(want, have)
		for _, s := range plan.AddEntries {
			for _, e := range s.Entries {
				holds[s.Set][e] = true
				steps++
			}
			check("adding to " + s.Set)
		}
		for _, s := range plan.DelEntries {
			for _, e := range s.Entries {
				delete(holds[s.Set], e)
				check("deleting from " + s.Set)
				steps++
			}
		}
		have = want
		for union, parts := range partsOf {
			all := map[Entry]bool{}
			for _, p := range parts {
				for e := range holds[p] {
					all[e] = true
				}
			}
			if diff := cmp.Diff(all, holds[union], cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Fatalf("%s is not the union of its parts (-want +got):\n%s", union, diff)
			}
		}
	}
	if steps < 1000 {
		t.Errorf("%d entries came or went, which says little", steps)
	}
}

// TestSetsThatWouldBeMuchInUnionsAreNotUnited, and one that comes to be much, or is not any more, is asked as a Renderer would that has never seen it
// otherwise.
func TestSetsThatWouldBeMuchInUnionsAreNotUnited(t *testing.T) {
	// 40 rules have a set each, and so many have the set s20, which has so many members.
	node := func(members, rules int) policy.Node {
		n := asked(rulesFor(40, aSetEach), rulesFor(rules-1, func(i int) (string, string) { return "s20", fmt.Sprintf("udp/%d", 1+i) }))
		many := policy.Set{Kind: policy.Addresses}
		for i := range members {
			many.Members = many.Members.Edited(nil, []policy.Member{{Addr: policy.AddrOf(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}))}})
		}
		n.Sets = n.Sets.With("s20", many)
		return n
	}
	isUnited := func(r Ruleset) bool {
		for name, s := range r.Sets.All() {
			if isUnion(name) && slices.ContainsFunc(s.Entries(), func(e Entry) bool { return e.Prefix.IPs().Addr() == netip.AddrFrom4([4]byte{10, 2, 0, 0}) }) {
				return true
			}
		}
		return false
	}
	var kept Renderer
	var have Ruleset
	for _, tt := range []struct {
		members, rules int
		united         bool
	}{
		{1, 1, true}, {4080, 1, true}, {4081, 1, false}, {4082, 1, false}, {2032, 2, true}, {2033, 2, false}, {2032, 2, true}, {2032, 3, false}, {1, 240, true}, {1, 241, false},
	} {
		n := node(tt.members, tt.rules)
		want := Render(n, listOptions)
		have = kept.Render(n, listOptions, have)
		if want, got := want.String(), have.String(); want != got {
			t.Fatalf("%+v: (-made anew +got):\n%s", tt, cmp.Diff(want, got))
		}
		if got := isUnited(have); got != tt.united {
			t.Errorf("%+v: in a union: %v", tt, got)
		}
	}
	// The same policies, and another number of members.
	n := node(4080, 1)
	have = kept.Render(n, listOptions, have)
	n.Sets = n.Sets.With("s20", policy.Set{Kind: policy.Addresses, Members: node(4081, 1).Sets.Get("s20").Members})
	if have = kept.Render(n, listOptions, have); isUnited(have) || Render(n, listOptions).String() != have.String() {
		t.Errorf("a set that comes to be much stays in its union")
	}
}

// TestSetsOfTheNodeAreNotUnited: their entries come and go at other times than those of policies.
func TestSetsOfTheNodeAreNotUnited(t *testing.T) {
	n := asked(rulesFor(40, aSetEach))
	n.Shut = "s10"
	n.Closed = policy.Closed{Ranges: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Known: "s11"}
	unions, lists := 0, ""
	rendered := Render(n, listOptions)
	for name, s := range rendered.Sets.All() {
		if isUnion(name) {
			unions++
			for _, id := range []string{"s10", "s11"} {
				if slices.ContainsFunc(s.Entries(), func(e Entry) bool { return e.Prefix.IPs().Addr() == addressOf(s.Family, id) }) {
					t.Errorf("%s has what %s has", name, id)
				}
			}
		}
	}
	for chain, rules := range rendered.Tables[IPv4].Chains.All() {
		if strings.HasPrefix(chain, "RF-v1-IR-") {
			lists += fmt.Sprint(rules)
		}
	}
	for _, set := range []string{OwnLayout.shutSet(IPv4), OwnLayout.knownSet(IPv4, "s11")} {
		if unions == 0 || !strings.Contains(lists, set) {
			t.Errorf("%d unions; the list asks %s itself: %v", unions, set, strings.Contains(lists, set))
		}
	}
}

// A short list is what it always was.
func TestShortListsAreNotCut(t *testing.T) {
	for n, want := range map[int]bool{DefaultListLength: false, DefaultListLength + 1: true} {
		rendered := Render(asked(rulesFor(n, aSetEach)), listOptions)
		cut := slices.ContainsFunc(rendered.names(), isUnion)
		if cut != want {
			t.Errorf("a list of %d is cut: %v", n, cut)
		}
	}
}
