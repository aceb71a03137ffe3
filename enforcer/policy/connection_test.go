package policy_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The pods of these tests. web, which is reached on tcp/80 and sctp/80 from peer alone, and db, which may open connections to peer alone, are local.
var (
	web, webV6 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	db         = netip.MustParseAddr("10.0.0.2")
	peer, pv6  = netip.MustParseAddr("10.0.9.1"), netip.MustParseAddr("fd00:9::1")
	other, ov6 = netip.MustParseAddr("10.0.9.2"), netip.MustParseAddr("fd00:9::2")
	service    = netip.MustParseAddr("10.96.0.1")
	nodeAddr   = netip.MustParseAddr("172.18.0.1")
)

func twoPods() *policy.Node {
	members := func(addrs ...netip.Addr) (s policy.Set) {
		s.Kind = policy.Addresses
		for _, a := range addrs {
			s.Members = s.Members.Edited(nil, []policy.Member{{Addr: policy.AddrOf(a)}})
		}
		return s
	}
	isolated := func(d policy.Direction, i int) (e policy.Endpoint) {
		e.Applies[d][policy.NetworkPolicies] = []int{i}
		return e
	}
	in, out := isolated(policy.Ingress, 0), isolated(policy.Egress, 1)
	in.Namespace, in.Name, in.Addrs = "ns", "web", []netip.Addr{web, webV6}
	out.Namespace, out.Name, out.Addrs = "ns", "db", []netip.Addr{db}
	fromPeer := policy.Rule{Action: policy.Accept, Peer: policy.Peer{Kind: policy.InSet, Set: "peer"},
		Ports: policy.Ports{Kind: policy.InRanges, Ranges: []policy.PortRange{{Protocol: policy.TCP, First: 80, Last: 80}, {Protocol: policy.SCTP, First: 80, Last: 80}}}}
	toPeer := policy.Rule{Action: policy.Accept, Peer: policy.Peer{Kind: policy.InSet, Set: "peer"}, Ports: policy.Ports{Kind: policy.AnyPort}}
	return &policy.Node{
		Endpoints: []policy.Endpoint{out, in},
		Policies: []policy.Policy{
			{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "ns", Name: "in"}, Stage: policy.NetworkPolicies, Rules: [2][]policy.Rule{policy.Ingress: {fromPeer}}},
			{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "ns", Name: "out"}, Stage: policy.NetworkPolicies, Rules: [2][]policy.Rule{policy.Egress: {toPeer}}},
		},
		Sets: policy.MapOf(map[policy.SetID]policy.Set{"peer": members(peer, pv6)}),
	}
}

// conn is a connection without address translation, from port 40000.
func conn(p policy.Protocol, src, dst netip.Addr, port uint16) policy.Connection {
	return through(conn4(p, src, dst, port), dst, port)
}

func conn4(p policy.Protocol, src, dst netip.Addr, port uint16) policy.Connection {
	return policy.Connection{Original: policy.Tuple{Protocol: p, Src: src, Dst: dst, SrcPort: 40000, DstPort: port}}
}

// through says where a connection really leads.
func through(c policy.Connection, backend netip.Addr, port uint16) policy.Connection {
	c.Reply = policy.Tuple{Protocol: c.Original.Protocol, Src: backend, Dst: c.Original.Src, SrcPort: port, DstPort: c.Original.SrcPort}
	return c
}

// masqueraded gives replies another destination.
func masqueraded(c policy.Connection, as netip.Addr) policy.Connection {
	c.Reply.Dst = as
	return c
}

func echo(p policy.Protocol, src, dst netip.Addr, icmpType uint8) policy.Connection {
	c := policy.Connection{Original: policy.Tuple{Protocol: p, Src: src, Dst: dst, ICMPType: icmpType, ICMPID: 7}}
	c.Reply = policy.Tuple{Protocol: p, Src: dst, Dst: src, ICMPID: 7}
	return c
}

func begunWithSYN(c policy.Connection) policy.Connection {
	c.SYN = true
	return c
}

func inZone(zone uint16, c policy.Connection) policy.Connection {
	c.Zone = zone
	return c
}

