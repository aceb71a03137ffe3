package node

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
)

// slowKernel is a Reader whose readings end when they are let, and a Syncer that notes which syncs verify.
type slowKernel struct {
	unknown  bool // a sync has to read the kernel
	begun    atomic.Int32
	let      chan struct{}
	verified []bool
}

func (k *slowKernel) Read() func(context.Context) {
	if k.unknown {
		return nil
	}
	k.begun.Add(1)
	return func(context.Context) { <-k.let }
}

func (k *slowKernel) Sync(_ context.Context, _ compile.Snapshot, verify bool) (enforcer.Report, error) {
	k.verified = append(k.verified, verify)
	return enforcer.Report{}, nil
}

// A kernel that is slow to read holds up no sync. The sync that is asked for when it has been read compares, and the next reading begins when it is due again.
func TestSyncsDoNotWaitForTheKernelToBeRead(t *testing.T) {
	kernel := &slowKernel{unknown: true, let: make(chan struct{})}
	n := nodeOf(t, Config{Name: "n", Resync: time.Hour, Sync: kernel, Kernel: kernel})
	asked := make(chan struct{}, 1)
	n.readings.ask = func() { asked <- struct{}{} }
	sync := func(verifies, again bool) {
		t.Helper()
		r, err := n.Reconcile(t.Context(), reconcile.Request{})
		kit.Must(t, err)
		if last := kernel.verified[len(kernel.verified)-1]; last != verifies {
			t.Errorf("sync %d: verifies %v, want %v", len(kernel.verified), last, verifies)
		}
		if r.RequeueAfter > 0 != again {
			t.Errorf("sync %d: the next is due after %s", len(kernel.verified), r.RequeueAfter)
		}
	}
	sync(true, true) // nobody knows yet what the kernel should hold
	kernel.unknown = false
	sync(false, true)
	for range 2 {
		n.verified = time.Now().Add(-2 * time.Hour)
		sync(false, false) // it begins a reading, which asks for the next
		sync(false, false)
		kernel.let <- struct{}{}
		<-asked
		sync(true, true)
		sync(false, true)
	}
	if begun := kernel.begun.Load(); begun != 2 {
		t.Errorf("the kernel was read %d times, want twice", begun)
	}
}
