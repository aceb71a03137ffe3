package policy

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"time"
)

// Connection is a live connection, as the node's connection tracking has it.
type Connection struct {
	// Original is the connection's first packet as it reached the node: before any address translation.
	Original Tuple
	// Reply is what a packet back looks like when it reaches the node. Its source is where the connection really leads, behind destination NAT; its
	// destination is not the originator where that is masqueraded.
	Reply Tuple
	// Master is the original tuple of the connection that this one belongs to, as a data connection of FTP belongs to its control connection;
	// zero if there is none.
	Master Tuple
	// Zone is that of the entry. Policy is about zone 0: in others, other programs track packets that they have not translated yet.
	Zone uint16
	// ID tells the entry from another that may come to have the same tuples.
	ID uint32
	// Answered is set if packets have passed in both directions (IPS_SEEN_REPLY, linux/netfilter/nf_conntrack_common.h).
	Answered bool
	// SYN is set where TCP's tracking has seen the SYN, so that it is certain who began.
	SYN bool
	// Left is how long the entry would stay if no further packet came.
	Left time.Duration
}

// Tuple are the ends of a packet.
type Tuple struct {
	Protocol Protocol
	Src, Dst netip.Addr
	// SrcPort and DstPort are 0 for a protocol without ports.
	SrcPort, DstPort uint16
	// ICMPType, ICMPCode and ICMPID are 0 but for ICMP and ICMPv6.
	ICMPType, ICMPCode uint8
	ICMPID             uint16
}

// String is the tuple on one line, as "tcp 10.0.0.1:40000 -> 10.0.0.2:80".
func (t Tuple) String() string {
	if t.SrcPort == 0 && t.DstPort == 0 {
		return fmt.Sprintf("%s %s -> %s", t.Protocol, t.Src, t.Dst)
	}
	return fmt.Sprintf("%s %s -> %s", t.Protocol, netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort))
}

// HasPorts reports whether policy knows ports of the protocol.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// Flow is the connection's first packet as policy saw it: from its original source, which masquerading replaces only later, to where
// destination NAT had led it.
func (c Connection) Flow() Flow {
	f := Flow{Src: c.Original.Src, Dst: c.Reply.Src, Protocol: c.Original.Protocol, ICMPType: c.Original.ICMPType}
	if f.Protocol.HasPorts() {
		f.DstPort = c.Reply.SrcPort
	}
	return f
}

// Ends are the addresses between which policy saw the first packet.
func (c Connection) Ends() (source, destination netip.Addr) { return c.Original.Src, c.Reply.Src }

// How long what the other end of a connection sends may be held off.
const (
	// ShortestHold covers packets that are on their way.
	ShortestHold = 10 * time.Second
	// LongestHold is the longest of all.
	LongestHold = 24 * time.Hour
)

// longestHold bounds how long what one end sends is held off, by protocol, whatever time connection tracking would have had. What is bounded is a mistake's
// cost, and the memory of the set:
//   - the kernel forgets an idle TCP connection after five days by default, and either end may speak after any silence; a SYN is not held off;
//   - an SCTP endpoint that hears nothing gives up after 10 attempts at 60 s at most (RFC 9260, section 16); an INIT is not held off;
//   - of UDP everything is held off, a first packet too. The kernel remembers a stream for three minutes by default; settings may say much more.
var longestHold = map[Protocol]time.Duration{TCP: LongestHold, SCTP: 15 * time.Minute, UDP: 15 * time.Minute}

// Hold is how long what the other end sends is held off after the connection was cut: for as long as connection tracking would have remembered it, within
// bounds, since after that time, in which nothing was to be heard of it, a packet would have been a first one in any case.
func (c Connection) Hold() time.Duration {
	return min(max(c.Left, ShortestHold), longestHold[c.Reply.Protocol])
}

// Reverse is the connection that the next packet of the other end would begin if nobody remembered this one.
func (c Connection) Reverse() Connection {
	r := c.Reply
	r.Src, r.Dst, r.SrcPort, r.DstPort = r.Dst, r.Src, r.DstPort, r.SrcPort
	return Connection{Original: c.Reply, Reply: r, Zone: c.Zone, ID: c.ID, Left: c.Left}
}

// Judge decides about many connections at one moment. It gives each the verdict that [Node.Allows] would give a first packet; most, which concern no
// endpoint, without asking any policy. Of what a node denies in doubt it says that it is not denied.
type Judge struct {
	node      *Node
	endpoints map[netip.Addr]*Endpoint
	own       map[netip.Addr]bool
}

