package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	// gcPercent is by how much the heap may grow between two collections. Most of it is the cache of the cluster's pods, which every node
	// keeps all the time: Go's own 100 would double that. It costs about a quarter more processor time while something changes.
	gcPercent = 25
	// gcGrowth is how many bytes it may grow at the least, once the first sync has succeeded: of a small heap gcPercent is soon full, and each collection looks
	// at the whole of it.
	gcGrowth = 8 << 20
)

// paceCollector has the heap grow by gcPercent between two collections, and at least by leastGrowth. After each collection it sets what Go takes for the next.
func paceCollector() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/globals:bytes"}, {Name: "/gc/scan/stack:bytes"}}
	metrics.Read(live)
	all := uint64(0) // that Go takes a share of
	for _, one := range live {
		all += one.Value.Uint64()
	}
	debug.SetGCPercent(percentFor(all, leastGrowth.Load()))
	token := &[]byte{} // with a pointer, so that it shares its memory with nothing that lives
	runtime.AddCleanup(token, func(struct{}) { paceCollector() }, struct{}{})
}

// leastGrowth is gcGrowth once the first sync has succeeded, and nothing before: to read the cluster takes the most memory, and what is read once is not
// looked at for long.
var leastGrowth atomic.Uint64

// percentFor is the share of so many bytes by which the heap may grow.
func percentFor(bytes, least uint64) int {
	return max(gcPercent, int(least*100/max(bytes, gcGrowth/10)))
}
