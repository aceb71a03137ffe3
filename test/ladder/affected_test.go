package ladder

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// TestWhatDoesNotNarrowDeniesNothing: connections are not looked at after a change that policy.AffectedBy says affects none. One policy gets a rule, loses
// it, comes or goes.
func TestWhatDoesNotNarrowDeniesNothing(t *testing.T) {
	var narrows, widens atomic.Int64
	forEachCase(t, 600, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{})
		if len(c.Cluster.Policies) == 0 {
			return nil
		}
		i := int(seed) % len(c.Cluster.Policies)
		richer, fewer := c.Cluster, c.Cluster
		richer.Policies = replaced(c.Cluster.Policies, i, withRule(c.Cluster.Policies[i], gen.Policy(s, c, gen.Options{}, "more")))
		fewer.Policies = slices.Delete(slices.Clone(c.Cluster.Policies), i, i+1)
		flows := gen.Flows(s, c, 80)
		for _, node := range c.Nodes {
			for _, pair := range [][2]oracle.Cluster{{c.Cluster, richer}, {richer, c.Cluster}, {c.Cluster, fewer}, {fewer, c.Cluster}} {
				before, after := nodeOf(pair[0], node.Name), nodeOf(pair[1], node.Name)
				affected := policy.AffectedBy(before, after)
				if affected.Empty() {
					widens.Add(1)
				} else {
					narrows.Add(1)
				}
				if err := missed(before, after, affected, flows, node.Name, new(verdicts)); err != nil {
					return fmt.Errorf("%w\nbefore:\n%s\nafter:\n%s", err, Describe(pair[0]), Describe(pair[1]))
				}
			}
		}
		return nil
	})
	if narrows.Load() == 0 || widens.Load() == 0 {
		t.Errorf("%d changes narrow and %d do not: one of them is not tried", narrows.Load(), widens.Load())
	}
}

// verdicts counts what missed has seen.
type verdicts struct{ denied, told, spared atomic.Int64 }

// missed is an error if a flow that was allowed is denied, and not affected.
func missed(before, after *policy.Node, affected policy.Affected, flows []oracle.Flow, node string, seen *verdicts) error {
	isAffected := affected.Filter()
	for _, f := range flows {
		has := affected.Has(f.Src, f.Dst)
		if isAffected(f.Src, f.Dst) != has {
			return fmt.Errorf("%s at %s is affected: %t, and the filter says otherwise: %+v", f, node, has, affected)
		}
		was, is := before.Allows(PolicyFlow(f, node)), after.Allows(PolicyFlow(f, node))
		newlyDenied := before.MayAllow(PolicyFlow(f, node)) && !after.MayAllow(PolicyFlow(f, node))
		switch {
		case newlyDenied && !has:
			return fmt.Errorf("%s at %s: was allowed (%s), is denied (%s), and is not affected: %+v", f, node, was.Reason, is.Reason, affected)
		case newlyDenied:
			seen.denied.Add(1)
			if !affected.All {
				seen.told.Add(1)
			}
		case !has && !affected.Empty():
			seen.spared.Add(1)
		}
	}
	return nil
}

