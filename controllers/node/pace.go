package node

import (
	"context"
	"sync"
	"time"
)

// Whoever can change an object can have every node sync, as often as the API server takes changes. Syncs may take a quarter of one processor in the long run:
// time that they have taken is a debt, which the time that passes pays off. Up to an allowance nothing waits; beyond it there is a pause between two syncs, and
// what comes meanwhile is one sync. So changes without end cost what they may, and one after another after some quiet does not wait. A pod that starts never
// does.

const (
	// paceShare is how many times as long as syncs take has to pass besides, in the long run.
	paceShare = 3
	// paceAllowance is the debt without a pause: some ten syncs at the sizes that docs/benchmarks.md has.
	paceAllowance = 300 * time.Millisecond
	// longestPace bounds the pause, whatever syncs took. A change may have to wait for the sync that runs, for the pause, and for its own sync: with a tenant's
	// objects that are as large as budgets let them be, the three are to be well below a second together.
	longestPace = 100 * time.Millisecond
)

// pace is what keeps syncs apart. Its methods may be called from several goroutines, wait from one.
type pace struct {
	mu     sync.Mutex
	debt   debt
	urgent chan struct{} // receives when a change cannot wait
	once   sync.Once
}

// pause is how long the next sync has to wait from now on.
func (p *pace) pause() time.Duration {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.debt.pause(time.Now())
}

func (p *pace) init() {
	p.once.Do(func() {
		p.urgent = make(chan struct{}, 1)
		p.debt = debt{parts: paceShare + 1, allowance: paceAllowance, longest: longestPace}
	})
}

// hurry ends the pause.
func (p *pace) hurry() {
	p.init()
	select {
	case p.urgent <- struct{}{}:
	default: // asked already
	}
}

// wait returns when a sync may begin.
func (p *pace) wait(ctx context.Context) {
	p.init()
	pause := p.pause()
	if pause <= 0 {
		select {
		case <-p.urgent: // what is urgent is in this sync
		default:
		}
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-p.urgent:
	case <-timer.C:
	}
}

// took notes how long a sync took that has just ended.
func (p *pace) took(d time.Duration) {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.debt.took(d, time.Now())
}
