package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Ground is what a [Decision] rests on.
type Ground uint8

// The grounds.
const (
	// NothingDecides: no policy of any stage says anything about the flow, which is allowed.
	NothingDecides Ground = iota
	// RuleMatches: the rule of one policy decides.
	RuleMatches
	// NoRuleMatches: policies isolate the endpoint, and none of them has a rule that matches. The flow is denied.
	NoRuleMatches
	// ReachesItself: a NetworkPolicy isolates the endpoint, which may reach itself all the same.
	ReachesItself
)

// Decision is what one end of a flow says of it, and by which policies. Everything in it belongs to the [Node] that decided.
type Decision struct {
	Allowed   bool
	Ground    Ground
	Direction Direction
	// Endpoint is the local pod whose policies were asked.
	Endpoint *Endpoint
	// Stage is the one that decided, unless nothing did.
	Stage Stage
	// Policy and Rule decided, if a rule did. The rule may be one in doubt.
	Policy *Policy
	Rule   *Rule
	// Silent are the policies that isolate the endpoint, if no rule of theirs matched.
	Silent []*Policy
	// WouldDeny are the audited policies, in the order in which they were asked, that would have denied the flow.
	WouldDeny []Denial
}

// By are the policies that decided: the one whose rule matched, or all whose silence denies.
func (d Decision) By() []*Policy {
	if d.Ground == RuleMatches {
		return []*Policy{d.Policy}
	}
	return d.Silent
}

// String is a sentence for a person.
func (d Decision) String() string {
	name := func() string { return d.Endpoint.Namespace + "/" + d.Endpoint.Name }
	switch d.Ground {
	case RuleMatches:
		text := fmt.Sprintf("%s %s[%d]", d.Policy.Ref, d.Direction, d.Rule.Index)
		if d.Stage.Isolates() {
			return text
		}
		return fmt.Sprintf("%s: %s%s", text, d.Rule.Action, d.Rule.doubt())
	case NoRuleMatches:
		return fmt.Sprintf("%s is isolated for %s by %d policies (%s), and no rule of theirs matches", name(), d.Direction, len(d.Silent), d.Stage)
	case ReachesItself:
		return name() + " reaches itself"
	}
	return fmt.Sprintf("no policy decides about the %s of %s", d.Direction, name())
}

// Decide is what one end of a new connection says of it. It reports false if that end is no endpoint of this node: then it says nothing. [Node.Allows] has the
// verdict on the whole, which depends on more than the two ends.
func (n *Node) Decide(f Flow, d Direction) (Decision, bool) {
	if f.FromNode {
		return Decision{}, false
	}
	return n.decide(f, d, n.endpoint, asking{})
}

// decide asks the policies of one end of a flow.
func (n *Node) decide(f Flow, d Direction, endpoint func(netip.Addr) *Endpoint, how asking) (Decision, bool) {
	local, _ := f.ends(d)
	e := endpoint(local)
	if e == nil || !e.IsSubject(d) {
		return Decision{}, false
	}
	return n.decideFor(e, f, d, how), true
}

// DecideAt is [Node.Decide] for an endpoint that is at hand: the local end of the flow, which does not come from the node itself. Who asks about many flows
// need not search for it each time.
func (n *Node) DecideAt(e *Endpoint, f Flow, d Direction) Decision {
	return n.decideFor(e, f, d, asking{})
}

func (n *Node) decideFor(e *Endpoint, f Flow, d Direction, how asking) Decision {
	_, remote := f.ends(d)
	asked := evaluation{asking: how, node: n, remote: remote, flow: f, decision: Decision{Direction: d, Endpoint: e}}
	asked.decide()
	asked.decision.WouldDeny = asked.wouldDeny
	return asked.decision
}

// Otherwise is what an end of a flow would say if the policies that decided did not apply to it.
func (n *Node) Otherwise(f Flow, d Decision) Decision {
	by, e := d.By(), *d.Endpoint
	for s, policies := range e.Applies[d.Direction] {
		e.Applies[d.Direction][s] = slices.DeleteFunc(slices.Clone(policies), func(i int) bool { return slices.Contains(by, &n.Policies[i]) })
	}
	return n.decideFor(&e, f, d.Direction, asking{})
}
