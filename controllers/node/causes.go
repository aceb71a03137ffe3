package node

import (
	"sync"
	"sync/atomic"
	"time"
)

// In a large cluster pods of other nodes come and go all the time. A sync for each costs little, and many cost much. So what syncs take that nothing else has
// asked for is a debt of its own: half a percent of one processor is paid off. Beyond an allowance such changes wait a moment, for others. A change of anything
// else does not wait for that, and brings them along.

const (
	elsewhereParts = 200
	// elsewhereAllowance is what some hundred such syncs take, so that a rollout elsewhere waits for nothing. What goes on for long does.
	elsewhereAllowance = 500 * time.Millisecond
	// elsewherePause is how long a change waits at most. With [shortestPace] before it and a sync behind it, it is in force within a third of a second.
	elsewherePause = 250 * time.Millisecond
)

// causes are why syncs are asked for. Its methods may be called from any goroutine.
type causes struct {
	elsewhere, here atomic.Bool // since the last sync began: a pod of another node, or anything else, has changed

	mu   sync.Mutex
	debt debt
}

func newCauses() *causes {
	return &causes{debt: debt{parts: elsewhereParts, allowance: elsewhereAllowance, longest: elsewherePause}}
}

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

// pause is how long a change of a pod of another node waits for others.
func (c *causes) pause(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.debt.isOver(now) {
		return elsewherePause
	}
	return 0
}
