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
// costs what it reaches: the cluster, policies that it has read, which of them apply to which pods, and sets. It knows objects by their address, since nobody
// writes to what stands in a snapshot. Nodes share what they have in common, so that nobody may write to their lists either. It is not safe for concurrent use.
type Compiler struct {
	reading  reading
	copies   copies
	cluster  *cluster
	selected *selected
	known    knownSets
	doubts   doubts
	sets     map[policy.SetID]policy.Set // of the last node
}

// Compile compiles a snapshot.
func (k *Compiler) Compile(s Snapshot) (policy.Node, []Problem) {
	if k.known.budgets == (budgets{}) {
		k.known.budgets = documented
	}
	if k.cluster == nil || k.cluster.node != s.Node {
		k.cluster = newCluster(s.Node)
	}
	c := k.cluster
	k.copies.next()
	changed := c.follow(s, withGiven(s, &k.copies))
	c.reuse = k.sets
	k.known.follow(c, changed)
	parsed, problems := k.reading.parseAll(c, s, changed)
	k.selected = k.selectedFor(c, parsed, changed)
	problems = slices.Concat(problems, k.selected.ties, k.known.resolveAll(k.selected.byAge), k.doubts.follow(c, s, k.selected, changed))
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Ref.Compare(b.Ref) })

	node := policy.Node{
		Endpoints: slices.Clone(k.selected.endpoints), Policies: k.selected.policies(), Sets: k.known.used(),
		Concerns: policy.Concerns{Objects: k.selected.objects, Pods: k.selected.digests, Addrs: k.selected.addrs},
	}
	node.Concerns.Contested, node.Concerns.Impossible = c.claims.contests(), c.allImpossible(s)
	k.doubts.addTo(&node)
	c.closeTo(&node)
	c.tie(s, &node)
	k.sets, k.known.cluster, k.copies.before = node.Sets, nil, nil
	c.reuse, c.groups = nil, podGroups{}
	return node, problems
}

// Holds reports whether a pod of the last snapshot holds an address.
func (k *Compiler) Holds(a netip.Addr) bool {
	if k.cluster == nil {
		return false
	}
	holder := k.cluster.claims.holders[a]
	return holder != nil && holder != nobody
}

// isVisible reports whether policy can see the pod: it runs, off the host network, with an address of its own.
func (p *Pod) isVisible() bool { return !p.HostNetwork && !p.Finished && len(p.Addrs) > 0 }

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
