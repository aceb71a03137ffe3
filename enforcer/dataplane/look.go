package dataplane

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

const (
	// preflightPatience is how long a preflight waits for what is busy. It is less than the kubelet waits for a liveness probe: an enforcer that starts while
	// the lock is held goes on with what it takes to be there.
	preflightPatience = 20 * time.Second
	// lookPatience is the same for a look, which holds up a sync.
	lookPatience = 5 * time.Second
	// maxLooksBetween is how many looks at most pass between two preflights on a node that goes on lacking something: each costs some dozens of runs of
	// the programs, and what is missing is not likely to come.
	maxLooksBetween = 20
)

// state is what is known of the node besides the rules.
type state struct {
	capabilities Capabilities
	found        []Finding // by the preflight
	settings     settings
	unsure       bool // something could not be asked
	looks, pause int  // since the last preflight, and until the next
}

// Unsure reports whether something that was asked for is busy still, so that the Capabilities are less or more than there is.
func (d *Dataplane) Unsure() bool { return d.state.Load().unsure }

// findings are all of them.
func (s *state) findings() []Finding { return slices.Concat(s.found, s.settings.findings) }

// lacks reports whether another preflight may find more.
func (s *state) lacks() bool {
	return s.unsure || slices.ContainsFunc(s.found, func(f Finding) bool { return !f.OK })
}

// inspect is the first look, with all there is to ask.
func inspect(ctx context.Context, p probes, table string) *state {
	ctx, cancel := context.WithTimeoutCause(ctx, preflightPatience, fmt.Errorf("waited %s", preflightPatience))
	defer cancel()
	s := &state{settings: surveySettings(p)}
	s.capabilities, s.found, s.unsure = preflight(ctx, p, table)
	return s
}

// Look looks again at what may have changed since New or the last Look: settings always, and what the preflight found missing, or could not ask for, now and
// then. What has come is in Capabilities from then on, and what was there once stays in them: whoever relies on it learns from the kernel if it goes.
//
// It is to be called while no plan is being made from the old Capabilities.
func (d *Dataplane) Look(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Store(d.state.Load().next(ctx, &kernelProbes{tools: d.tools}, d.table))
}

// next is the state after another look.
func (s *state) next(ctx context.Context, p probes, table string) *state {
	next := *s
	next.settings = surveySettings(p)
	if !s.lacks() {
		return &next
	}
	if next.looks++; next.looks <= s.pause {
		return &next
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lookPatience, fmt.Errorf("waited %s", lookPatience))
	defer cancel()
	c, found, unsure := preflight(ctx, p, table)
	next.looks = 0
	if unsure {
		next.pause = 0
		return &next // it says less than the one before
	}
	next.pause = min(2*s.pause+1, maxLooksBetween)
	if s.unsure {
		next.capabilities = c // what was taken to be there may be missing
	} else {
		next.capabilities = s.capabilities.with(c)
	}
	next.found, next.unsure = found, false
	return &next
}

// with are the capabilities of both. The table stays, unless all that is enforced can move from the fallback to our own.
func (c Capabilities) with(more Capabilities) Capabilities {
	has := func(f iptables.Family) bool { return slices.Contains(more.Families, f) }
	if c.Table != more.Table {
		if more.Table != securityTable || slices.ContainsFunc(c.Families, func(f iptables.Family) bool { return !has(f) }) {
			return c
		}
		c.Table = more.Table
	}
	families := slices.DeleteFunc(slices.Clone(iptables.Families[:]), func(f iptables.Family) bool {
		return !has(f) && !slices.Contains(c.Families, f)
	})
	// These hold for every one of the families: of those that come, only the later answer speaks.
	before := c
	if len(families) > len(c.Families) {
		before = Capabilities{}
	}
	c.Families = families
	c.SelfMatch = before.SelfMatch || more.SelfMatch
	c.OwnAddresses = before.OwnAddresses || more.OwnAddresses
	c.Log = before.Log || more.Log
	c.HoldCut = before.HoldCut || more.HoldCut
	c.HopLimit = before.HopLimit || more.HopLimit
	c.CutLive = c.CutLive || more.CutLive
	c.Guards = c.Guards || more.Guards
	return c
}

// Unseen are those of the addresses of pods of this node whose traffic may stay within a bridge where, in the address' family, it passes no rule, as of the
// last look: two pods there reach each other whatever policies say. Seen are those alone that the node reaches directly over a link that is no bridge; where it
// has no address on a bridge, it reaches the pods there by a router, or not at all.
func (d *Dataplane) Unseen(addrs []netip.Addr) ([]netip.Addr, error) {
	families := d.state.Load().settings.unseen
	if len(families) == 0 {
		return nil, nil
	}
	bridges := map[int]bool{}
	links, err := listLinks()
	if err != nil {
		return nil, fmt.Errorf("listing the links: %w", err)
	}
	for _, l := range links {
		if l.Type() == "bridge" {
			bridges[l.Attrs().Index] = true
		}
	}
	var unseen []netip.Addr
	for _, a := range addrs {
		if !slices.Contains(families, iptables.FamilyOf(a)) {
			continue
		}
		routes, err := netlink.RouteGet(net.IP(a.AsSlice()))
		direct := func(r netlink.Route) bool { return r.Gw == nil && !bridges[r.LinkIndex] }
		if err != nil || !slices.ContainsFunc(routes, direct) {
			unseen = append(unseen, a)
		}
	}
	return unseen, nil
}
