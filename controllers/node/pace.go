package node

import (
	"context"
	"sync"
	"time"
)

// Whoever can change an object can have every node sync, as often as the API server takes changes. The processor's time that syncs take is a debt, which the
// time that passes pays off: a fiftieth of one processor. Up to an allowance nothing waits, so that changes now and then are in force at once. Beyond it there
// is a pause between two syncs, and what comes meanwhile is one sync. A pod that starts never waits.
//
// A pause is half as long as what the sync before it took, but shortestPace at least and longestPace at most. So changes without end have syncs take at most
// two thirds of one processor, and a few per cent where one takes a millisecond.

const (
	// paceShare is how many times as long as syncs take has to pass for syncs not to wait at all, in the long run.
	paceShare = 50
	// paceAllowance is the debt without a pause: some ten syncs at the sizes that docs/benchmarks.md has.
	paceAllowance = 300 * time.Millisecond
	// shortestPace is a pause that does not show in how long a change takes to be in force.
	shortestPace = 20 * time.Millisecond
	// longestPace bounds the pause, whatever syncs took: with a tenant's objects that are as large as budgets let them be, the three are to be well below a
	// second together.
	longestPace = 100 * time.Millisecond
)

// pace is what keeps syncs apart. Its methods may be called from several goroutines, wait from one.
type pace struct {
	mu     sync.Mutex
	debt   debt
	last   time.Duration // what the last sync took of the processor
	ended  time.Time     // when it would have ended if it had waited for nothing
	urgent chan struct{} // receives when a change cannot wait
	once   sync.Once
}

// pause is how long the next sync has to wait from now on.
func (p *pace) pause() time.Duration {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.debt.isOver(now) {
		return 0
	}
	return min(max(p.last/2, shortestPace), longestPace) - now.Sub(p.ended)
}

func (p *pace) init() {
	p.once.Do(func() {
		p.urgent = make(chan struct{}, 1)
		p.debt = debt{parts: paceShare, allowance: paceAllowance, longest: longestPace}
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

// took notes how much of the processor's time a sync took that has just ended, and how much it waited besides, for the kernel or for a lock: that is a pause
// already.
func (p *pace) took(spent, waited time.Duration) {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.last, p.ended = spent, now.Add(-waited)
	p.debt.took(spent, now)
}
