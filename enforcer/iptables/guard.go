package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// GuardTable is the name of the nftables tables that hold guards: in the family netdev what comes from a link, in the family bridge what a bridge brings to
// one. They are ours as a whole.
const GuardTable = Prefix + "GUARD"

// Guard holds what a pod sends to the pod's own addresses, where it enters the host: before connection tracking, before a bridge, for each frame, of whatever
// EtherType. The rules of policy stand in iptables and know a pod by its address; a guard is why they may.
//
// A guard lets pass, and nothing else:
//   - IPv4 and IPv6 packets, untagged, whose source is one of Addrs, from MAC if that is known. They are for none of Tunnels, and do not say their way (source
//     routes, routing headers); errors (ICMP, ICMPv6) are about a packet to one of Addrs;
//   - ARP whose sender is one of Addrs, or says none, and that carries nothing else;
//   - neighbour discovery that asks (RFC 4861, types 133, 135) or answers for the pod itself (136), with hop limit 255, and without more than that takes;
//   - what a pod has to say before it has an address: DHCP, DHCPv6, and which multicast groups it listens to (RFC 3810).
type Guard struct {
	Link  string
	Index int // the kernel's number of the link
	// Owner is "namespace/name" of the pod, for people.
	Owner   string
	Addrs   []netip.Addr
	MAC     string // six bytes, or none
	Tunnels []policy.Tunnel
	// Audit counts and samples what would be dropped, and lets it pass.
	Audit bool
	// Group is the NFLOG group of samples, 0 for none, and Point the ID by which they and the counter are known.
	Group uint16
	Point string
	// Digest stands for all of the above. What is found in the kernel has, beside Link, this alone: empty if another program has changed it.
	Digest string
}

// guardLayout is the version of what a guard's rules are: it is part of the digest, so that another version's are written anew.
const guardLayout = "2"

// guardOf is the guard of a link.
func guardOf(l policy.Link, n *policy.Node, o Options) Guard {
	g := Guard{
		Link: l.Name, Index: l.Index, Owner: l.Namespace + "/" + l.Pod, Addrs: l.Addrs, MAC: l.MAC, Tunnels: n.Tunnels,
		Audit: n.AuditSources, Group: o.NFLogGroup, Point: guardPoint(l, n.AuditSources).ID,
	}
	g.Digest = digestOf("guard", guardLayout, o.Layout.version(), g.Link, fmt.Sprint(g.Index), g.Owner, fmt.Sprint(g.Addrs), g.MAC, fmt.Sprint(g.Tunnels),
		fmt.Sprint(g.Audit), fmt.Sprint(g.Group))
	return g
}

// guardPoint is the point of what a link's guard drops, or would.
func guardPoint(l policy.Link, audit bool) policy.Point {
	p := policy.Point{
		Ref:       policy.Ref{Kind: sourceCheckKind, Namespace: l.Namespace, Name: l.Pod},
		Direction: policy.Egress, Index: -1, Audit: audit,
	}
	p.ID = digestOf("point", p.Ref.Kind, p.Ref.Namespace, p.Ref.Name, fmt.Sprint(audit))
	return p
}

// sourceCheckKind stands for the kind of the object of what a guard drops: "source check of ns/pod".
const sourceCheckKind = "source check of"

// Inward says what a bridge may bring to the ports that pods are known to have: what is for one of the pod's addresses, and what finds neighbours. To a pod
// that no policy isolates, also what is for all. The rest would pass by policy, which knows no pod by it.
type Inward struct {
	Ports []Port
	// Broadcasts are addresses that are for all, beside multicast and 255.255.255.255.
	Broadcasts []netip.Addr
	Audit      bool
	// Digest stands for all of the above; it is empty where there is nothing, and where another program has changed what is there.
	Digest string
}

// Port is a port of a bridge, with the addresses that its pod has.
type Port struct {
	Link     string
	Addrs    []netip.Addr
	Isolated bool // a policy says who may reach the pod
}

