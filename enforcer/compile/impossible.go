package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// broadcast is the limited broadcast address, which is all hosts of a link.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// IsPossible reports whether a pod can have an address, which is neither in a zone nor IPv4 in IPv6. The API calls podIP "routable at least within the
// cluster", and checks no more than that it is an IP address. What is refused here
//
//   - is no host's: ipset refuses 0.0.0.0 and :: in any set that holds single addresses (IPSET_ERR_HASH_ELEM), and with it the whole sync;
//   - is many hosts': a multicast or the broadcast address as an egress peer opens what no selector means;
//   - is the node itself: with 127.0.0.1 for an endpoint, the loopback traffic of the node would be policed as the pod's.
//
// Link-local addresses are possible: some CNI plugins give them, and on its own node such a pod is to be policed. For other nodes they mean nobody.
func IsPossible(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != broadcast
}

// isPossibleOfNode reports whether other nodes can reach a node by an address.
func isPossibleOfNode(a netip.Addr) bool { return IsPossible(a) && !a.IsLinkLocalUnicast() }

// noteImpossible notes which pods elsewhere have gone and come that are shown with an address that none can have.
func (c *cluster) noteImpossible(gone, come []*Pod) {
	for _, p := range gone {
		delete(c.impossible, p)
	}
	for _, p := range come {
		if p.isImpossible() {
			c.impossible[p] = true
		}
	}
}

func (p *Pod) isImpossible() bool { return p.Impossible && !p.Finished && !p.HostNetwork }

// allImpossible says which pods and nodes are shown with an address that none can have.
func (c *cluster) allImpossible(s Snapshot) policy.Impossible {
	var out policy.Impossible
	add := func(o policy.Owner) {
		if o.Node == s.Node {
			out.Here++
		} else {
			out.Elsewhere++
		}
		out.First = append(out.First, o)
	}
	for _, p := range s.Local {
		if p.isImpossible() {
			add(p.owner())
		}
	}
	for p := range c.impossible {
		add(p.owner())
	}
	for _, n := range s.Nodes {
		if n.Impossible {
			add(policy.Owner{Ref: policy.Ref{Kind: "Node", Name: n.Name}, Node: n.Name})
		}
	}
	here := func(o policy.Owner) int {
		if o.Node == s.Node {
			return 0
		}
		return 1
	}
	slices.SortFunc(out.First, func(a, b policy.Owner) int { return cmp.Or(cmp.Compare(here(a), here(b)), a.Ref.Compare(b.Ref)) })
	out.First = slices.Clone(out.First[:min(len(out.First), policy.MaxNamed)])
	return out
}
