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
// The present decides, and nothing that was seen before: all enforcers that know the same say the same. Claims follow what changes, so that a pod that comes or
// goes costs what claims its addresses.
type claims struct {
	node    string
	nodes   []*Node
	ranges  map[string][]netip.Prefix // of nodes; nil before anybody has asked
	sole    addressTable              // who claims an address alone
	several map[netip.Addr][]*Pod     // all that claim an address, where it is more than one
	decided map[netip.Addr]*Pod       // which of these holds it, nobody included
	// partly are the pods that do not hold all addresses that they have: copies with those that they hold, nil for none.
	partly map[*Pod]*Pod
}

func newClaims(node string) *claims {
	return &claims{node: node, several: map[netip.Addr][]*Pod{}, decided: map[netip.Addr]*Pod{}, partly: map[*Pod]*Pod{}}
}

// holder is the pod that holds an address, or nobody; nil if none claims it.
func (c *claims) holder(a netip.Addr) *Pod {
	if len(c.decided) > 0 {
		if p := c.decided[a]; p != nil {
			return p
		}
	}
	return c.sole.get(a)
}

// follow takes in which visible pods have gone and come, and what the nodes are. It says what has gone and come of pods that hold an address, each with the
// addresses that it holds.
func (c *claims) follow(gone, come []*Pod, nodes []*Node) (heldGone, heldCome []*Pod) {
	u := claimsUpdate{claims: c, before: map[*Pod]*Pod{}, open: map[netip.Addr]bool{}}
	if !slices.Equal(c.nodes, nodes) {
		c.nodes, c.ranges = nodes, nil
		for a := range c.several { // the ranges of nodes may decide it
			u.reopen(a)
		}
	}
	for _, p := range gone {
		if held := c.heldBy(p); held != nil {
			heldGone = append(heldGone, held)
		}
		u.each(p, func(i int) { u.remove(p.Addrs[i], p) })
	}
	c.sole.reserve(addressesOf(come))
	for _, p := range come {
		u.each(p, func(i int) { u.add(p, i) })
	}
	for a := range u.open {
		if all := c.several[a]; all != nil {
			c.decided[a] = c.decide(a, all)
		}
	}
	for _, p := range gone {
		delete(c.partly, p)
		delete(u.before, p)
	}
	for _, p := range come {
		delete(u.before, p)
		if held := c.hold(p); held != nil {
			heldCome = append(heldCome, held)
		}
	}
	for p, was := range u.before {
		is := c.hold(p)
		if is == was {
			continue
		}
		if was != nil {
			heldGone = append(heldGone, was)
		}
		if is != nil {
			heldCome = append(heldCome, is)
		}
	}
	return heldGone, heldCome
}

// claimsUpdate is one change of claims.
type claimsUpdate struct {
	*claims
	before map[*Pod]*Pod       // who claims an address that is open, and what of it that pod held
	open   map[netip.Addr]bool // who holds it is to be decided
}

// each visits the indexes of the addresses of a pod that mean it on the node.
func (u *claimsUpdate) each(p *Pod, visit func(int)) {
	for i, a := range p.Addrs {
		if p.reaches(u.node, a) {
			visit(i)
		}
	}
}

// addressesOf is how many addresses some pods have.
func addressesOf(pods []*Pod) (n int) {
	for _, p := range pods {
		n += len(p.Addrs)
	}
	return n
}

// reopen has an address decided that several claim.
func (u *claimsUpdate) reopen(a netip.Addr) {
	if u.open[a] {
		return
	}
	u.open[a] = true
	for _, p := range u.several[a] {
		u.note(p)
	}
}

// note notes what a pod held before.
func (u *claimsUpdate) note(p *Pod) {
	if _, noted := u.before[p]; !noted {
		u.before[p] = u.heldBy(p)
	}
}

func (u *claimsUpdate) remove(a netip.Addr, p *Pod) {
	all := u.several[a]
	if all == nil {
		u.sole.remove(a)
		return
	}
	u.reopen(a)
	all = slices.DeleteFunc(slices.Clone(all), func(q *Pod) bool { return q == p })
	if len(all) == 1 {
		delete(u.several, a)
		delete(u.decided, a)
		u.sole.put(all[0], slices.Index(all[0].Addrs, a))
		return
	}
	u.several[a] = all
}

