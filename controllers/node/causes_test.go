package node

import (
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
