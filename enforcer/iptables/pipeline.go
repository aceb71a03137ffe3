package iptables

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// pipeline renders the chains that decide about one direction, stage after stage. A packet enters the first tree by a jump and goes on by gotos alone, so that
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
type pipeline struct {
	*rendering
	direction policy.Direction
	needs
	sections []*section // in the order of the namespaces
	// Of all sections that are made in this render:
	groups  map[string]*piece     // of enforced NetworkPolicies, by their lists
	staying map[netip.Addr]*piece // those of sections that are made anew, for endpoints that are as they were: they stay until all is made
	steps   map[int][]step        // of policies in lists
	// Of the section that is being made:
	section  *section
	shared   map[sharing]*sharedRules
	sharings map[*policy.Endpoint]sharing
	subjects map[int][]Entry // of policies in shared chains
}

// texted is a policy's rules that accept, with what stands before and behind their matches. The rules are told by their address: nobody writes to them, and as
// long as they are a key they are not freed.
type texted struct {
	direction       policy.Direction
	first           *policy.Rule
	count           int
	ref             policy.Ref
	subject, target string
	named           bool
}

// text are such rules, with the sets that they name.
type text struct {
	rules []Rule
	names *piece
}

// needs says of endpoints what of a direction they need.
type needs struct {
	lists    bool // Admin rules
	isolates bool // Admin isolation
	behind   bool // what comes behind that
	baseline bool // both Baseline rules and Baseline isolation
	passes   bool // a rule that passes
	long     bool // a list that is cut down: its trees have one level less, which leaves room for that
}

