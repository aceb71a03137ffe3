package ruleset

import (
	"fmt"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// walk renders the chains that decide about one direction. A packet enters the first tree by a jump and goes on by gotos alone, so that
// RETURN, wherever it is met, means "allowed in this direction":
//
//	admin tree ─> Admin rules ──end──> policy tree ─> Admin isolation ─> NetworkPolicies
//	                   │                                     │                │ none isolates
//	                   └────────Pass───────> pass tree ──────┴──────> Baseline rules ─> base tree ─> Baseline isolation
//
// A tree finds a packet's endpoint by its address. Each list of rules is one chain for all endpoints that have the same list; since it does not
// know which of them a packet is of, what follows it is found by a tree again. What is isolation is few rules for few endpoints, and leads
// on directly. A stage that no policy is in has no chains, and a tree that no endpoint needs does not exist.
type walk struct {
	*renderer
	direction policy.Direction
	has       map[treeKind]bool
	isolates  bool // Admin isolation applies to an endpoint
	shared    map[sharing]*sharedRules
	places    map[*policy.Endpoint]sharing
	subjects  map[int][]Entry   // of policies in shared chains
	texts     map[texted][]Rule // of policies that several chains have
	groups    map[string]string // names of groups of enforced NetworkPolicies, by their lists
}

// texted is a policy's rules that accept, with what stands before and behind their matches.
type texted struct {
	policy          int
	subject, target string
}

// treeKind is one of the trees of a direction.
type treeKind string

const (
	adminTree  treeKind = "ADMIN"
	policyTree treeKind = ""
	passTree   treeKind = "PASS"
	baseTree   treeKind = "BASE"
	noTree     treeKind = "none"
)

// depth bounds the height of a tree, and so the chains that a packet has entered: nf_tables refuses more than 16 nested jumps and
// gotos, counted from the base chain (NFT_JUMP_STACK_SIZE). The longest way is two to the root of the admin tree, two more in it, a list
// of rules, three in the policy tree, Admin isolation, audited NetworkPolicies, Baseline rules, two in the base tree, isolation, a
// denial that is logged: 15.
// A node of a tree that may not be higher is longer than fanOut.
func (k treeKind) depth() int {
	if k == baseTree {
		return 2
	}
	return 3
}

// render adds the direction's chains, and returns the root of its first tree, empty if nothing is policed.
func (w *walk) render() string {
	w.groups = map[string]string{}
	w.findTrees()
	w.findShared()
	first := ""
	for _, kind := range []treeKind{baseTree, passTree, policyTree, adminTree} {
		if !w.has[kind] {
			continue
		}
		var leaves []leaf
		for i := range w.node.Endpoints {
			leaves = append(leaves, w.leaves(kind, &w.node.Endpoints[i])...)
		}
		otherwise := ""
		if kind == adminTree && w.has[policyTree] {
			otherwise = rootChain(w.direction, policyTree)
		}
		w.addTree(kind, leaves, otherwise)
		first = rootChain(w.direction, kind)
	}
	return first
}

// findTrees says which trees are needed.
func (w *walk) findTrees() {
	w.has = map[treeKind]bool{}
	var passes bool
	for i := range w.node.Endpoints {
		e := &w.node.Endpoints[i]
		if !slices.ContainsFunc(e.Addrs, w.inFamily) {
			continue
		}
		by := &e.Applies[w.direction]
		behindPass := len(by[policy.NetworkPolicies])+len(by[policy.BaselineRules])+len(by[policy.BaselineIsolation]) > 0
		w.isolates = w.isolates || len(by[policy.AdminIsolation]) > 0
		passes = passes || slices.ContainsFunc(by[policy.AdminRules], w.hasPass)
		w.has[adminTree] = w.has[adminTree] || len(by[policy.AdminRules]) > 0
		w.has[policyTree] = w.has[policyTree] || behindPass || len(by[policy.AdminIsolation]) > 0
		w.has[passTree] = w.has[passTree] || behindPass
		w.has[baseTree] = w.has[baseTree] || len(by[policy.BaselineRules]) > 0 && len(by[policy.BaselineIsolation]) > 0
	}
	// Without Admin isolation to leave out, the policy tree does for both.
	w.has[passTree] = w.has[passTree] && passes && w.isolates
}

func (w *walk) hasPass(p int) bool {
	return slices.ContainsFunc(w.node.Policies[p].Rules[w.direction], func(r policy.Rule) bool { return r.Action == policy.Pass })
}

// leaves are an endpoint's addresses in a tree, if it has a place there.
func (w *walk) leaves(kind treeKind, e *policy.Endpoint) []leaf {
	var leaves []leaf
	chain := ""
	for _, a := range e.Addrs {
		if !w.inFamily(a) {
			continue
		}
		if chain == "" {
			if chain = w.entry(kind, e); chain == "" {
				return nil
			}
		}
		leaves = append(leaves, leaf{a, chain})
	}
	return leaves
}

// entry is the chain that a tree leads an endpoint's packets to, empty if there is none.
func (w *walk) entry(kind treeKind, e *policy.Endpoint) string {
	by := &e.Applies[w.direction]
	switch kind {
	case adminTree:
		pass := passTree
		if !w.isolates {
			pass = policyTree
		}
		return w.rules(by[policy.AdminRules], policyTree, pass)
	case policyTree:
		return w.isolation(by[policy.AdminIsolation], w.fromNetworkPolicies(e))
	case passTree:
		return w.fromNetworkPolicies(e)
	case baseTree:
		if len(by[policy.BaselineRules]) > 0 {
			return w.isolation(by[policy.BaselineIsolation], "")
		}
	}
	return ""
}

func (w *walk) fromNetworkPolicies(e *policy.Endpoint) string {
	by := &e.Applies[w.direction]
	var next string
	if len(by[policy.BaselineRules]) > 0 {
		next = w.rules(by[policy.BaselineRules], baseTree, noTree)
	} else {
		next = w.isolation(by[policy.BaselineIsolation], "")
	}
	if len(by[policy.NetworkPolicies]) == 0 {
		return next
	}
	at := w.places[e]
	switch s := w.shared[at]; {
	case s == nil:
		return w.isolation(by[policy.NetworkPolicies], next)
	case at.audit:
		return w.behindAudit(w.sharedAudit(s), next)
	default:
		return w.sharedIsolation(s)
	}
}

// to is the target that leads to a tree, or allows where there is none.
func (w *walk) to(kind treeKind) string {
	if w.has[kind] {
		return "-g " + rootChain(w.direction, kind)
	}
	return "-j RETURN"
}

// rules adds the chain of a list of policies whose rules are asked in their order, and returns its name, empty for an empty list. What
// matches none goes on to one tree, what a rule passes to another.
func (w *walk) rules(policies []int, next, pass treeKind) string {
	if len(policies) == 0 {
		return ""
	}
	return w.chain(listChain(w.direction, w.names(policies)), func() []Rule {
		var rules []Rule
		for _, i := range policies {
			p := &w.node.Policies[i]
			if p.Audit {
				rules = append(rules, Rule("-j "+w.auditedRules(p)))
				continue
			}
			for _, r := range p.Rules[w.direction] {
				target := ""
				switch r.Action {
				case policy.Accept:
					target = "-j RETURN"
				case policy.Deny:
					target = w.denial(p.Ref, r)
				case policy.Pass:
					target = w.to(pass)
				default:
					continue
				}
				rules = append(rules, w.ruleTexts(p.Ref, w.direction, r, "", target)...)
			}
		}
		if w.has[next] {
			rules = append(rules, Rule(w.to(next)))
		}
		return rules
	})
}

// auditedRules adds the chain of an audited policy whose rules are asked in their order. It always returns.
func (w *walk) auditedRules(p *policy.Policy) string {
	return w.chain(auditChain(w.direction, []string{p.Ref.Kind, p.Ref.Namespace, p.Ref.Name, p.Part}), func() []Rule {
		var rules []Rule
		for _, r := range p.Rules[w.direction] {
			switch r.Action {
			case policy.Accept, policy.Pass:
				rules = append(rules, w.ruleTexts(p.Ref, w.direction, r, "", "-j RETURN")...)
			case policy.Deny:
				rules = append(rules, w.ruleTexts(p.Ref, w.direction, r, "", "-g "+w.note(p.Ref))...)
			}
		}
		return rules
	})
}

// isolation adds the chain of the policies that isolate an endpoint together, and returns its name; without policies it is the chain that
// follows.
//
// The rules of all policies stand in it, because only a chain that is entered by goto can return from the whole direction.
func (w *walk) isolation(policies []int, next string) string {
	if len(policies) == 0 {
		return next
	}
	first := &w.node.Policies[policies[0]]
	if first.Audit {
		return w.auditedIsolation(policies, next)
	}
	accept := "-j RETURN"
	plain := first.Stage == policy.NetworkPolicies // endpoints have long lists of those alone
	if plain {
		if name, ok := w.groups[listKey(policies)]; ok {
			return name
		}
	}
	names := w.names(policies)
	if first.Stage == policy.AdminIsolation && next != "" {
		accept = "-g " + next
		names = append(names, next)
	}
	name := w.chain(groupChain(w.direction, names), func() []Rule {
		return append(w.accepting(policies, accept), w.isolationDenial(policies)...)
	})
	if plain {
		w.groups[listKey(policies)] = name
	}
	return name
}

// accepting are the rules of policies that add up.
func (w *walk) accepting(policies []int, target string) []Rule {
	var rules []Rule
	for _, i := range policies {
		rules = append(rules, w.acceptingOf(i, "", target)...)
	}
	return rules
}

// acceptingOf are the rules of one policy that accept, for the pods that a match on the subject leaves; empty is all that come. Chains that have them share
// their texts.
func (w *walk) acceptingOf(i int, subject, target string) []Rule {
	key := texted{i, subject, target}
	if rules, ok := w.texts[key]; ok {
		return rules
	}
	var rules []Rule
	p := &w.node.Policies[i]
	for _, r := range p.Rules[w.direction] {
		if r.Action == policy.Accept {
			rules = append(rules, w.ruleTexts(p.Ref, w.direction, r, subject, target)...)
		}
	}
	if w.texts == nil {
		w.texts = map[texted][]Rule{}
	}
	w.texts[key] = rules
	return rules
}

// auditedIsolation notes what the policies would deny together, and goes on.
func (w *walk) auditedIsolation(policies []int, next string) string {
	audit := w.chain(auditChain(w.direction, w.names(policies)), func() []Rule {
		rules := w.accepting(policies, "-j RETURN")
		if w.isStageOfNetworkPolicies(policies) {
			rules = append(rules, w.selfRules()...)
		}
		for _, i := range policies {
			rules = append(rules, Rule("-j "+w.note(w.node.Policies[i].Ref)))
		}
		return rules
	})
	return w.behindAudit(audit, next)
}

// behindAudit is the chain that asks audited policies and goes on.
func (w *walk) behindAudit(audit, next string) string {
	if next == "" {
		return audit
	}
	return w.chain(groupChain(w.direction, []string{audit, next}), func() []Rule {
		return []Rule{Rule("-j " + audit), Rule("-g " + next)}
	})
}

func (w *walk) isStageOfNetworkPolicies(policies []int) bool {
	return w.node.Policies[policies[0]].Stage == policy.NetworkPolicies
}

// selfRules let a pod reach itself through its Service, which NetworkPolicies do not forbid.
func (w *walk) selfRules() []Rule {
	if !w.SelfMatch {
		return nil
	}
	return []Rule{Rule(fmt.Sprintf("-m bpf --bytecode %q -j RETURN", selfMatch[w.family]))}
}

// names tell a list of policies from all others.
func (w *walk) names(policies []int) []string {
	names := make([]string, 0, 4*len(policies))
	for _, i := range policies {
		p := &w.node.Policies[i]
		names = append(names, p.Ref.Kind, p.Ref.Namespace, p.Ref.Name)
		if p.Part != "" {
			names = append(names, p.Part)
		}
	}
	return names
}

// chain adds a chain, unless it is there already, and returns its name.
func (w *walk) chain(name string, rules func() []Rule) string {
	if _, ok := w.chains[name]; !ok {
		w.chains[name] = rules()
	}
	return name
}
