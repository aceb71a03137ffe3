package ladder

import (
	"sync"
	"testing"
)

// TestWhatACompilerKeepsDoesNotShow: whatever has happened to a cluster, a compiler that has seen it makes the same node and the same problems as one that
// sees the cluster for the first time, and leaves alone what it has made before.
func TestWhatACompilerKeepsDoesNotShow(t *testing.T) {
	var mu sync.Mutex
	happened := map[string]int{}
	const steps = 60
	walked := 0
	forEachCase(t, (*eventsFlag+steps-1)/steps, func(seed uint64) error {
		seen, err := WalkHistory(seed, steps)
		mu.Lock()
		defer mu.Unlock()
		if walked += steps; walked/100_000 != (walked-steps)/100_000 {
			t.Logf("%d events", walked)
		}
		for name, times := range seen {
			happened[name] += times
		}
		return err
	})
	t.Logf("%d events, no difference but those that are named", walked)
	for _, name := range Happenings() {
		if happened[name] == 0 && !t.Failed() {
			t.Errorf("in no history this happens: %s", name)
		}
	}
}
