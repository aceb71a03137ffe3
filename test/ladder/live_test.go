package ladder

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/trace"
)

// TestExactlyWhatTheOracleDeniesIsCut: of random live connections, some of them translated on their way, each node ends those that the API texts deny at that node, and
// no other.
func TestExactlyWhatTheOracleDeniesIsCut(t *testing.T) {
	var ended, kept atomic.Int64
	forEachCase(t, 300, func(seed uint64) error {
		c, flows := newCase(seed, 40)
		random := rand.New(rand.NewPCG(seed, 3))
		for _, node := range c.Nodes {
			cut, left, err := cutAt(t, c, node, flows, random)
			if err != nil {
				return err
			}
			ended.Add(int64(cut))
			kept.Add(int64(left))
		}
		return nil
	})
	t.Logf("%d live connections were cut, %d went on", ended.Load(), kept.Load())
	if !t.Failed() && (ended.Load() < 1000 || kept.Load() < 1000) {
		t.Error("the cases have become too tame")
	}
}

// cutAt has a node enforce the cluster while it tracks the flows as connections, and compares what is left with what the oracle allows.
func cutAt(t *testing.T, c gen.Case, node gen.Node, flows []oracle.Flow, random *rand.Rand) (cut, left int, err error) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e, live := enforcer.New(kernel, Options), enforcer.NewConnections(kernel)
	e.Follow(live)
	var connections []policy.Connection
	var want []uint32
	for i, f := range flows {
		if f.FromNode == node.Name && !slices.Contains(node.Addrs, f.Src) {
			continue // the node has no such address
		}
		if f.FromNode == "" && slices.Contains(node.Addrs, f.Src) {
			continue // nobody else has the node's
		}
		connections = append(connections, tracked(uint32(i), f, node, random))
		if allowed, _ := c.Cluster.AllowedAt(node.Name, f); allowed {
			want = append(want, uint32(i))
		}
	}
	kernel.Track(node.Addrs, connections...)
	if _, err := e.Sync(t.Context(), Snapshot(c.Cluster, node.Name), false); err != nil {
		return 0, 0, err
	}
	ended, err := live.Cut(t.Context())
	if err != nil {
		return 0, 0, err
	}
	var got []uint32
	if err := kernel.Connections(t.Context(), policy.Affected{All: true}, func(c policy.Connection) { got = append(got, c.ID) }); err != nil {
		return 0, 0, err
	}
	if d := cmp.Diff(want, got); d != "" {
		return 0, 0, fmt.Errorf("at node %s, the flows %v: what lives on (-oracle +got):\n%s\n%s", node.Name, flows, d, Describe(c.Cluster))
	}
	return ended.Cut, len(got), nil
}

// tracked is a flow as connection tracking has it: at times its destination was a service's, and at times its source is masqueraded. Policy saw neither.
func tracked(id uint32, f oracle.Flow, node gen.Node, random *rand.Rand) policy.Connection {
	protocol := policy.Protocol(f.Protocol)
	c := policy.Connection{ID: id, Left: time.Minute}
	c.Original = policy.Tuple{Protocol: protocol, Src: f.Src, Dst: f.Dst, DstPort: f.DstPort, ICMPType: f.ICMPType}
	if protocol.HasPorts() {
		c.Original.SrcPort = uint16(20000 + id)
	}
	c.Reply = policy.Tuple{Protocol: protocol, Src: f.Dst, Dst: f.Src, SrcPort: f.DstPort, DstPort: c.Original.SrcPort}
	if random.IntN(3) == 0 {
		c.Original.Dst, c.Original.DstPort = netip.MustParseAddr("10.96.0.1"), 8080
		if f.Src.Is6() {
			c.Original.Dst = netip.MustParseAddr("fd00:96::1")
		}
	}
	for _, a := range node.Addrs {
		if a.Is4() == f.Src.Is4() && random.IntN(3) == 0 {
			c.Reply.Dst = a
		}
	}
	return c
}

