package policy

import (
	"fmt"
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

// Reverse is the connection that the next packet of the other end would begin if nobody remembered this one.
func (c Connection) Reverse() Connection {
	r := c.Reply
	r.Src, r.Dst, r.SrcPort, r.DstPort = r.Dst, r.Src, r.DstPort, r.SrcPort
	return Connection{Original: c.Reply, Reply: r, Zone: c.Zone, ID: c.ID, Left: c.Left}
}

// Judge decides about many connections at one moment. It gives each the verdict that [Node.Allows] would give a first packet; most, which concern no
// endpoint, without asking any policy.
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
	_, closed := j.node.closedEnd(j.flow(c))
	return closed
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
	if !j.Concerns(c) {
		return "", false
	}
	if j.node.allows(j.flow(c), j.endpoint, true).Allowed {
		return "", false
	}
	return j.node.allows(j.flow(c), j.endpoint, false).Reason, true
}

// MayBeReply reports whether the originator of a connection may be the one that answers, and policy allows what the other end has begun: connection tracking
// that has not seen a first packet takes the answer for one. Whoever has sent a SYN, or was led to another destination than it addressed, did begin.
func (j *Judge) MayBeReply(c Connection) bool {
	if c.SYN || c.Original.Dst != c.Reply.Src || c.Original.DstPort != c.Reply.SrcPort {
		return false
	}
	_, denied := j.Denies(c.Reverse())
	return !denied
}

func (j *Judge) endpoint(a netip.Addr) *Endpoint { return j.endpoints[a] }

// Case is a connection that policy denies.
type Case struct {
	Connection
	Reason string
	// By is the connection that was judged: the master of one that belongs to another.
	By Connection
}

// Cases collects, one by one, the connections that policy denies.
type Cases struct {
	judge   *Judge
	denied  []Case
	related []Connection
}

// NewCases begins with none.
func NewCases(j *Judge) *Cases { return &Cases{judge: j} }

// Add takes in a connection. One that belongs to another passed as related to it, whatever policy says of its ports: it goes with its master.
func (c *Cases) Add(one Connection) {
	if !c.judge.Concerns(one) {
		return
	}
	if one.Master != (Tuple{}) {
		c.related = append(c.related, one)
		return
	}
	if reason, denied := c.judge.Denies(one); denied {
		c.denied = append(c.denied, Case{Connection: one, Reason: reason, By: one})
	}
}

// Denied are those that policy denies, each with all that belong to it.
func (c *Cases) Denied() []Case {
	masters := make(map[Tuple]Case, len(c.related))
	if len(c.related) > 0 {
		for _, m := range c.denied {
			masters[m.Original] = m
		}
	}
	for _, one := range c.related {
		if m, ok := masters[one.Master]; ok {
			c.denied = append(c.denied, Case{Connection: one, Reason: m.Reason, By: m.By})
		}
	}
	c.related = nil
	return c.denied
}
