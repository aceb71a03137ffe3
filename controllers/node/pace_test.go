package node

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// labelled is a tenant that changes a label of its pod in a loop while another's change comes now and then.
type labelled struct {
	pace    pace
	takes   time.Duration // a sync
	syncs   int
	busy    time.Duration
	changed time.Time // of the other tenant, zero if it is in force
	delays  []time.Duration
}

// sync is one round of the worker.
func (l *labelled) sync(t *testing.T) {
	l.pace.wait(t.Context())
	start, taken := time.Now(), l.changed
	time.Sleep(l.takes) // of the bubble's clock
	l.syncs++
	l.busy += l.takes
	if !taken.IsZero() && !taken.After(start) {
		l.delays = append(l.delays, time.Since(taken))
		l.changed = time.Time{}
	}
	l.pace.took(l.takes)
}

// One pod's label changes all the time: every sync is followed by the next. They take a quarter of one processor, and more only where a sync
// takes very long: another tenant's change is in force within a second.
func TestSyncsHaveAPauseBetweenThemUnderChangesWithoutEnd(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond, 350 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			l := &labelled{takes: takes}
			start := time.Now()
			for i := 0; time.Since(start) < 5*time.Minute; i++ {
				if l.changed.IsZero() && i%3 == 0 {
					l.changed = time.Now()
				}
				l.sync(t)
			}
			most := max(0.26, 1.04*float64(takes)/float64(takes+longestPace))
			if share := float64(l.busy) / float64(time.Since(start)); share > most {
				t.Errorf("syncs of %s take %.0f %% of the time, %.0f %% is the most", takes, 100*share, 100*most)
			}
			slices.Sort(l.delays)
			if p99 := l.delays[len(l.delays)*99/100]; p99 > time.Second {
				t.Errorf("syncs of %s: another tenant's change is in force after %s (p99)", takes, p99)
			}
		})
	}
}

func TestChangesWaitOnlyBeyondTheAllowanceAndAnArrivalNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		waited := func() time.Duration {
			start := time.Now()
			p.wait(t.Context())
			return time.Since(start)
		}
		for range 3 {
			if d := waited(); d != 0 {
				t.Errorf("within the allowance a sync waits for %s", d)
			}
			p.took(paceAllowance / 3)
		}
		if d := waited(); d != 0 {
			t.Errorf("at the allowance a sync waits for %s", d)
		}
		p.took(20 * time.Millisecond)
		if d := waited(); d != 80*time.Millisecond {
			t.Errorf("20ms beyond the allowance a sync waits for %s", d)
		}
		p.took(time.Hour) // it waited for a lock
		if d := waited(); d != longestPace {
			t.Errorf("after a sync that took an hour the next waits for %s", d)
		}
		p.took(100 * time.Millisecond)
		go func() {
			time.Sleep(50 * time.Millisecond)
			p.hurry()
		}()
		if d := waited(); d != 50*time.Millisecond {
			t.Errorf("a pod that starts waits for %s", d)
		}
		p.took(100 * time.Millisecond)
		p.hurry()
		if d := waited(); d != 0 {
			t.Errorf("a pod that has come during a sync waits for %s", d)
		}
		time.Sleep((paceShare + 1) * p.debt.most())
		for range 3 {
			p.took(paceAllowance / 3)
			if d := waited(); d != 0 {
				t.Errorf("after some quiet a sync waits for %s", d)
			}
		}
	})
}
