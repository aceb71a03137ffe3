package compile

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// concerns collects the policies that select a pod of the node, and these pods.
type concerns struct {
	cluster *cluster
	objects map[policy.Object]bool
	local   []bool // of the cluster's local pods
	losers  []bool // likewise
}

func newConcerns(c *cluster) *concerns {
	return &concerns{cluster: c, objects: map[policy.Object]bool{}, local: make([]bool, len(c.local)), losers: make([]bool, len(c.losers))}
}

// add notes the local pods that p selects.
func (c *concerns) add(p *parsedPolicy, selected []int) {
	for _, pod := range selected {
		c.local[pod] = true
	}
	if len(selected) > 0 {
		c.note(p)
	}
}

// note notes that p selects a pod.
func (c *concerns) note(p *parsedPolicy) {
	c.objects[policy.Object{
		Ref: p.ref, UID: string(p.version.uid), Generation: p.version.generation, Mode: p.version.mode, Audit: p.audit,
	}] = true
}

// addLosers notes the pods that p selects and that hold no address: nothing can be enforced on them, and nothing is missing for that.
func (c *concerns) addLosers(p *parsedPolicy) {
	for i, pod := range c.cluster.losers {
		if p.subject.selects(pod, c.cluster.namespaces[pod.Namespace]) {
			c.losers[i] = true
			c.note(p)
		}
	}
}

func (c *concerns) sorted() policy.Concerns {
	var out policy.Concerns
	for o := range c.objects {
		out.Objects = append(out.Objects, o)
	}
	slices.SortFunc(out.Objects, func(a, b policy.Object) int { return a.Ref.Compare(b.Ref) })
	digest := func(pod *Pod) {
		pod = pod.asReported()
		d := pod.Digest(c.cluster.namespaces[pod.Namespace])
		out.Pods = append(out.Pods, d)
		if out.Addrs == nil {
			out.Addrs = map[uint64][]netip.Addr{}
		}
		out.Addrs[d] = pod.Addrs
	}
	for i, pod := range c.cluster.local {
		if c.local[i] {
			digest(pod)
		}
	}
	for i, pod := range c.cluster.losers {
		if c.losers[i] {
			digest(pod)
		}
	}
	slices.Sort(out.Pods)
	return out
}
