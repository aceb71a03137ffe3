package controllers

import (
	"context"
	"sync"
	"time"
)

// Whoever can change an object can have every node sync, as often as the API server takes changes. Between two syncs there is a pause in proportion to what
// the last one took, so that changes without end cost a part of one processor, and what comes meanwhile is one sync. The first change after some quiet does not
// wait, and a pod that starts never does.

const (
	// paceShare is how many times as long as the last sync took the pause after it lasts: syncs then take a quarter of the time,
	// and more where one takes so long that longestPace is less.
	paceShare = 3
	// longestPace bounds the pause, whatever a sync took. A change may have to wait for the sync that runs, for the pause, and for its own sync: with a tenant's
	// objects that are as large as budgets let them be, the three are to be well below a second together. At the sizes that docs/benchmarks.md has, a sync takes
	// some tens of milliseconds, and its pause is shorter.
	longestPace = 250 * time.Millisecond
)

// pace is what keeps syncs apart. Its methods may be called from several goroutines, wait from one.
type pace struct {
	mu     sync.Mutex
	next   time.Time     // when the next sync may begin
	urgent chan struct{} // receives when somebody cannot wait
	once   sync.Once
}

func (p *pace) init() { p.once.Do(func() { p.urgent = make(chan struct{}, 1) }) }

// hurry ends the pause.
func (p *pace) hurry() {
	p.init()
	select {
	case p.urgent <- struct{}{}:
	default: // said already
	}
}

// wait returns when a sync may begin.
func (p *pace) wait(ctx context.Context) {
	p.init()
	p.mu.Lock()
	pause := time.Until(p.next)
	p.mu.Unlock()
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = time.Now().Add(min(paceShare*d, longestPace))
}
