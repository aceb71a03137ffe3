// Package trace walks packets through a ruleset by hand, as the kernel would.
//
// It reads the text that iptables-save, iptables-restore and ipset save share, and knows what that text
// means: how jumps, gotos and returns nest, how a hash:net set chooses among its prefixes, what a classic BPF program
// computes. It knows nothing of policies, nor of why a rule is there.
//
// Invariants:
//   - it shares no code with what renders the text;
//   - what it does not know is an error: a match, a target, a set type or an entry is never skipped;
//   - what the kernel would refuse is an error too: names that are too long, a set of the wrong family, ports
//     without a protocol, chains that nest too deeply.
package trace

import (
	"fmt"
	"net/netip"
	"slices"
)

// Family is 4 or 6.
type Family int

// Packet is the first packet of a connection, unless State says otherwise.
type Packet struct {
	Src, Dst netip.Addr
	Protocol uint8
	// SrcPort and DstPort count for TCP, UDP and SCTP.
	SrcPort, DstPort uint16
	// Type counts for ICMP and ICMPv6.
	Type uint8
	// State is the connection's state as conntrack names it; empty is NEW.
	State string
	// SrcLocal and DstLocal are set for addresses that the node has itself.
	SrcLocal, DstLocal bool
	// MidStream is set for a TCP packet that is not the SYN that begins a connection, and an SCTP packet that does not begin with INIT.
	MidStream bool
}

func (p Packet) family() Family {
	if p.Src.Is4() {
		return 4
	}
	return 6
}

// Verdict is what became of a packet.
type Verdict struct {
	Passed bool
	// Hits are the rules that matched, in order, as "CHAIN rule".
	Hits []string
}

// Kernel holds tables and sets.
type Kernel struct {
	tables map[Family]map[string][]rule // by chain
	sets   map[string]*set
}

// rule is a rule whose matches all have to hold for its target to count.
type rule struct {
	text    string
	matches []match
	target  string
	isGoto  bool
}

type match func(*Packet) (bool, error)

// maxDepth is how many chains may be entered below a base chain by jumps and gotos: NFT_JUMP_STACK_SIZE.
const maxDepth = 16

// Walk sends a packet through a base chain.
func (k *Kernel) Walk(base string, p Packet) (Verdict, error) {
	var v Verdict
	if p.Src.Is4() != p.Dst.Is4() {
		return v, fmt.Errorf("packet from %s to %s has two families", p.Src, p.Dst)
	}
	chains := k.tables[p.family()]
	type position struct {
		chain string
		next  int
	}
	var stack []position // where RETURN continues; a goto leaves it alone
	at := position{chain: base}
	for steps := 0; ; steps++ {
		if steps > 100000 {
			return v, fmt.Errorf("packet goes round in circles in chain %s", at.chain)
		}
		rules := chains[at.chain]
		target := "RETURN" // at the end of a chain
		var hit rule
		if at.next < len(rules) {
			hit = rules[at.next]
			at.next++
			ok, err := hit.holds(&p)
			if err != nil {
				return v, fmt.Errorf("chain %s, rule %q: %w", at.chain, hit.text, err)
			}
			if !ok {
				continue
			}
			v.Hits = append(v.Hits, at.chain+" "+hit.text)
			target = hit.target
		}
		switch target {
		case "", "NFLOG":
		case "ACCEPT":
			v.Passed = true
			return v, nil
		case "DROP":
			return v, nil
		case "RETURN":
			if len(stack) == 0 {
				v.Passed = true // the policy of a base chain is ACCEPT
				return v, nil
			}
			at = stack[len(stack)-1]
			stack = stack[:len(stack)-1]
		default:
			if !hit.isGoto {
				stack = append(stack, at)
			}
			at = position{chain: target}
		}
	}
}

func (r rule) holds(p *Packet) (bool, error) {
	for _, m := range r.matches {
		if ok, err := m(p); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// check finds what the kernel would refuse when it takes the table as a whole.
func (k *Kernel) check() error {
	for f, chains := range k.tables {
		for name, rules := range chains {
			if len(name) > 28 {
				return fmt.Errorf("name of chain %s has %d characters, 28 are allowed", name, len(name))
			}
			for _, r := range rules {
				if _, ok := chains[r.target]; !ok && !slices.Contains(builtinTargets, r.target) {
					return fmt.Errorf("family %d, chain %s: target of %q does not exist", f, name, r.text)
				}
			}
		}
		below := map[string]int{}
		for name := range chains {
			d, err := depth(chains, name, nil, below)
			if err != nil {
				return fmt.Errorf("family %d: %w", f, err)
			}
			if d > maxDepth {
				return fmt.Errorf("family %d: chains nest deeper than %d below %s", f, maxDepth, name)
			}
		}
	}
	return nil
}

var builtinTargets = []string{"", "ACCEPT", "DROP", "NFLOG", "RETURN"}

// depth is how many chains can be entered below a chain; below holds those that are known.
func depth(chains map[string][]rule, name string, above []string, below map[string]int) (int, error) {
	if slices.Contains(above, name) {
		return 0, fmt.Errorf("chain %s leads back to itself", name)
	}
	if d, ok := below[name]; ok {
		return d, nil
	}
	deepest := 0
	for _, r := range chains[name] {
		if slices.Contains(builtinTargets, r.target) {
			continue
		}
		d, err := depth(chains, r.target, append(slices.Clone(above), name), below)
		if err != nil {
			return 0, err
		}
		deepest = max(deepest, d+1)
	}
	below[name] = deepest
	return deepest, nil
}
