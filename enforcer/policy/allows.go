package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Flow is the first packet of a connection as the node's FORWARD or INPUT hook sees it: after
// destination NAT and before masquerading.
type Flow struct {
	Src, Dst netip.Addr
	Protocol Protocol
	// From is the link of a local pod that the packet comes from; empty if it comes from elsewhere, or nobody asks.
	From string
	// SrcPort and DstPort are the ports of a TCP, UDP or SCTP packet, 0 for other protocols. No policy looks at SrcPort.
	SrcPort, DstPort uint16
	// ICMPType is the type of an ICMP or ICMPv6 packet.
	ICMPType uint8
	// FromNode is set for a packet that the node itself sends: it passes OUTPUT, which is not policed,
	// so that the kubelet's probes always reach their pods.
	FromNode bool
	// ToNode is set for a packet to an address of the node itself: it passes INPUT.
	ToNode bool
}

// Verdict says whether a flow may pass, and who decided.
type Verdict struct {
	Allowed bool
	// Reason is a sentence for a person: which endpoint, direction, policy and rule decided.
	Reason string
	// Decisions are those of the ends that were asked, in their order; none if something else than policies decided.
	Decisions []Decision
	// WouldDeny are the audited policies, in the order in which they were asked, that would have denied the flow.
	WouldDeny []Denial
}

// Denial is what an audited policy would have denied.
type Denial struct {
	Ref       Ref
	Direction Direction
}

// Allows gives the verdict on a new connection that passes this node. Both ends must allow it, the source's egress first; an end that
// is not an endpoint of this node has no say.
func (n *Node) Allows(f Flow) Verdict { return n.allows(f, n.endpoint, asking{}) }

// asking is how a verdict is asked for.
type asking struct {
	// brief has an end that is asked give no reason: who asks about very many flows would spend half of the time on sentences.
	brief bool
	// hopeful has a rule in doubt decide as it would if the pods that are not known were those for which it allows most (doubt.go).
	hopeful bool
}

// allows is Allows with a way to find the endpoint that has an address.
func (n *Node) allows(f Flow, endpoint func(netip.Addr) *Endpoint, how asking) Verdict {
	if f.FromNode {
		return Verdict{Allowed: true, Reason: "the node's own traffic is not policed"}
	}
	v := Verdict{Allowed: true, Reason: "no policy applies to either end"}
	if why := n.ForbidsSource(f); why != "" {
		if !n.AuditSources {
			return Verdict{Reason: why}
		}
		v.WouldDeny = append(v.WouldDeny, Denial{Ref: SourceCheck, Direction: Egress})
	}
	if f.isNeighbourDiscovery() {
		v.Reason = "neighbour discovery is never dropped"
		return v
	}
	if n.holdsLinkLocal(f) {
		return Verdict{Reason: fmt.Sprintf("%s is an address of one link alone, and no pod is known by it", f.Dst)}
	}
	if a, shut := n.shutEnd(f); shut {
		return Verdict{Reason: fmt.Sprintf("the pod that had %s is gone, and its interface is still there", a)}
	}
	if a, closed := n.closedEnd(f); closed {
		return Verdict{Reason: fmt.Sprintf("no known pod holds %s, which is of this node's pods", a)}
	}
	for _, d := range []Direction{Egress, Ingress} {
		decision, ok := n.decide(f, d, endpoint, how)
		if !ok {
			continue
		}
		v.Allowed = decision.Allowed
		v.WouldDeny = append(v.WouldDeny, decision.WouldDeny...)
		if v.Reason = ""; !how.brief {
			v.Reason, v.Decisions = decision.String(), append(v.Decisions, decision)
		}
		if !v.Allowed {
			break
		}
	}
	return v
}

// closedEnd is the end of a flow that gets nothing through.
func (n *Node) closedEnd(f Flow) (netip.Addr, bool) {
	if n.closes(f.Src) {
		return f.Src, true
	}
	return f.Dst, !f.ToNode && n.closes(f.Dst)
}

// closes reports whether an address that the node does not have itself gets nothing through.
func (n *Node) closes(a netip.Addr) bool {
	for _, r := range n.Closed.Ranges {
		if r.Contains(a) {
			return !n.has(n.Closed.Known, Member{Addr: AddrOf(a)})
		}
	}
	return false
}

// evaluation asks the policies of one endpoint in one direction about a flow.
type evaluation struct {
	asking
	node      *Node
	remote    netip.Addr
	flow      Flow
	decision  Decision
	wouldDeny []Denial
}

// outcome is what becomes of a flow in a stage.
type outcome uint8

const (
	next  outcome = iota // the next stage is asked
	leave                // the next tier is asked
	accepted
	denied
)

// decide asks one stage after the other. What each of them has found is the decision, until another decides.
func (e *evaluation) decide() {
	d := &e.decision
	from := AdminRules
	for _, s := range Stages {
		policies := d.Endpoint.Applies[d.Direction][s]
		if s < from || len(policies) == 0 {
			continue
		}
		ask := e.rules
		if s.Isolates() {
			ask = e.isolation
		}
		switch ask(s, policies) {
		case accepted:
			d.Allowed = true
			return
		case denied:
			return
		case leave:
			if s > NetworkPolicies {
				d.Allowed = true
				return
			}
			from = NetworkPolicies
		}
	}
	e.found(NothingDecides, 0)
	d.Allowed = true
}

