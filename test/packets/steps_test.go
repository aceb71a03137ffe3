package packets

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/ladder"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// mortal is a dataplane that dies after the first step of every plan.
type mortal struct {
	*dataplane.Dataplane
	died string // after which step, empty if there was nothing to do
	err  error  // of that step
}

var _ enforcer.Dataplane = (*mortal)(nil)

var errDied = errors.New("died between two steps")

func (m *mortal) Apply(ctx context.Context, p iptables.Plan) error {
	var first iptables.Plan
	m.died, first = firstStep(p)
	if m.died == "" {
		return nil
	}
	m.err = m.Dataplane.Apply(ctx, first)
	return errDied
}

// firstStep is the first step of a plan, in the order in which the steps are documented to be taken, and its name.
func firstStep(p iptables.Plan) (string, iptables.Plan) {
	switch {
	case len(p.CreateSets) > 0:
		return "creating sets", iptables.Plan{CreateSets: p.CreateSets}
	case len(p.Close) > 0:
		return "closing", iptables.Plan{Close: p.Close}
	case len(p.AddEntries) > 0:
		return "adding entries", iptables.Plan{AddEntries: p.AddEntries}
	case len(p.Restore) > 0:
		for _, f := range iptables.Families {
			if text, ok := p.Restore[f]; ok {
				return "restoring " + f.String(), iptables.Plan{Restore: map[iptables.Family]string{f: text}}
			}
		}
	case len(p.Jumps) > 0:
		return "fixing a jump", iptables.Plan{Jumps: p.Jumps[:1]}
	case len(p.DelEntries) > 0:
		return "deleting entries", iptables.Plan{DelEntries: p.DelEntries}
	case len(p.Open) > 0:
		return "opening", iptables.Plan{Open: p.Open}
	case len(p.DestroySets) > 0:
		return "destroying sets", iptables.Plan{DestroySets: p.DestroySets}
	}
	return "", iptables.Plan{}
}

// TestDyingBetweenStepsOpensAndClosesNothing takes the way from one state of the churn to another step by step, each by an
// enforcer that dies after it. What holds before and after holds in between, and the next enforcer goes on from there.
func TestDyingBetweenStepsOpensAndClosesNothing(t *testing.T) {
	kit.NeedNetfilter(t)
	// Every kind of step that there is while a policy is in force. Jumps are put right once, when the first one comes.
	kinds := []string{"creating sets", "closing", "adding entries", "restoring inet", "restoring inet6", "deleting entries", "opening", "destroying sets"}
	const transitions, atMost = 5, 100 // one in five opens
	for _, c := range combinations() {
		if c.kind != topology.Routed {
			continue // the kind of network makes no difference here
		}
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			w := newWorld(t, c)
			seen := map[string]int{}
			state := func(i int) *scenario.Cluster {
				s, err := churned(seed, 25*i)
				kit.Must(t, err)
				return s
			}
			w.apply(t, state(0))
			for i := 1; i <= transitions || len(seen) < len(kinds) && i <= atMost; i++ {
				next := state(i)
				for steps := w.oneStep(t, next); len(steps) > 0; steps = w.oneStep(t, next) {
					for _, s := range steps {
						seen[s]++
					}
					kit.Must(t, w.top.ForgetConnections())
					w.check(t, watchedLines)
					if t.Failed() {
						t.Fatalf("after %v of transition %d", steps, i)
					}
				}
			}
			t.Logf("died after %v", seen)
			for _, k := range kinds {
				if seen[k] == 0 {
					t.Errorf("never died after %s", k)
				}
			}
		})
	}
}

// oneStep brings every node one step nearer to the cluster, and names the steps, none if all has been done.
func (w *world) oneStep(t *testing.T, c *scenario.Cluster) []string {
	t.Helper()
	var steps []string
	for _, n := range w.nodes {
		m := &mortal{Dataplane: n.plane}
		caps := n.plane.Capabilities()
		e := enforcer.New(m, iptables.Options{Families: caps.Families, Table: caps.Table, SelfMatch: caps.SelfMatch, HoldCut: caps.HoldCut})
		kit.Must(t, n.Do(func() error {
			_, err := e.Sync(t.Context(), ladder.Snapshot(c.Cluster, n.name), false)
			if errors.Is(err, errDied) {
				return m.err
			}
			return err
		}))
		if m.died != "" {
			steps = append(steps, m.died)
		}
	}
	return steps
}
