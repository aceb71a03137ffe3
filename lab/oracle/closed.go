package oracle

import (
	"fmt"
	"net/netip"
)

// closed says why nothing passes at a node that is run with --unknown-pods=drop, empty if that is no reason: "local addresses of the node's pod range that
// no known pod holds get nothing through, in either direction". What the node itself sends is not asked about, and an address of its own is no pod's.
func (c Cluster) closed(node string, f Flow) string {
	switch {
	case f.FromNode == node:
	case c.isUnknown(node, f.Src):
		return fmt.Sprintf("no pod of node %s holds %s", node, f.Src)
	case f.ToNode != node && c.isUnknown(node, f.Dst):
		return fmt.Sprintf("no pod of node %s holds %s", node, f.Dst)
	}
	return ""
}

func (c Cluster) isUnknown(node string, a netip.Addr) bool {
	within := false
	for _, r := range c.Closed[node] {
		within = within || r.Contains(a)
	}
	pod := c.seenFrom(node).owner(a)
	return within && (pod == nil || pod.Spec.NodeName != node)
}