// NewInward is the Inward of these ports in a layout. It sorts them.
func NewInward(layout Layout, ports []Port, broadcasts []netip.Addr, audit bool) Inward {
	if len(ports) == 0 {
		return Inward{}
	}
	slices.SortFunc(ports, func(a, b Port) int { return strings.Compare(a.Link, b.Link) })
	in := Inward{Ports: ports, Broadcasts: broadcasts, Audit: audit}
	parts := []string{"inward", guardLayout, layout.version(), fmt.Sprint(audit), fmt.Sprint(broadcasts)}
	for _, p := range ports {
		parts = append(parts, p.Link, fmt.Sprint(p.Addrs), fmt.Sprint(p.Isolated))
	}
	in.Digest = digestOf(parts...)
	return in
}

// maxGuardWords is how long a guard's words may be: nftables' programs show 128 characters of a comment (NFTNL_UDATA_COMMENT_MAXLEN), and others stand before.
const maxGuardWords = 76

// Words say what the guard counts, as the comment of an audited object's counter does: "would deny: source check of team-a/web egress". A long name loses its
// middle.
func (g Guard) Words() string {
	label := policy.Label{Audit: g.Audit, Object: sourceCheckKind + " ", Direction: policy.Egress, Index: -1}
	owner := g.Owner
	if over := len(label.String()) + len(owner) - maxGuardWords; over > 0 {
		keep := (len(owner) - over - 2) / 2
		owner = owner[:keep] + ".." + owner[len(owner)-keep:]
	}
	label.Object += owner
	return label.String()
}

// digestOf is as many characters of a hash as names have. Each part carries its length.
func digestOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:10]))
}

// guarding is what holds a node's links, with what it was made of.
type guarding struct {
	links      []policy.Link
	tunnels    []policy.Tunnel
	broadcasts []netip.Addr
	audit      bool

	byLink map[string]Guard
	points []policy.Point
	inward Inward
}

// guardingOf is what holds the links of a node.
func guardingOf(n *policy.Node, o Options) *guarding {
	g := &guarding{links: n.Links, tunnels: n.Tunnels, broadcasts: n.Broadcasts, audit: n.AuditSources, byLink: map[string]Guard{}}
	var ports []Port
	for _, l := range n.Links {
		g.byLink[l.Name], g.points = guardOf(l, n, o), append(g.points, guardPoint(l, n.AuditSources))
		if l.Bridged {
			ports = append(ports, Port{Link: l.Name, Addrs: l.Addrs, Isolated: l.Isolated})
		}
	}
	g.inward = NewInward(o.Layout, ports, n.Broadcasts, n.AuditSources)
	return g
}

// isOf reports whether that of a node is the same. Most changes are of other nodes' pods.
func (g *guarding) isOf(n *policy.Node) bool {
	return g != nil && g.audit == n.AuditSources && slices.Equal(g.tunnels, n.Tunnels) && slices.Equal(g.broadcasts, n.Broadcasts) &&
		slices.EqualFunc(g.links, n.Links, policy.Link.Equal)
}

// diffGuards plans what links' guards are to become.
func diffGuards(p *Plan, want, have Ruleset) {
	for _, name := range sortedKeys(want.Guards) {
		if found, ok := have.Guards[name]; !ok || found.Digest != want.Guards[name].Digest {
			p.Guards = append(p.Guards, want.Guards[name])
		}
	}
	for _, name := range sortedKeys(have.Guards) {
		if _, ok := want.Guards[name]; !ok {
			p.Unguard = append(p.Unguard, name)
		}
	}
	if want.Inward.Digest != have.Inward.Digest {
		inward := want.Inward
		p.Inward = &inward
	}
}

// String is the guard in words that nft would take.
func (g Guard) String() string {
	var b strings.Builder
	verdict := "drop"
	if g.Audit {
		verdict = "count"
	}
	fmt.Fprintf(&b, "guard %s %d # %s\n", g.Link, g.Index, g.Owner)
	for _, a := range g.Addrs {
		family := "ip"
		if a.Is6() {
			family = "ip6"
		}
		fmt.Fprintf(&b, "  %s saddr %s accept\n", family, a)
	}
	fmt.Fprintf(&b, "  all else but what finds neighbours and addresses: %s\n", verdict)
	return b.String()
}

// String is what bridges bring to which port.
func (i Inward) String() string {
	var b strings.Builder
	for _, p := range i.Ports {
		for _, a := range p.Addrs {
			fmt.Fprintf(&b, "bridge to %s: daddr %s accept\n", p.Link, a)
		}
	}
	return b.String()
}
