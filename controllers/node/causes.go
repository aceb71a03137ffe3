package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringfence-io/ringfence/controllers/cached"
)

// In a large cluster pods of other nodes come and go all the time. A sync for each costs little, and many cost much. So what syncs take that nothing else has
// asked for is a debt of its own: half a percent of one processor is paid off. Beyond an allowance such changes come in batches, a few a second: what the API
// server sends meanwhile is not even decoded, since a processor that has to wake up for each event takes several times as long for it. A change of anything
// else does not wait for that.

const (
	elsewhereParts = 200
	// elsewhereAllowance is what some hundred such syncs take, so that a rollout elsewhere waits for nothing. What goes on for long does.
	elsewhereAllowance = 500 * time.Millisecond
	// elsewherePause is how long a change waits at most. With [elsewhereBatch], [shortestPace] and a sync behind it, it is in force within a third of a second.
	elsewherePause = 250 * time.Millisecond
	// elsewhereMemory is how long a debt lasts that is not added to: with less, a change of every few would not wait while changes go on.
	elsewhereMemory = 10 * time.Second
	// elsewhereBatch is how long a batch lasts: what has come in a pause is decoded within it.
	elsewhereBatch = 10 * time.Millisecond
)

// causes are why syncs are asked for. Its methods may be called from any goroutine.
type causes struct {
	elsewhere, here atomic.Bool // since the last sync began: a pod of another node, or anything else, has changed

	// batched is set if changes wait in [causes.wait] already, before they ask for a sync. It does not change while the node runs.
	batched bool

	mu    sync.Mutex
	debt  debt
	batch time.Time // when the last batch began
}

func newCauses() *causes {
	return &causes{debt: debt{parts: elsewhereParts, allowance: elsewhereAllowance, longest: elsewhereMemory}}
}

// askElsewhere notes that a pod of another node has changed, and reports whether none had since the last sync began: then one is to be asked for. What came
// before has asked for it already.
func (c *causes) askElsewhere() bool { return !c.elsewhere.Swap(true) }

// take begins a sync, and reports whether only pods of other nodes have asked for it.
func (c *causes) take() (elsewhereOnly bool) {
	elsewhere, here := c.elsewhere.Swap(false), c.here.Swap(false)
	return elsewhere && !here
}

// took notes what such a sync took of the processor.
func (c *causes) took(d time.Duration, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.debt.took(d, now)
}

// pause is how long a sync waits that a change of a pod of another node has asked for.
func (c *causes) pause(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.debt.isOver(now):
		return 0
	case c.batched:
		return elsewhereBatch // until the batch is whole
	}
	return elsewherePause
}

// wait returns when a change of a pod of another node may be taken in, or when ctx ends.
func (c *causes) wait(ctx context.Context) {
	for ctx.Err() == nil {
		left := c.untilBatch(time.Now())
		if left <= 0 {
			return
		}
		cached.Wait(ctx, left)
	}
}

// untilBatch is how long a change has to wait for the next batch. The first that does not begins one.
func (c *causes) untilBatch(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := now.Sub(c.batch)
	if since < elsewhereBatch || !c.debt.isOver(now) {
		return 0
	}
	if since < elsewherePause {
		return elsewherePause - since
	}
	c.batch = now
	return 0
}
