package compile

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Budgets bound what one object, all objects of one namespace, and all of a node may ask of it, so that no tenant can slow or stop enforcement for another.
// What is over its budget fails closed: see [parsedPolicy.close]. They are far above what clusters of the documented sizes have (15,000 pods, 250 of them on
// a node, 10,000 addresses in one policy), and far below what a node cannot bear: the kernel holds 65,534 sets, and twice as many as usual while one version
// takes over from another.
//
// The text of an object alone decides the first ones, so that the controller and each node say the same of it. The others depend on the pods of the cluster
// and on those of a node.
const (
	// maxRules is how many rules of a table one direction of an object may become. A packet that none of them matches meets all: each costs 6 to 1,000 ns.
	maxRules = 1024
	// maxSelectors is how many selectors the peers of an object may have: each is matched with pods.
	maxSelectors = 1024
	// maxValues is how many requirements and values these may have together.
	maxValues = 8192
	// maxSubjectValues is how many a subject may have. It is matched with each pod of the node, and by the controller with each pod that changes.
	maxSubjectValues = 1024
	// maxSets is how many sets an object may become, in each family.
	maxSets = 512
	// maxNames is how many names of ports an object may have.
	maxNames = 1024
	// maxBlocks is how many blocks and exceptions an object may have.
	maxBlocks = 65536
	// maxProblems is how many fields that cannot be understood are named; the others are counted.
	maxProblems = 32

	// valuesPerLook is how many requirements and values are compared in the time that it takes to come to a pod.
	valuesPerLook = 8
)

// spending is what something asks of a node.
type spending struct {
	rules   int // of a table of each family
	sets    int // of each family
	entries int // addresses, of both families
	looks   int // at pods and namespaces, to find the entries: each takes some 30 ns whenever all of it is done anew
}

// budgets are those of what is asked of a node: by one object, by one namespace in all its objects, and by all of them.
type budgets struct{ object, namespace, node spending }

// documented are the budgets of docs/policies.md. One object, and one namespace in all its objects, may ask for an entry for each pod of a cluster of 15,000
// with both families, seventeen times over: sets that rules share count once. An entry takes some 40 bytes of the enforcer, and about as much of the kernel.
// A rule has some 300 bytes of text, 700 at the most.
var documented = budgets{
	object:    spending{rules: 2 * maxRules, sets: maxSets + len(policy.Directions), entries: 1 << 19, looks: 1 << 22},
	namespace: spending{rules: 1 << 13, sets: 1 << 12, entries: 1 << 19, looks: 1 << 24},
	node:      spending{rules: 1 << 16, sets: 1 << 14, entries: 1 << 21, looks: 1 << 26},
}

func (s *spending) add(o spending) {
	s.rules, s.sets, s.entries, s.looks = s.rules+o.rules, s.sets+o.sets, s.entries+o.entries, s.looks+o.looks
}

func (s spending) twice() spending {
	s.add(s)
	return s
}

func (s *spending) take(o spending) {
	s.add(spending{-o.rules, -o.sets, -o.entries, -o.looks})
}

// over says what of s is more than a budget allows, empty if nothing is.
func (s spending) over(budget spending) string {
	for _, one := range []struct {
		what        string
		is, allowed int
	}{
		{"rules", s.rules, budget.rules},
		{"sets", s.sets, budget.sets},
		{"addresses in sets", s.entries, budget.entries},
		{"pods to compare with its selectors", s.looks, budget.looks},
	} {
		if one.is > one.allowed {
			return fmt.Sprintf("%d %s, where %d are allowed", one.is, one.what, one.allowed)
		}
	}
	return ""
}

// share is the largest part of a budget that s takes.
func (s spending) share(budget spending) float64 {
	return max(float64(s.rules)/float64(budget.rules), float64(s.sets)/float64(budget.sets),
		float64(s.entries)/float64(budget.entries), float64(s.looks)/float64(budget.looks))
}

// weigh holds the budgets of a NetworkPolicy's text before any of it is read, and reports whether it is worth reading: what is to be refused anyway takes no
// time then.
func (p *parsedPolicy) weigh(np *networkingv1.NetworkPolicy) bool {
	var w weight
	for i := range np.Spec.Ingress {
		w.add(np.Spec.Ingress[i].From, np.Spec.Ingress[i].Ports)
	}
	field := policy.Ingress
	if w.over() == "" {
		field = policy.Egress
		for i := range np.Spec.Egress {
			w.add(np.Spec.Egress[i].To, np.Spec.Egress[i].Ports)
		}
	}
	if why := w.over(); why != "" {
		p.close(p.rulesField+field.String(), why)
		return false
	}
	return true
}

// weight is how much there is in the text of an object.
type weight struct{ selectors, values, names, blocks int }

func (w *weight) add(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	for i := range peers {
		if b := peers[i].IPBlock; b != nil {
			w.blocks += 1 + len(b.Except)
			continue
		}
		w.selectors++
		for _, s := range []*metav1.LabelSelector{peers[i].PodSelector, peers[i].NamespaceSelector} {
			if s != nil {
				w.values += valuesIn(s)
			}
		}
	}
	for i := range ports {
		if ports[i].Port != nil && ports[i].Port.Type == intstr.String {
			w.names++
		}
	}
}

