package cli

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/test/kit"
)

func TestTheHeapGrowsByAShareAndAtLeastBySomeMegabytes(t *testing.T) {
	for _, tt := range []struct {
		megabytes uint64
		want      int
	}{{0, 1000}, {2, 400}, {8, 100}, {16, 50}, {32, 25}, {480, 25}} {
		if got := percentFor(tt.megabytes<<20, gcGrowth); got != tt.want {
			t.Errorf("of %d MB it may grow by %d %%, want %d", tt.megabytes, got, tt.want)
		}
		if got := percentFor(tt.megabytes<<20, 0); got != gcPercent {
			t.Errorf("before the first sync, of %d MB it may grow by %d %%, want %d", tt.megabytes, got, gcPercent)
		}
	}
}

// The share follows what lives, in both directions.
func TestTheCollectorIsPacedAfterEachCollection(t *testing.T) {
	leastGrowth.Store(gcGrowth)
	t.Cleanup(func() { leastGrowth.Store(0) })
	paceCollector()
	percent := func() int {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return int(sample[0].Value.Uint64())
	}
	settles := func(what string, is func(percent int) bool) {
		t.Helper()
		kit.Eventually(t, 10*time.Second, what, func() bool {
			runtime.GC()
			return is(percent())
		})
	}
	settles("a small heap may grow by more than gcPercent", func(p int) bool { return p > 2*gcPercent })
	large := make([]byte, 100<<20)
	settles("a large one by gcPercent", func(p int) bool { return p == gcPercent })
	runtime.KeepAlive(large)
	settles("and one that is small again by more", func(p int) bool { return p > 2*gcPercent })
}
