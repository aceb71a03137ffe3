package cached

import (
	"testing"
	"time"
)

func TestFailuresAreTriedAgainInTime(t *testing.T) {
	const resync = 30 * time.Second
	limiter := Retries[string](resync)
	first := limiter.When("node")
	if first > 10*time.Millisecond {
		t.Errorf("the first attempt after a failure comes after %s", first)
	}
	least := 5 * time.Millisecond
	pauses := map[time.Duration]bool{}
	for attempt := range 40 {
		least = min(2*least, resync*2/3)
		pause := limiter.When("node")
		if pause < least || pause > least*3/2 {
			t.Errorf("attempt %d comes after %s, want between %s and half as much more", attempt, pause, least)
		}
		pauses[pause] = true
	}
	if least != resync*2/3 || len(pauses) < 38 {
		t.Errorf("the longest pause is %s and up to half as much more, want %s at most; there are %d different ones of 40", least, resync, len(pauses))
	}
	limiter.Forget("node")
	if pause := limiter.When("node"); pause > 10*time.Millisecond {
		t.Errorf("the first attempt after a success comes after %s", pause)
	}
}
