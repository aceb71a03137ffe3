package lab

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
)

// counting matches a rule that counts what an audited object would deny, with the packets, the object and the direction.
var counting = regexp.MustCompile(`(?m)^\[(\d+):\d+\] -A RF-[EI]W-\S+ -m comment --comment "would deny: (.+ (?:in|e)gress)"`)

// WouldDeny is how many packets the node's rules have counted that audited objects would have denied, by "Kind namespace/name direction", in
// both families. An object of which no packet was counted yet is there with 0.
func (n *Node) WouldDeny(ctx context.Context) (map[string]uint64, error) {
	backends := []string{n.lab.opts.Backend}
	if backends[0] == dataplane.Auto { // whichever the enforcer has chosen
		backends = []string{dataplane.Legacy, dataplane.NFT}
	}
	counts := map[string]uint64{}
	for _, backend := range backends {
		for _, program := range []string{"iptables-" + backend + "-save", "ip6tables-" + backend + "-save"} {
			out, err := n.Exec(ctx, program, "-c")
			if errors.Is(err, exec.ErrNotFound) && len(backends) > 1 {
				continue
			}
			if err != nil {
				return nil, err
			}
			for _, found := range counting.FindAllSubmatch(out, -1) {
				packets, err := strconv.ParseUint(string(found[1]), 10, 64)
				if err != nil {
					return nil, err
				}
				counts[string(found[2])] += packets
			}
		}
	}
	return counts, nil
}