func (n needs) or(o needs) needs {
	return needs{
		n.lists || o.lists, n.isolates || o.isolates, n.behind || o.behind, n.baseline || o.baseline, n.passes || o.passes,
		n.long || o.long,
	}
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

// newPipeline finds out which trees are needed. A section of the last render stays if all that it was made from is the same.
func newPipeline(t *rendering, d policy.Direction, namespaces []namespace) *pipeline {
	pl := &pipeline{rendering: t, direction: d, groups: map[string]*piece{}, staying: map[netip.Addr]*piece{}, steps: map[int][]step{}}
	for i := range namespaces {
		b := t.table.sections[d][namespaces[i].name]
		if b == nil || !namespaces[i].same {
			pl.keepGroups(b, namespaces[i].stay)
			b = &section{asks: pl.needsOf(namespaces[i].endpoints)}
		}
		pl.sections = append(pl.sections, b)
		pl.needs = pl.needs.or(b.asks)
	}
	kept := make(map[string]*section, len(pl.sections))
	for i, b := range pl.sections {
		if b.made && b.needs != pl.needs {
			b = &section{asks: b.asks}
			pl.sections[i] = b
		}
		kept[namespaces[i].name] = b
	}
	for name, b := range t.table.sections[d] {
		if kept[name] != b {
			t.leave(&b.piece)
		}
	}
	t.table.sections[d] = kept
	return pl
}

// keepGroups has the groups of endpoints that are as they were outlive the section that they were made for.
func (pl *pipeline) keepGroups(b *section, stay map[netip.Addr]bool) {
	if b == nil {
		return
	}
	for a, p := range b.groups {
		if stay[a] {
			p.parents++
			pl.staying[a] = p
		}
	}
}

// endGroups takes those away of them that no section has come to need.
func (pl *pipeline) endGroups() {
	for _, p := range pl.staying {
		if p.parents--; p.parents == 0 {
			pl.end(p)
		}
	}
}

func (pl *pipeline) needsOf(endpoints []*policy.Endpoint) (n needs) {
	for _, e := range endpoints {
		if !slices.ContainsFunc(e.Addrs, pl.inFamily) {
			continue
		}
		by := &e.Applies[pl.direction]
		n = n.or(needs{
			lists:    len(by[policy.AdminRules]) > 0,
			isolates: len(by[policy.AdminIsolation]) > 0,
			behind:   len(by[policy.NetworkPolicies])+len(by[policy.BaselineRules])+len(by[policy.BaselineIsolation]) > 0,
			baseline: len(by[policy.BaselineRules]) > 0 && len(by[policy.BaselineIsolation]) > 0,
			passes:   n.passes || slices.ContainsFunc(by[policy.AdminRules], pl.hasPass),
			long:     n.long || pl.isLong(by[policy.AdminRules]) || pl.isLong(by[policy.BaselineRules]),
		})
	}
	return n
}

// makeSections makes those that do not stay.
func (pl *pipeline) makeSections(namespaces []namespace) {
	for i, b := range pl.sections {
		if !b.made {
			pl.into(&b.piece, func() { pl.makeSection(b, namespaces[i].endpoints) })
		}
	}
}

func (pl *pipeline) makeSection(b *section, endpoints []*policy.Endpoint) {
	pl.findShared(endpoints)
	b.leaves, b.groups = map[treeKind][]leaf{}, map[netip.Addr]*piece{}
	pl.section = b
	for _, kind := range treeKinds {
		for _, e := range endpoints {
			if pl.has(kind) {
				b.leaves[kind] = append(b.leaves[kind], pl.leaves(kind, e)...)
			}
		}
	}
	b.needs, b.made = pl.needs, true
}

// addTrees adds the trees over the sections' leaves, and returns the root of the first, empty if nothing is policed.
func (pl *pipeline) addTrees() string {
	first := ""
	kept := map[treeKind]*tree{}
	for _, kind := range treeKinds {
		if !pl.has(kind) {
			continue
		}
		var leaves []leaf
		for _, b := range pl.sections {
			leaves = append(leaves, b.leaves[kind]...)
		}
		otherwise := ""
		if kind == adminTree && pl.has(policyTree) {
			otherwise = pl.Layout.rootChain(pl.direction, policyTree)
		}
		t := pl.table.trees[pl.direction][kind]
		if t == nil || t.otherwise != otherwise || t.height != pl.height(kind) || !slices.Equal(t.leaves, leaves) {
			t = pl.newTree(pl.direction, kind, leaves, otherwise, pl.height(kind))
		}
		kept[kind] = t
		first = pl.Layout.rootChain(pl.direction, kind)
	}
	was := pl.table.trees[pl.direction]
	for kind, t := range was {
		if kept[kind] != t {
			for chain := range t.chains {
				pl.table.edits[chain] = nil
			}
		}
	}
	for kind, t := range kept {
		if was[kind] != t {
			for chain, rules := range t.chains {
				pl.table.edits[chain] = &rules
			}
		}
	}
	pl.table.trees[pl.direction] = kept
	return first
}

func (pl *pipeline) hasPass(p int) bool {
	return slices.ContainsFunc(pl.node.Policies[p].Rules[pl.direction], func(r policy.Rule) bool { return r.Action == policy.Pass })
}

// leaves are an endpoint's addresses in a tree, if it has a place there.
func (pl *pipeline) leaves(kind treeKind, e *policy.Endpoint) []leaf {
	var leaves []leaf
	chain := ""
	for _, a := range e.Addrs {
		if !pl.inFamily(a) {
			continue
		}
		if chain == "" {
			if chain = pl.entry(kind, e); chain == "" {
				return nil
			}
		}
		leaves = append(leaves, leaf{a, chain})
	}
	return leaves
}

// entry is the chain that a tree leads an endpoint's packets to, empty if there is none.
func (pl *pipeline) entry(kind treeKind, e *policy.Endpoint) string {
	by := &e.Applies[pl.direction]
	switch kind {
	case adminTree:
		pass := passTree
		if !pl.isolates {
			pass = policyTree
		}
		return pl.rules(by[policy.AdminRules], policyTree, pass)
	case policyTree:
		return pl.isolation(by[policy.AdminIsolation], pl.fromNetworkPolicies(e))
	case passTree:
		return pl.fromNetworkPolicies(e)
	case baseTree:
		if len(by[policy.BaselineRules]) > 0 {
			return pl.isolation(by[policy.BaselineIsolation], "")
		}
	}
	return ""
}

func (pl *pipeline) fromNetworkPolicies(e *policy.Endpoint) string {
	by := &e.Applies[pl.direction]
	var next string
	if len(by[policy.BaselineRules]) > 0 {
		next = pl.rules(by[policy.BaselineRules], baseTree, noTree)
	} else {
		next = pl.isolation(by[policy.BaselineIsolation], "")
	}
	if len(by[policy.NetworkPolicies]) == 0 {
		return next
	}
	at := pl.sharings[e]
	switch s := pl.shared[at]; {
	case s == nil && !at.audit:
		return pl.group(e)
	case s == nil:
		return pl.isolation(by[policy.NetworkPolicies], next)
	case at.audit:
		return pl.behindAudit(pl.sharedAudit(s), next)
	default:
		return pl.sharedIsolation(s)
	}
}

// to is the target that leads to a tree, or allows where there is none.
func (pl *pipeline) to(kind treeKind) string {
	if pl.has(kind) {
		return "-g " + pl.Layout.rootChain(pl.direction, kind)
	}
	return "-j RETURN"
}
