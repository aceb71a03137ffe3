package enforcer

import (
	"context"
	"sync/atomic"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// To read the kernel back takes a third of a second where a node has a thousand policies, and no change is to wait for that.

// reading is one reading of the kernel beside Syncs.
type reading struct {
	changed iptables.Interim // by Syncs since it began
	found   atomic.Pointer[iptables.Ruleset]
}

// Read begins a reading of the kernel, and returns what does it: it is to be called once, may run beside Syncs, and takes what the kernel takes. The next Sync
// that is asked to verify compares with what it has found rather than read the kernel itself, unless it has failed, has not ended, or something has failed
// meanwhile; and before it mends anything it reads the kernel itself. It is nil while nobody knows what the kernel should hold: then a Sync has to read it.
func (e *Enforcer) Read() func(context.Context) {
	e.reading = nil
	if e.known == nil {
		return nil
	}
	r, known := &reading{}, *e.known
	e.reading = r
	return func(ctx context.Context) {
		if found, err := e.dataplane.ObserveReusing(e.dataplane.Yielding(ctx), known); err == nil {
			r.found.Store(&found)
		}
	}
}

// knows notes what the kernel holds after a plan; nil if nobody knows.
func (e *Enforcer) knows(now *iptables.Ruleset, p iptables.Plan) {
	switch {
	case e.reading == nil:
	case e.known == nil || now == nil || e.known.KeepGuards || now.KeepGuards:
		e.reading = nil
	default:
		e.reading.changed.Note(*e.known, *now, p)
	}
	e.known = now
}

// read is what a reading has found, brought up to date, if there is one that has come to an end. It is used once. A chain may be there in part:
// iptables-nft-save shows so much of one as it was told before a sync changed something.
func (e *Enforcer) read(ctx context.Context) (iptables.Ruleset, bool) {
	r := e.reading
	e.reading = nil
	if r == nil || e.known == nil {
		return iptables.Ruleset{}, false
	}
	found := r.found.Load()
	if found == nil {
		return iptables.Ruleset{}, false
	}
	var sets map[string]iptables.Set
	if names := r.changed.Sets(); len(names) > 0 {
		var err error
		if sets, err = e.dataplane.ObserveSets(ctx, names, *e.known); err != nil {
			return iptables.Ruleset{}, false
		}
	}
	return r.changed.Over(*found, *e.known, sets), true
}