// TestWhichLiveConnectionsAreDenied: what policy would say of a connection's first packet, as it saw it.
func TestWhichLiveConnectionsAreDenied(t *testing.T) {
	for _, c := range []struct {
		name   string
		conn   policy.Connection
		denied bool
	}{
		{"what a rule accepts", conn(policy.TCP, peer, web, 80), false},
		{"another port", conn(policy.TCP, peer, web, 81), true},
		{"another peer", conn(policy.TCP, other, web, 80), true},
		{"IPv6, accepted", conn(policy.TCP, pv6, webV6, 80), false},
		{"IPv6, another peer", conn(policy.TCP, ov6, webV6, 80), true},
		{"UDP, which no rule accepts", conn(policy.UDP, peer, web, 80), true},
		{"SCTP, accepted", conn(policy.SCTP, peer, web, 80), false},
		{"SCTP, another port", conn(policy.SCTP, peer, web, 81), true},
		{"echo, which no rule with ports accepts", echo(policy.ICMP, peer, web, 8), true},
		{"echo over IPv6", echo(policy.ICMPv6, pv6, webV6, 128), true},
		{"echo by a rule without ports", echo(policy.ICMP, db, peer, 8), false},
		{"neighbour discovery", echo(policy.ICMPv6, ov6, webV6, 135), false},
		{"a protocol without ports", conn(47, peer, web, 0), true},
		{"a protocol without ports by a rule without them", conn(47, db, peer, 0), false},
		{"a direction that is not isolated", conn(policy.TCP, web, other, 80), false},
		{"egress, accepted", conn(policy.TCP, db, peer, 5432), false},
		{"egress, another peer", conn(policy.TCP, db, other, 5432), true},
		{"both ends local, and ingress denies", conn(policy.TCP, db, web, 80), true},
		{"no end is local", conn(policy.TCP, other, peer, 81), false},

		{"through a service to an accepted port", through(conn4(policy.TCP, peer, service, 8080), web, 80), false},
		{"through a service to another port", through(conn4(policy.TCP, peer, service, 80), web, 8080), true},
		{"through a service to an accepted peer", through(conn4(policy.TCP, db, service, 80), peer, 8080), false},
		{"through a service to another peer", through(conn4(policy.TCP, db, service, 80), other, 8080), true},
		{"masquerading comes after policy", masqueraded(conn(policy.TCP, peer, web, 80), nodeAddr), false},
		{"masquerading hides no peer", masqueraded(conn(policy.TCP, other, web, 80), nodeAddr), true},
		{"a pod reaches itself through its service", masqueraded(through(conn4(policy.TCP, web, service, 8080), web, 81), nodeAddr), false},
		{"a pod isolated for egress reaches itself through its service", masqueraded(through(conn4(policy.TCP, db, service, 8080), db, 81), nodeAddr), false},

		{"the node itself, as the kubelet", conn(policy.TCP, nodeAddr, web, 81), false},
		{"the node itself through a service", through(conn4(policy.TCP, nodeAddr, service, 8080), web, 81), false},
		{"a pod to its node", conn(policy.TCP, db, nodeAddr, 10250), true},
		{"what another program tracks in a zone of its own", inZone(5, conn(policy.TCP, other, web, 80)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := twoPods()
			judge := policy.NewJudge(n, []netip.Addr{nodeAddr})
			reason, denied := judge.Denies(c.conn)
			if denied != c.denied {
				t.Errorf("%s: denied %t, want %t: %s", c.conn.Original, denied, c.denied, reason)
			}
			if denied && reason == "" {
				t.Errorf("%s: denied without a reason", c.conn.Original)
			}
		})
	}
}

// TestWhichConnectionsMayBeReplies: those that connection tracking may have the wrong way round, where the other way would be allowed.
func TestWhichConnectionsMayBeReplies(t *testing.T) {
	answer := func(p policy.Protocol, src, dst netip.Addr, port uint16) policy.Connection { // of a connection to the port
		c := conn(p, dst, src, port)
		return policy.Connection{Original: c.Reply, Reply: c.Original}
	}
	for _, c := range []struct {
		name string
		conn policy.Connection
		want bool
	}{
		{"an answer to whom policy accepts", answer(policy.TCP, web, peer, 80), true},
		{"of which the SYN was seen", begunWithSYN(answer(policy.TCP, web, peer, 80)), false},
		{"over SCTP", answer(policy.SCTP, web, peer, 80), true},
		{"over IPv6", answer(policy.TCP, webV6, pv6, 80), true},
		{"over UDP, which no rule accepts", answer(policy.UDP, web, peer, 80), false},
		{"from another port", answer(policy.TCP, web, peer, 81), false},
		{"to another peer", answer(policy.TCP, web, other, 80), false},
		{"to the node itself, which policy leaves alone", answer(policy.UDP, web, nodeAddr, 81), true},
		{"from where policy does not look", conn(policy.UDP, db, other, 80), true},
		{"masqueraded: what comes back is the node's", masqueraded(conn(policy.TCP, db, other, 80), nodeAddr), true},
		{"what is led to another address is a request", through(conn4(policy.TCP, db, service, 80), other, 80), false},
		{"what is led to another port is a request", through(conn4(policy.TCP, db, other, 80), other, 8080), false},
	} {
		if got := policy.NewJudge(twoPods(), []netip.Addr{nodeAddr}).MayBeReply(c.conn); got != c.want {
			t.Errorf("%s: %s may be a reply: %t, want %t", c.name, c.conn.Original, got, c.want)
		}
	}
}