// TestWhatIsHeldOffIsTheOtherEndOfACutConnection: of all packets that policy allows, those are dropped that would be replies of a connection in the set, but for a SYN and an INIT.
func TestWhatIsHeldOffIsTheOtherEndOfACutConnection(t *testing.T) {
	client, web, another := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	client6, web6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	isolated := policy.Endpoint{Namespace: "ns", Name: "web", Addrs: []netip.Addr{web, web6}}
	isolated.Applies[policy.Ingress][policy.NetworkPolicies] = []int{0}
	rendered := iptables.Render(policy.Node{
		Endpoints: []policy.Endpoint{isolated},
		Policies:  []policy.Policy{{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "ns", Name: "in"}, Stage: policy.NetworkPolicies}},
	}, Options).String()
	tracer, err := trace.Parse(rendered + "add RF-4-CUT 10.0.0.1,tcp:40000,10.0.0.2 timeout 60\nadd RF-4-CUT 10.0.0.1,udp:40000,10.0.0.2 timeout 60\n" +
		"add RF-4-CUT 10.0.0.1,sctp:50000,10.0.0.2 timeout 60\nadd RF-6-CUT fd00::1,sctp:50000,fd00::2 timeout 60\n")
	if err != nil {
		t.Fatal(err)
	}
	const tcp, udp, sctp = 6, 17, 132
	for _, c := range []struct {
		name   string
		packet trace.Packet
		passes bool
	}{
		{"the server goes on", trace.Packet{Src: web, Dst: client, Protocol: tcp, SrcPort: 80, DstPort: 40000, MidStream: true}, false},
		{"the server goes on over UDP", trace.Packet{Src: web, Dst: client, Protocol: udp, SrcPort: 53, DstPort: 40000}, false},
		{"it opens a connection of its own, to the same port", trace.Packet{Src: web, Dst: client, Protocol: tcp, SrcPort: 50000, DstPort: 40000}, true},
		{"it goes on on another one", trace.Packet{Src: web, Dst: client, Protocol: tcp, SrcPort: 80, DstPort: 40001, MidStream: true}, true},
		{"over another protocol", trace.Packet{Src: web, Dst: client, Protocol: sctp, SrcPort: 80, DstPort: 40000}, true},
		{"with another client", trace.Packet{Src: web, Dst: another, Protocol: tcp, SrcPort: 80, DstPort: 40000, MidStream: true}, true},
		{"another server", trace.Packet{Src: another, Dst: client, Protocol: tcp, SrcPort: 80, DstPort: 40000, MidStream: true}, true},
		{"what is established stays so", trace.Packet{Src: web, Dst: client, Protocol: tcp, SrcPort: 80, DstPort: 40000, MidStream: true, State: "ESTABLISHED"}, true},
		{"the server goes on over SCTP", trace.Packet{Src: web, Dst: client, Protocol: sctp, SrcPort: 80, DstPort: 50000, MidStream: true}, false},
		{"it opens an SCTP association of its own, to the same port", trace.Packet{Src: web, Dst: client, Protocol: sctp, SrcPort: 80, DstPort: 50000}, true},
		{"it goes on over SCTP in IPv6", trace.Packet{Src: web6, Dst: client6, Protocol: sctp, SrcPort: 80, DstPort: 50000, MidStream: true}, false},
		{"it opens an SCTP association in IPv6", trace.Packet{Src: web6, Dst: client6, Protocol: sctp, SrcPort: 80, DstPort: 50000}, true},
		{"the client is judged by policy", trace.Packet{Src: client, Dst: web, Protocol: tcp, SrcPort: 40000, DstPort: 80, MidStream: true}, false},
	} {
		v, err := tracer.Walk("FORWARD", c.packet)
		if err != nil {
			t.Fatal(err)
		}
		if v.Passed != c.passes {
			t.Errorf("%s: passes %t, want %t, by %v", c.name, v.Passed, c.passes, v.Hits)
		}
	}
}
