package iptables

import (
	"fmt"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// MaxHeld is how many entries [CutSet] takes, at some 30 MB of the kernel's memory.
const MaxHeld = 1 << 18

// cutRules drop what the other end of a connection still sends after policy has ended the connection. Without them, its next packet would be taken for
// the first one of a connection in the other direction (nf_conntrack_tcp_loose; for UDP any packet is), which policy may well allow, and all that the
// originator sends would pass as a reply to that.
//
// Whoever cuts a connection puts into the set, before its entry goes: originator, originator's protocol and port, other end. What the originator sends
// is judged as any first packet is. What begins a connection is judged too: a TCP packet with SYN alone, and an SCTP packet whose first chunk is INIT, which
// both ends have to send from the same port again and again where their ports are fixed. Nothing in a UDP packet says that it is a first one.
//
// Without xt_bpf no chunk can be read. Then nothing of SCTP is held off: an association that comes back is worth less than one that never comes to be.
func (t *rendering) cutRules() []Rule {
	set := CutSet(t.family)
	t.fix(Set{Name: set, Type: HashIPPortIP, Family: t.family})
	held := []string{"-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", "-p " + policy.UDP.String()}
	if t.SelfMatch {
		held = append(held, fmt.Sprintf("-p %s -m bpf --bytecode %q", policy.SCTP, noInit[t.family]))
	}
	var rules []Rule
	for _, what := range held {
		rules = append(rules, Rule(fmt.Sprintf(`%s -m set --match-set %s dst,dst,src -m comment --comment "of a connection that was cut" -j DROP`, what, set)))
	}
	return rules
}

// noInit are the programs for xt_bpf that match an SCTP packet whose first chunk is not INIT (RFC 9260, section 3.3.2: type 1). The chunk follows the
// common header of 12 bytes; where that begins, an IPv4 header says itself. An IPv6 packet with headers in between is not read: it counts as one that
// begins nothing.
var noInit = map[Family]string{
	IPv4: "5,177 0 0 0,80 0 0 12,21 1 0 1,6 0 0 1,6 0 0 0",
	IPv6: "6,48 0 0 6,21 0 2 132,48 0 0 52,21 1 0 1,6 0 0 1,6 0 0 0",
}
