package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// nobody holds an address with which several pods are announced, and none is shown.
var nobody = &Pod{Source: Announced}

// claims says which pod holds each address, as the enforcer of one node sees it. A claim is a pod that the API, or an announcement, shows with an address.
// Most addresses are claimed by one pod, which holds it. Where several claim one, whoever wrote a status may be wrong, or lie:
//
//   - A claim of this node's pods beats all claims from elsewhere. So this node enforces policy on its own pods, whatever other nodes say of theirs.
//   - Pods of one node are compared by [Pod.against]: their node compares them in the same way.
//   - Between pods of other nodes a claim loses if its node is known to give its pods other addresses; then an announcement loses to what is shown; then the
//     younger pod loses, whether the older one terminates or not.
//
// The present decides, and nothing that was seen before: all enforcers that know the same say the same.
type claims struct {
	snapshot *Snapshot
	holders  map[netip.Addr]*Pod   // of all addresses, nobody included
	several  map[netip.Addr][]*Pod // all that claim an address, where it is more than one
	partial  bool                  // some pods do not hold all addresses that they have
	ranges   map[string][]netip.Prefix
}

func newClaims(s *Snapshot, visible []*Pod) *claims {
	c := &claims{snapshot: s, holders: make(map[netip.Addr]*Pod, len(visible)), several: map[netip.Addr][]*Pod{}}
	for _, p := range visible {
		for _, a := range p.Addrs {
			if !p.reaches(s.Node, a) {
				c.partial = true
				continue
			}
			first, claimed := c.holders[a]
			if !claimed {
				c.holders[a] = p
				continue
			}
			if c.several[a] == nil {
				c.several[a] = []*Pod{first}
			}
			c.several[a] = append(c.several[a], p)
		}
	}
	c.partial = c.partial || len(c.several) > 0
	for a, all := range c.several {
		c.holders[a] = c.decide(a, all)
	}
	return c
}

// reaches reports whether an address of p means p on a node. A link-local address means another host on each link.
func (p *Pod) reaches(node string, a netip.Addr) bool {
	return p.Node == node || !a.IsLinkLocalUnicast()
}

// decide is who of several holds an address; nobody is one of the answers.
func (c *claims) decide(a netip.Addr, all []*Pod) *Pod {
	if local := ofNode(all, c.snapshot.Node); len(local) > 0 {
		return foremost(local)
	}
	all = unless(all, func(p *Pod) bool { return c.contradicts(p.Node, a) })
	all = slices.SortedFunc(slices.Values(all), func(p, q *Pod) int { return cmp.Compare(p.Node, q.Node) })
	var first []*Pod // of each node
	for len(all) > 0 {
		end := slices.IndexFunc(all, func(p *Pod) bool { return p.Node != all[0].Node })
		if end < 0 {
			end = len(all)
		}
		first = append(first, foremost(all[:end]))
		all = all[end:]
	}
	first = unless(first, func(p *Pod) bool { return p.Source == Announced })
	if len(first) > 1 && first[0].Source == Announced {
		return nobody
	}
	return slices.MinFunc(first, func(p, q *Pod) int { return cmp.Or(cmp.Compare(p.Created, q.Created), cmp.Compare(p.UID, q.UID)) })
}

// contradicts reports whether a node is known to give its pods other addresses than this one. Where nobody knows, it does not: a kubelet could name a range
// for its node where the cluster names none.
func (c *claims) contradicts(node string, a netip.Addr) bool {
	if c.ranges == nil {
		c.ranges = make(map[string][]netip.Prefix, len(c.snapshot.Nodes))
		for _, n := range c.snapshot.Nodes {
			c.ranges[n.Name] = n.Ranges
		}
	}
	known := false
	for _, r := range c.ranges[node] {
		if r.Contains(a) {
			return false
		}
		known = known || r.Addr().BitLen() == a.BitLen()
	}
	return known
}

// unless is pods without those that are worse, or all if each is.
func unless(pods []*Pod, worse func(*Pod) bool) []*Pod {
	if better := slices.DeleteFunc(slices.Clone(pods), worse); len(better) > 0 {
		return better
	}
	return pods
}

func ofNode(pods []*Pod, node string) []*Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p *Pod) bool { return p.Node != node })
}

// foremost is who of one node's pods holds an address that all of them claim.
func foremost(pods []*Pod) *Pod {
	var holder *Pod
	for _, p := range pods {
		holder = p.against(holder)
	}
	return holder
}

