package scale_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scale"
)

// small is a cluster whose figures are of no interest, in which everything must happen as in a large one.
var small = scale.Size{Nodes: 20, Namespaces: 20, Apps: 5, Pods: 10, Policies: 2}

// Only nodes that a change is about write anything, once; and where nothing changes, nothing is written but signs of life.
func TestOnlyWhatIsConcernedIsWritten(t *testing.T) {
	kit.NeedRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	program, err := scale.Build(t.TempDir())
	kit.Must(t, err)
	c, err := scale.Start(ctx, small, program, host.RunPrefix("rf-scale")+"api", t.TempDir())
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(c.ControllerLog())
			t.Logf("the controller:\n%s", log)
		}
		kit.Must(t, c.Close())
	})
	kit.Must(t, err)
	kit.Must(t, c.ControlFlows(ctx))
	kit.Must(t, c.StartEnforcers(ctx, time.Hour))
	began, err := c.Begin(ctx)
	kit.Must(t, err)
	t.Logf("programmed after %s", began.Wall)
	if n := began.Controller[scale.Enforcements].Requests; n != int64(small.Namespaces*small.Policies) {
		t.Errorf("the controller made %d PolicyEnforcements, want %d", n, small.Namespaces*small.Policies)
	}

	for _, change := range []struct {
		name      string
		make      func() (scale.Change, error)
		concerned int
	}{
		{"a policy for an application", func() (scale.Change, error) { return c.ChangeFew(ctx, 3) }, 2},
		{"a policy for a namespace", func() (scale.Change, error) { return c.ChangeNamespace(ctx, 4) }, 10},
		{"a policy for all pods", func() (scale.Change, error) { return c.ChangeEveryone(ctx) }, 20},
	} {
		t.Run(change.name, func(t *testing.T) {
			got, err := change.make()
			kit.Must(t, err)
			t.Logf("programmed after %s; nodes: %+v; the controller: %+v", got.Took, got.Nodes.Sum(), got.Controller)
			if got.Concerned != change.concerned {
				t.Errorf("%d nodes are concerned, want %d", got.Concerned, change.concerned)
			}
			once(t, got)
			if n := got.Controller[scale.Statuses].Requests; n < 2 {
				t.Errorf("the controller wrote %d statuses, want two at least: not programmed any more, and programmed again", n)
			}
			if n := got.Controller[scale.Events].Requests; n != 1 {
				t.Errorf("the controller wrote %d Events, want one", n)
			}
		})
	}
	t.Run("a report with nothing left out", func(t *testing.T) {
		const limit = 64 << 10
		if size, err := c.LargestPossible(ctx); err != nil || size > limit {
			t.Errorf("it has %d bytes, want %d at most; error %v", size, limit, err)
		}
	})
	t.Run("a restart of the controller", func(t *testing.T) {
		cost, err := c.Restart(ctx)
		kit.Must(t, err)
		if says := cost.Says(); says != (scale.Count{}) || len(cost.Nodes) > 0 {
			t.Errorf("it causes writes of the controller, %+v, and of nodes, %+v", cost.Controller, cost.Nodes)
		}
	})
	t.Run("an upgrade of the DaemonSet", func(t *testing.T) {
		cost, err := c.Roll(ctx)
		kit.Must(t, err)
		if says := cost.Says(); says != (scale.Count{}) {
			t.Errorf("the controller writes %+v", cost.Controller)
		}
		if sum := cost.Nodes.Sum(); sum.Requests != int64(small.Nodes) || len(cost.Nodes) != small.Nodes {
			t.Errorf("%d nodes made %d reports, want one of each", len(cost.Nodes), sum.Requests)
		}
	})
	t.Run("the leader is killed", func(t *testing.T) {
		took, err := c.Takeover(ctx)
		kit.Must(t, err)
		t.Logf("its successor spoke after %s, and knew all nodes but one after %s", took.Spoke, took.Counted)
		if sum := took.Nodes.Sum(); sum.Requests != int64(small.Nodes) {
			t.Errorf("%d reports were made for the one change, want one of each node", sum.Requests)
		}
	})
	t.Run("what the API server takes our requests for", func(t *testing.T) {
		flows, err := c.Flows(ctx)
		kit.Must(t, err)
		level := map[string]string{}
		for _, f := range flows {
			if f.Requests > 0 {
				level[f.Schema] = f.Level
			}
		}
		for schema, want := range map[string]string{
			"ringfence-reports": "ringfence-reports", "ringfence-lease": "leader-election", "service-accounts": "workload-low",
		} {
			if level[schema] != want {
				t.Errorf("requests of flow schema %s are of level %q, want %s", schema, level[schema], want)
			}
		}
	})
	t.Run("quiet", func(t *testing.T) {
		const heartbeat = time.Second
		c.StopEnforcers()
		kit.Must(t, c.StartEnforcers(ctx, heartbeat))
		cost, err := c.Quiet(ctx, 6*heartbeat)
		kit.Must(t, err)
		t.Logf("nodes: %+v; the controller: %+v", cost.Nodes.Sum(), cost.Controller)
		if len(cost.Nodes) != small.Nodes {
			t.Errorf("%d nodes gave signs of life, want %d", len(cost.Nodes), small.Nodes)
		}
		if cost.News > 0 {
			t.Errorf("%d reports were no mere signs of life", cost.News)
		}
		if says := cost.Says(); says != (scale.Count{}) {
			t.Errorf("the controller writes %+v", cost.Controller)
		}
	})
}

// once checks that each node that a change is about has written once, and no other.
func once(t *testing.T, c scale.Change) {
	t.Helper()
	if len(c.Strangers) > 0 {
		t.Errorf("nodes wrote that are not concerned: %v", c.Strangers)
	}
	if sum := c.Nodes.Sum(); sum.Requests != int64(c.Concerned) || len(c.Nodes) != c.Concerned || sum.Refused > 0 {
		t.Errorf("%d nodes made %d writes, of which %d were refused; want %d nodes, one write each", len(c.Nodes), sum.Requests, sum.Refused, c.Concerned)
	}
}
