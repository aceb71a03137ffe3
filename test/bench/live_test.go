package bench

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// tracked is how many live connections the node of BenchmarkCutLive has.
const tracked = 100_000

// BenchmarkCutLive takes the time from the first sync of an enforcer to the last of the connections being gone that policy denies: listing them all, judging
// each, and cutting some. Every one has an isolated pod of this node for an end, so that none is passed over without a verdict.
func BenchmarkCutLive(b *testing.B) {
	kit.NeedNetfilter(b)
	for _, denied := range []int{0, 1000, 10_000} {
		b.Run(fmt.Sprintf("connections=%d/denied=%d", tracked, denied), func(b *testing.B) {
			n := newTracking(b, cluster(10000, 100), tracked, denied)
			var took, busy sample
			for b.Loop() {
				b.StopTimer()
				n.refill(b)
				n.restart(b)
				b.StartTimer()
				start := time.Now()
				e, processor := n.cut(b)
				if e.Cut != denied || e.Seen < tracked {
					b.Fatalf("cut %d of %d, want %d of %d", e.Cut, e.Seen, denied, tracked)
				}
				busy = append(busy, processor.Seconds()*1000)
				took = append(took, time.Since(start).Seconds()*1000)
			}
			tableOf("Live connections, 110 isolated pods here, 10,000 pods, 100 policies: median (quartiles) in ms",
				"connections", "of them denied", "list, judge and cut", "processor time of it").
				add(fmt.Sprint(tracked), fmt.Sprint(denied), took.text("%.0f"), busy.text("%.0f"))
		})
	}
}

// BenchmarkJudgeLive takes the time of the verdicts alone.
func BenchmarkJudgeLive(b *testing.B) {
	node, _ := compile.Compile(cluster(10000, 100))
	all := liveConnections(b, &node, tracked, 0)
	b.ReportAllocs()
	for b.Loop() {
		cases := policy.NewCases(policy.NewJudge(&node, nil))
		for _, c := range all {
			if _, denied := cases.Denied(c); denied {
				b.Fatalf("%s is denied", c.Original)
			}
		}
	}
}

// liveConnections are connections to the node's endpoints, so many of which are denied: hundreds each from pods that a policy admits.
func liveConnections(b *testing.B, node *policy.Node, count, denied int) []policy.Connection {
	b.Helper()
	judge := policy.NewJudge(node, nil)
	connect := func(pod int, to netip.Addr, from, port uint16) policy.Connection {
		src := netip.AddrFrom4([4]byte{10, 200, byte(pod >> 8), byte(pod)})
		return policy.Connection{
			Original: policy.Tuple{Protocol: policy.TCP, Src: src, Dst: to, SrcPort: from, DstPort: port},
			Reply:    policy.Tuple{Protocol: policy.TCP, Src: to, Dst: src, SrcPort: port, DstPort: from},
		}
	}
	var all []policy.Connection
	for i := 0; len(all) < count && i < 110_000; i++ { // then everything repeats
		to, port := node.Endpoints[i%len(node.Endpoints)].Addrs[0], uint16(8000+i/11%100)
		pod := i * 7 % 10000
		one := connect(pod, to, 0, port)
		if _, denies := judge.Denies(one); denies || one.Original.Src == to { // a pod always reaches itself
			continue
		}
		for from := range uint16(400 * max(1, count/tracked)) {
			at := port
			if len(all) < denied {
				at = port + 1000
			}
			all = append(all, connect(pod, to, 20000+from, at))
		}
	}
	if len(all) < count {
		b.Fatalf("the policies admit %d connections", len(all))
	}
	return all[:count]
}

// trackingNode is a node with many live connections. Its policy is on a kernel in memory: that it is applied is not what is measured.
type trackingNode struct {
	host     *host.Host
	kernel   *dataplane.Fake
	enforcer *enforcer.Enforcer
	live     *enforcer.Connections
	snapshot compile.Snapshot
	all      []policy.Connection
	denied   int
	filled   bool
}

func newTracking(b *testing.B, s compile.Snapshot, count, denied int) *trackingNode {
	b.Helper()
	n := &trackingNode{host: newHost(b), kernel: dataplane.NewFake(dataplane.Capabilities{}), snapshot: s, denied: denied}
	var plane *dataplane.Dataplane
	kit.Must(b, n.host.Do(func() (err error) {
		plane, err = dataplane.New(b.Context(), dataplane.Options{Backend: dataplane.NFT})
		if err != nil {
			return err
		}
		sets := []iptables.Set{{Name: iptables.CutSet(iptables.IPv4), Type: iptables.HashIPPortIP, Family: iptables.IPv4}}
		return plane.Apply(b.Context(), iptables.Plan{CreateSets: sets})
	}))
	n.live = enforcer.NewConnections(plane)
	node, _ := compile.Compile(n.snapshot)
	n.all = liveConnections(b, &node, count, denied)
	return n
}

func newHost(b *testing.B) *host.Host {
	b.Helper()
	roads++
	h, err := host.New(fmt.Sprintf("%s%d-node", host.RunPrefix(hostPrefix), roads))
	kit.Must(b, err)
	b.Cleanup(func() { kit.Must(b, h.Close()) })
	return h
}

// refill has the kernel track all connections, or again those that were cut.
func (n *trackingNode) refill(b *testing.B) {
	b.Helper()
	missing := n.all[:n.denied]
	if !n.filled {
		missing, n.filled = n.all, true
	}
	track(b, n.host, missing)
}

// track has the kernel track connections.
func track(b *testing.B, h *host.Host, all []policy.Connection) {
	b.Helper()
	nl, err := h.Netlink()
	kit.Must(b, err)
	for _, c := range all {
		tuple := func(t policy.Tuple) netlink.IPTuple {
			return netlink.IPTuple{Protocol: uint8(t.Protocol), SrcIP: t.Src.AsSlice(), DstIP: t.Dst.AsSlice(), SrcPort: t.SrcPort, DstPort: t.DstPort}
		}
		kit.Must(b, nl.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
			FamilyType: unix.AF_INET, Forward: tuple(c.Original), Reverse: tuple(c.Reply), TimeOut: 3600,
			ProtoInfo: &netlink.ProtoInfoTCP{State: 3},
		}))
	}
}

// restart has a new enforcer take over, which makes it due to look at all connections.
func (n *trackingNode) restart(b *testing.B) {
	b.Helper()
	n.enforcer = enforcer.New(n.kernel, everything)
	n.enforcer.Follow(n.live)
	n.sync(b, n.snapshot)
}

func (n *trackingNode) sync(b *testing.B, s compile.Snapshot) {
	b.Helper()
	_, err := n.enforcer.Sync(context.Background(), s, false)
	kit.Must(b, err)
}

// cut says also how much processor time it took, which other programs of the machine do not change.
func (n *trackingNode) cut(b *testing.B) (e enforcer.Ended, processor time.Duration) {
	b.Helper()
	kit.Must(b, n.host.Do(func() error {
		before, err := threadTime()
		if err != nil {
			return err
		}
		if e, err = n.live.Cut(context.Background()); err != nil {
			return err
		}
		after, err := threadTime()
		processor = after - before
		return err
	}))
	return e, processor
}
