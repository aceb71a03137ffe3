package watchcost_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/netns"
	"github.com/ringfence-io/ringfence/test/watchcost"
)

const hostPrefix = "rf-watchcost"

func TestMain(m *testing.M) {
	netns.Sweep(hostPrefix)
	os.Exit(m.Run())
}

// small is a cluster whose figures are of no interest, in which everything must happen as in a large one.
var small = watchcost.Size{Nodes: 4, Namespaces: 3, Pods: 24}

// Each sort of watch hears of the pods that it is about, in as many events as there are, and of no others; and what it costs is counted.
func TestWhoHearsOfWhat(t *testing.T) {
	kit.NeedRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := watchcost.Start(ctx, small, host.RunPrefix(hostPrefix)+"api", t.TempDir())
	t.Cleanup(func() { kit.Must(t, c.Close()) })
	kit.Must(t, err)

	const pods = 12 // a multiple of nodes and of namespaces
	for _, row := range []struct {
		name    string
		targets func(client int) []watchcost.Target
		events  int64 // that each of two clients hears of
	}{
		{"nothing", func(int) []watchcost.Target { return nil }, 0},
		{"all but pods", watchcost.Others, 0},
		{"all pods", func(int) []watchcost.Target { return []watchcost.Target{watchcost.Pods()} }, pods * watchcost.PodEvents},
		{"all pods, their metadata", func(int) []watchcost.Target { return []watchcost.Target{watchcost.PodsMetadata()} }, pods * watchcost.PodEvents},
		{"a node's pods", func(i int) []watchcost.Target { return []watchcost.Target{watchcost.PodsAt(i)} }, pods / 4 * watchcost.PodNodeEvents},
		{"two namespaces' pods", func(i int) []watchcost.Target {
			return []watchcost.Target{watchcost.PodsOf(i), watchcost.PodsOf(i + 1)}
		}, pods / 3 * 2 * watchcost.PodEvents},
	} {
		t.Run(row.name, func(t *testing.T) {
			f, err := c.Open(ctx, 2, row.targets)
			t.Cleanup(f.Close)
			kit.Must(t, err)
			round, cost, err := c.CostOfChurn(ctx, f, pods, time.Millisecond)
			kit.Must(t, err)
			t.Logf("%+v", cost)
			if round.Events() != pods*watchcost.PodEvents {
				t.Errorf("the round has %d events", round.Events())
			}
			if cost.Events != 2*row.events {
				t.Errorf("%d events have come, want %d", cost.Events, 2*row.events)
			}
			if row.events > 0 && cost.Received < 100*cost.Events {
				t.Errorf("%d bytes have come with %d events", cost.Received, cost.Events)
			}
			if cost.CPU <= 0 {
				t.Error("it took the API server no time")
			}
		})
	}
	t.Run("slices", func(t *testing.T) { slices(ctx, t, c) })
	t.Run("reading", func(t *testing.T) { reading(t, c) })
	t.Run("memory", func(t *testing.T) {
		m, err := c.Memory(ctx)
		kit.Must(t, err)
		if m.Live < 1<<20 || m.Resident < m.Live {
			t.Errorf("it holds %+v", m)
		}
	})
}

func slices(ctx context.Context, t *testing.T, c *watchcost.Cluster) {
	const pods, changes = 20, 5
	s, err := c.Publish(ctx, 2, pods)
	kit.Must(t, err)
	f, err := c.Open(ctx, 2, func(int) []watchcost.Target { return []watchcost.Target{watchcost.PodSlices()} })
	t.Cleanup(f.Close)
	kit.Must(t, err)
	cost, err := c.CostOfSlices(ctx, f, s, changes, time.Millisecond)
	kit.Must(t, err)
	if cost.Events != 2*changes || cost.Received < 2*changes*pods*50 {
		t.Errorf("%d changes of slices of %d pods come to two clients as %d events, %d bytes", changes, pods, cost.Events, cost.Received)
	}
	kit.Must(t, s.Remove(ctx))
}

func reading(t *testing.T, c *watchcost.Cluster) {
	for _, row := range []struct {
		target watchcost.Target
		pods   int
	}{{watchcost.Pods(), 24}, {watchcost.PodsAt(1), 6}, {watchcost.PodsOf(1), 8}} {
		for _, streamed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d pods, streamed %t", row.pods, streamed), func(t *testing.T) {
				objects, cost, err := c.CostOfReading(2, row.target, streamed)
				kit.Must(t, err)
				if streamed && objects != row.pods {
					t.Errorf("%d pods have come, want %d", objects, row.pods)
				}
				if cost.Received < int64(2*row.pods*200) {
					t.Errorf("%d bytes have come", cost.Received)
				}
			})
		}
	}
}