// NewJudge is the judge of a node that has these addresses of its own. The node must not change any more.
func NewJudge(n *Node, own []netip.Addr) *Judge {
	j := &Judge{node: n, endpoints: map[netip.Addr]*Endpoint{}, own: map[netip.Addr]bool{}}
	for i := range n.Endpoints {
		for _, a := range n.Endpoints[i].Addrs {
			j.endpoints[a] = &n.Endpoints[i]
		}
	}
	for _, a := range own {
		j.own[a] = true
	}
	return j
}

// Concerns reports whether policy may have a say in a connection: whether one of its ends is an endpoint or closed, and none the node itself as originator.
func (j *Judge) Concerns(c Connection) bool {
	return c.Zone == 0 && !j.own[c.Original.Src] && (j.endpoints[c.Original.Src] != nil || j.endpoints[c.Reply.Src] != nil || j.closes(c))
}

func (j *Judge) closes(c Connection) bool {
	f := j.flow(c)
	_, closed := j.node.closedEnd(f)
	_, shut := j.node.shutEnd(f)
	return closed || shut || j.node.holdsLinkLocal(f)
}

// flow is the connection's first packet.
func (j *Judge) flow(c Connection) Flow {
	f := c.Flow()
	f.ToNode = j.own[f.Dst]
	return f
}

// Denies reports whether policy denies a connection by itself, whatever its master may be, and why. Since an entry comes into being only
// when the first packet has passed, it is policy that has changed.
func (j *Judge) Denies(c Connection) (reason string, denied bool) {
	if !j.DoesDeny(c) {
		return "", false
	}
	return j.node.allows(j.flow(c), j.endpoint, j.node.certainly(false)).Reason, true
}

// DoesDeny is Denies without a reason, which takes as long as the verdict.
func (j *Judge) DoesDeny(c Connection) bool {
	return j.Concerns(c) && !j.node.allows(j.flow(c), j.endpoint, j.node.certainly(true)).Allowed
}

// MayBeReply reports whether the originator of a connection may be the one that answers, and policy allows what the other end has begun: connection tracking
// that has not seen a first packet takes the answer for one. Whoever has sent a SYN, or was led to another destination than it addressed, did begin.
func (j *Judge) MayBeReply(c Connection) bool {
	if c.SYN || c.Original.Dst != c.Reply.Src || c.Original.DstPort != c.Reply.SrcPort {
		return false
	}
	return !j.DoesDeny(c.Reverse())
}

func (j *Judge) endpoint(a netip.Addr) *Endpoint { return j.endpoints[a] }

// Owner is the namespace of the pod of this node on whose account a connection is kept in mind after its end: of its originator if that is one, else of the
// other end. Nobody else's pod can make connections on its account.
func (j *Judge) Owner(c Connection) string {
	for _, a := range []netip.Addr{c.Original.Src, c.Reply.Src} {
		if e := j.endpoints[a]; e != nil {
			return e.Namespace
		}
	}
	return ""
}

// Case is a connection that policy denies.
type Case struct {
	Connection
	Reason string // empty while nobody has asked for it
	// By is the connection that was judged: zero for one that belongs to another, which is gone.
	By Connection
}

// maxGone bounds what Cases keeps in mind, whatever connections there are: some 20 MB.
const maxGone = 1 << 20

// Cases finds, one by one, the connections that policy denies. It keeps none of them: a node may have a million.
type Cases struct {
	judge *Judge
	seed  maphash.Seed
	gone  map[uint64]struct{} // hashes of the original tuples of those that were ended
}

// NewCases begins with none.
func NewCases(j *Judge) *Cases {
	return &Cases{judge: j, seed: maphash.MakeSeed(), gone: map[uint64]struct{}{}}
}

// Denied reports whether policy denies a connection. One that belongs to another is not judged: it passed as related to that, whatever policy says of its
// ports, and goes with it, by [Cases.Orphaned].
func (c *Cases) Denied(one Connection) (Case, bool) {
	if one.Master != (Tuple{}) || !c.judge.DoesDeny(one) {
		return Case{}, false
	}
	return Case{Connection: one, By: one}, true
}

// Gone notes that a connection has been ended.
func (c *Cases) Gone(one Connection) {
	if len(c.gone) < maxGone {
		c.gone[maphash.Comparable(c.seed, one.Original)] = struct{}{}
	}
}

// AnyGone reports whether one has.
func (c *Cases) AnyGone() bool { return len(c.gone) > 0 }

// Orphaned reports whether a connection belongs to one that is gone, and policy has a say in it.
func (c *Cases) Orphaned(one Connection) (Case, bool) {
	if one.Master == (Tuple{}) || !c.judge.Concerns(one) {
		return Case{}, false
	}
	if _, gone := c.gone[maphash.Comparable(c.seed, one.Master)]; !gone {
		return Case{}, false
	}
	return Case{Connection: one, Reason: "it belongs to a connection that was ended: " + one.Master.String()}, true
}
