package enforcer_test

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/test/ladder"
)

// Whatever happens to a cluster, what was made step by step is what is made at once, also if it is compared while later syncs run.
func TestComparisonsFindNothing(t *testing.T) {
	var running sync.WaitGroup
	compared := 0
	for seed := range uint64(20) {
		history := ladder.NewHistory(seed)
		e := enforcer.New(dataplane.NewFake(dataplane.Capabilities{}), ladder.Options)
		if e.Comparison() != nil {
			t.Fatal("there is something to compare before the first sync")
		}
		e.MakeAtOnce(1 + int(seed%5))
		for step := range 40 {
			what, s := history.Next()
			if _, err := e.Sync(t.Context(), s, step%7 == 0); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			compare := e.Comparison()
			compared++
			running.Go(func() {
				if err := compare(); err != nil {
					t.Errorf("seed %d, step %d, %s: %v", seed, step, what, err)
				}
			})
		}
		running.Wait()
	}
	if compared < 800 {
		t.Errorf("%d were compared", compared)
	}
}

// A pod of a snapshot is written to, which nobody may do, so that what is kept of it is wrong. A comparison finds that, and names it; what is made anew is right.
func TestAComparisonFindsWhatIsWrong(t *testing.T) {
	s := with(town(), allow("a", "mine", 80, "client"))
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := enforcer.New(kernel, options)
	mustSync(t, e, s, true)
	for what, spoil := range map[string]struct {
		change func(*compile.Pod)
		named  string
	}{
		"a peer":     {func(p *compile.Pod) { p.Addrs[0] = netip.MustParseAddr("10.9.9.9") }, ".Sets["},
		"a selector": {func(p *compile.Pod) { p.Labels[0].Value = "nobody" }, ".Sets["},
	} {
		if err := e.Comparison()(); err != nil {
			t.Fatalf("%s: before anything is wrong: %v", what, err)
		}
		client, was := s.Local[1], *s.Local[1]
		changed := was
		changed.Addrs, changed.Labels = append([]netip.Addr{}, was.Addrs...), append(compile.Labels{}, was.Labels...)
		spoil.change(&changed)
		*client = changed
		mustSync(t, e, s, true)
		err := e.Comparison()()
		if !errors.Is(err, enforcer.ErrDiffers) || !strings.Contains(err.Error(), spoil.named) {
			t.Errorf("%s: %v", what, err)
		}
		e.Forget()
		mustSync(t, e, s, false)
		if err := e.Comparison()(); err != nil {
			t.Errorf("%s: what is made anew: %v", what, err)
		}
		holds(t, kernel, s)
		*client = was
		e.Forget()
		mustSync(t, e, s, false)
	}
}
