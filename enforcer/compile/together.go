package compile

import (
	"math"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// everyNode is the node of all pods. None has its name, which has a space.
const everyNode = "every node"

// Together compiles once what all nodes enforce. s.Local are the pods of all nodes, and s.Remote is empty. Each pod's own node decides about the pod as the
// result does. ok is false where nodes may differ: then each has to be compiled by itself. They may differ if
//
//   - pods of several nodes claim one address, since each node believes its own pods first;
//   - a pod has an address of a node, or a link-local one, which means another host on each link;
//   - a policy is refused, or the policies that apply to the pods of one node are over its budget. No node refuses a policy without that: it counts no more
//     policies than are counted here, and no larger sets.
//
// It is for a cluster that is asked about, and not for what a node enforces. s knows all pods, and has nothing of how a node is wired.
func Together(s Snapshot) (node policy.Node, ok bool) { return together(s, documented) }

func together(s Snapshot, b budgets) (node policy.Node, ok bool) {
	if s.Node = everyNode; !isSeenAlike(s) {
		return policy.Node{}, false
	}
	ofNode := b.node                                                                      // held for each node by itself
	b.node = spending{math.MaxInt / 4, math.MaxInt / 4, math.MaxInt / 4, math.MaxInt / 4} // twice that is still a number
	k := Compiler{known: knownSets{budgets: b}}
	node, _ = k.Compile(s)
	return node, !slices.ContainsFunc(k.selected.used, func(one *resolution) bool { return one.refused }) && k.isWithin(ofNode, node.Endpoints)
}

// isSeenAlike reports whether all nodes agree about whose each address is.
func isSeenAlike(s Snapshot) bool {
	ofNode := map[netip.Addr]bool{}
	for _, n := range s.Nodes {
		for _, a := range n.Addrs {
			ofNode[a] = true
		}
	}
	claimedOn := make(map[netip.Addr]string, len(s.Local))
	for _, p := range s.Local {
		if p.Node == s.Node {
			return false
		}
		if !p.isVisible() {
			continue
		}
		for _, a := range p.Addrs {
			if on, claimed := claimedOn[a]; claimed && on != p.Node || ofNode[a] || a.IsLinkLocalUnicast() {
				return false
			}
			claimedOn[a] = p.Node
		}
	}
	return true
}

// isWithin reports whether what applies to the pods of each node is within its budget.
func (k *Compiler) isWithin(budget spending, endpoints []policy.Endpoint) bool {
	nodes := map[string]*share{}
	counted := map[string]map[int]bool{}
	for i := range endpoints {
		on := k.cluster.claims.holder(endpoints[i].Addrs[0]).Node
		if nodes[on] == nil {
			nodes[on], counted[on] = &share{uses: map[*knownSet]int{}}, map[int]bool{}
		}
		for d := range endpoints[i].Applies {
			for _, p := range slices.Concat(endpoints[i].Applies[d][:]...) {
				if !counted[on][p] {
					counted[on][p] = true
					nodes[on].with(k.selected.used[p])
				}
			}
		}
	}
	for _, all := range nodes {
		if all.over(budget) != "" {
			return false
		}
	}
	return true
}
