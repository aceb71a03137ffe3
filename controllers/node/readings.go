package node

import (
	"context"
	"sync/atomic"

	"github.com/ringfence-io/ringfence/enforcer"
)

// Reader reads the kernel beside syncs.
type Reader interface {
	// Read begins a reading, and returns what does it; nil if a sync has to read the kernel itself. The next sync that verifies takes what it has found.
	Read() func(context.Context)
}

var _ Reader = (*enforcer.Enforcer)(nil)

// readings are those of a node. At most one runs: the sync that is due to look at the kernel begins it, and the sync behind it compares.
type readings struct {
	Reader
	running atomic.Bool
	ended   atomic.Bool // one has, and no sync has compared with it
	ask     func()      // for a sync
}

// verify reports whether a sync is to look at the kernel, where it is time for that: not while it is being read.
func (r *readings) verify(ctx context.Context) bool {
	switch {
	case r.Reader == nil || r.ended.Swap(false):
		return true
	case r.running.Load():
		return false
	}
	read := r.Read()
	if read == nil {
		return true
	}
	r.running.Store(true)
	go func() {
		read(ctx)
		r.ended.Store(true)
		r.running.Store(false)
		r.ask()
	}()
	return false
}
