package enforcer_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/ladder"
)

// past is what is known of a namespace: its states since the one that was in force last, which is the first of them, and which of its policies applied to a
// pod here by then.
type past struct {
	states  []compile.Lag
	applied map[policy.Ref]bool
	// shown is the first of the states as it was shown last: with pods that have come meanwhile, as these were then.
	shown compile.Lag
}

// histories are the pasts of namespaces.
type histories map[string]*past

// know has a namespace have a past, which begins with nothing.
func (h histories) know(namespace string) {
	if h[namespace] == nil {
		h[namespace] = &past{states: []compile.Lag{{}}}
	}
}

// explain finds for each namespace that waits one state of its past with which a kernel holds what it should, all others being as they are. It returns what
// the kernel holds then.
func (h histories) explain(s compile.Snapshot, waiting []string, chosen map[string]int, held iptables.Ruleset) (compile.Snapshot, policy.Node, bool) {
	if len(waiting) == 0 {
		node, _ := compile.Compile(s)
		shown := node
		shown.Policies = slices.Clone(node.Policies)
		for i, p := range node.Policies {
			// What only a new pod brings to a namespace that waits allows nothing.
			if at, waits := chosen[p.Ref.Namespace]; waits && at == 0 && p.Stage == policy.NetworkPolicies && !h[p.Ref.Namespace].applied[p.Ref] {
				shown.Policies[i] = p.Closed(func(policy.Direction, policy.Rule) bool { return false })
			}
		}
		want := iptables.Render(shown, ladder.Options)
		for name, set := range held.Sets.All() {
			if _, wanted := want.Sets.Lookup(name); !wanted {
				want.Sets = want.Sets.With(name, set) // made for what waits: no rule names it
			}
		}
		return s, node, iptables.Diff(want, held).Empty()
	}
	ns := waiting[0]
	for i, state := range append([]compile.Lag{h[ns].shown}, h[ns].states...) {
		chosen[ns] = max(0, i-1)
		if s, node, ok := h.explain(s.Lagging(map[string]bool{ns: true}, state), waiting[1:], chosen, held); ok {
			return s, node, true
		}
	}
	delete(chosen, ns)
	return s, policy.Node{}, false
}

// Whatever changes, and however often: the rules are at every moment those of the cluster as it is, but for namespaces that wait, of which all policies, and
// all that pods are selected by, are as they were at one time; no namespace goes back; and once nothing changes any more, none waits.
func TestANamespaceThatWaitsIsAsItWas(t *testing.T) {
	waited, syncs := 0, 0
	for seed := range uint64(80) {
		draw := gen.Seed(seed)
		random := rand.New(rand.NewPCG(seed, 1))
		c := gen.New(draw, gen.Options{Tiers: seed%2 == 0, Closed: seed%3 == 0})
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e := enforcer.New(kernel, ladder.Options)
		e.MakeAtOnce(1 + int(seed%5))
		s := ladder.Snapshot(c.Cluster, "node1")
		h := histories{}
		for step := range 24 {
			if step < 14 && random.IntN(3) > 0 {
				c = next(draw, random, c, seed%2 == 0)
				s = ladder.Snapshot(c.Cluster, "node1")
			}
			if err := h.sync(t, e, kernel, s, step == 0, random.IntN(4) == 0, &waited); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			syncs++
		}
		untilReady(t, e, &s, func(bool) {})
		node, _ := compile.Compile(s)
		if plan := iptables.Diff(iptables.Render(node, ladder.Options), held(t, kernel)); !plan.Empty() {
			t.Fatalf("seed %d: in the end there is still to do:\n%s", seed, plan)
		}
	}
	t.Logf("in %d syncs namespaces waited %d times", syncs, waited)
	if waited < 100 {
		t.Error("too few have waited for this to mean anything")
	}
}

// next is a cluster that has become another: all of it, its pods' labels, which pods there are, or its policies.
func next(draw *gen.Source, random *rand.Rand, c gen.Case, tiers bool) gen.Case {
	drawn := gen.Redraw(draw, c, gen.Options{Tiers: tiers})
	switch random.IntN(4) {
	case 0:
		return drawn
	case 1:
		c.Cluster.Policies = drawn.Cluster.Policies
	case 2:
		c.Cluster.Pods = slices.Clone(c.Cluster.Pods)
		for i, p := range c.Cluster.Pods {
			if random.IntN(3) == 0 {
				p = p.DeepCopy()
				p.Labels = drawn.Cluster.Pods[i%len(drawn.Cluster.Pods)].Labels
				c.Cluster.Pods[i] = p
			}
		}
	default:
		pods := slices.DeleteFunc(slices.Clone(c.Cluster.Pods), func(*corev1.Pod) bool { return random.IntN(5) == 0 })
		for i := range pods {
			if random.IntN(4) == 0 { // in place of another
				pods[i] = pods[i].DeepCopy()
				pods[i].UID += "-again"
			}
		}
		if len(pods) > 0 {
			c.Cluster.Pods = pods
		}
	}
	return c
}

// sync syncs once and compares.
func (h histories) sync(t *testing.T, e *enforcer.Enforcer, kernel *dataplane.Fake, s compile.Snapshot, first, verify bool, waited *int) error {
	report, err := e.Sync(t.Context(), s, verify)
	if err != nil || !report.Repairs.Empty() {
		return fmt.Errorf("%w; repairs:\n%s", err, report.Repairs)
	}
	if first && len(report.Waiting) > 0 {
		return fmt.Errorf("the first sync has %q wait", report.Waiting)
	}
	*waited += len(report.Waiting)
	for p := range s.Pods() {
		h.know(p.Namespace)
	}
	for np := range s.Policies.All() {
		h.know(np.Namespace)
	}
	now := s.Lag()
	for ns, p := range h {
		p.states = append(p.states, now.Of(map[string]bool{ns: true}))
	}
	chosen := map[string]int{}
	shown, node, ok := h.explain(s, report.Waiting, chosen, held(t, kernel))
	if !ok {
		return fmt.Errorf("no states of the past explain the rules; waiting are %q", report.Waiting)
	}
	for ns, p := range h {
		from, waits := chosen[ns]
		if !waits {
			from = len(p.states) - 1
		}
		p.shown = shown.Lag().Of(map[string]bool{ns: true})
		if p.states = p.states[from:]; from == 0 && waits {
			continue // it is as it was
		}
		p.applied = map[policy.Ref]bool{}
		for _, one := range node.Policies {
			if one.Ref.Namespace == ns {
				p.applied[one.Ref] = true
			}
		}
	}
	return nil
}
