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
	pods    map[*Pod]bool
}

func newConcerns(c *cluster) *concerns {
	return &concerns{cluster: c, objects: map[policy.Object]bool{}, pods: map[*Pod]bool{}}
}

// add notes that p selects a pod.
func (c *concerns) add(p *parsedPolicy, pod *Pod) {
	if pod.reported != nil {
		pod = pod.reported
	}
	c.objects[policy.Object{
		Ref: p.ref, UID: string(p.version.uid), Generation: p.version.generation, Mode: p.version.mode, Audit: p.audit,
	}] = true
	c.pods[pod] = true
}

// addLosers notes the pods that p selects and that hold no address: nothing can be enforced on them, and nothing is missing for that.
func (c *concerns) addLosers(p *parsedPolicy) {
	for _, pod := range c.cluster.losers {
		if p.subject.selects(pod, c.cluster.namespaces[pod.Namespace]) {
			c.add(p, pod)
		}
	}
}

func (c *concerns) sorted() policy.Concerns {
	var out policy.Concerns
	for o := range c.objects {
		out.Objects = append(out.Objects, o)
	}
	slices.SortFunc(out.Objects, func(a, b policy.Object) int { return a.Ref.Compare(b.Ref) })
	if len(c.pods) > 0 {
		out.Addrs = make(map[uint64][]netip.Addr, len(c.pods))
	}
	for pod := range c.pods {
		digest := pod.Digest(c.cluster.namespaces[pod.Namespace])
		out.Pods = append(out.Pods, digest)
		out.Addrs[digest] = pod.Addrs
	}
	slices.Sort(out.Pods)
	return out
}
