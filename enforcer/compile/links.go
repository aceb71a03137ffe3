package compile

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Link is the host's end of an interface in another network namespace, as the kernel and the results of CNI plugins show it.
type Link struct {
	// Name and Index are what the kernel calls it.
	Name  string
	Index int
	// Bridged is set for a port of a bridge.
	Bridged bool
	// Guarded is set if the kernel holds a guard for it already: a pod has been known to have it.
	Guarded bool
	// Held are the addresses that the other end has, and MAC its hardware address, which may be empty. Who may configure it there can change them.
	Held []netip.Addr
	MAC  string
	// Given is what the CNI plugins' result says of it, nil if nobody knows a result.
	Given *Given
}

// Given is the result of CNI plugins for an attachment. It is written by root on the host alone.
type Given struct {
	UID, Namespace, Name string // of the pod; a UID may be a static pod's, which the API does not have
	// Addrs are all addresses that the result names, of all its interfaces: those are the pod's, whether status.podIPs shows them or not.
	Addrs []netip.Addr
	// MAC is the hardware address of the pod's end of the link, empty if the result does not say it.
	MAC string
}

// SourceCheck says what becomes of packets whose source is no address of the pod that they come from.
type SourceCheck uint8

// The source checks.
const (
	SourceCheckOff SourceCheck = iota
	SourceCheckAudit
	SourceCheckEnforce
)

// withGiven are the node's pods with the addresses that CNI plugins have given them beside those that the API shows. Policy is then about these too. A result
// that shares no address with the pod is of a sandbox before the present one.
func withGiven(s Snapshot, same *copies) []*Pod {
	more := map[string][]netip.Addr{} // by UID, and of static pods by name
	for _, l := range s.Links {
		if g := l.Given; g != nil {
			more[g.key()] = append(more[g.key()], g.Addrs...)
		}
	}
	local, copied := s.Local, false
	for i, p := range s.Local {
		if !p.isVisible() {
			continue
		}
		given := more[p.UID]
		if given == nil {
			given = more[staticKey(p.Namespace, p.Name)]
		}
		if !slices.ContainsFunc(given, isOneOf(p.Addrs)) {
			given = nil
		}
		given = slices.Concat(given, p.given())
		if !slices.ContainsFunc(given, func(a netip.Addr) bool { return !slices.Contains(p.Addrs, a) }) {
			continue
		}
		if !copied {
			local, copied = slices.Clone(s.Local), true
		}
		local[i] = same.of(p, p.with(given))
	}
	return local
}

// with is p with these addresses too.
func (p *Pod) with(addrs []netip.Addr) *Pod {
	all := slices.Concat(p.Addrs, slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return !IsPossible(a) || a.IsLinkLocalUnicast() && a.Is6()
	}))
	slices.SortFunc(all, netip.Addr.Compare)
	return p.withAddrs(slices.Compact(all))
}

func isOneOf(addrs []netip.Addr) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return slices.Contains(addrs, a) }
}

// key finds the pod of a result among those that the API has: a kubelet's own UID, a hash without dashes, is not the API's.
func (g *Given) key() string {
	if strings.Contains(g.UID, "-") {
		return g.UID
	}
	return staticKey(g.Namespace, g.Name)
}

func staticKey(namespace, name string) string { return namespace + "/" + name }

// tie says of the node's links whose they are: by the CNI result where there is one, else by the addresses that the other end has. A link that had a pod is
// shut when the pod is gone from the API, or has ended: whatever runs there yet is nobody's. One that no pod was ever known to have is left alone.
func (c *cluster) tie(s Snapshot, node *policy.Node) {
	if node.LinksUnread = s.Unread; s.Unread || s.SourceCheck == SourceCheckOff {
		return
	}
	node.LinkLocalHeld = s.SourceCheck == SourceCheckEnforce && !slices.ContainsFunc(c.local, (*Pod).hasLinkLocal)
	node.AuditSources, node.Tunnels, node.Broadcasts = s.SourceCheck == SourceCheckAudit, s.Tunnels, s.Broadcasts
	t := tying{cluster: c, byAddr: map[netip.Addr]*Pod{}, byKey: map[string]*Pod{}, tied: map[*Pod]bool{}, pending: map[string]bool{}, node: node}
	for _, p := range s.Local {
		if !p.Finished && len(p.Addrs) == 0 {
			t.pending[p.UID] = true
		}
	}
	for _, p := range c.local {
		t.byKey[p.UID], t.byKey[staticKey(p.Namespace, p.Name)] = p, p
		for _, a := range p.Addrs {
			t.byAddr[a] = p
		}
	}
	for _, l := range s.Links {
		t.link(l)
	}
	slices.SortFunc(node.Links, func(a, b policy.Link) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range c.local {
		if !t.tied[p] && !t.exempt(p) {
			node.Concerns.Links.Untied++
			if node.Concerns.Links.First == "" {
				node.Concerns.Links.First = staticKey(p.Namespace, p.Name)
			}
		}
	}
	if !node.AuditSources {
		t.shut(s)
	}
}

// hasLinkLocal reports whether the API shows a pod with an IPv6 address of one link, by which policy then knows it on its own node.
func (p *Pod) hasLinkLocal() bool {
	return slices.ContainsFunc(p.Addrs, func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() })
}

