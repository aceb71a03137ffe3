package scale

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/process"
)

// Our own programs come and go: the DaemonSet is upgraded, the controller that leads dies.

// Roll has another process take the place of each enforcer, as an upgrade of the DaemonSet does, until each has reported anew.
func (c *Cluster) Roll(ctx context.Context) (Cost, error) {
	return c.Cost(ctx, func(ctx context.Context) error {
		before := c.nodes.now()
		if err := c.fleet.roll(ctx); err != nil {
			return fmt.Errorf("rolling the enforcers: %w", err)
		}
		return c.everyNodeReports(ctx, before)
	})
}

// everyNodeReports waits until all nodes have reported since a count.
func (c *Cluster) everyNodeReports(ctx context.Context, since Counts) error {
	return lab.Poll(ctx, func(context.Context) error {
		if reported := len(c.nodes.now().Minus(since)); reported < c.Nodes {
			return fmt.Errorf("%d of %d nodes have reported", reported, c.Nodes)
		}
		return nil
	})
}

// Takeover is how a controller that stood by came to lead. The policy for all pods changed just after the leader had been killed; all times but the last
// are since then. One node did not report until it was the last.
type Takeover struct {
	Cost                     // of the one that took over
	StandingBy Cost          // until it was ready to
	Spoke      time.Duration // until it said anything of the change
	Counted    time.Duration // until it said that all nodes but one enforce it
	Took       time.Duration // from the last node's report until it said that all do
}

// readsAhead is how many requests to read a controller makes before it leads, one for each kind of its cache and one for the lease.
const readsAhead = 7

// Takeover kills the controller that leads while another stands by, and changes the policy for all pods. It fails if the change is said to be programmed
// before every node has reported.
func (c *Cluster) Takeover(ctx context.Context) (Takeover, error) {
	var t Takeover
	leader := c.controller
	defer func() {
		if leader.Running() {
			leader.Kill()
		}
	}()
	reads := c.counter.now()[Reads].Requests
	var err error
	if c.controller, err = startProgram(c.program, c.kubeconfig(), c.ControllerLog()); err != nil {
		return t, err
	}
	t.StandingBy, err = c.Cost(ctx, func(ctx context.Context) error {
		return c.untilIdle(ctx, func() bool { return c.counter.now()[Reads].Requests >= reads+readsAhead })
	})
	if err != nil {
		return t, err
	}
	t.Cost, err = c.Cost(ctx, func(ctx context.Context) error { return c.takeOver(ctx, leader, &t) })
	return t, err
}

// takeOver kills the leader, and fills in the times of what follows.
func (c *Cluster) takeOver(ctx context.Context, leader *process.Process, t *Takeover) error {
	last := c.fleet.nodes[0]
	release := last.hold()
	defer release()
	leader.Kill()
	began := time.Now()
	policy, err := c.editEveryone(ctx)
	if err != nil {
		return err
	}
	v := version{types.NamespacedName{Name: policy.GetName()}, policy.GetGeneration()}
	for _, step := range []struct {
		at   *time.Duration
		here func(progress) bool
	}{
		{&t.Spoke, func(p progress) bool { return p.generation == v.generation }},
		{&t.Counted, func(p progress) bool { return p.generation == v.generation && p.programmed >= p.desired-1 }},
	} {
		if err := c.statuses.until(ctx, v.NamespacedName, step.here); err != nil {
			return err
		}
		*step.at = time.Since(began)
	}
	if at, _ := c.statuses.when(v); !at.IsZero() {
		return fmt.Errorf("generation %d of %s is said to be programmed, and %s has not reported", v.generation, v, last.name)
	}
	released := time.Now()
	release()
	at, err := c.statuses.programmed(ctx, v)
	t.Took = at.Sub(released)
	return err
}
