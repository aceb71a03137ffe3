package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scale"
)

// Environment variables of BenchmarkFleet.
const (
	fleetNodes    = "FLEET_NODES"    // the sizes of the clusters, multiples of 50
	fleetPolicies = "FLEET_POLICIES" // how many policies each namespace has, at least two
)

const fleetPatience = 90 * time.Minute

// fleetRun is one cluster that goes through it all.
type fleetRun struct {
	*scale.Cluster
	size scale.Size
	rows *table
}

// BenchmarkFleet takes a cluster through what befalls it as a whole: a first start, changes for few nodes and for all, an upgrade of the DaemonSet, a restart
// of the controller, the death of the one that leads, and quiet with the shipped heartbeat. It fails if the controller writes where nothing is news, or calls a
// policy programmed that a node has not reported.
func BenchmarkFleet(b *testing.B) {
	kit.NeedNetfilter(b)
	for _, nodes := range sizesOf(b, fleetNodes, cmp.Or(os.Getenv(fleetNodes), "250")) {
		size := scale.OfNodes(nodes)
		if text := os.Getenv(fleetPolicies); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 2 {
				b.Fatalf("%s is %q: give a number of 2 or more", fleetPolicies, text)
			}
			size.Policies = n
		}
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			r := &fleetRun{size: size, rows: tableOf("What befalls a cluster: "+size.String()+" (a KB is 1,000 bytes)",
				"", "after s", "reports", "refused", "KB sent", "writes of the controller", "KB sent", "KB read", "CPU s of the controller", "peak MB", "now MB",
				"CPU s of the API server and etcd")}
			r.measure(b)
			b.ReportMetric(0, "ns/op")
		})
	}
}

func (r *fleetRun) measure(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), fleetPatience)
	defer cancel()
	path, err := program()
	kit.Must(b, err)
	r.Cluster, err = scale.Start(ctx, r.size, path, host.RunPrefix(hostPrefix)+"fleet", b.TempDir())
	defer func() {
		if b.Failed() {
			log, _ := os.ReadFile(r.ControllerLog())
			b.Logf("the controller:\n%s", log)
		}
		kit.Must(b, r.Close())
	}()
	kit.Must(b, err)
	kit.Must(b, r.ControlFlows(ctx))
	kit.Must(b, r.StartEnforcers(ctx, time.Hour)) // no sign of life is among what is counted
	for _, step := range []struct {
		name  string
		quiet bool // the controller has nothing to say
		do    func(context.Context) (scale.Cost, error)
	}{
		{"first start of the controller, all else is there", false, r.Begin},
		{"a policy for an application changes, 5 nodes", false, changed(func(ctx context.Context) (scale.Change, error) { return r.ChangeFew(ctx, 3) })},
		{"a policy for all pods changes, all nodes", false, changed(r.ChangeEveryone)},
		{"the DaemonSet is upgraded, 50 nodes a second", true, r.Roll},
		{"the controller is restarted", true, r.Restart},
	} {
		b.Log(step.name)
		cost, err := step.do(ctx)
		kit.Must(b, err)
		r.row(step.name, cost)
		if says := cost.Says(); step.quiet && says != (scale.Count{}) {
			b.Errorf("%s: the controller writes: %+v", step.name, cost.Controller)
		}
	}
	took, err := r.Takeover(ctx)
	kit.Must(b, err)
	r.row("another controller stands by", took.StandingBy)
	r.row("the leader is killed, the policy for all pods changes", took.Cost)
	tableOf("The leader is killed, and the policy for all pods changes, in s", "cluster", "until its successor says anything", "that all nodes but one have it",
		"from the last node's report to Programmed=True").add(r.size.String(), fmt.Sprintf("%.1f", took.Spoke.Seconds()), fmt.Sprintf("%.1f", took.Counted.Seconds()),
		fmt.Sprintf("%.2f", took.Took.Seconds()))
	r.StopEnforcers()
	kit.Must(b, r.StartEnforcers(ctx, time.Minute))
	cost, err := r.Quiet(ctx, 2*time.Minute)
	kit.Must(b, err)
	r.row("two minutes of quiet, heartbeat 1m", cost)
	flows, err := r.Flows(ctx)
	kit.Must(b, err)
	t := tableOf("How the API server took our requests, all in all: "+r.size.String(), "flow schema", "priority level", "requests", "rejected", "mean wait ms")
	for _, f := range flows {
		t.add(f.Schema, f.Level, fmt.Sprint(f.Requests), fmt.Sprint(f.Rejected), fmt.Sprintf("%.1f", milliseconds(f.Waited)/float64(max(f.Requests, 1))))
	}
}

// changed is what a change cost.
func changed(change func(context.Context) (scale.Change, error)) func(context.Context) (scale.Cost, error) {
	return func(ctx context.Context) (scale.Cost, error) {
		c, err := change(ctx)
		return c.Cost, err
	}
}

func (r *fleetRun) row(name string, c scale.Cost) {
	nodes, says := c.Nodes.Sum(), c.Says()
	r.rows.add(name, fmt.Sprintf("%.1f", c.Wall.Seconds()), fmt.Sprint(nodes.Requests), fmt.Sprint(nodes.Refused), fmt.Sprintf("%.0f", kb(nodes.Sent)),
		fmt.Sprint(says.Requests), fmt.Sprintf("%.0f", kb(says.Sent)), fmt.Sprintf("%.0f", kb(c.Controller[scale.Reads].Received)),
		fmt.Sprintf("%.2f", c.Use.CPU.Seconds()), fmt.Sprintf("%.0f", mb(c.Use.Peak)), fmt.Sprintf("%.0f", mb(c.Use.Now)), fmt.Sprintf("%.1f", c.Server.Seconds()))
}
