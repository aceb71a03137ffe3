package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhoHasAskedForASync(t *testing.T) {
	c := newCauses()
	for _, row := range []struct{ elsewhere, here, want bool }{{false, false, false}, {true, false, true}, {false, true, false}, {true, true, false}} {
		c.elsewhere.Store(row.elsewhere)
		c.here.Store(row.here)
		if got := c.take(); got != row.want {
			t.Errorf("elsewhere %t, here %t: only pods of other nodes: %t", row.elsewhere, row.here, got)
		}
		if c.take() {
			t.Error("what has asked counts for one sync")
		}
	}
}

func TestPodsElsewhereAskForASyncOnce(t *testing.T) {
	c := newCauses()
	for round := range 3 {
		if !c.askElsewhere() {
			t.Errorf("round %d: the first change asks for no sync", round)
		}
		if c.askElsewhere() {
			t.Errorf("round %d: the second change asks again, before the sync begins", round)
		}
		if !c.take() {
			t.Errorf("round %d: the sync does not know that only pods elsewhere ask for it", round)
		}
	}
}

func TestChangesOfPodsElsewhereWaitBeyondTheirAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCauses()
		for range 4 {
			if wait := c.pause(time.Now()); wait != 0 {
				t.Errorf("within the allowance a change waits for %s", wait)
			}
			c.took(elsewhereAllowance/4, time.Now())
		}
		c.took(time.Millisecond, time.Now())
		if wait := c.pause(time.Now()); wait != elsewherePause {
			t.Errorf("beyond it a change waits for %s", wait)
		}
		time.Sleep(elsewhereParts * time.Millisecond)
		if wait := c.pause(time.Now()); wait != 0 {
			t.Errorf("once that is paid off a change waits for %s", wait)
		}
		began, syncs := time.Now(), 0
		for time.Since(began) < time.Minute { // 400 changes a second
			time.Sleep(max(c.pause(time.Now()), 2500*time.Microsecond))
			c.took(time.Millisecond, time.Now())
			syncs++
		}
		if syncs > 6*60 || syncs < 4*60 {
			t.Errorf("%d syncs of a millisecond in a minute, want five a second", syncs)
		}
	})
}

// What a hundred watches hear is taken in at few moments, and the first at once.
func TestChangesOfPodsElsewhereComeInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCauses()
		c.batched = true
		c.wait(t.Context())
		if took := c.pause(time.Now()); took != 0 {
			t.Errorf("within the allowance a sync waits for %s", took)
		}
		c.took(2*elsewhereAllowance, time.Now())
		if wait := c.pause(time.Now()); wait != elsewhereBatch {
			t.Errorf("a sync waits for %s, want what a batch takes", wait)
		}
		began, at := time.Now(), make(chan time.Duration, 1000)
		next := time.NewTicker(11 * time.Millisecond)
		defer next.Stop()
		for range 100 {
			go func() {
				for range 10 {
					asked := time.Now()
					c.wait(t.Context())
					if waited := time.Since(asked); waited > elsewherePause {
						t.Errorf("a change waits for %s", waited)
					}
					at <- time.Since(began)
				}
			}()
			<-next.C
		}
		first := time.Hour
		for range 1000 {
			moment := <-at
			first = min(first, moment)
			if moment%elsewherePause >= elsewhereBatch {
				t.Errorf("a change was taken in after %s, between two batches", moment)
			}
		}
		if first > 0 {
			t.Errorf("the first change was taken in after %s, want at once", first)
		}
	})
}

func TestAWatchThatEndsWaitsForNoBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCauses()
		c.took(2*elsewhereAllowance, time.Now())
		began := time.Now()
		c.batch = began.Add(-elsewhereBatch) // it has just ended
		ctx, end := context.WithCancel(t.Context())
		end()
		c.wait(ctx)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it waits for %s", waited)
		}
	})
}
