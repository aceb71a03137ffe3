package lab

import (
	"context"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// WouldDeny is how many packets the node's rules have counted that audited objects would have denied, by "Kind namespace/name direction", in
// both families. An object of which no packet was counted yet is there with 0.
func (n *Node) WouldDeny(ctx context.Context) (map[string]uint64, error) {
	counts := map[string]uint64{}
	err := n.Host.Do(func() error {
		counted, _, err := dataplane.Counted(ctx, iptables.OwnLayout, logr.Discard())
		for _, c := range counted {
			if object, _ := iptables.ObjectOfComment(c.Comment); c.Point.Audit {
				counts[object+" "+c.Point.Direction.String()] += c.Packets
			}
		}
		return err
	})
	return counts, err
}
