package policy

import (
	"net/netip"
	"slices"
)

// A node may not know all pods that its policies name: the API server has not shown it those of a namespace. What it enforces meanwhile fails closed:
//
//	the object says   the node's rules                                     a known pod of X   any other known pod   an address of no known pod
//	Accept from X     Accept from X, in doubt                              is accepted        is not                is not
//	Deny from X       Deny from X; Deny from anybody, in doubt             is denied          is denied             is denied
//	Pass from X       Pass from X, in doubt; Deny from anybody, in doubt   passes             is denied             is denied
//
// So a node that is in doubt denies what may be allowed. A new connection can be tried again; a live one that is cut is gone. It is cut only if it is denied
// whatever pods there are that the node does not know: that is asked for as [asking.hopeful].

// IsInDoubt reports whether some rule is in doubt.
func (n *Node) IsInDoubt() bool { return len(n.Held.lists) > 0 }

// MayAllow reports whether a flow is allowed, or may be once all pods are known. It errs towards true.
func (n *Node) MayAllow(f Flow) bool { return n.allows(f, n.endpoint, n.certainly(true)).Allowed }

// certainly is how to ask for denials that no doubt remains about.
func (n *Node) certainly(brief bool) asking { return asking{brief: brief, hopeful: n.IsInDoubt()} }

// mayMatch is the first rule of p that a flow matches, or may match once all pods are known. One that denies in doubt only stands for another.
func (e *evaluation) mayMatch(p *Policy) *Rule {
	rules := p.Rules[e.decision.Direction]
	for i := range rules {
		switch r := &rules[i]; {
		case r.Action == NoAction, r.InDoubt && r.Action == Deny:
		case r.InDoubt && !e.node.isHeld(e.remote) && e.portsMayHave(r.Ports), e.matches(r):
			return r
		}
	}
	return nil
}

// mayPass reports whether it is not certain that a rule passes a flow. What becomes of it then is taken to be what allows most.
func (e *evaluation) mayPass(r *Rule) bool {
	return e.hopeful && r.InDoubt && r.Action == Pass && !e.node.isHeld(e.remote)
}

// portsMayHave reports whether a flow's destination may have some ports. Which ports a pod that is not known has by a name is not known either.
func (e *evaluation) portsMayHave(p Ports) bool {
	if p.Kind == InPorts && e.decision.Direction == Egress {
		return p.Protocol == 0 || p.Protocol == e.flow.Protocol
	}
	return e.node.portsHave(p, e.flow)
}

// isHeld reports whether a known pod has an address. Only a node in doubt can tell.
func (n *Node) isHeld(a netip.Addr) bool {
	return n.Held.Has(Member{Addr: AddrOf(a)})
}

// doubt is what the reason of a verdict adds.
func (r *Rule) doubt() string {
	if r.InDoubt && r.Action == Deny {
		return ", because pods that it may be about are not known yet"
	}
	return ""
}

// InDoubt reports whether a rule of the policy is in doubt.
func (p *Policy) InDoubt() bool {
	return slices.ContainsFunc(slices.Concat(p.Rules[Ingress], p.Rules[Egress]), func(r Rule) bool { return r.InDoubt })
}

// AddrsInDoubt are the addresses of endpoints that one of some policies applies to, sorted. doubted has the policies by their index.
func (n *Node) AddrsInDoubt(doubted map[int]bool) []netip.Addr {
	var addrs []netip.Addr
	for i := range n.Endpoints {
		e := &n.Endpoints[i]
		if e.isSubjectTo(Ingress, doubted) || e.isSubjectTo(Egress, doubted) {
			addrs = append(addrs, e.Addrs...)
		}
	}
	return sorted(addrs)
}
