package iptables

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// tenants is a node with some pods of each namespace, a policy of each, and a list of rules for all that is cluster-wide. The policy of a namespace has a rule
// for each of its peers.
func tenants(peers map[string][]string) policy.Node {
	n := policy.Node{Sets: policy.MapOf(map[policy.SetID]policy.Set{})}
	rule := func(a policy.Action, index int, set string) policy.Rule {
		n.Sets = n.Sets.With(policy.SetID(set), policy.Set{Kind: policy.Addresses, Members: policy.MembersOf([]policy.Member{{Addr: policy.AddrOf(netip.MustParseAddr("10.9.9.9"))}})})
		return policy.Rule{Action: a, Index: index, Log: true, Peer: policy.Peer{Kind: policy.InSet, Set: policy.SetID(set)}, Ports: policy.Ports{Kind: policy.AnyPort}}
	}
	all := policy.Policy{Ref: policy.Ref{Kind: "ClusterNetworkPolicy", Name: "all"}, Stage: policy.AdminRules}
	for i := range 5 {
		all.Rules[policy.Ingress] = append(all.Rules[policy.Ingress], rule(policy.Deny, i, fmt.Sprint("all-", i)))
	}
	n.Policies = append(n.Policies, all)
	for i, ns := range slices.Sorted(maps.Keys(peers)) {
		p := policy.Policy{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: ns, Name: "own"}, Stage: policy.NetworkPolicies}
		for k, peer := range peers[ns] {
			p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], rule(policy.Accept, k, peer))
		}
		n.Policies = append(n.Policies, p)
		for k := range 3 {
			e := policy.Endpoint{Namespace: ns, Name: fmt.Sprint(k), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{ns[0], ns[len(ns)/2], ns[len(ns)-1], byte(10*len(ns) + k)})}}
			e.Applies[policy.Ingress][policy.AdminRules], e.Applies[policy.Ingress][policy.NetworkPolicies] = []int{0}, []int{1 + i}
			n.Endpoints = append(n.Endpoints, e)
		}
	}
	return n
}

var keptOptions = Options{Families: Families[:], Table: "security", NFLogGroup: DefaultNFLogGroup, SelfMatch: true}

// What is another namespace's, or all namespaces', is not made again, whichever of them it was made for first.
func TestAChangeLeavesWhatOthersHave(t *testing.T) {
	before := map[string][]string{"a": {"x", "w"}, "b": {"x", "y"}, "c": {"z"}}
	for name, after := range map[string]map[string][]string{
		"nothing changes":          before,
		"a policy changes":         {"a": {"x", "y"}, "b": {"x", "y"}, "c": {"z"}},
		"the first namespace goes": {"b": {"x", "y"}, "c": {"z"}},
		"one comes in front":       {"0": {"z"}, "a": {"x"}, "b": {"x", "y"}, "c": {"z"}},
	} {
		t.Run(name, func(t *testing.T) {
			var r Renderer
			was := r.Render(tenants(before), keptOptions, Ruleset{})
			is := r.Render(tenants(after), keptOptions, was)
			if diff := cmp.Diff(Render(tenants(after), keptOptions), is, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Fatalf("(-made anew +got):\n%s", diff)
			}
			same := 0
			for _, b := range [][]string{{"b"}, {"c"}, {"b", "c"}} {
				for chain := range Render(tenants(only(before, b)), keptOptions).Tables[IPv4].Chains.All() {
					kept := chain != forwardChain && chain != inputChain && !isTree(chain)
					if !kept {
						continue
					}
					same++
					if x, y := was.Tables[IPv4].Chains.Get(chain), is.Tables[IPv4].Chains.Get(chain); len(x) == 0 || !policy.IsOneSlice(x, y) {
						t.Errorf("%s of %v is not what it was:\n%q\n%q", chain, b, x, y)
					}
				}
			}
			if same < 10 {
				t.Errorf("only %d chains were compared", same)
			}
			for name, set := range was.Sets.All() {
				if now, ok := is.Sets.Lookup(name); ok && !set.isOne(now) {
					t.Errorf("the entries of %s were made again", name)
				}
			}
		})
	}
}

func only(all map[string][]string, names []string) map[string][]string {
	some := map[string][]string{}
	for _, name := range names {
		some[name] = all[name]
	}
	return some
}

// isTree reports whether a chain is of a prefix tree, which all namespaces' addresses are in.
func isTree(chain string) bool {
	for _, d := range policy.Directions {
		for _, k := range treeKinds {
			if chain == OwnLayout.rootChain(d, k) {
				return true
			}
		}
	}
	return len(chain) > 8 && chain[7:9] == "T-"
}

