package compile

import (
	"fmt"
	"iter"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// doubts are the rules of the node's policies that may be about pods which are not known ([Elsewhere.Unknown]). Such a rule fails closed:
//
//   - one that accepts matches none of these pods, since they are in no set;
//   - behind one that denies or passes stands another, which denies whatever the ports of the first match.
//
// They are found anew when other namespaces are unknown, and when a namespace, or which policies apply to the node's pods, changes. Most of the time nothing is
// unknown, and this costs nothing.
type doubts struct {
	unknown    []string
	namespaces Objects[*Namespace]
	selected   *selected
	problems   []Problem
	turned     bool // in this snapshot others may be in doubt than before

	held policy.Members // the last list of addresses that pods hold, while there are doubts
}

// follow says which rules are in doubt in a snapshot, and has their policies be made so.
func (d *doubts) follow(c *cluster, s Snapshot, all *selected, changed *changes) []Problem {
	d.turned = false
	if len(s.Elsewhere.Unknown)+len(d.unknown) == 0 {
		return nil
	}
	if d.turned = !d.isOf(s, all); d.turned {
		d.unknown, d.namespaces, d.selected, d.problems = slices.Clone(s.Elsewhere.Unknown), s.Namespaces, all, nil
		search := doubtful{cluster: c, unknown: d.unknown, known: map[policy.SetID][]string{}}
		said := map[Problem]bool{}
		for _, one := range all.used {
			for _, p := range search.policy(one) {
				if !said[p] { // an object may be several policies
					said[p] = true
					d.problems = append(d.problems, p)
				}
			}
		}
	}
	d.listHeld(c, changed)
	return d.problems
}

func (d *doubts) isOf(s Snapshot, all *selected) bool {
	gone, come := s.Namespaces.Since(d.namespaces)
	return d.selected == all && len(gone)+len(come) == 0 && slices.Equal(d.unknown, s.Elsewhere.Unknown)
}

// listHeld lists the addresses that pods hold, or follows what has changed since the last list; none if nobody knows.
func (d *doubts) listHeld(c *cluster, changed *changes) {
	switch {
	case len(d.problems) == 0:
		d.held = policy.Members{}
	case d.held.Len() == 0 || changed == nil:
		c.members = c.members[:0]
		for _, pods := range c.byNamespace {
			c.members = appendAddrs(c.members, pods)
		}
		if held := c.sorted(); !d.held.Holds(held) {
			d.held = policy.MembersOf(held)
		}
	default:
		var gone, come []policy.Member
		for _, one := range changed.in {
			gone, come = appendAddrs(gone, one.gone), appendAddrs(come, one.come)
		}
		gone, come = without(inOrder(gone), inOrder(come))
		d.held = d.held.Edited(gone, come)
	}
}

func appendAddrs(to []policy.Member, pods []*Pod) []policy.Member {
	for _, p := range pods {
		to = appendMembers(to, p, nil)
	}
	return to
}

// addTo says on a node what is in doubt there.
func (d *doubts) addTo(node *policy.Node) {
	if len(d.problems) == 0 {
		return
	}
	enforced := map[int]bool{}
	for i, one := range d.selected.used {
		if one.inDoubt != nil && !one.refused {
			if node.Held = d.held; !one.parsed.audit {
				enforced[i] = true
			}
		}
	}
	node.Concerns.InDoubt = node.AddrsInDoubt(enforced)
}

// doubtful is a search for rules in doubt.
type doubtful struct {
	*cluster
	unknown []string
	known   map[policy.SetID][]string // which of them may have members of a set
}

// policy makes a policy with its doubts. It is the one that was made before if they are the same.
func (s *doubtful) policy(one *resolution) (problems []Problem) {
	p, unlisted := one.parsed, 0
	made := &policy.Policy{Ref: p.ref, Part: p.part, Stage: p.stage, Audit: p.audit, Log: p.logged}
	for d, rules := range p.rules {
		for i := range rules {
			if !p.applies[d] || !s.isInDoubt(&rules[i]) {
				continue
			}
			if len(problems) < maxProblems {
				problems = append(problems, p.unknown(policy.Direction(d), &rules[i], s.rule(&rules[i])))
			} else {
				unlisted++
			}
		}
	}
	if len(problems) == 0 {
		one.inDoubt = nil
		return nil
	}
	if unlisted > 0 {
		problems = append(problems, Problem{Ref: p.ref, Field: "spec", Detail: fmt.Sprintf("so it is with %d more rules", unlisted), Unknown: true, Here: true})
	}
	for d, rules := range p.rules {
		for i := range rules {
			if !p.applies[d] {
				break
			}
			become := p.resolve(&rules[i])
			if s.isInDoubt(&rules[i]) {
				become = p.log(rules[i].inDoubt(become))
			}
			made.Rules[d] = append(made.Rules[d], become...)
		}
	}
	if one.inDoubt == nil || !sameRules(one.inDoubt, made) {
		one.inDoubt = made
	}
	return problems
}

func sameRules(a, b *policy.Policy) bool {
	return slices.EqualFunc(a.Rules[0], b.Rules[0], policy.Rule.Equal) && slices.EqualFunc(a.Rules[1], b.Rules[1], policy.Rule.Equal)
}

// of are the namespaces, not known, whose pods may be members of a set.
func (s *doubtful) of(set *ruleSet) []string {
	some, asked := s.known[set.id]
	if !asked {
		some = set.of.among(s.cluster, s.unknown)
		s.known[set.id] = some
	}
	return some
}

// isInDoubt reports whether a rule may be about pods that are not known. One that matches nothing, since nothing of it is understood, is not.
func (s *doubtful) isInDoubt(r *parsedRule) bool {
	if r.action == policy.NoAction || r.size() == 0 {
		return false
	}
	isUnknown := func(set *ruleSet) bool { return len(s.of(set)) > 0 }
	return containsFunc(r.sets.peers(), isUnknown) || containsFunc(r.sets.anyPorts(), isUnknown)
}

func containsFunc[T any](seq iter.Seq[T], is func(T) bool) bool {
	for one := range seq {
		if is(one) {
			return true
		}
	}
	return false
}

// peers are the sets of what a rule's pods have: addresses, and ports.
func (s *ruleSets) peers() iter.Seq[*ruleSet] {
	return func(yield func(*ruleSet) bool) {
		for e := range s.of(policy.InSet) {
			if !yield(&e.ruleSet) {
				return
			}
		}
		for i := range s.podPorts {
			if !yield(&s.podPorts[i]) {
				return
			}
		}
	}
}

// anyPorts are the sets of the named ports of any pod, where the rule has an end that they count for.
func (s *ruleSets) anyPorts() iter.Seq[*ruleSet] {
	return func(yield func(*ruleSet) bool) {
		some := func(e end) bool { return !e.ownPorts }
		if !slices.ContainsFunc(s.ends[:], func(ends []end) bool { return slices.ContainsFunc(ends, some) }) {
			return
		}
		for i := range s.ports {
			if !yield(&s.ports[i]) {
				return
			}
		}
	}
}

// doubt is what a rule may be about and nobody knows.
type doubt struct {
	namespaces []string // sorted
	peers      bool     // which its peers are; else it is only the ports that pods have by a name
}

func (s *doubtful) rule(r *parsedRule) (found doubt) {
	for set := range r.sets.peers() {
		found.namespaces = append(found.namespaces, s.of(set)...)
	}
	found.peers = len(found.namespaces) > 0
	for set := range r.sets.anyPorts() {
		found.namespaces = append(found.namespaces, s.of(set)...)
	}
	slices.Sort(found.namespaces)
	found.namespaces = slices.Compact(found.namespaces)
	return found
}

// inDoubt are the rules that a rule has become, with what is enforced while pods are not known that it names.
func (r *parsedRule) inDoubt(rules []policy.Rule) []policy.Rule {
	for i := range rules {
		rules[i].InDoubt = r.action != policy.Deny
	}
	if r.action == policy.Accept {
		return rules
	}
	instead := policy.Rule{Index: r.index, Name: r.name, Action: policy.Deny, Log: r.log, InDoubt: true, Peer: policy.Peer{Kind: policy.AnyPeer}}
	if instead.Ports.Kind = policy.AnyPort; !r.deniesAll() {
		instead.Ports = policy.Ports{Kind: policy.InRanges, Ranges: r.ranges}
	}
	return append(rules, instead)
}

// deniesAll reports whether a rule that denies or passes may be about any port. Which ports pods have by a name is not known.
func (r *parsedRule) deniesAll() bool { return r.anyPort || len(r.named) > 0 }

// unknown says what of a rule is in doubt, and what is enforced instead.
func (p *parsedPolicy) unknown(d policy.Direction, r *parsedRule, found doubt) Problem {
	field := p.rulesField + r.name // one that stands in no list
	if r.index >= 0 {
		if field = p.ruleField(d, r.index); found.peers {
			field += "." + (&fields{}).peers(d)
		}
	}
	others := ""
	if more := len(found.namespaces) - 1; more > 0 {
		others = fmt.Sprintf(" and of %d more", more)
	}
	instead := "it matches none of them"
	switch {
	case r.action == policy.Accept:
	case r.deniesAll():
		instead = "it denies everything"
	default:
		instead = "it denies whatever goes to its ports"
	}
	detail := fmt.Sprintf("the pods of namespace %s%s are not known on this node yet: %s until the API server has shown them",
		found.namespaces[0], others, instead)
	return Problem{Ref: p.ref, Field: field, Detail: detail, Unknown: true, Here: true}
}
