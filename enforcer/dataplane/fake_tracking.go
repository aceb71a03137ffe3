package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// fakeTracking is a Fake's connection tracking.
type fakeTracking struct {
	mu          sync.Mutex
	own         []netip.Addr
	connections []policy.Connection
	held        []policy.Connection
	err         error
}

// Track gives the Fake these live connections, and the node these addresses of its own, instead of those before.
func (f *Fake) Track(own []netip.Addr, connections ...policy.Connection) {
	f.tracking.mu.Lock()
	defer f.tracking.mu.Unlock()
	f.tracking.own, f.tracking.connections = slices.Clone(own), slices.Clone(connections)
}

// FailTracking makes whatever concerns live connections fail with err, until it is called with nil.
func (f *Fake) FailTracking(err error) {
	f.tracking.mu.Lock()
	defer f.tracking.mu.Unlock()
	f.tracking.err = err
}

// Held are the connections that were cut so that what their other ends send is held off, in their order.
func (f *Fake) Held() []policy.Connection {
	f.tracking.mu.Lock()
	defer f.tracking.mu.Unlock()
	return slices.Clone(f.tracking.held)
}

// Addresses is as Dataplane's.
func (f *Fake) Addresses(context.Context) ([]netip.Addr, error) {
	f.tracking.mu.Lock()
	defer f.tracking.mu.Unlock()
	return slices.Clone(f.tracking.own), f.tracking.err
}

// Connections is as Dataplane's, and shows no others than those that are affected.
func (f *Fake) Connections(_ context.Context, affected policy.Affected, visit func(policy.Connection)) error {
	return f.show(visit, func(c policy.Connection) bool { return affected.Has(c.Ends()) })
}

// Related is as Dataplane's, and shows no others than those that belong to another.
func (f *Fake) Related(_ context.Context, visit func(policy.Connection)) error {
	return f.show(visit, func(c policy.Connection) bool { return c.Master != policy.Tuple{} })
}

func (f *Fake) show(visit func(policy.Connection), which func(policy.Connection) bool) error {
	f.tracking.mu.Lock()
	connections, err := slices.Clone(f.tracking.connections), f.tracking.err
	f.tracking.mu.Unlock()
	for _, c := range connections {
		if which(c) {
			visit(c)
		}
	}
	return err
}

// Cut is as Dataplane's.
func (f *Fake) Cut(ctx context.Context, all []policy.Connection, holdOff bool) (int, error) {
	f.tracking.mu.Lock()
	defer f.tracking.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return 0, fmt.Errorf("cutting connections: %w", err)
	}
	if f.tracking.err != nil {
		return 0, f.tracking.err
	}
	before := len(f.tracking.connections)
	for _, one := range all {
		if holdOff {
			f.tracking.held = append(f.tracking.held, one)
		}
		f.tracking.connections = slices.DeleteFunc(f.tracking.connections, func(c policy.Connection) bool {
			return c.Original == one.Original && c.ID == one.ID && c.Zone == 0
		})
	}
	return before - len(f.tracking.connections), nil
}