// against is who holds an address that p and q of one node have, q nil if nobody else is known to have it. An announcement takes it from no pod that
// status.podIPs shows with it, and two announcements are none: an announcement is there to be earlier than what is shown, and never to open more.
func (p *Pod) against(q *Pod) *Pod {
	switch {
	case q == nil:
		return p
	case p.Source == Announced && q.Source == Announced:
		return nobody
	case p.Source == Announced:
		return q
	case q.Source == Announced, p.outranks(q):
		return p
	}
	return q
}

// outranks says which of two live pods of one node that are shown with the same address holds it: one that does not terminate, then the newer.
// The cache may still show an address with the pod that had it before; the rule does not depend on the order of events.
func (p *Pod) outranks(q *Pod) bool {
	if p.Terminating != q.Terminating {
		return q.Terminating
	}
	return cmp.Or(cmp.Compare(p.Created, q.Created), cmp.Compare(p.UID, q.UID)) > 0
}

// Holder is the pod that holds an address, as Compile sees it in a snapshot; nil if none does.
func Holder(s Snapshot, a netip.Addr) *Pod {
	var claim []*Pod
	for _, p := range s.Pods {
		if p.isVisible() && slices.Contains(p.Addrs, a) {
			only := *p
			only.Addrs, only.reported = []netip.Addr{a}, p
			claim = append(claim, &only)
		}
	}
	if holder := newClaims(&s, claim).holders[a]; holder != nil && holder != nobody {
		return holder.reported
	}
	return nil
}

// owning is p with only the addresses that it holds.
func (c *claims) owning(p *Pod, same *copies) *Pod {
	lost := func(a netip.Addr) bool { return c.holders[a] != p }
	if !c.partial || !slices.ContainsFunc(p.Addrs, lost) {
		return p
	}
	q := *p
	q.Addrs = slices.DeleteFunc(slices.Clone(p.Addrs), lost)
	if q.reported == nil {
		q.reported = p
	}
	return same.of(p, &q)
}

// isOfLocalPod reports whether a pod of this node holds an address.
func (c *claims) isOfLocalPod(a netip.Addr) bool {
	holder := c.holders[a]
	return holder != nil && holder != nobody && holder.Node == c.snapshot.Node
}

// Claims are the addresses of a pod that no other pod of the cluster may have.
func (p *Pod) Claims() []netip.Addr {
	if !p.isVisible() {
		return nil
	}
	if !slices.ContainsFunc(p.Addrs, netip.Addr.IsLinkLocalUnicast) {
		return p.Addrs
	}
	return slices.DeleteFunc(slices.Clone(p.Addrs), netip.Addr.IsLinkLocalUnicast)
}

// Contests reports whether two pods that claim one address contest it. Pods of one node do not while one of them goes: its node has given the address on.
func (p *Pod) Contests(q *Pod) bool {
	return p.UID != q.UID && (p.Node != q.Node || !p.Terminating && !q.Terminating)
}

// contests says which addresses are contested, as far as that concerns the node: with a pod of its own, or between several other nodes.
func (c *claims) contests() policy.Contests {
	var out policy.Contests
	for a, all := range c.several {
		local := ofNode(all, c.snapshot.Node)
		switch {
		case len(local) > 0 && slices.ContainsFunc(local, func(p *Pod) bool { return slices.ContainsFunc(all, p.Contests) }):
			out.Here++
		case len(local) == 0 && slices.ContainsFunc(all, func(p *Pod) bool { return p.Node != all[0].Node }):
			out.Elsewhere++
		default:
			continue
		}
		out.First = append(out.First, policy.Contest{Addr: a, Here: len(local) > 0, Pods: len(all)})
	}
	slices.SortFunc(out.First, policy.Contest.Compare)
	out.First = slices.Clone(out.First[:min(len(out.First), policy.MaxNamed)])
	for i := range out.First {
		contest := &out.First[i]
		holder := c.holders[contest.Addr]
		if holder != nobody {
			contest.Holder = holder.owner()
		}
		others := unless(c.several[contest.Addr], func(p *Pod) bool { return p == holder })
		contest.Other = slices.MinFunc(others, comparePods).owner()
	}
	return out
}

func (p *Pod) owner() policy.Owner {
	return policy.Owner{Ref: policy.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}, Node: p.Node}
}

func comparePods(a, b *Pod) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
}
