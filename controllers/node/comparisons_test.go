package node

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ringfence-io/ringfence/test/kit"
)

// compared is a Comparer whose comparisons end as it says.
type compared struct {
	mu               sync.Mutex
	errs             []error
	begun, forgotten int
}

func (c *compared) Comparison() func() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.errs[min(c.begun, len(c.errs)-1)]
	c.begun++
	return func() error { return err }
}

func (c *compared) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten++
}

func (c *compared) counts() (begun, forgotten int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun, c.forgotten
}

// What was compiled step by step is compared now and then. A difference is counted, asks for a sync, and has that make everything anew.
func TestADifferenceHasEverythingMadeAnew(t *testing.T) {
	comparer := &compared{errs: []error{nil, errors.New("differs"), nil}}
	all := make(syncs, 5)
	n := nodeOf(t, Config{Name: "n", Resync: time.Nanosecond, Sync: &all, Compare: comparer})
	n.comparisons.every = time.Nanosecond
	asked := make(chan struct{}, 1)
	n.comparisons.ask = func() { asked <- struct{}{} }
	before := counted(t, differences)
	for i, want := range []struct{ begun, forgotten int }{{1, 0}, {2, 0}, {3, 1}, {4, 1}} {
		if _, err := n.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
		kit.Eventually(t, 10*time.Second, "the comparison has ended", func() bool { return !n.comparisons.running.Load() })
		if begun, forgotten := comparer.counts(); begun != want.begun || forgotten != want.forgotten {
			t.Errorf("after sync %d, %d comparisons have begun and %d times all was forgotten; want %d and %d", i+1, begun, forgotten, want.begun, want.forgotten)
		}
	}
	select {
	case <-asked:
	default:
		t.Error("no sync was asked for")
	}
	if now := counted(t, differences); now != before+1 {
		t.Errorf("%v differences are counted", now-before)
	}
}

// Each comparison takes as long as a first sync, so that they are far between, and none is of a sync that failed or has not looked at the kernel.
func TestComparisonsAreFarBetween(t *testing.T) {
	comparer := &compared{errs: []error{nil}}
	c := comparisons{Comparer: comparer, every: time.Hour}
	ok, failed := &outcome{verify: true}, &outcome{verify: true}
	failed.Err = errors.New("no answer")
	for range 3 {
		c.concluded(t.Context(), ok)
	}
	c.last = time.Now().Add(-2 * time.Hour)
	c.concluded(t.Context(), failed)
	c.concluded(t.Context(), &outcome{})
	if begun, _ := comparer.counts(); begun != 0 {
		t.Fatalf("%d have begun too early, or of syncs that give nothing to compare", begun)
	}
	c.concluded(t.Context(), ok)
	c.concluded(t.Context(), ok)
	if begun, _ := comparer.counts(); begun != 1 {
		t.Errorf("%d have begun, want 1", begun)
	}
	(&comparisons{}).concluded(t.Context(), ok) // nobody compares
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	kit.Must(t, c.Write(&m))
	return m.GetCounter().GetValue()
}
