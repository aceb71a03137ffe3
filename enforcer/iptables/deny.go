package iptables

import (
	"fmt"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Point is a place in the rules where packets are denied, or would be, and that is counted or logged.
type Point struct {
	ID        string     // 16 characters, the hash in its chain's name
	Ref       policy.Ref // the object; where several isolate together, their names with commas
	Direction policy.Direction
	Index     int  // of the rule in the object; -1 where no rule of it matched (default deny)
	Audit     bool // nothing is denied, it only would be
}

// denial is the target of a rule that denies.
func (w *walk) denial(ref policy.Ref, r policy.Rule) string {
	if !w.logs(r.Log) {
		return "-j DROP"
	}
	return "-g " + w.loggedDenial(Point{Ref: ref, Direction: w.direction, Index: r.Index})
}

// isolationDenial are the rules for what no policy of a list accepts.
func (w *walk) isolationDenial(policies []int) []Rule {
	var self []Rule
	if w.isStageOfNetworkPolicies(policies) {
		self = w.selfRules()
	}
	switch {
	case w.logs(false):
		return append(self, Rule("-g "+w.loggedDenial(Point{Ref: w.together(policies), Direction: w.direction, Index: -1})))
	case len(self) == 0:
		return []Rule{"-j DROP"}
	}
	return []Rule{Rule("-g " + w.chain(denyChain(), func() []Rule { return append(self, "-j DROP") }))}
}

func (w *walk) logs(asked bool) bool { return w.NFLogGroup != 0 && (asked || w.LogDenied) }

// together names the objects of policies that isolate together as one.
func (w *walk) together(policies []int) policy.Ref {
	ref := w.node.Policies[policies[0]].Ref
	for _, i := range policies[1:] {
		ref.Name += "," + w.node.Policies[i].Ref.Name
	}
	return ref
}

// loggedDenial adds the chain that counts, samples and drops.
func (w *walk) loggedDenial(p Point) string {
	return w.chain(p.identify(), func() []Rule {
		w.register(p)
		return append(append([]Rule{countRule(p)}, w.sampleRules(p)...), "-j DROP")
	})
}

// note adds the chain that counts and samples what an audited object would deny, and lets it go on.
func (w *walk) note(ref policy.Ref) string {
	p := Point{Ref: ref, Direction: w.direction, Index: -1, Audit: true}
	return w.chain(p.identify(), func() []Rule {
		w.register(p)
		return append([]Rule{countRule(p)}, w.sampleRules(p)...)
	})
}

// identify gives p its ID, and returns its chain. The ID alone tells it from all others: samples carry nothing else.
func (p *Point) identify() string {
	kind := pointTags[p.Audit]
	chain := hashed(tag(p.Direction)+kind, kind, p.Direction.String(), p.Ref.Kind, p.Ref.Namespace, p.Ref.Name, fmt.Sprint(p.Index))
	p.ID = chain[strings.LastIndexByte(chain, '-')+1:]
	return chain
}

// register has the chain that is being made be that of p.
func (w *walk) register(p Point) {
	w.points[p.ID], w.making.point = p, &p
}

// countRule matches every packet and does nothing: its counter is what is read.
func countRule(p Point) Rule {
	return Rule(fmt.Sprintf("-m comment --comment %q", pointVerbs[p.Audit]+ruleComment(p.Ref, p.Direction, policy.Rule{Index: p.Index})))
}

func (w *walk) sampleRules(p Point) []Rule {
	if w.NFLogGroup == 0 {
		return nil
	}
	return []Rule{Rule(fmt.Sprintf("%s -j NFLOG --nflog-prefix %q --nflog-group %d", w.sampling(p.Ref), LogPrefix+p.ID, w.NFLogGroup))}
}
