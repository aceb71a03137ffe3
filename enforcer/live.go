package enforcer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Tracker is the node's connection tracking.
type Tracker interface {
	// Addresses are the node's own.
	Addresses(context.Context) ([]netip.Addr, error)
	// Connections shows each live connection to visit.
	Connections(ctx context.Context, visit func(policy.Connection)) error
	// Cut ends connections, and says how many were still there. If they are held off, no packet of their other ends revives them.
	Cut(ctx context.Context, all []policy.Connection, holdOff bool) (int, error)
}

// Live ends the live connections that policy has come to deny, and touches no other.
//
// [Enforcer.Sync] says when there may be some, on [Live.Due]; it never waits for the connections to be listed and judged. While some of them are cut the
// rules stay as they are, and each is judged once more by the policy that is in force then: what has been allowed meanwhile is not touched.
//
// Where our rules had been away, nobody may have tracked a connection when it began, and its entry may have the ends the wrong way round. If policy denies such
// an entry, but would allow the other end to begin, the entry goes, and the other end is not held off: the next packet that is allowed shows who began.
//
// Its methods may be called from several goroutines, Cut from one at a time.
type Live struct {
	tracker Tracker
	due     chan struct{}

	mu      sync.Mutex   // held while the rules change, and while connections are cut
	node    *policy.Node // what is in force; nil while nothing is due
	gap     *policy.Node // what came into force after our rules had been away; nil if they have been there since the last Cut that succeeded
	changes int          // those that may have come to deny something
	settled *policy.Node // what was in force at the last Cut that succeeded: nothing that it denies was left

	held map[iptables.Family]*room // what of other ends is held off

	inherited bool       // our rules had been away, and the process before this one has not got to the Cut after it
	remember  func(bool) // outlives the process; nil if nothing does
}

// NewLive begins with nothing due.
func NewLive(t Tracker) *Live {
	l := &Live{tracker: t, due: make(chan struct{}, 1), held: map[iptables.Family]*room{}}
	for _, f := range iptables.Families {
		l.held[f] = newRoom(iptables.MaxHeld)
	}
	return l
}

// Remember has what is not known of connections outlive this process: remember is called with true before rules come back that had been away, and with false
// when the connections that began meanwhile have been dealt with; inherited is what the process before this one has called it with last. It must not block.
func (l *Live) Remember(inherited bool, remember func(unseen bool)) {
	l.inherited, l.remember = inherited, remember
}

// Due receives after each change that may deny a live connection.
func (l *Live) Due() <-chan struct{} { return l.due }

// change has apply take the kernel to what node says. If due, live connections are to be looked at: after an error too, when it is not known what is in
// force, and what the new policy denies is to end all the same.
func (l *Live) change(node *policy.Node, p iptables.Plan, due bool, apply func() error) error {
	if l == nil {
		return apply()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if wereAway(p) || l.inherited {
		l.gap, l.inherited = node, false
		l.note(true)
	}
	err := apply()
	switch {
	case due || l.node != nil && !p.Empty():
		l.node = node
	case err == nil && l.settled != nil && !p.Empty():
		l.settled = node // which allows more: what begins by that is seen, and nothing that it denies was left
	}
	if due {
		l.changes++
		select {
		case l.due <- struct{}{}:
		default: // said already
		}
	}
	return err
}

// wereAway reports whether a plan brings back what leads packets to our rules, and has them tracked.
func wereAway(p iptables.Plan) bool {
	return slices.ContainsFunc(p.Jumps, func(j iptables.JumpFix) bool { return len(j.Found) == 0 })
}

// mayDeny reports whether a plan can make rules deny what they allowed before, when before was in force; nil if nobody knows what was. Entries that are
// added let more through, but where a rule denies what is in its set, or sends it past others.
func mayDeny(before, n *policy.Node, p iptables.Plan) bool {
	if len(p.Jumps)+len(p.Close)+len(p.DelEntries) > 0 || len(p.Restore) > 0 && (before == nil || policy.Narrows(before, n)) {
		return true
	}
	return len(p.AddEntries) > 0 && slices.ContainsFunc(n.Policies, func(p policy.Policy) bool {
		return slices.ContainsFunc(slices.Concat(p.Rules[policy.Ingress], p.Rules[policy.Egress]), func(r policy.Rule) bool {
			return r.Action == policy.Deny || r.Action == policy.Pass
		})
	})
}

// Ended says what one Cut found and did.
type Ended struct {
	// Seen are the live connections that there were, and Cut those that policy denied and that have been ended.
	Seen, Cut int
	// Forgotten are those of Cut whose other end goes on if policy allows it: they may have been taken for what they are not.
	Forgotten int
	// Unheld are those of Cut for which there was no room to hold their other ends off, by the namespace on whose account they would have been.
	Unheld map[string]int
	// First are some of Cut.
	First []policy.Case
}

const (
	// shown is how many connections an Ended names.
	shown = 5
	// atOnce is how many connections are cut before a change of the rules gets its turn.
	atOnce = 256
)

// Cut ends the live connections that policy denies now, if there has been a change since the last Cut that succeeded.
func (l *Live) Cut(ctx context.Context) (Ended, error) {
	var e Ended
	node, changes := l.pending()
	if node == nil {
		return e, nil
	}
	own, err := l.tracker.Addresses(ctx)
	if err != nil {
		return e, fmt.Errorf("cutting live connections: %w", err)
	}
	c := &cutting{Live: l, own: own, cases: policy.NewCases(policy.NewJudge(node, own)), ended: &e}
	err = l.tracker.Connections(ctx, func(one policy.Connection) {
		e.Seen++
		if denied, ok := c.cases.Add(one); ok {
			c.add(ctx, denied)
		}
	})
	c.flush(ctx)
	for _, related := range c.cases.Related() {
		c.add(ctx, related)
	}
	c.flush(ctx)
	if err := errors.Join(append(c.errs, err)...); err != nil {
		return e, fmt.Errorf("cutting live connections: %w", err)
	}
	l.settle(changes)
	return e, nil
}

func (l *Live) pending() (*policy.Node, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.node, l.changes
}

// settle notes that the changes up to a number have been dealt with.
func (l *Live) settle(changes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes != changes {
		return
	}
	if l.gap != nil {
		l.note(false)
	}
	l.settled, l.node, l.gap = l.node, nil, nil
}

func (l *Live) note(unseen bool) {
	if l.remember != nil {
		l.remember(unseen)
	}
}

// unseen says whether a connection that is denied may have begun while our rules were away: what policy denied when they came back, or at the last look, which
// left nothing of the kind. Whatever both allowed, a change since then has come to deny.
func (l *Live) unseen(own []netip.Addr) func(policy.Connection) bool {
	var judges []*policy.Judge
	for _, node := range []*policy.Node{l.gap, l.settled} {
		if node != nil {
			judges = append(judges, policy.NewJudge(node, own))
		}
	}
	return func(c policy.Connection) bool {
		return slices.ContainsFunc(judges, func(j *policy.Judge) bool {
			return j.DoesDeny(c)
		})
	}
}