// join adds the weight of another part of the object.
func (w *weight) join(o weight) {
	w.selectors, w.values, w.names, w.blocks = w.selectors+o.selectors, w.values+o.values, w.names+o.names, w.blocks+o.blocks
}

// valuesIn is how many requirements and values a selector has.
func valuesIn(s *metav1.LabelSelector) int {
	n := 2 * len(s.MatchLabels)
	for i := range s.MatchExpressions {
		n += 1 + len(s.MatchExpressions[i].Values)
	}
	return n
}

// over says what is more than an object may have, empty if nothing is.
func (w *weight) over() string {
	for _, limit := range []struct {
		what        string
		is, allowed int
	}{
		{"selectors", w.selectors, maxSelectors}, {"requirements and values of selectors", w.values, maxValues},
		{"named ports", w.names, maxNames}, {"blocks and exceptions", w.blocks, maxBlocks},
	} {
		if limit.is > limit.allowed {
			return fmt.Sprintf("up to here there are %d %s, where %d are allowed", limit.is, limit.what, limit.allowed)
		}
	}
	return ""
}

// finish is called once the text of a policy has been read: it says which sets the rules take, and holds the budgets of the text.
func (p *parsedPolicy) finish() {
	var w weight
	named, blocks := map[policy.SetID]bool{}, 0
	for _, d := range policy.Directions {
		rules := 0
		for i := range p.rules[d] {
			w.join(p.rules[d][i].weight)
		}
		if why := w.over(); why != "" {
			p.close(p.rulesField+d.String(), why)
			return
		}
		for i := range p.rules[d] {
			r := &p.rules[d][i]
			r.settle(d)
			rules += r.size()
			for set := range r.sets.all() {
				named[set.id] = true
			}
			for range r.sets.of(policy.InBlocks) {
				blocks++
			}
		}
		if rules > maxRules {
			p.close(p.rulesField+d.String(), fmt.Sprintf("it becomes %d rules on a node, where %d are allowed", rules, maxRules))
			return
		}
		if sets := len(named) + blocks; sets > maxSets {
			p.close(p.rulesField+d.String(), fmt.Sprintf("up to here it becomes %d sets on a node, where %d are allowed", sets, maxSets))
			return
		}
	}
}

// countUnlisted says how many problems are not named.
func (p *parsedPolicy) countUnlisted() {
	if p.unlisted > 0 {
		p.problems = append(p.problems, Problem{Ref: p.ref, Field: "spec", Detail: fmt.Sprintf("so it is with %d more fields", p.unlisted)})
	}
}

// close takes from a policy that is over a budget what it would allow: what accepts matches nothing, and a list with a rule that denies or passes denies
// all. It isolates as before. Audited policies deny nothing, but say what they would have.
func (p *parsedPolicy) close(field, why string) {
	p.problems = append(p.problems, p.tooLarge(field, why))
	for d := range p.rules {
		p.rules[d] = p.closed(p.rules[d])
	}
}

func (p *parsedPolicy) tooLarge(field, why string) Problem {
	instead := "nothing is allowed by it until it is made smaller, or several policies of it"
	if p.isRanked() {
		instead = "what it accepts matches nothing, and its rules that deny or pass deny everything, until it is made smaller, or several policies of it"
	}
	return Problem{Ref: p.ref, Field: field, Detail: why + ": " + instead, TooLarge: true}
}

// tooLargeHere is what a node says of a policy that is over a budget of its own.
func (p *parsedPolicy) tooLargeHere(field, why string) Problem {
	problem := p.tooLarge(field, why)
	problem.Here = true
	return problem
}

// closed are the rules that stand for rules which are too many.
func (p *parsedPolicy) closed(rules []parsedRule) []parsedRule {
	if !p.isRanked() {
		return nil
	}
	for _, r := range rules {
		if r.action == policy.Deny || r.action == policy.Pass {
			return []parsedRule{everything(-1, "", false)}
		}
	}
	return nil
}

// size is how many rules of a table the rule becomes at the most, in a family.
func (r *parsedRule) size() int {
	ends, ownPorts := 0, 0
	for i := range r.sets.ends {
		for k := range r.sets.ends[i] {
			e := &r.sets.ends[i][k]
			ends += e.rules()
			if e.ownPorts {
				ownPorts += e.rules()
			}
		}
	}
	ports := 1
	if !r.anyPort {
		ports = 0
		for i := range r.ranges {
			ports += 2 // places in a match
			if r.ranges[i].First == r.ranges[i].Last {
				ports--
			}
		}
		ports = min(ports, ports/(portPlaces-1)+3) // the last place may not do for a range, and each protocol has its own
	}
	return ends*ports + (ends-ownPorts)*len(r.sets.ports) + len(r.sets.podPorts)
}

// What package iptables makes of blocks and ports; TestBudgetsCountWhatIsRendered compares.
const (
	inlineBlocks = 8  // up to how many blocks are rules, rather than one set
	portPlaces   = 15 // in a match of several ports; a range takes two
)
