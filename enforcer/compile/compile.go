package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Compile says what the snapshot's node must enforce. The problems are those of all policies in the
// snapshot, whether they concern the node or not, sorted by object.
func Compile(s Snapshot) (policy.Node, []Problem) { return new(Compiler).Compile(s) }

// Compiler compiles one snapshot of a node after the other, and gives each what [Compile] would. It keeps what snapshots have in common, so that a change
// costs what it reaches: policies that it has read, which of them apply to which pods, and sets. It knows objects by their address, since nobody writes to
// what stands in a snapshot. Nodes share what they have in common, so that nobody may write to their lists either. It is not safe for concurrent use.
type Compiler struct {
	reading  reading
	copies   copies
	held     previous[*Pod]
	last     *cluster // of which only the lists are kept
	selected *selected
	known    knownSets
	sets     map[policy.SetID]policy.Set // of the last node
}

// Compile compiles a snapshot.
func (k *Compiler) Compile(s Snapshot) (policy.Node, []Problem) {
	if k.known.budgets == (budgets{}) {
		k.known.budgets = documented
	}
	k.copies.next()
	s = withGiven(s, &k.copies)
	c := newCluster(s, &k.copies)
	c.reuse = k.sets
	changed := k.changesTo(c)
	k.known.follow(c, changed)
	parsed, problems := k.reading.parseAll(c, s)
	k.selected = k.selectedFor(c, parsed, changed)
	problems = slices.Concat(problems, k.selected.ties, k.known.resolveAll(k.selected.byAge))
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Ref.Compare(b.Ref) })

	node := policy.Node{
		Endpoints: slices.Clone(k.selected.endpoints), Policies: k.selected.policies(), Sets: k.known.used(),
		Concerns: policy.Concerns{Objects: k.selected.objects, Pods: k.selected.digests, Addrs: k.selected.addrs},
	}
	node.Concerns.Contested, node.Concerns.Impossible = c.claims.contests(), impossible(s)
	c.closeTo(s, &node)
	c.tie(s, &node)
	k.sets, k.known.cluster, k.copies.before = node.Sets, nil, nil
	return node, problems
}

// isVisible reports whether policy can see the pod: it runs, off the host network, with an address of its own.
func (p *Pod) isVisible() bool { return !p.HostNetwork && !p.Finished && len(p.Addrs) > 0 }

// cluster indexes the pods that policy can see.
type cluster struct {
	local       []*Pod            // on the node, sorted by namespace and name
	byNamespace map[string][]*Pod // all
	held        []*Pod            // likewise
	namespaces  map[string]*Namespace
	nodes       []*Node
	node        string       // the snapshot's
	own         []netip.Addr // that node's
	losers      []*Pod       // on the node, without an address that no other pod of the node holds
	claims      *claims
	members     []policy.Member // room to collect those of one set in
	selected    []int           // likewise those that one policy selects
	reuse       map[policy.SetID]policy.Set
	groups      podGroups
}

func newCluster(s Snapshot, same *copies) *cluster {
	c := &cluster{byNamespace: map[string][]*Pod{}, namespaces: make(map[string]*Namespace, len(s.Namespaces)), nodes: s.Nodes, node: s.Node, own: s.Own}
	for _, ns := range s.Namespaces {
		c.namespaces[ns.Name] = ns
	}
	visible := make([]*Pod, 0, len(s.Pods))
	c.held = make([]*Pod, 0, len(s.Pods))
	for _, p := range s.Pods {
		if p.isVisible() {
			visible = append(visible, p)
		}
	}
	c.claims = newClaims(&s, visible)
	for _, reported := range visible {
		p := c.claims.owning(reported, same)
		switch {
		case len(p.Addrs) == 0 && p.Node == s.Node:
			c.losers = append(c.losers, reported)
			continue
		case len(p.Addrs) == 0:
			continue
		}
		c.held = append(c.held, p)
		c.byNamespace[p.Namespace] = append(c.byNamespace[p.Namespace], p)
		if p.Node == s.Node {
			c.local = append(c.local, p)
		}
	}
	slices.SortFunc(c.local, comparePods)
	slices.SortFunc(c.losers, comparePods)
	return c
}

// selectLocal are the indexes of the local pods that s selects.
func (c *cluster) selectLocal(s podSelector) []int {
	selected := c.selected[:0]
	if s.namespaces != nil {
		for i, p := range c.local {
			if s.selects(p, c.namespaces[p.Namespace]) {
				selected = append(selected, i)
			}
		}
		c.selected = selected
		return slices.Clone(selected)
	}
	first, _ := slices.BinarySearchFunc(c.local, s.namespace, func(q *Pod, ns string) int { return cmp.Compare(q.Namespace, ns) })
	for i := first; i < len(c.local) && c.local[i].Namespace == s.namespace; i++ {
		if s.pods.Matches(&c.local[i].Labels) { // a pointer, since a slice would be copied for each look
			selected = append(selected, i)
		}
	}
	c.selected = selected
	return slices.Clone(selected)
}
