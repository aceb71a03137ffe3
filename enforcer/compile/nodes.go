package compile

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// eachOfNodes visits the addresses of the nodes that any of the selectors stands for: those in their status; those that a node sends from which its status
// does not have, because a tunnel or a bridge between it and its pods has them; and of this node all that it has. Of a range none that a pod holds is among
// them: a node names its ranges itself, and a pod there would pass for it. Of what this node has, none that a pod of its own holds: others have no say in it.
func (c *cluster) eachOfNodes(selectors []labels.Selector, visit func(netip.Addr)) {
	derived := map[netip.Addr]bool{}
	for _, n := range c.nodes {
		if !slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(&n.Labels) }) {
			continue
		}
		for _, a := range n.Addrs {
			if !c.claims.isOfLocalPod(a) { // whoever writes a Node's status does not get in by the address of a pod of this node
				visit(a)
			}
		}
		for _, r := range n.Ranges {
			if first := r.Addr(); !r.IsSingleIP() {
				derived[first], derived[first.Next()] = true, true
			}
		}
		if n.Name == c.node {
			for _, a := range c.own {
				if !c.claims.isOfLocalPod(a) {
					visit(a)
				}
			}
		}
	}
	for a := range derived {
		if h := c.claims.holders[a]; (h == nil || h == nobody) && isPossibleOfNode(a) {
			visit(a)
		}
	}
}
