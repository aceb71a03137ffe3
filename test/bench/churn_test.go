package bench

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// comings is how often the pod comes, and goes again, in each cluster.
const comings = 25

// BenchmarkOnePod measures what one pod costs that joins a cluster of 10,000, against one that joins a cluster of 110 with the same local
// pods and policies: in another node, where some sets take its addresses, and in this one, where it is isolated.
func BenchmarkOnePod(b *testing.B) {
	kit.NeedNetfilter(b)
	t := tableOf("One pod added, 110 isolated pods here, 100 policies: median (quartiles) of a sync in ms",
		"back end", "the pod is", "among 110 pods", "among 10,000", "of it in the kernel", "ratio", "ratio in the kernel",
		"netlink messages", "iptables runs")
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		large := cluster(10_000, 100)
		small := cluster(110, 100)
		nodes := []*churned{newChurned(b, backend, small), newChurned(b, backend, large)}
		for _, at := range []struct{ name, node string }{{"elsewhere", "elsewhere"}, {"here", "here"}} {
			for range comings {
				for _, n := range nodes {
					kit.Must(b, n.comeAndGo(b.Context(), joining(at.node)))
				}
			}
			for _, n := range nodes {
				report(b, fmt.Sprintf("%s/%s/pods=%d", backend, at.name, len(n.snapshot.Local)+n.snapshot.Remote.Len()), map[string]float64{
					"sync-ms": n.took.median(), "kernel-ms": n.inKernel.median(),
					"netlink-messages": float64(n.messages), "iptables-runs": float64(n.runs)})
			}
			t.add(backend, at.name, nodes[0].took.text("%.1f"), nodes[1].took.text("%.1f"), nodes[1].inKernel.text("%.1f"),
				fmt.Sprintf("%.1f", nodes[1].took.median()/nodes[0].took.median()),
				fmt.Sprintf("%.1f", nodes[1].inKernel.median()/nodes[0].inKernel.median()),
				fmt.Sprint(nodes[1].messages), fmt.Sprint(nodes[1].runs))
			for _, n := range nodes {
				n.took, n.inKernel = nil, nil
			}
		}
	}
}

// joining is a pod of the benchmark's first namespace that is selected by policies and by peers of policies.
func joining(node string) *compile.Pod {
	return &compile.Pod{
		Namespace: "team-0", Name: "joining", UID: "joining", Node: node,
		Labels: compile.NewLabels(map[string]string{"app": "app-1", "tier": "web"}),
		Addrs:  []netip.Addr{netip.MustParseAddr("10.199.0.1")},
		Ports:  []compile.NamedPort{{Name: "http", Protocol: policy.TCP, Port: 8080}},
	}
}

// churned is a node that pods come to and go from. It stands between the enforcer and the kernel, with a clock.
type churned struct {
	*dataplane.Dataplane
	host           *host.Host
	enforcer       *enforcer.Enforcer
	snapshot       compile.Snapshot
	first          enforcer.Report // of the sync that found nothing
	firstRestored  map[iptables.Family]int
	took, inKernel sample // ms, of the syncs with a change
	messages, runs int    // likewise, of the last of them
	restored       int    // bytes of input for the iptables of IPv4, likewise

	spent time.Duration   // in the kernel, in this sync
	plans []iptables.Plan // of this sync
}

var _ enforcer.Dataplane = (*churned)(nil)

func newChurned(b *testing.B, backend string, s compile.Snapshot) *churned {
	b.Helper()
	roads++
	h, err := host.New(fmt.Sprintf("%s%d-node", host.RunPrefix(hostPrefix), roads))
	kit.Must(b, err)
	b.Cleanup(func() { kit.Must(b, h.Close()) })
	n := &churned{host: h, snapshot: s}
	kit.Must(b, h.Do(func() (err error) {
		n.Dataplane, err = dataplane.New(b.Context(), dataplane.Options{Backend: backend})
		return err
	}))
	c := n.Capabilities()
	n.enforcer = enforcer.New(n, iptables.Options{Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut})
	n.first, err = n.sync(b.Context(), s)
	kit.Must(b, err)
	n.firstRestored = map[iptables.Family]int{}
	for _, f := range iptables.Families {
		n.firstRestored[f] = n.textOf(f)
	}
	return n
}

// Apply writes the kernel.
func (n *churned) Apply(ctx context.Context, p iptables.Plan) error {
	start := time.Now()
	defer func() { n.spent += time.Since(start) }()
	n.plans = append(n.plans, p)
	return n.Dataplane.Apply(ctx, p)
}

func (n *churned) sync(ctx context.Context, s compile.Snapshot) (r enforcer.Report, err error) {
	n.spent, n.plans = 0, nil
	err = n.host.Do(func() error {
		r, err = n.enforcer.Sync(ctx, s, false)
		return err
	})
	return r, err
}

func (n *churned) comeAndGo(ctx context.Context, p *compile.Pod) error {
	with := n.snapshot.WithPods(p)
	return n.changeAndBack(ctx, with)
}

// changeAndBack syncs a changed cluster, whose time counts, and then the one before again.
func (n *churned) changeAndBack(ctx context.Context, with compile.Snapshot) error {
	start := time.Now()
	if _, err := n.sync(ctx, with); err != nil {
		return err
	}
	n.took = append(n.took, milliseconds(time.Since(start)))
	n.inKernel = append(n.inKernel, milliseconds(n.spent))
	n.messages, n.runs = 0, 0
	for _, p := range n.plans {
		messages, runs := operations(p)
		n.messages, n.runs = n.messages+messages, n.runs+runs
	}
	n.restored = n.textOf(iptables.IPv4)
	_, err := n.sync(ctx, n.snapshot)
	return err
}

// textOf is how many bytes the iptables of a family were given in the last sync.
func (n *churned) textOf(f iptables.Family) (bytes int) {
	for _, p := range n.plans {
		bytes += len(p.Restore[f])
	}
	return bytes
}

// operations are what package dataplane makes of a plan: a message for a set to be made or destroyed and one for its changed entries,
// of which hundreds fit, and a run of iptables-restore for each family.
func operations(p iptables.Plan) (messages, runs int) {
	messages = len(p.CreateSets) + len(p.Close) + len(p.AddEntries) + len(p.DelEntries) + len(p.Open) + len(p.DestroySets)
	for _, s := range p.CreateSets {
		if s.Len() > 0 {
			messages++
		}
	}
	return messages, len(p.Restore) + len(p.Jumps)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
