package enforcer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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

// Connections are the live connections of a node. Those that policy has come to deny are ended, and no other is touched.
//
// [Enforcer.Sync] says when there may be some, on [Connections.Due]; it never waits for the connections to be listed and judged. While some of them are cut the
// rules stay as they are, and each is judged once more by the policy that is in force then: what has been allowed meanwhile is not touched.
//
// Where our rules had been away, nobody may have tracked a connection when it began, and its entry may have the ends the wrong way round. If policy denies such
// an entry, but would allow the other end to begin, the entry goes, and the other end is not held off: the next packet that is allowed shows who began.
//
// Its methods may be called from several goroutines, Cut from one at a time.
type Connections struct {
	tracker  Tracker
	due      chan struct{}
	held     map[iptables.Family]*room // what of other ends is held off
	remember func(unseen bool)         // outlives the process

	mu      sync.Mutex // held while the rules change, and while connections are cut
	backlog backlog
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

// change has apply take the kernel to what node says. If it may deny, live connections are to be looked at.
func (l *Connections) change(node *policy.Node, c policy.Changes, mayDeny bool, apply func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.backlog.begin(node, c.WereAway) {
		l.remember(true)
	}
	err := apply()
	l.backlog.end(node, mayDeny, !c.Empty(), err != nil)
	if mayDeny {
		select {
		case l.due <- struct{}{}:
		default: // asked already
		}
	}
	return err
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
func (l *Connections) Cut(ctx context.Context) (Ended, error) {
	var e Ended
	node, changes := l.pending()
	if node == nil {
		return e, nil
	}
	own, err := l.tracker.Addresses(ctx)
	if err != nil {
		return e, fmt.Errorf("cutting live connections: %w", err)
	}
	c := &cutting{Connections: l, own: own, cases: policy.NewCases(policy.NewJudge(node, own)), ended: &e}
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

func (l *Connections) pending() (*policy.Node, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.backlog.inForce, l.backlog.changes
}

// settle notes that the changes up to a number have been dealt with.
func (l *Connections) settle(changes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.backlog.settle(changes) {
		l.remember(false)
	}
}
