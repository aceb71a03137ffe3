package iptables

import (
	"fmt"
	"maps"
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
//
// What is made for the endpoints of one namespace is a section. It depends on no other namespace's, but for the trees that there are.
type walk struct {
	*rendering
	direction policy.Direction
	needs
	sections []*section // in the order of the namespaces
	// Of all sections that are made in this render:
	texts  map[texted]text   // of policies that several chains have
	groups map[string]*piece // of enforced NetworkPolicies, by their lists
	sizes  []int             // rules of each policy, and one: 0 is not known
	// Of the section that is being made:
	shared   map[sharing]*sharedRules
	places   map[*policy.Endpoint]sharing
	subjects map[int][]Entry // of policies in shared chains
}

// texted is a policy's rules that accept, with what stands before and behind their matches.
type texted struct {
	policy          int
	subject, target string
}

// text are such rules, with the sets that they name.
type text struct {
	rules []Rule
	names *piece
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

// treeKinds are all, from the last that a packet meets to the first.
var treeKinds = []treeKind{baseTree, passTree, policyTree, adminTree}

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

// needs says of endpoints what of a direction they need.
type needs struct {
	lists    bool // Admin rules
	isolates bool // Admin isolation
	behind   bool // what comes behind that
	baseline bool // both Baseline rules and Baseline isolation
	passes   bool // a rule that passes
}

func (n needs) or(o needs) needs {
	return needs{n.lists || o.lists, n.isolates || o.isolates, n.behind || o.behind, n.baseline || o.baseline, n.passes || o.passes}
}

// has reports whether a tree is needed. Without Admin isolation to leave out, the policy tree does for the pass tree too.
func (n needs) has(kind treeKind) bool {
	switch kind {
	case adminTree:
		return n.lists
	case policyTree:
		return n.behind || n.isolates
	case passTree:
		return n.behind && n.passes && n.isolates
	case baseTree:
		return n.baseline
	}
	return false
}

// newWalk finds out which trees are needed. A section of the last render stays if all that it was made from is the same.
func newWalk(t *rendering, d policy.Direction, namespaces []namespace) *walk {
	w := &walk{rendering: t, direction: d, texts: map[texted]text{}, groups: map[string]*piece{}}
	for i := range namespaces {
		b := t.table.sections[d][namespaces[i].name]
		if b == nil || !namespaces[i].same {
			b = &section{asks: w.needsOf(namespaces[i].endpoints)}
		}
		w.sections = append(w.sections, b)
		w.needs = w.needs.or(b.asks)
	}
	for i, b := range w.sections {
		if b.made && b.needs != w.needs {
			w.sections[i] = &section{asks: b.asks}
		}
	}
	return w
}

func (w *walk) needsOf(endpoints []*policy.Endpoint) (n needs) {
	for _, e := range endpoints {
		if !slices.ContainsFunc(e.Addrs, w.inFamily) {
			continue
		}
		by := &e.Applies[w.direction]
		n = n.or(needs{
			lists:    len(by[policy.AdminRules]) > 0,
			isolates: len(by[policy.AdminIsolation]) > 0,
			behind:   len(by[policy.NetworkPolicies])+len(by[policy.BaselineRules])+len(by[policy.BaselineIsolation]) > 0,
			baseline: len(by[policy.BaselineRules]) > 0 && len(by[policy.BaselineIsolation]) > 0,
			passes:   n.passes || slices.ContainsFunc(by[policy.AdminRules], w.hasPass),
		})
	}
	return n
}

// bringSections adds the sections that stay.
func (w *walk) bringSections() {
	for _, b := range w.sections {
		if b.made {
			w.bring(&b.piece)
		}
	}
}

// makeSections makes the others.
func (w *walk) makeSections(namespaces []namespace) {
	kept := make(map[string]*section, len(w.sections))
	for i, b := range w.sections {
		if !b.made {
			w.into(&b.piece, func() { w.makeSection(b, namespaces[i].endpoints) })
		}
		kept[namespaces[i].name] = b
	}
	w.table.sections[w.direction] = kept
}

func (w *walk) makeSection(b *section, endpoints []*policy.Endpoint) {
	if w.sizes == nil {
		w.sizes = make([]int, len(w.node.Policies))
	}
	w.findShared(endpoints)
	b.leaves = map[treeKind][]leaf{}
	for _, kind := range treeKinds {
		for _, e := range endpoints {
			if w.has(kind) {
				b.leaves[kind] = append(b.leaves[kind], w.leaves(kind, e)...)
			}
		}
	}
	b.needs, b.made, b.round = w.needs, true, w.kept.round
}

// addTrees adds the trees over the sections' leaves, and returns the root of the first, empty if nothing is policed.
func (w *walk) addTrees() string {
	first := ""
	kept := map[treeKind]*tree{}
	for _, kind := range treeKinds {
		if !w.has(kind) {
			continue
		}
		var leaves []leaf
		for _, b := range w.sections {
			leaves = append(leaves, b.leaves[kind]...)
		}
		otherwise := ""
		if kind == adminTree && w.has(policyTree) {
			otherwise = rootChain(w.direction, policyTree)
		}
		t := w.table.trees[w.direction][kind]
		if t == nil || t.otherwise != otherwise || !slices.Equal(t.leaves, leaves) {
			t = newTree(w.direction, kind, leaves, otherwise)
		}
		maps.Copy(w.chains, t.chains)
		kept[kind] = t
		first = rootChain(w.direction, kind)
	}
	w.table.trees[w.direction] = kept
	return first
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
	if w.has(kind) {
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
		if w.has(next) {
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
		if p := w.groups[listKey(policies)]; p != nil {
			w.leadTo(p)
			return p.name
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
		w.groups[listKey(policies)] = w.table.pieces[name]
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
	made, ok := w.texts[key]
	if !ok {
		made.names = &piece{round: w.kept.round}
		w.into(made.names, func() {
			p := &w.node.Policies[i]
			for _, r := range p.Rules[w.direction] {
				if r.Action == policy.Accept {
					made.rules = append(made.rules, w.ruleTexts(p.Ref, w.direction, r, subject, target)...)
				}
			}
		})
		w.texts[key] = made
	}
	w.leadTo(made.names)
	return made.rules
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
