package compile

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// cluster indexes what policy can see of the pods, and what else the last snapshot had. It follows what changes.
type cluster struct {
	node        string
	local       []*Pod            // on the node, sorted by namespace and name; a new list with each change
	losers      []*Pod            // likewise, those without an address that no other pod of the node holds
	byNamespace map[string][]*Pod // all that hold an address
	count       int               // how many those are
	namespaces  map[string]*Namespace
	nodes       []*Node
	own         []netip.Addr // that node's
	claims      *claims
	impossible  map[*Pod]bool // pods elsewhere with an address that none can have
	closing     closing
	last        struct { // of the last snapshot
		any        bool
		local      []*Pod
		remote     Objects[*Pod]
		namespaces Objects[*Namespace]
	}

	members  []policy.Member // room to collect those of one set in
	selected []int           // likewise those that one policy selects

	// Of one compile:
	reuse  policy.Map[policy.SetID, policy.Set]
	groups podGroups
}

func newCluster(node string) *cluster {
	return &cluster{
		node: node, byNamespace: map[string][]*Pod{}, namespaces: map[string]*Namespace{}, claims: newClaims(node), impossible: map[*Pod]bool{},
	}
}

// follow takes in a snapshot, with the local pods as policy sees them. It says what has changed since the last one; nil if that is too much to be followed.
func (c *cluster) follow(s Snapshot, local []*Pod) *changes {
	gone, come := s.Remote.Since(c.last.remote)
	goneHere, comeHere := differing(c.last.local, local)
	goneNamespaces, comeNamespaces := s.Namespaces.Since(c.last.namespaces)
	first := !c.last.any
	c.last.any, c.last.local, c.last.remote, c.last.namespaces = true, local, s.Remote, s.Namespaces
	c.noteImpossible(gone, come)
	heldGone, heldCome := c.claims.follow(visible(gone, goneHere), visible(come, comeHere), s.Nodes)
	c.move(heldGone, heldCome)
	if len(goneHere)+len(comeHere) > 0 || slices.ContainsFunc(heldGone, c.isLocal) || slices.ContainsFunc(heldCome, c.isLocal) {
		c.listLocal()
	}
	c.closing.follow(c, s.Closed, heldGone, heldCome)

	nodes := nodesChange{before: c.nodes, own: c.own, after: c}
	c.nodes, c.own = s.Nodes, s.Own
	if moved := len(heldGone) + len(heldCome); first || moved > c.mostMoved() {
		c.rename(goneNamespaces, comeNamespaces)
		return nil
	}
	all := &changes{in: map[string]*change{}, nodes: nodes}
	all.note(c.namespaces, goneNamespaces, comeNamespaces, heldGone, heldCome)
	c.rename(goneNamespaces, comeNamespaces)
	if all.complete(c) > c.mostMoved() {
		return nil
	}
	return all
}

// mostMoved is from how many pods on that have gone or come all sets are found out anew.
func (c *cluster) mostMoved() int { return fewPods + c.count/16 }

// rename takes in which namespaces have gone and come.
func (c *cluster) rename(gone, come []*Namespace) {
	for _, ns := range gone {
		delete(c.namespaces, ns.Name)
	}
	for _, ns := range come {
		c.namespaces[ns.Name] = ns
	}
}

// visible are those of some pods that policy can see.
func visible(elsewhere, here []*Pod) []*Pod {
	all := make([]*Pod, 0, len(elsewhere)+len(here))
	for _, pods := range [2][]*Pod{elsewhere, here} {
		for _, p := range pods {
			if p.isVisible() {
				all = append(all, p)
			}
		}
	}
	return all
}

func (c *cluster) isLocal(p *Pod) bool { return p.Node == c.node }

// listLocal lists the pods of the node anew.
func (c *cluster) listLocal() {
	c.local, c.losers = nil, nil
	for _, p := range c.last.local {
		if !p.isVisible() {
			continue
		}
		if held := c.claims.heldBy(p); held != nil {
			c.local = append(c.local, held)
		} else {
			c.losers = append(c.losers, p)
		}
	}
	slices.SortFunc(c.local, comparePods)
	slices.SortFunc(c.losers, comparePods)
}

// fewGone is up to how many pods of a namespace are looked for one by one when they go.
const fewGone = 8

// move takes pods that hold an address out of their namespaces, and puts others there.
func (c *cluster) move(gone, come []*Pod) {
	c.count += len(come) - len(gone)
	leaving := map[string][]*Pod{}
	for _, p := range gone {
		leaving[p.Namespace] = append(leaving[p.Namespace], p)
	}
	for name, pods := range leaving {
		left := c.byNamespace[name]
		if len(pods) <= fewGone {
			for _, p := range pods {
				left = swappedOut(left, p)
			}
		} else {
			goes := setOf(pods)
			left = slices.DeleteFunc(left, func(p *Pod) bool { return goes[p] })
		}
		if c.byNamespace[name] = left; len(left) == 0 {
			delete(c.byNamespace, name)
		}
	}
	for _, p := range come {
		c.byNamespace[p.Namespace] = append(c.byNamespace[p.Namespace], p)
	}
}

// swappedOut is a list without one of its pods, which the last one takes the place of.
func swappedOut(pods []*Pod, p *Pod) []*Pod {
	i, last := slices.Index(pods, p), len(pods)-1
	pods[i], pods[last] = pods[last], nil
	return pods[:last]
}

func setOf[T comparable](list []T) map[T]bool {
	set := make(map[T]bool, len(list))
	for _, one := range list {
		set[one] = true
	}
	return set
}
