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
	// DstPort is the destination port of a TCP, UDP or SCTP packet, 0 for other protocols.
	DstPort uint16
	// ICMPType is the type of an ICMP or ICMPv6 packet.
	ICMPType uint8
	// FromNode is set for a packet that the node itself sends: it passes OUTPUT, which is not policed,
	// so that the kubelet's probes always reach their pods.
	FromNode bool
}

// Verdict says whether a flow may pass, and who decided.
type Verdict struct {
	Allowed bool
	// Reason is a sentence for a person: which endpoint, direction, policy and rule decided.
	Reason string
}

// Allows gives the verdict on a new connection that passes this node. Both ends must allow it; an end that
// is not an isolated pod of this node has no say.
func (n *Node) Allows(f Flow) Verdict {
	if f.FromNode {
		return Verdict{true, "the node's own traffic is not policed"}
	}
	if f.isNeighbourDiscovery() {
		return Verdict{true, "neighbour discovery is never dropped"}
	}
	reason := "no policy isolates either end"
	for _, d := range []Direction{Egress, Ingress} {
		local, remote := f.ends(d)
		e := n.endpoint(local)
		if e == nil || len(e.IsolatedBy[d]) == 0 {
			continue
		}
		by, ok := n.admits(e, d, remote, f)
		if !ok {
			return Verdict{false, fmt.Sprintf("%s/%s is isolated for %s by %d policies, and no rule of theirs matches",
				e.Namespace, e.Name, d, len(e.IsolatedBy[d]))}
		}
		reason = by
	}
	return Verdict{true, reason}
}

// admits reports whether some policy that isolates e in direction d admits f, and which.
func (n *Node) admits(e *Endpoint, d Direction, remote netip.Addr, f Flow) (string, bool) {
	if f.Src == f.Dst {
		return fmt.Sprintf("%s/%s reaches itself", e.Namespace, e.Name), true
	}
	for _, i := range e.IsolatedBy[d] {
		p := &n.Policies[i]
		for _, r := range p.Rules[d] {
			if n.peerHas(r.Peer, remote) && n.portsHave(r.Ports, f) {
				return fmt.Sprintf("%s %s[%d]", p.Ref, d, r.Index), true
			}
		}
	}
	return "", false
}

func (f Flow) ends(d Direction) (local, remote netip.Addr) {
	if d == Egress {
		return f.Src, f.Dst
	}
	return f.Dst, f.Src
}

// isNeighbourDiscovery reports the ICMPv6 types of RFC 4861: router and neighbour solicitation and
// advertisement, and redirect.
func (f Flow) isNeighbourDiscovery() bool {
	return f.Protocol == ICMPv6 && f.ICMPType >= 133 && f.ICMPType <= 137
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
		return n.has(p.Set, Member{Addr: a})
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
		return f.Protocol == p.Protocol && n.has(p.Set, Member{f.Dst, f.Protocol, f.DstPort})
	}
	return false
}

func (n *Node) has(id SetID, m Member) bool {
	_, ok := slices.BinarySearchFunc(n.Sets[id].Members, m, Member.Compare)
	return ok
}

// Contains reports whether a is in the block.
func (b Block) Contains(a netip.Addr) bool {
	return b.Prefix.Contains(a) &&
		!slices.ContainsFunc(b.Except, func(x netip.Prefix) bool { return x.Contains(a) })
}