// add has a pod claim its address of an index.
func (u *claimsUpdate) add(p *Pod, index int) {
	a := p.Addrs[index]
	all := u.several[a]
	if all == nil {
		first := u.sole.get(a)
		if first == nil {
			u.sole.put(p, index)
			return
		}
		u.note(first)
		u.sole.remove(a)
		all = []*Pod{first}
	}
	u.several[a] = append(slices.Clip(all), p)
	u.reopen(a)
}

// heldBy is a pod that was there before with the addresses that it holds, nil if it holds none.
func (c *claims) heldBy(p *Pod) *Pod {
	if held, partly := c.partly[p]; partly {
		return held
	}
	return p
}

// hold is a pod with the addresses that it holds now, nil if it holds none.
func (c *claims) hold(p *Pod) *Pod {
	lost := func(a netip.Addr) bool { return c.holder(a) != p }
	if !slices.ContainsFunc(p.Addrs, lost) {
		delete(c.partly, p)
		return p
	}
	addrs := slices.DeleteFunc(slices.Clone(p.Addrs), lost)
	switch last := c.partly[p]; {
	case len(addrs) == 0:
		c.partly[p] = nil
	case last == nil || !slices.Equal(last.Addrs, addrs):
		c.partly[p] = p.withAddrs(addrs)
	}
	return c.partly[p]
}

// reaches reports whether an address of p means p on a node. A link-local address means another host on each link.
func (p *Pod) reaches(node string, a netip.Addr) bool {
	return p.Node == node || !a.IsLinkLocalUnicast()
}

// decide is who of several holds an address; nobody is one of the answers.
func (c *claims) decide(a netip.Addr, all []*Pod) *Pod {
	if local := ofNode(all, c.node); len(local) > 0 {
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
	return slices.MinFunc(first, (*Pod).compareAge)
}

// contradicts reports whether a node is known to give its pods other addresses than this one. Where nobody knows, it does not: a kubelet could name a range
// for its node where the cluster names none.
func (c *claims) contradicts(node string, a netip.Addr) bool {
	if c.ranges == nil {
		c.ranges = make(map[string][]netip.Prefix, len(c.nodes))
		for _, n := range c.nodes {
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
	return p.compareAge(q) > 0
}

// compareAge orders pods with the oldest first. All have different UIDs in the API; where they have not, no order in which they come decides either.
func (p *Pod) compareAge(q *Pod) int {
	return cmp.Or(cmp.Compare(p.Created, q.Created), cmp.Compare(p.UID, q.UID), cmp.Compare(p.Namespace, q.Namespace), cmp.Compare(p.Name, q.Name))
}

// Holder is the pod that holds an address, as Compile sees it in a snapshot; nil if none does.
func Holder(s Snapshot, a netip.Addr) *Pod { return Holders(s, a)[0] }

// Holders are the pods that hold some addresses, by one walk over all pods.
func Holders(s Snapshot, addrs ...netip.Addr) []*Pod {
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		wanted[a] = true
	}
	var claim []*Pod
	for p := range s.Pods() {
		for _, a := range p.Addrs {
			if wanted[a] && p.isVisible() {
				claim = append(claim, p.withAddrs([]netip.Addr{a}))
			}
		}
	}
	all := newClaims(s.Node)
	all.follow(nil, claim, s.Nodes)
	holders := make([]*Pod, len(addrs))
	for i, a := range addrs {
		if holder := all.holder(a); holder != nil && holder != nobody {
			holders[i] = holder.asReported()
		}
	}
	return holders
}

// isOfLocalPod reports whether a pod of this node holds an address.
func (c *claims) isOfLocalPod(a netip.Addr) bool {
	holder := c.holder(a)
	return holder != nil && holder != nobody && holder.Node == c.node
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
		local := ofNode(all, c.node)
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
		holder := c.holder(contest.Addr)
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
