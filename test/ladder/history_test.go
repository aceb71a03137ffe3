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
	forEachCase(t, 100, func(seed uint64) error {
		seen, err := WalkHistory(seed, 60)
		mu.Lock()
		defer mu.Unlock()
		for name, times := range seen {
			happened[name] += times
		}
		return err
	})
	for _, name := range Happenings() {
		if happened[name] == 0 && !t.Failed() {
			t.Errorf("in no history this happens: %s", name)
		}
	}
}