// A tenant that goes leaves nothing behind.
func TestARendererKeepsWhatItsLastRulesetHas(t *testing.T) {
	var r Renderer
	var held Ruleset
	small := map[string][]string{"a": {"x"}}
	large := map[string][]string{"a": {"x"}}
	for i := range 50 {
		large[fmt.Sprint("t", i)] = []string{fmt.Sprint("peer-", i), "x"}
	}
	for _, peers := range []map[string][]string{small, large, small, nil} {
		n := tenants(peers)
		held = r.Render(n, keptOptions, held)
		kept := map[string]bool{}
		for f, table := range r.tables {
			for name := range table.pieces {
				if _, ok := held.Tables[f].Chains.Lookup(name); !ok {
					t.Errorf("%d namespaces: the chain %s is kept", len(peers), name)
				}
			}
			for _, d := range policy.Directions {
				for ns := range table.sections[d] {
					kept[ns] = true
				}
				for kind, tree := range table.trees[d] {
					if len(tree.leaves) != len(n.Endpoints) && f == IPv4 {
						t.Errorf("%d namespaces: %q has %d leaves", len(peers), kind, len(tree.leaves))
					}
				}
			}
		}
		for id, s := range r.sets {
			used := 0
			for _, own := range s.own {
				if _, ok := held.Sets.Lookup(own.Name); ok {
					used++
				} else if own.Name != "" {
					t.Errorf("%d namespaces: the set %s is kept", len(peers), own.Name)
				}
			}
			if used == 0 {
				t.Errorf("%d namespaces: the set %s is kept", len(peers), id)
			}
		}
		if len(kept) != len(peers) || len(r.endpoints) != len(peers) || len(r.policies) != len(n.Policies) || len(r.samplings) > 1+len(peers) {
			t.Errorf("%d namespaces: %d are kept, with %d policies", len(peers), len(kept), len(r.policies))
		}
	}
}

// Whatever of a policy stands in a chain's text, or decides about it, tells policies apart.
func TestPoliciesThatMakeOtherChainsAreNotTheSame(t *testing.T) {
	made := func(change func(*policy.Policy)) *policy.Policy {
		rule := policy.Rule{Index: 1, Name: "n", Action: policy.Deny, Peer: policy.Peer{Kind: policy.AnyPeer}, Ports: policy.Ports{Kind: policy.AnyPort}}
		second := rule
		second.Index, second.Action = 2, policy.Accept
		p := &policy.Policy{Ref: policy.Ref{Kind: "K", Namespace: "n", Name: "p"}, Part: "a", Stage: policy.AdminRules}
		p.Rules = [2][]policy.Rule{{rule, second}, {rule, second}}
		change(p)
		return p
	}
	same := made(func(*policy.Policy) {})
	if !samePolicy(same, same) || !samePolicy(same, made(func(*policy.Policy) {})) {
		t.Error("a policy is not the same as itself, or as one that is made anew")
	}
	changes := map[string]func(*policy.Policy){
		"kind":      func(p *policy.Policy) { p.Ref.Kind = "L" },
		"namespace": func(p *policy.Policy) { p.Ref.Namespace = "m" },
		"name":      func(p *policy.Policy) { p.Ref.Name = "q" },
		"part":      func(p *policy.Policy) { p.Part = "b" },
		"stage":     func(p *policy.Policy) { p.Stage = policy.BaselineRules },
		"audit":     func(p *policy.Policy) { p.Audit = true },
	}
	for _, d := range policy.Directions {
		changes[d.String()+": fewer"] = func(p *policy.Policy) { p.Rules[d] = p.Rules[d][:1] }
		changes[d.String()+": others"] = func(p *policy.Policy) { p.Rules[d] = p.Rules[d][1:] }
		changes[d.String()+": order"] = func(p *policy.Policy) { slices.Reverse(p.Rules[d]) }
		changes[d.String()+": index"] = func(p *policy.Policy) { p.Rules[d][1].Index++ }
		changes[d.String()+": rule's name"] = func(p *policy.Policy) { p.Rules[d][1].Name = "m" }
		changes[d.String()+": action"] = func(p *policy.Policy) { p.Rules[d][1].Action = policy.Pass }
		changes[d.String()+": log"] = func(p *policy.Policy) { p.Rules[d][1].Log = true }
		changes[d.String()+": peer"] = func(p *policy.Policy) { p.Rules[d][1].Peer = policy.Peer{Kind: policy.InSet, Set: "s"} }
		changes[d.String()+": ports"] = func(p *policy.Policy) { p.Rules[d][1].Ports = policy.Ports{Kind: policy.InPorts, Set: "s"} }
	}
	for name, change := range changes {
		if samePolicy(same, made(change)) {
			t.Errorf("policies are the same that differ in %s", name)
		}
	}
}
