package iptables

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// reachable are the steps of a list that some packet may meet and be matched by, in their order. A rule goes if one before it has at least its peer and its
// ports: whatever the later one matches has left the list by then. What is counted or logged stays, since whoever reads the counters looks for all of it.
func (pl *pipeline) reachable(steps []step) []step {
	asked := askedBefore{}
	return slices.DeleteFunc(steps, func(s step) bool {
		switch {
		case s.whole:
			return false
		case s.rule.Peer.Kind == policy.NoPeer || s.rule.Ports.Kind == policy.NoPorts:
			return true
		case asked.has(s.rule):
			return s.rule.Action != policy.Deny || !pl.logs(s.rule.Log)
		}
		asked.add(s.rule)
		return false
	})
}

// askedBefore are the rules of a list up to one of them, by their peers.
type askedBefore map[peerKey]*askedPorts

// peerKey tells peers from each other, with one exception: blocks without a name have none.
type peerKey struct {
	kind policy.PeerKind
	set  policy.SetID
}

// askedPorts are the ports of rules with one peer.
type askedPorts struct {
	any    bool
	single map[policy.PortRange]bool
	wide   []policy.PortRange
}

// has reports whether a rule matches nothing that no rule before it matches.
func (a askedBefore) has(r policy.Rule) bool {
	for _, key := range []peerKey{{kind: policy.AnyPeer}, keyOf(r.Peer)} {
		if ports := a[key]; ports != nil && ports.has(r.Ports) {
			return true
		}
	}
	return false
}

func (a askedBefore) add(r policy.Rule) {
	key := keyOf(r.Peer)
	if key.kind == policy.NoPeer {
		return
	}
	ports := a[key]
	if ports == nil {
		ports = &askedPorts{single: map[policy.PortRange]bool{}}
		a[key] = ports
	}
	ports.add(r.Ports)
}

// keyOf is the key of a peer, zero if it cannot be told from others without a look at its blocks.
func keyOf(p policy.Peer) peerKey {
	switch {
	case p.Kind == policy.AnyPeer:
		return peerKey{kind: policy.AnyPeer}
	case p.Kind == policy.InSet, p.Kind == policy.InBlocks && p.Set != "":
		return peerKey{p.Kind, p.Set}
	}
	return peerKey{}
}

func (a *askedPorts) has(p policy.Ports) bool {
	switch {
	case a.any:
		return true
	case p.Kind != policy.InRanges || len(p.Ranges) == 0:
		return false
	}
	for _, r := range p.Ranges {
		within := func(w policy.PortRange) bool {
			return w.Protocol == r.Protocol && w.First <= r.First && r.Last <= w.Last
		}
		if !a.single[r] && !slices.ContainsFunc(a.wide, within) {
			return false
		}
	}
	return true
}

func (a *askedPorts) add(p policy.Ports) {
	switch p.Kind {
	case policy.AnyPort:
		a.any = true
	case policy.InRanges:
		for _, r := range p.Ranges {
			if r.First == r.Last {
				a.single[r] = true
			} else {
				a.wide = append(a.wide, r)
			}
		}
	}
}
