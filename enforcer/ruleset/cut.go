package ruleset

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
// is judged as any first packet is. A TCP packet with SYN alone begins a connection and is judged too.
func (t *renderer) cutRules() []Rule {
	set := CutSet(t.family)
	t.sets[set] = Set{Name: set, Type: HashIPPortIP, Family: t.family}
	var rules []Rule
	for _, first := range []string{
		"-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN",
		"-p " + policy.UDP.String(),
		"-p " + policy.SCTP.String(),
	} {
		rules = append(rules, Rule(fmt.Sprintf(`%s -m set --match-set %s dst,dst,src -m comment --comment "of a connection that was cut" -j DROP`, first, set)))
	}
	return rules
}