// TestEachConnectionThatAChangeDeniesIsAffected: whatever happens to a cluster, each connection that one step comes to deny is affected by that step, and
// each that some steps come to deny, by these together.
func TestEachConnectionThatAChangeDeniesIsAffected(t *testing.T) {
	const together = 3
	var seen verdicts
	forEachCase(t, 100, func(seed uint64) error {
		h := NewHistory(seed)
		var kept compile.Compiler
		nodes, flows := []policy.Node{{}}, gen.Flows(h.source, h.caseOf(), 60)
		var steps []policy.Affected
		for i := range 40 {
			name, s := h.Next()
			after, _ := kept.Compile(s)
			before := &nodes[len(nodes)-1]
			flows = append(flows[len(flows)-60:], gen.Flows(h.source, h.caseOf(), 60)...)
			steps, nodes = append(steps, policy.AffectedBy(before, &after)), append(nodes, after)
			if err := missed(before, &after, steps[i], flows, h.node, &seen); err != nil {
				return fmt.Errorf("step %d, %s: %w", i, name, err)
			}
			if i < together {
				continue
			}
			var some policy.Affected
			for _, one := range steps[i-together+1:] {
				some = some.With(one)
			}
			if err := missed(&nodes[len(nodes)-1-together], &after, some, flows, h.node, &seen); err != nil {
				return fmt.Errorf("step %d, %s, and the %d before it: %w", i, name, together-1, err)
			}
		}
		return nil
	})
	t.Logf("%d connections came to be denied, %d of them were told apart, and %d were spared", seen.denied.Load(), seen.told.Load(), seen.spared.Load())
	if !t.Failed() && (seen.told.Load() < 5000 || seen.spared.Load() < 50_000) {
		t.Error("the histories have become too tame")
	}
}

// TestHistoriesLeaveExactlyWhatIsAllowed: whatever happens to a cluster, after each look exactly those of its connections live that policy allows, though a
// look is only about those that are affected. Some looks are about several changes.
func TestHistoriesLeaveExactlyWhatIsAllowed(t *testing.T) {
	var cut, all, some atomic.Int64
	forEachCase(t, 50, func(seed uint64) error {
		h := NewHistory(seed)
		random := rand.New(rand.NewPCG(seed, 8))
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e, live := enforcer.New(kernel, Options), enforcer.NewConnections(kernel)
		e.Follow(live)
		var connections []policy.Connection
		born := uint32(0)
		for i := range 40 {
			name, s := h.Next()
			if _, err := e.Sync(t.Context(), s, false); err != nil {
				return fmt.Errorf("step %d, %s: %w", i, name, err)
			}
			if random.IntN(3) > 0 {
				ended, err := live.Cut(t.Context())
				if err != nil {
					return err
				}
				cut.Add(int64(ended.Cut))
				if ended.All {
					all.Add(1)
				} else {
					some.Add(1)
				}
				left, err := wanted(t.Context(), kernel, s, connections)
				if err != nil {
					return fmt.Errorf("step %d, %s: %w", i, name, err)
				}
				connections = left
			}
			judge := judgeOf(s)
			for _, f := range gen.Flows(h.source, h.caseOf(), 20) {
				if f.FromNode != "" || f.ToNode != "" {
					continue
				}
				born++
				if one := tracked(born, f, gen.Node{}, random); !judge.DoesDeny(one) {
					connections = append(connections, one)
				}
			}
			kernel.Track(nil, connections...) // whoever has a node's address is judged as any other
		}
		return nil
	})
	t.Logf("%d connections were cut, by %d looks at all and %d at some", cut.Load(), all.Load(), some.Load())
	if !t.Failed() && (cut.Load() < 1000 || some.Load() < 1000) {
		t.Error("the histories have become too tame")
	}
}

func judgeOf(s compile.Snapshot) *policy.Judge {
	n, _ := compile.Compile(s)
	return policy.NewJudge(&n, nil)
}

// wanted are the connections that are left, which are to be those that policy allows.
func wanted(ctx context.Context, kernel *dataplane.Fake, s compile.Snapshot, before []policy.Connection) (want []policy.Connection, err error) {
	judge := judgeOf(s)
	for _, c := range before {
		if !judge.DoesDeny(c) {
			want = append(want, c)
		}
	}
	var got []policy.Connection
	if err := kernel.Connections(ctx, policy.Affected{All: true}, func(c policy.Connection) { got = append(got, c) }); err != nil {
		return nil, err
	}
	if d := cmp.Diff(want, got, values); d != "" {
		return nil, fmt.Errorf("what lives on (-allowed +got):\n%s", d)
	}
	return want, nil
}