// tying is a tie in progress.
type tying struct {
	*cluster
	byAddr map[netip.Addr]*Pod
	byKey  map[string]*Pod // by UID, and by namespace and name
	tied   map[*Pod]bool
	// pending are pods of the node that policy cannot see yet, because nobody has shown an address of theirs.
	pending map[string]bool
	gone    []netip.Addr // of links that are shut
	node    *policy.Node
}

func (t *tying) exempt(p *Pod) bool {
	ns := t.namespaces[p.Namespace]
	return ns != nil && ns.SourceCheckOff
}

func (t *tying) link(l Link) {
	p, addrs := t.holder(l)
	counts := &t.node.Concerns.Links
	switch {
	case p != nil && t.exempt(p):
		counts.Exempt++
		t.tied[p] = true
	case p != nil:
		t.tied[p] = true
		if l.Given != nil {
			counts.ByResult++
		} else {
			counts.ByKernel++
		}
		t.add(l, p.Namespace, p.Name, addrs)
	case l.Guarded || t.hasEnded(l):
		counts.Shut++
		namespace, name, gone := "", "unknown", l.Held
		if l.Given != nil { // then whoever configures the other end has no say in what is shut off
			namespace, name, gone = l.Given.Namespace, l.Given.Name, l.Given.Addrs
		}
		t.gone = append(t.gone, gone...)
		t.add(l, namespace, name, nil)
	}
}

// hasEnded reports whether a link is that of a pod which the API does not have, or has as finished. Of a pod that a kubelet runs by itself nobody knows
// whether the API will have it.
func (t *tying) hasEnded(l Link) bool {
	return l.Given != nil && strings.Contains(l.Given.UID, "-") && !t.pending[l.Given.UID]
}

func (t *tying) add(l Link, namespace, name string, addrs []netip.Addr) {
	link := policy.Link{
		Name: l.Name, Index: l.Index, Namespace: namespace, Pod: name, Addrs: addrs, Bridged: l.Bridged,
		Isolated: l.Bridged && (len(addrs) == 0 || t.isolated(namespace, name)),
	}
	if l.Bridged {
		link.MAC = l.MAC
		if l.Given != nil && l.Given.MAC != "" {
			link.MAC = l.Given.MAC
		}
	}
	t.node.Links = append(t.node.Links, link)
}

// isolated reports whether a policy that is enforced applies to a pod for ingress.
func (t *tying) isolated(namespace, name string) bool {
	i := slices.IndexFunc(t.node.Endpoints, func(e policy.Endpoint) bool { return e.Namespace == namespace && e.Name == name })
	if i < 0 {
		return false
	}
	for _, policies := range t.node.Endpoints[i].Applies[policy.Ingress] {
		if slices.ContainsFunc(policies, func(p int) bool { return !t.node.Policies[p].Audit }) {
			return true
		}
	}
	return false
}

// holder is the pod that has a link, with the addresses that it may send from there; nil if it is not known. By the addresses of the other end alone a link
// may seem to be of several pods, if one of them has taken another's: then it may send from those that it has, and policy is asked about each as whose it is.
// It is exempt only if all of them are.
func (t *tying) holder(l Link) (*Pod, []netip.Addr) {
	if l.Given != nil {
		p := t.byKey[l.Given.key()]
		if p == nil {
			return nil, nil
		}
		return p, p.Addrs
	}
	var holder *Pod
	var addrs []netip.Addr
	for _, a := range l.Held {
		if p := t.byAddr[a]; p != nil {
			addrs = append(addrs, a)
			if holder == nil || t.exempt(holder) && !t.exempt(p) {
				holder = p
			}
		}
	}
	return holder, addrs
}

// shut makes the set of the addresses that nobody has any more but links that are shut: no pod of any node, and no node. Where not all pods are known, those in
// the node's own ranges: another address may be that of a pod elsewhere by now.
func (t *tying) shut(s Snapshot) {
	inRanges := func(a netip.Addr) bool {
		return slices.ContainsFunc(s.Ranges, func(r netip.Prefix) bool { return r.Contains(a) })
	}
	gone := slices.DeleteFunc(t.gone, func(a netip.Addr) bool {
		return t.claims.holder(a) != nil || slices.Contains(t.own, a) || a.Is6() && a.IsLinkLocalUnicast() || !s.Elsewhere.isAll() && !inRanges(a) ||
			slices.ContainsFunc(t.nodes, func(n *Node) bool { return slices.Contains(n.Addrs, a) })
	})
	if len(gone) == 0 {
		return
	}
	id := setID("shut")
	t.members = t.members[:0]
	for _, a := range gone {
		t.members = append(t.members, policy.Member{Addr: policy.AddrOf(a)})
	}
	t.addSet(t.node, id, policy.Addresses, t.sorted())
	t.node.Shut = id
}
