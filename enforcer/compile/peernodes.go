package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// nodePeers are nodes, by their labels: nodes of a ClusterNetworkPolicy.
type nodePeers struct{ selectors nodeSelectors }

// nodeSelectors select nodes together: one that any of them selects.
type nodeSelectors []labels.Selector

var (
	_ peers  = (*nodePeers)(nil)
	_ source = nodeSelectors(nil)
	_ finder = nodeSelectors(nil)
)

// nodeFields are how nodes are written in a [v1alpha1.Peer].
var nodeFields = []peerField{
	{"nodes", func(p *v1alpha1.Peer) bool { return p.Nodes != nil }, (*parsedRule).readNodes},
}

func (r *parsedRule) readNodes(p *v1alpha1.Peer) error {
	s, err := p.Nodes.Selector()
	if err != nil {
		return fmt.Errorf("nodes: %w", err)
	}
	nodes := peersOf[nodePeers](r, ofNodes)
	nodes.selectors = append(nodes.selectors, s)
	return nil
}

func (p *nodePeers) weigh() (w weight) {
	w.selectors = len(p.selectors)
	for _, s := range p.selectors {
		w.values += valuesOf(s)
	}
	return w
}

func (p *nodePeers) never() string {
	return allNever(p.selectors, func(s labels.Selector) string {
		if texts := contradiction(s); texts != "" {
			return fmt.Sprintf("no labels satisfy %q", texts)
		}
		return ""
	})
}

func (p *nodePeers) covers(o peers) bool {
	theirs, ok := o.(*nodePeers)
	return ok && !slices.ContainsFunc(theirs.selectors, func(s labels.Selector) bool {
		return !slices.ContainsFunc(p.selectors, func(t labels.Selector) bool { return covers(t, s) })
	})
}

func (p *nodePeers) settle(policy.Direction, []rulePort) ([]end, []ruleSet) {
	return endsOf(p.selectors, func(s labels.Selector) policy.SetID { return setID("nodes", selectorText(s)) }), nil
}

// finder is a copy, since the selectors may be part of a long list.
func (s nodeSelectors) finder(*knownSets, []portName) finder { return slices.Clone(s) }

func (nodeSelectors) among(*cluster, []string) []string { return nil }

func (s nodeSelectors) looks(c *cluster) int { return len(s) * len(c.nodes) }

func (s nodeSelectors) find(c *cluster, limit int) ([]policy.Member, bool) {
	c.members = c.members[:0]
	c.eachOfNodes(s, func(a netip.Addr) { c.members = append(c.members, policy.Member{Addr: policy.AddrOf(a)}) })
	members := c.sorted()
	return members, len(members) <= limit
}

// follow has all looked at again if anything of nodes has changed, which is seldom.
func (s nodeSelectors) follow(_ *cluster, all *changes) (gone, come []policy.Member, ok bool) {
	return nil, nil, !all.ofNodes()
}

// eachOfNodes visits the addresses of the nodes that any of the selectors stands for: those in their status; those that a node sends from which its status
// does not have, because a tunnel or a bridge between it and its pods has them; and of this node all that it has. Of a range none that a pod holds is among
// them: a node names its ranges itself, and a pod there would pass for it. Of what this node has, none that a pod of its own holds: others have no say in it.
func (c *cluster) eachOfNodes(selectors nodeSelectors, visit func(netip.Addr)) {
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
		if h := c.claims.holder(a); (h == nil || h == nobody) && isPossibleOfNode(a) {
			visit(a)
		}
	}
}

// haveNodesChanged reports whether the addresses of nodes, or whose these are, may be others than in the snapshot before.
func (c *cluster) haveNodesChanged(all *changes) bool {
	return !slices.Equal(all.nodes.own, c.own) || !sameNodes(all.nodes.before, c.nodes) || c.areOfNodes(all)
}

// sameNodes reports whether two lists have the same nodes, in whatever order.
func sameNodes(before, after []*Node) bool {
	gone, come := differing(before, after)
	return len(gone)+len(come) == 0
}

// areOfNodes reports whether a pod that has changed has an address that nodes may have: it is a node's as long as no pod holds it.
func (c *cluster) areOfNodes(all *changes) bool {
	ofNode := func(a netip.Addr) bool {
		return slices.Contains(c.own, a) || slices.ContainsFunc(c.nodes, func(n *Node) bool {
			return slices.Contains(n.Addrs, a) || slices.ContainsFunc(n.Ranges, func(r netip.Prefix) bool { return r.Addr() == a || r.Addr().Next() == a })
		})
	}
	for _, one := range all.in {
		for _, p := range slices.Concat(one.gone, one.come) {
			if slices.ContainsFunc(p.Addrs, ofNode) {
				return true
			}
		}
	}
	return false
}