// TestWhatNoKnownPodHoldsIsDenied: of a range that is closed, known addresses and the node's own are as ever.
func TestWhatNoKnownPodHoldsIsDenied(t *testing.T) {
	unknown, gateway, unknownV6 := netip.MustParseAddr("10.0.0.77"), netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("fd00::77")
	n := twoPods()
	n.Closed = policy.Closed{Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")}, Known: "known"}
	known := policy.Set{Kind: policy.Addresses}
	for _, a := range []netip.Addr{web, db, webV6} {
		known.Members = known.Members.Edited(nil, []policy.Member{{Addr: policy.AddrOf(a)}})
	}
	n.Sets = n.Sets.With("known", known)
	judge := policy.NewJudge(n, []netip.Addr{nodeAddr, gateway})
	for _, c := range []struct {
		name   string
		conn   policy.Connection
		denied bool
	}{
		{"to it", conn(policy.TCP, other, unknown, 80), true},
		{"from it", conn(policy.TCP, unknown, other, 80), true},
		{"from it to its node", conn(policy.TCP, unknown, nodeAddr, 80), true},
		{"from it to its gateway", conn(policy.TCP, unknown, gateway, 80), true},
		{"from its node", conn(policy.TCP, nodeAddr, unknown, 80), false},
		{"from its gateway", conn(policy.TCP, gateway, unknown, 80), false},
		{"through a service", through(conn4(policy.TCP, other, service, 8080), unknown, 80), true},
		{"a known pod to the gateway", conn(policy.TCP, web, gateway, 80), false},
		{"a known pod that policy accepts", conn(policy.TCP, peer, web, 80), false},
		{"a known pod that policy denies", conn(policy.TCP, other, web, 80), true},
		{"a known pod without policy in this direction", conn(policy.TCP, web, other, 80), false},
		{"IPv6", conn(policy.TCP, ov6, unknownV6, 80), true},
		{"IPv6, known", conn(policy.TCP, pv6, webV6, 80), false},
		{"neighbour discovery", echo(policy.ICMPv6, unknownV6, webV6, 135), false},
		{"no end in a range", conn(policy.TCP, other, peer, 80), false},
		{"in a zone of another program", inZone(1, conn(policy.TCP, other, unknown, 80)), false},
	} {
		if reason, denied := judge.Denies(c.conn); denied != c.denied || denied && reason == "" {
			t.Errorf("%s: denied %t, want %t: %s", c.name, denied, c.denied, reason)
		}
	}
}

// TestRelatedConnectionsGoWithTheirMaster: a connection that passed because it was expected is judged by the one that expected it.
func TestRelatedConnectionsGoWithTheirMaster(t *testing.T) {
	allowed, denied := conn(policy.TCP, peer, web, 80), conn(policy.TCP, other, web, 80)
	of := func(master policy.Connection, port uint16) policy.Connection {
		c := conn(policy.TCP, master.Original.Src, web, port)
		c.Master = master.Original
		return c
	}
	gone := of(conn(policy.TCP, other, web, 90), 2003) // its master has ended
	for name, order := range map[string][]policy.Connection{
		"masters first": {allowed, denied, of(allowed, 2001), of(denied, 2002), gone},
		"masters last":  {gone, of(denied, 2002), of(allowed, 2001), denied, allowed},
	} {
		cases := policy.NewCases(policy.NewJudge(twoPods(), nil))
		var got []string
		for _, c := range order {
			if c, denied := cases.Denied(c); denied {
				got = append(got, c.Original.String())
				cases.Gone(c.Connection)
			}
		}
		for _, c := range order {
			if c, orphaned := cases.Orphaned(c); orphaned {
				got = append(got, c.Original.String())
			}
		}
		slices.Sort(got)
		want := []string{"tcp 10.0.9.2:40000 -> 10.0.0.1:2002", "tcp 10.0.9.2:40000 -> 10.0.0.1:80"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
