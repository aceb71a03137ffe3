package controllers

import (
	"testing"
	"time"
)

func TestFailuresAreTriedAgainInTime(t *testing.T) {
	const resync = 30 * time.Second
	limiter := retries[string](resync)
	last := time.Duration(0)
	for attempt := range 40 {
		pause := limiter.When("node")
		if pause < last || pause > resync {
			t.Errorf("attempt %d comes after %s, the one before came after %s", attempt, pause, last)
		}
		last = pause
	}
	if last != resync {
		t.Errorf("a node that goes on failing is tried every %s, not every %s", last, resync)
	}
	limiter.Forget("node")
	if pause := limiter.When("node"); pause > 10*time.Millisecond {
		t.Errorf("the first attempt after a success comes after %s", pause)
	}
}
