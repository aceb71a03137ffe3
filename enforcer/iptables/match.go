package iptables

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// maxInline is up to how many blocks of a rule become rules of their own: an address match costs a packet 6 ns, a set
// match about 120 ns, whatever the set holds.
const maxInline = 8

// maxPorts is how many ports one multiport match takes; a range counts for two (XT_MULTI_PORTS).
const maxPorts = 15

// match is a condition of a rule, in the two places that its parts have in the rule's text: addresses stand in front, and a set
// match, the dear one, behind protocol and port.
type match struct {
	addr string // "-s 10.0.0.0/8"
	port string // "-p tcp -m tcp --dport 80"
	set  string // "-m set --match-set NAME src"
}

// text is the rule that goes to target where the match holds, with a comment unless that is empty.
func (m match) text(comment, target string) Rule {
	if comment != "" {
		comment = fmt.Sprintf("-m comment --comment %q", comment)
	}
	var parts []string
	for _, p := range []string{m.addr, m.port, m.set, comment} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return Rule(strings.Join(append(parts, target), " "))
}

// peerMatches are the matches whose union is the peer.
func (t *rendering) peerMatches(d policy.Direction, p policy.Peer) []match {
	side, setSide := "-s ", " src"
	if d == policy.Egress {
		side, setSide = "-d ", " dst"
	}
	bySet := func(name string) match { return match{set: "-m set --match-set " + name + setSide} }
	switch p.Kind {
	case policy.AnyPeer:
		return []match{{}}
	case policy.InSet:
		return []match{bySet(t.podSet(p.Set))}
	case policy.InBlocks:
		return t.blockMatches(p, side, bySet)
	}
	return nil
}

// blockMatches are the blocks exactly: an address match each, or one set of their union if they are many or have exceptions.
func (t *rendering) blockMatches(p policy.Peer, side string, bySet func(string) match) []match {
	var own []policy.Block
	except := false
	for _, b := range p.Blocks {
		switch {
		case FamilyOf(b.Prefix.Addr()) != t.family:
		case b.Prefix.Bits() == 0 && len(b.Except) == 0:
			return []match{{}}
		default:
			own, except = append(own, b), except || len(b.Except) > 0
		}
	}
	switch {
	case len(own) == 0:
		return nil
	case except || len(own) > maxInline:
		return []match{bySet(t.netSet(p.Set, own))}
	}
	var matches []match
	for _, b := range own {
		matches = append(matches, match{addr: side + b.Prefix.String()})
	}
	return matches
}

func halvesOfAll(p netip.Prefix) []netip.Prefix {
	if p.Bits() > 0 {
		return []netip.Prefix{p}
	}
	upper := p.Addr().AsSlice()
	upper[0] = 0x80
	a, _ := netip.AddrFromSlice(upper)
	return []netip.Prefix{netip.PrefixFrom(p.Addr(), 1), netip.PrefixFrom(a, 1)}
}

// portMatches are the matches whose union is the ports.
func (t *rendering) portMatches(p policy.Ports) []match {
	switch p.Kind {
	case policy.AnyPort:
		return []match{{}}
	case policy.InRanges:
		return rangeMatches(p.Ranges)
	case policy.InPorts:
		m := match{set: "-m set --match-set " + t.podSet(p.Set) + " dst,dst"}
		if p.Protocol != 0 {
			m.port = "-p " + p.Protocol.String()
		}
		return []match{m}
	}
	return nil
}

// rangeMatches says the ranges of each protocol in as few matches as multiport allows.
func rangeMatches(ranges []policy.PortRange) []match {
	var matches []match
	for len(ranges) > 0 {
		n, slots := 0, 0
		for n < len(ranges) && ranges[n].Protocol == ranges[0].Protocol && slots+portSlots(ranges[n]) <= maxPorts {
			slots += portSlots(ranges[n])
			n++
		}
		matches = append(matches, match{port: portText(ranges[:n])})
		ranges = ranges[n:]
	}
	return matches
}

// portSlots is how much of a multiport match r takes.
func portSlots(r policy.PortRange) int {
	if r.First == r.Last {
		return 1
	}
	return 2
}

// portText matches the ports of ranges, all of one protocol.
func portText(ranges []policy.PortRange) string {
	protocol := ranges[0].Protocol
	if ranges[0] == policy.AllPorts(protocol) {
		return fmt.Sprintf("-p %s", protocol)
	}
	var ports []string
	for _, r := range ranges {
		text := strconv.Itoa(int(r.First))
		if r.First != r.Last {
			text += ":" + strconv.Itoa(int(r.Last))
		}
		ports = append(ports, text)
	}
	if len(ports) == 1 && protocol != policy.SCTP { // whose match is a module of its own, which multiport does without
		return fmt.Sprintf("-p %s -m %s --dport %s", protocol, protocol, ports[0])
	}
	return fmt.Sprintf("-p %s -m multiport --dports %s", protocol, strings.Join(ports, ","))
}
