package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer"
)

var (
	comparisonsMade = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_compile_comparisons_total",
		Help: "Times that the policy which was compiled step by step was compared with what is compiled at once.",
	})
	differences = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_compile_differences_total",
		Help: "Times that the two differed. There must be none: each is an error of Ringfence, after which everything is compiled anew.",
	})
)

// Comparer compares what was made step by step with what is made at once.
type Comparer interface {
	// Comparison is a comparison of what the last sync has made, which may run beside others; nil if there is nothing to compare.
	Comparison() func() error
	// Forget has the next sync make everything anew.
	Forget()
}

var _ Comparer = (*enforcer.Enforcer)(nil)

// compareEvery is how long after a comparison the next one is due, which begins with the next look at the kernel: each takes as long as a first sync.
const compareEvery = 10 * time.Minute

// comparisons are those of a node. At most one runs, beside the syncs.
type comparisons struct {
	Comparer
	every   time.Duration
	last    time.Time
	running atomic.Bool
	found   atomic.Pointer[error] // a difference that no sync has dealt with
	ask     func()                // for a sync
}

// concluded begins a comparison if one is due.
func (c *comparisons) concluded(_ context.Context, o *outcome) {
	if c.Comparer == nil || o.Err != nil || !o.verify {
		return
	}
	if c.last.IsZero() {
		c.last = time.Now() // the first sync makes everything at once
	}
	if time.Since(c.last) < c.every {
		return
	}
	compare := c.Comparison()
	if compare == nil || !c.running.CompareAndSwap(false, true) {
		return
	}
	c.last = time.Now()
	go func() {
		defer c.running.Store(false)
		err := compare()
		comparisonsMade.Inc()
		if err != nil {
			differences.Inc()
			c.found.Store(&err)
			c.ask()
		}
	}()
}

// act has everything made anew if a comparison has found a difference.
func (c *comparisons) act(ctx context.Context) {
	found := c.found.Swap(nil)
	if found == nil {
		return
	}
	c.Forget()
	log.FromContext(ctx).Error(nil, "policy was not compiled as it should have been, and is compiled anew now",
		"detail", cached.Shortened((*found).Error(), longestLine))
}
