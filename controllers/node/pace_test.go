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
	l.pace.took(l.takes, 0)
}

// One pod's label changes all the time: every sync is followed by the next. They take at most two thirds of one processor, and more only where that would have
// others wait: another tenant's change is in force within a second.
func TestSyncsHaveAPauseBetweenThemUnderChangesWithoutEnd(t *testing.T) {
	for _, c := range []struct {
		takes time.Duration
		most  float64 // of one processor
		p99   time.Duration
	}{
		{time.Millisecond, 0.05, 30 * time.Millisecond},
		{10 * time.Millisecond, 0.34, 60 * time.Millisecond},
		{25 * time.Millisecond, 0.56, 80 * time.Millisecond},
		{50 * time.Millisecond, 0.67, 130 * time.Millisecond},
		{150 * time.Millisecond, 0.67, 380 * time.Millisecond},
		{350 * time.Millisecond, 0.79, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &labelled{takes: c.takes}
			start := time.Now()
			for i := 0; time.Since(start) < 5*time.Minute; i++ {
				if l.changed.IsZero() && i%3 == 0 {
					l.changed = time.Now()
				}
				l.sync(t)
			}
			if share := float64(l.busy) / float64(time.Since(start)); share > c.most {
				t.Errorf("syncs of %s take %.0f %% of the time, %.0f %% is the most", c.takes, 100*share, 100*c.most)
			}
			slices.Sort(l.delays)
			if p99 := l.delays[len(l.delays)*99/100]; p99 > c.p99 {
				t.Errorf("syncs of %s: another tenant's change is in force after %s (p99), %s is the most", c.takes, p99, c.p99)
			}
		})
	}
}

func TestChangesWaitOnlyBeyondTheAllowanceAndAnArrivalNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		waits := func(what string, want time.Duration) {
			t.Helper()
			start := time.Now()
			p.wait(t.Context())
			if got := time.Since(start); got != want {
				t.Errorf("%s a sync waits for %s, not for %s", what, got, want)
			}
		}
		for range 3 {
			waits("within the allowance", 0)
			p.took(paceAllowance/3, 0)
		}
		waits("at the allowance", 0)
		p.took(2*time.Millisecond, 0)
		waits("beyond the allowance, after a short one,", shortestPace)
		p.took(10*time.Millisecond, 0)
		time.Sleep(15 * time.Millisecond)
		waits("a while after the last", shortestPace-15*time.Millisecond)
		p.took(100*time.Millisecond, 30*time.Millisecond)
		waits("after one that has waited", 20*time.Millisecond)
		p.took(20*time.Millisecond, time.Second)
		waits("after one that has waited for longer than the pause", 0)
		p.took(60*time.Millisecond, 0)
		waits("after a long one", 30*time.Millisecond)
		p.took(time.Hour, 0)
		waits("after one of an hour", longestPace)
		p.took(200*time.Millisecond, 0)
		go func() {
			time.Sleep(50 * time.Millisecond)
			p.hurry()
		}()
		waits("with a pod that starts", 50*time.Millisecond)
		p.took(100*time.Millisecond, 0)
		p.hurry()
		waits("with a pod that has come during the last,", 0)
		time.Sleep(paceShare * p.debt.most())
		for range 3 {
			p.took(paceAllowance/3, 0)
			waits("after some quiet", 0)
		}
	})
}
