package enforcer

import (
	"errors"
	"maps"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// leftoverPause is between two attempts at destroying a set that rules of another program refer to. An attempt waits for some seconds, since the kernel lets
// go of sets late, and the changes of others wait with it.
const leftoverPause = 10 * time.Minute

// leftovers are the sets that nobody needs any more, and that could not be destroyed, with the time of the last attempt.
type leftovers map[string]time.Time

// due leaves out of what a plan destroys what was tried not long ago.
func (l leftovers) due(p iptables.Plan, now time.Time) iptables.Plan {
	return p.Keeping(func(set string) bool {
		tried, ok := l[set]
		return ok && now.Sub(tried) < leftoverPause
	})
}

// wanted reports whether one of them is needed again: then the kernel has to be looked at, since nothing else knows what it holds.
func (l leftovers) wanted(want iptables.Ruleset) bool {
	for name := range l {
		if _, ok := want.Sets.Lookup(name); ok {
			return true
		}
	}
	return false
}

// keep forgets those that are not there any more, or are needed again.
func (l leftovers) keep(observed, want iptables.Ruleset) {
	maps.DeleteFunc(l, func(name string, _ time.Time) bool {
		_, there := observed.Sets.Lookup(name)
		_, wanted := want.Sets.Lookup(name)
		return !there || wanted
	})
}

// without leaves out of what another program has changed the sets that are known to be there still.
func (l leftovers) without(p iptables.Plan) iptables.Plan {
	return p.Keeping(func(set string) bool {
		_, known := l[set]
		return known
	})
}

// note takes in how a plan went: what it says of sets that stay is no failure.
func (l leftovers) note(p iptables.Plan, err error, now time.Time) error {
	for _, s := range p.DestroySets {
		delete(l, s.Name)
	}
	var left *iptables.Leftover
	if !errors.As(err, &left) {
		return err
	}
	for _, name := range left.Sets {
		l[name] = now
	}
	return nil
}
