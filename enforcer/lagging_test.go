package enforcer_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/ruleset"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/ladder"
)

// past are the states that a namespace's policies have had since the one that was in force last, which is the first of them.
type past map[string][][]*networkingv1.NetworkPolicy

func in(s compile.Snapshot, namespace string) []*networkingv1.NetworkPolicy {
	return s.PoliciesOf(map[string]bool{namespace: true}).Policies
}

// explain finds for each namespace that waits one state of its past with which a kernel holds what it should, all others being as they are.
func (p past) explain(s compile.Snapshot, waiting []string, held ruleset.Ruleset) (chosen map[string]int, ok bool) {
	if len(waiting) == 0 {
		node, _ := compile.Compile(s)
		want := ruleset.Render(node, ladder.Options)
		for name, set := range held.Sets {
			if _, wanted := want.Sets[name]; !wanted {
				want.Sets[name] = set // made for what waits: no rule names it
			}
		}
		return map[string]int{}, ruleset.Diff(want, held).Empty()
	}
	ns := waiting[0]
	for i, policies := range p[ns] {
		lagging := s.Lagging(map[string]bool{ns: true}, compile.Snapshot{Policies: policies})
		if chosen, ok := p.explain(lagging, waiting[1:], held); ok {
			chosen[ns] = i
			return chosen, true
		}
	}
	return nil, false
}

// Whatever changes, and however often: the rules are at every moment those of the cluster as it is, but for the policies of namespaces that wait, which are all
// as they were at one time; no namespace goes back; and once nothing changes any more, none waits.
func TestANamespaceThatWaitsIsAsItWas(t *testing.T) {
	waited, syncs := 0, 0
	for seed := range uint64(60) {
		draw := gen.Seed(seed)
		random := rand.New(rand.NewPCG(seed, 1))
		c := gen.New(draw, gen.Options{Tiers: seed%2 == 0, Closed: seed%3 == 0})
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e := enforcer.New(kernel, ladder.Options)
		e.MakeAtOnce(1 + int(seed%5))
		s := ladder.Snapshot(c.Cluster, "node1")
		p := past{}
		for step := range 24 {
			if step < 14 && random.IntN(3) > 0 {
				c = gen.Redraw(draw, c, gen.Options{Tiers: seed%2 == 0})
				s = ladder.Snapshot(c.Cluster, "node1")
			}
			if err := p.sync(t, e, kernel, s, step == 0, random.IntN(4) == 0, &waited); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			syncs++
		}
		for range 200 {
			report, err := e.Sync(t.Context(), s, false)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if len(report.Waiting) == 0 {
				break
			}
		}
		if _, ok := p.explain(s, nil, held(t, kernel)); !ok {
			t.Fatalf("seed %d: in the end the rules are not those of the cluster", seed)
		}
		node, _ := compile.Compile(s)
		if plan := ruleset.Diff(ruleset.Render(node, ladder.Options), held(t, kernel)); !plan.Empty() {
			t.Fatalf("seed %d: in the end there is still to do:\n%s", seed, plan)
		}
	}
	t.Logf("in %d syncs namespaces waited %d times", syncs, waited)
	if waited < 100 {
		t.Error("too few have waited for this to mean anything")
	}
}

// sync syncs once and compares.
func (p past) sync(t *testing.T, e *enforcer.Enforcer, kernel *dataplane.Fake, s compile.Snapshot, first, verify bool, waited *int) error {
	report, err := e.Sync(t.Context(), s, verify)
	if err != nil || !report.Repairs.Empty() {
		return fmt.Errorf("%w; repairs:\n%s", err, report.Repairs)
	}
	if first && len(report.Waiting) > 0 {
		return fmt.Errorf("the first sync has %q wait", report.Waiting)
	}
	*waited += len(report.Waiting)
	for _, np := range s.Policies {
		if p[np.Namespace] == nil {
			p[np.Namespace] = [][]*networkingv1.NetworkPolicy{nil} // it had none
		}
	}
	for ns := range p {
		p[ns] = append(p[ns], in(s, ns))
	}
	chosen, ok := p.explain(s, report.Waiting, held(t, kernel))
	if !ok {
		return fmt.Errorf("no states of the past explain the rules; waiting are %q", report.Waiting)
	}
	for ns := range p {
		from := len(p[ns]) - 1
		if slices.Contains(report.Waiting, ns) {
			from = chosen[ns]
		}
		p[ns] = p[ns][from:]
	}
	return nil
}
