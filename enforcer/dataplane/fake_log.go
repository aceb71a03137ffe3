package dataplane

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// errOccupied is what the kernel says of an NFLOG group that is taken: EPERM.
var errOccupied = errors.New("operation not permitted")

// fakeReader is who reads an NFLOG group.
type fakeReader struct {
	handle func(Packet)

	mu      sync.Mutex // held while a packet is handled
	stopped bool
}

// stop returns when no packet is being handled, and none will be.
func (r *fakeReader) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}

// Denied is as Dataplane's, of the packets given to Emit.
func (f *Fake) Denied(ctx context.Context, group uint16, handle func(Packet)) error {
	r := &fakeReader{handle: handle}
	f.mu.Lock()
	if _, taken := f.readers[group]; taken {
		f.mu.Unlock()
		return &LogGroupError{Group: group, Owner: "fake", Err: errOccupied}
	}
	if f.readers == nil {
		f.readers = map[uint16]*fakeReader{}
	}
	f.readers[group] = r
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	delete(f.readers, group)
	f.mu.Unlock()
	r.stop()
	return nil
}

// Emit samples a packet into an NFLOG group, and returns when it has been handled. It says whether anybody reads the group; without a
// reader the packet is gone, as in the kernel.
func (f *Fake) Emit(group uint16, p Packet) bool {
	f.mu.Lock()
	r := f.readers[group]
	f.mu.Unlock()
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.handle(p)
	return true
}

// Hit has packets pass a chain: its first rule counts them. The counter restarts when the chain is written again.
func (f *Fake) Hit(family iptables.Family, chain string, packets uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[family]
	if len(t.chains[chain]) == 0 {
		return fmt.Errorf("%s: no rule of a chain %s is there to count", family, chain)
	}
	t.packets[chain] += packets
	return nil
}

// Counts is as Dataplane's.
func (f *Fake) Counts(ctx context.Context) (map[string]uint64, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("reading the counters: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for family, t := range f.tables {
		reading := map[string]uint64{}
		for chain, rules := range t.chains {
			if p, ok := f.Layout.PointOfChain(chain); ok && len(rules) > 0 {
				reading[p.ID] += t.packets[chain]
			}
		}
		f.counter.Add(family, reading)
	}
	return f.counter.Totals(), nil
}
