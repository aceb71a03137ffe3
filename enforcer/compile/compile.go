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

// Like is a Compiler that has read nothing yet. Where a set comes to hold what that of a node does, it stands in the memory of that: so the list of every pod
// of the cluster is there once, though what it is for is compiled anew.
func Like(node policy.Node) Compiler { return Compiler{sets: node.Sets} }

// Compiler compiles one snapshot of a node after the other, and gives each what [Compile] would. It keeps what snapshots have in common, so that a change
// costs what it reaches: the cluster, policies that it has read, which of them apply to which pods, and sets. It knows objects by their address, since nobody
// writes to what stands in a snapshot. Nodes share what they have in common, so that nobody may write to their lists either. It is not safe for concurrent use.
type Compiler struct {
	reading  reading
	copies   copies
	cluster  *cluster
	selected *selected
	known    knownSets
	resolver resolver
	said     said
	doubts   doubts
	sets     policy.Map[policy.SetID, policy.Set] // of the last node
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
	k.resolver.knownSets = &k.known
	if !k.known.follow(c, changed) {
		k.resolver.begin()
	}
	parsed, problems := k.reading.parseAll(c, s, changed)
	k.selected = k.selectedFor(c, parsed, changed)
	resolved := k.resolver.resolveAll(k.selected)
	problems = k.said.all(problems, k.selected.ties, resolved, k.doubts.follow(c, s, k.selected, changed))

	node := policy.Node{
		Endpoints: k.selected.endpoints, Policies: k.selected.policies(k.resolver.turned || k.doubts.turned), Sets: k.known.used(),
		Concerns: policy.Concerns{Objects: k.selected.objects, Pods: k.selected.digests, Addrs: k.selected.addrs},
	}
	node.Concerns.Contested, node.Concerns.Impossible = c.claims.contests(), c.allImpossible(s)
	k.doubts.addTo(&node)
	c.closeTo(&node)
	c.tie(s, &node)
	k.sets, k.known.cluster, k.copies.before = node.Sets, nil, nil
	c.reuse, c.groups = policy.Map[policy.SetID, policy.Set]{}, podGroups{}
	if cap(c.members) > manyAddresses {
		c.members = nil // room for every pod of the cluster, which no change asks for
	}
	return node, problems
}

// Holds reports whether a pod of the last snapshot holds an address.
func (k *Compiler) Holds(a netip.Addr) bool {
	if k.cluster == nil {
		return false
	}
	holder := k.cluster.claims.holder(a)
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

// said is the problems of the last snapshot, and what they were made of.
type said struct {
	of  [4][]Problem
	is  []Problem
	any bool
}

// all are the problems of some lists, by object: the same list again if all these are.
func (s *said) all(of ...[]Problem) []Problem {
	same := s.any
	for i, one := range of {
		same = same && policy.IsOneSlice(s.of[i], one)
		s.of[i] = one
	}
	if s.any = true; !same {
		s.is = slices.Concat(of...)
		slices.SortStableFunc(s.is, func(a, b Problem) int { return a.Ref.Compare(b.Ref) })
	}
	return s.is
}
