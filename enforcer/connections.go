package enforcer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Tracker is the node's connection tracking.
type Tracker interface {
	// Addresses are the node's own.
	Addresses(context.Context) ([]netip.Addr, error)
	// Connections shows each live connection that is affected to visit. It may show others too.
	Connections(ctx context.Context, affected policy.Affected, visit func(policy.Connection)) error
	// Related shows each live connection that belongs to another to visit. It may show others too.
	Related(ctx context.Context, visit func(policy.Connection)) error
	// Cut ends connections, and says how many were still there. If they are held off, no packet of their other ends revives them.
	Cut(ctx context.Context, all []policy.Connection, holdOff bool) (int, error)
}

// Connections are the live connections of a node. Those that policy has come to deny are ended, and no other is touched.
//
// [Enforcer.Sync] says when there may be some, on [Connections.Due]; it never waits for the connections to be listed and judged. While some of them are cut
// the rules stay as they are, and each is judged once more by the policy that is in force then: what has been allowed meanwhile is not touched.
//
// A look is about the connections that changes may have come to deny ([policy.AffectedBy]), and judges no others. It is about all of them at the start, when
// our rules had been away, when others had changed them, and now and then, in case that something was missed.
//
// Where our rules had been away, nobody may have tracked a connection when it began, and its entry may have the ends the wrong way round. If policy denies
// such an entry, but would allow the other end to begin, the entry goes, and the other end is not held off: the next packet that is allowed shows who began.
//
// Its methods may be called from several goroutines, Cut from one at a time.
type Connections struct {
	tracker  Tracker
	due      chan struct{}
	held     map[iptables.Family]*room // what of other ends is held off
	remember func(unseen bool)         // outlives the process

	mu      sync.Mutex // held while the rules change, and while connections are cut
	backlog backlog
	checked checked
}

// checked is the last look at all connections.
type checked struct {
	at          time.Time
	connections int // that there were
}

const (
	// checkCost is about what one connection takes of a look: so many have to be listed and judged.
	checkCost = 2 * time.Microsecond
	// checkShare is how many times as long as a look at all connections takes has to pass before another that no change asks for: a quarter of a percent.
	checkShare = 400
	// cheapCheck are connections that each resync may have looked at: with the 30 s that are between two resyncs by default, that is the same share.
	cheapCheck = 37_500
)

// due reports whether all connections may be looked at, though no change asks for it.
func (c checked) due(now time.Time) bool {
	return c.connections <= cheapCheck || now.Sub(c.at) >= checkShare*checkCost*time.Duration(c.connections)
}

// NewConnections begins with nothing due.
func NewConnections(t Tracker) *Connections {
	l := &Connections{tracker: t, due: make(chan struct{}, 1), held: map[iptables.Family]*room{}, remember: func(bool) {}}
	for _, f := range iptables.Families {
		l.held[f] = newRoom(iptables.MaxHeld)
	}
	return l
}

// Remember has what is not known of connections outlive this process: remember is called with true before rules come back that had been away, and with false
// when the connections that began meanwhile have been dealt with; inherited is what the process before this one has called it with last. It must not block.
func (l *Connections) Remember(inherited bool, remember func(unseen bool)) {
	l.backlog.inherited, l.remember = inherited, remember
}

// Due receives after each change that may deny a live connection.
func (l *Connections) Due() <-chan struct{} { return l.due }

// step is one change of what is in force.
type step struct {
	before  *policy.Node // nil if nobody knows what the kernel held
	after   *policy.Node
	held    func(netip.Addr) bool // whether a pod is known to have an address, until the step is made
	changes policy.Changes
	// verified is set if the kernel was compared with what is to be in force.
	verified bool
}

// affected are the connections that the step may have come to deny. Whatever was missed before, as packets that were on their way for long, is found by
// looking at all of them now and then.
func (s step) affected(namers *policy.Namers, check bool) policy.Affected {
	switch {
	case s.before == nil:
		return policy.Affected{All: true, Urgent: true}
	case !s.changes.Empty():
		return s.denied(namers)
	case s.before.IsInDoubt(): // what ends doubts changes nothing in the kernel
		return s.denied(namers).With(policy.Affected{All: s.verified && check})
	}
	return policy.Affected{All: s.verified && check}
}

func (s step) denied(namers *policy.Namers) policy.Affected {
	return namers.AffectedBy(policy.Step{Before: s.before, After: s.after, Held: s.held})
}

// isChange reports whether something else is to be judged by. Doubts come and go without a change in the kernel.
func (s step) isChange() bool {
	return !s.changes.Empty() || s.after.IsInDoubt() || s.before != nil && s.before.IsInDoubt()
}

// change has apply take the kernel to what a step says. If that may deny live connections, they are to be looked at.
func (l *Connections) change(s step, apply func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	affected := s.affected(&l.backlog.namers, l.checked.due(now))
	if l.backlog.begin(s.after, s.changes.WereAway) {
		l.remember(true)
	}
	err := apply()
	l.backlog.end(s, affected, err != nil, now)
	if !affected.Empty() {
		select {
		case l.due <- struct{}{}:
		default: // asked already
		}
	}
	return err
}

// Urgent reports whether a look is due for another reason than that addresses are gone which policy has allowed, or that the last look at all connections is
// long ago: whether one that is live at both ends may go on against policy.
func (l *Connections) Urgent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.backlog.affected.Urgent
}

// Ended says what one Cut found and did.
type Ended struct {
	// Seen are the live connections that were judged, and Cut those that policy denied and that have been ended.
	Seen, Cut int
	// All is set if it was about all connections, and Check if it was so because the last look at all was long ago, not because of a change.
	All, Check bool
	// Since is when the first change was made that it was about; zero if it was about none.
	Since time.Time
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
func (l *Connections) Cut(ctx context.Context) (Ended, error) {
	one, due := l.begins()
	if !due {
		return Ended{}, nil
	}
	e := Ended{All: one.affected.All, Check: one.check, Since: one.since}
	err := l.look(ctx, one, &e)
	l.end(one, err == nil, e.Seen)
	if err != nil {
		return e, fmt.Errorf("cutting live connections: %w", err)
	}
	return e, nil
}

// look judges the connections that are affected, and ends those that policy denies.
func (l *Connections) look(ctx context.Context, one look, e *Ended) error {
	own, err := l.tracker.Addresses(ctx)
	if err != nil {
		return err
	}
	c := &cutting{Connections: l, own: own, cases: policy.NewCases(policy.NewJudge(one.node, own)), ended: e}
	isAffected := one.affected.Filter()
	err = l.tracker.Connections(ctx, one.affected, func(one policy.Connection) {
		if !isAffected(one.Ends()) {
			return
		}
		e.Seen++
		if denied, ok := c.cases.Denied(one); ok {
			c.add(ctx, denied)
		}
	})
	c.flush(ctx)
	if c.cases.AnyGone() {
		err = errors.Join(err, l.tracker.Related(ctx, func(one policy.Connection) {
			if orphan, ok := c.cases.Orphaned(one); ok {
				c.add(ctx, orphan)
			}
		}))
		c.flush(ctx)
	}
	return errors.Join(append(c.errs, err)...)
}

func (l *Connections) begins() (look, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.backlog.begins()
}

// end notes how a look went that has seen so many connections.
func (l *Connections) end(one look, succeeded bool, seen int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !succeeded {
		l.backlog.failed(one)
		return
	}
	if one.affected.All {
		l.checked = checked{time.Now(), seen}
	}
	if l.backlog.settle(one) {
		l.remember(false)
	}
}
