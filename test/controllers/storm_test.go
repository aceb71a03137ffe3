package controllers

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	nodectl "github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// bell is an Arrivals of nobody, by which a test asks for syncs.
type bell struct{ ring atomic.Pointer[func()] }

// Into adds nothing.
func (b *bell) Into(*compile.Snapshot) func(func([]netip.Addr) error) {
	return func(func([]netip.Addr) error) {}
}

// OnArrival keeps what asks for a sync.
func (b *bell) OnArrival(ask func()) { b.ring.Store(&ask) }

var _ nodectl.Arrivals = (*bell)(nil)

// However many events come while a sync runs, one sync follows, which has them all, and what waits meanwhile takes no memory.
func TestTenThousandEventsAreOneSync(t *testing.T) {
	const events = 10_000
	b := &bell{}
	c := newCluster(t)
	c.arrivals = b
	pod := c.createPod("busy", node)
	n := c.prepare(time.Hour)
	var hold atomic.Pointer[chan struct{}]
	n.during = func() {
		if held := hold.Load(); held != nil {
			<-*held
		}
	}
	n.run()
	n.until("the pod", func(all []seen) bool { return len(all) > 0 && all[len(all)-1].pod(c.namespace, "busy").Name != "" })
	n.settle()

	held := make(chan struct{})
	hold.Store(&held)
	(*b.ring.Load())() // a sync begins, and does not end
	before := len(n.all())
	for i := range 50 { // by the road that all events take
		c.label(pod, "change", fmt.Sprint(i))
	}
	n.settle() // until the last label has come here: what it takes is not what waits
	var then, now runtime.MemStats
	collect()
	runtime.ReadMemStats(&then)
	for range events {
		(*b.ring.Load())()
	}
	collect()
	runtime.ReadMemStats(&now)
	if grown := int64(now.HeapAlloc) - int64(then.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d events that wait take %d bytes", events, grown)
	}
	if err := n.node.Live(); err != nil {
		t.Errorf("the node is not live: %v", err)
	}
	hold.Store(nil)
	close(held)
	n.until("the last change", func(all []seen) bool { return all[len(all)-1].pod(c.namespace, "busy").Labels.Get("change") == "49" })
	n.settle()
	if syncs := len(n.all()) - before; syncs > 3 {
		t.Errorf("%d events and 50 changes of a pod made %d syncs", events, syncs)
	}
}

// While syncs fail a change is tried at once, since it may be the cure; without a change, the pauses grow.
func TestAChangeDoesNotWaitForThePauseToEnd(t *testing.T) {
	b := &bell{}
	c := newCluster(t)
	c.arrivals = b
	n := c.prepare(time.Hour)
	n.fail(1 << 30)
	n.run()
	n.until("ten failures", func(all []seen) bool { return len(all) >= 10 }) // after which the pause is 2.5 s and more
	failed := len(n.all())
	n.recorder.mu.Lock()
	n.failures = 0
	n.recorder.mu.Unlock()
	start := time.Now()
	(*b.ring.Load())()
	n.until("a sync that succeeds", func([]seen) bool { return n.node.Synced() == nil })
	if took := time.Since(start); took > 2*time.Second || len(n.all()) != failed+1 {
		t.Errorf("after %d failures the change was tried after %s, in %d attempts", failed, took, len(n.all())-failed)
	}
}

// work takes some time of a processor.
func work(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	spent := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
			panic(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for began := spent(); spent() < began+d; {
		runtime.Gosched()
	}
}

// TestChangesWithoutEndTakeAPartOfOneProcessor: one pod's label changes in a loop, and each change asks for a sync of some milliseconds of work. The syncs keep
// a pause between them.
func TestChangesWithoutEndTakeAPartOfOneProcessor(t *testing.T) {
	const takes, first, last = 20 * time.Millisecond, 25, 60 // those before the first have used up what is allowed after some quiet
	c := newCluster(t)
	pod := c.createPod("busy", node)
	n := c.prepare(time.Hour)
	var mu sync.Mutex
	var began []time.Time
	n.during = func() {
		mu.Lock()
		began = append(began, time.Now())
		mu.Unlock()
		work(takes)
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(began)
	}
	n.run()
	n.until("the pod", func(all []seen) bool { return len(all) > 0 && all[len(all)-1].pod(c.namespace, "busy").Name != "" })
	n.settle()
	mu.Lock()
	began = nil
	mu.Unlock()
	for i := 0; count() <= last; i++ {
		c.label(pod, "change", fmt.Sprint(i))
		if i == 20_000 {
			t.Fatalf("%d changes made %d syncs", i, count())
		}
	}
	mu.Lock()
	took := began[last].Sub(began[first])
	mu.Unlock()
	if share := float64((last-first)*takes) / float64(took); share > 0.35 {
		t.Errorf("syncs of %s take %.0f %% of the time", takes, 100*share)
	}
}

// collect frees what nobody uses, and what pools keep for a round more.
func collect() {
	for range 3 {
		runtime.GC()
	}
}