// found notes what a stage has found.
func (e *evaluation) found(g Ground, s Stage) {
	e.decision = Decision{Ground: g, Direction: e.decision.Direction, Endpoint: e.decision.Endpoint, Stage: s}
}

// matched notes the rule that a stage has found.
func (e *evaluation) matched(s Stage, p *Policy, r *Rule) {
	e.found(RuleMatches, s)
	e.decision.Policy, e.decision.Rule = p, r
}

// outcomes are those of a rule that matches.
var outcomes = [...]outcome{Accept: accepted, Deny: denied, Pass: leave}

// rules asks one policy after the other: the first rule that matches decides. An audited policy notes what its own first rule would do.
func (e *evaluation) rules(s Stage, policies []int) outcome {
	for _, i := range policies {
		p := &e.node.Policies[i]
		r := e.match(p)
		switch {
		case r == nil:
		case p.Audit:
			if r.Action == Deny {
				e.note(p)
			}
		case e.mayPass(r):
			e.matched(s, p, r)
			return accepted
		default:
			e.matched(s, p, r)
			return outcomes[r.Action]
		}
	}
	return next
}

// isolation asks all policies: what none accepts is denied, or noted if they are audited.
func (e *evaluation) isolation(s Stage, policies []int) outcome {
	for _, i := range policies {
		p := &e.node.Policies[i]
		if r := e.match(p); r != nil {
			e.matched(s, p, r)
			return e.admitted(s, p.Audit)
		}
	}
	audit := e.node.Policies[policies[0]].Audit
	if s == NetworkPolicies && e.flow.Src == e.flow.Dst {
		e.found(ReachesItself, s)
		return e.admitted(s, audit)
	}
	if audit {
		for _, i := range policies {
			e.note(&e.node.Policies[i])
		}
		return next
	}
	e.found(NoRuleMatches, s)
	if !e.brief {
		for _, i := range policies {
			e.decision.Silent = append(e.decision.Silent, &e.node.Policies[i])
		}
	}
	return denied
}

func (e *evaluation) admitted(s Stage, audit bool) outcome {
	if audit || s == AdminIsolation {
		return next
	}
	return accepted
}

// match is the first rule of p that the flow matches, nil if there is none.
func (e *evaluation) match(p *Policy) *Rule {
	if e.hopeful {
		return e.mayMatch(p)
	}
	rules := p.Rules[e.decision.Direction]
	for i := range rules {
		if e.matches(&rules[i]) {
			return &rules[i]
		}
	}
	return nil
}

func (e *evaluation) matches(r *Rule) bool {
	return r.Action != NoAction && e.node.portsHave(r.Ports, e.flow) && e.node.peerHas(r.Peer, e.remote)
}

func (e *evaluation) note(p *Policy) {
	d := Denial{p.Ref, e.decision.Direction}
	if !slices.Contains(e.wouldDeny, d) {
		e.wouldDeny = append(e.wouldDeny, d)
	}
}

func (f Flow) ends(d Direction) (local, remote netip.Addr) {
	if d == Egress {
		return f.Src, f.Dst
	}
	return f.Dst, f.Src
}

// SourceCheck stands for the object of what a link forbids.
var SourceCheck = Ref{Kind: "source", Name: "check"}

// isNeighbourDiscovery reports the ICMPv6 types of RFC 4861: router and neighbour solicitation and
// advertisement, and redirect.
func (f Flow) isNeighbourDiscovery() bool {
	return f.Src.Is6() && f.Protocol == ICMPv6 && f.ICMPType >= 133 && f.ICMPType <= 137 // in IPv4 the protocol says nothing to anybody
}

func (n *Node) endpoint(a netip.Addr) *Endpoint {
	for i := range n.Endpoints {
		if slices.Contains(n.Endpoints[i].Addrs, a) {
			return &n.Endpoints[i]
		}
	}
	return nil
}

func (n *Node) peerHas(p Peer, a netip.Addr) bool {
	switch p.Kind {
	case AnyPeer:
		return true
	case InSet:
		return n.has(p.Set, Member{Addr: AddrOf(a)})
	case InBlocks:
		return slices.ContainsFunc(p.Blocks, func(b Block) bool { return b.Contains(a) })
	}
	return false
}

func (n *Node) portsHave(p Ports, f Flow) bool {
	switch p.Kind {
	case AnyPort:
		return true
	case InRanges:
		return slices.ContainsFunc(p.Ranges, func(r PortRange) bool {
			return r.Protocol == f.Protocol && r.First <= f.DstPort && f.DstPort <= r.Last
		})
	case InPorts:
		return (p.Protocol == 0 || p.Protocol == f.Protocol) && n.has(p.Set, Member{AddrOf(f.Dst), f.Protocol, f.DstPort})
	}
	return false
}

// has searches a set for a member.
func (n *Node) has(id SetID, m Member) bool {
	return n.Sets.Get(id).Members.Has(m)
}

// Contains reports whether a is in the block.
func (b Block) Contains(a netip.Addr) bool {
	return b.Prefix.Contains(a) &&
		!slices.ContainsFunc(b.Except, func(x netip.Prefix) bool { return x.Contains(a) })
}
