package enforcer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// backlog is what live connections have not been looked at for. It does no I/O, and is not safe for concurrent use.
//
//	                a change that may deny
//	nothing is due ────────────────────────> a look is due ──┐ any change: what is
//	      ^                                    │        ^    │ in force is judged by
//	      └────────────────────────────────────┘        └────┘
//	        a look that succeeded, without a
//	        change that may deny since it began
//
// Beside that it knows what to judge by, whether a connection may have begun while our rules were away.
type backlog struct {
	inForce  *policy.Node    // while something is due; nil while nothing is
	changes  int             // those that may have come to deny something, since the start
	affected policy.Affected // what they may have come to deny since the last look began, or the one before it if that did not succeed
	check    bool            // all connections are affected because the last look at all is long ago, not because of a change
	since    time.Time       // of the first change that affected is of; zero if there is none
	settled  *policy.Node    // what was in force at the last look that succeeded, which left nothing that it denies; nil before the first
	opened   openings        // what later changes have allowed beyond settled and back
	back     *policy.Node    // what came into force after our rules had been away; nil if they have been there since the last look that succeeded
	// inherited is set if our rules had been away, and the process before this one did not get to the look after it.
	inherited bool
	namers    policy.Namers
}

// begin notes that a change to node begins, and reports whether our rules were away until now.
func (b *backlog) begin(node *policy.Node, wereAway bool) bool {
	if !wereAway && !b.inherited {
		return false
	}
	b.back, b.inherited, b.opened = node, false, openings{}
	return true
}

// end notes how a step went, and what it affects. One that may deny makes a look due even if it failed: nobody knows what is in force then, and
// what policy has come to deny is to end all the same. One that allows more moves what the last look has settled: what begins by it is seen.
func (b *backlog) end(s step, affected policy.Affected, failed bool, now time.Time) {
	node, changed := s.after, !s.changes.Empty()
	last := b.inForce
	if last == nil {
		last = b.settled
	}
	switch {
	case !affected.Empty() || b.inForce != nil && s.isChange():
		if last != nil && b.back != node {
			b.opened.add(&b.namers, policy.Step{Before: node, After: last})
		}
		b.inForce = node
	case !failed && b.settled != nil && s.isChange():
		b.settled = node
	}
	if affected.Empty() {
		return
	}
	b.changes++
	b.affected = b.affected.With(affected)
	b.check = b.check || !changed && affected.All && !affected.Urgent
	if b.since.IsZero() && changed {
		b.since = now
	}
}

// look is one look at connections.
type look struct {
	node     *policy.Node    // to judge by
	affected policy.Affected // which connections
	check    bool            // as in backlog
	since    time.Time       // likewise
	changes  int             // that there had been when it began
}

// begins begins a look, if one is due. [backlog.settle] or [backlog.failed] is to follow.
func (b *backlog) begins() (look, bool) {
	if b.inForce == nil {
		return look{}, false
	}
	l := look{b.inForce, b.affected, b.check, b.since, b.changes}
	b.affected, b.check, b.since = policy.Affected{}, false, time.Time{}
	return l, true
}

// failed notes that a look did not succeed.
func (b *backlog) failed(l look) {
	b.affected, b.check = l.affected.With(b.affected), l.check || b.check
	if !l.since.IsZero() {
		b.since = l.since
	}
}

// settle notes that a look succeeded, and reports whether that has dealt with what began while our rules were away. Where there has been a further change,
// nothing is settled.
func (b *backlog) settle(l look) bool {
	if b.changes != l.changes {
		return false
	}
	wereAway := b.back != nil
	b.settled, b.inForce, b.back, b.opened = b.inForce, nil, nil, openings{}
	return wereAway
}

// unseen says whether a connection that is denied may have begun while our rules were away: what policy denied when they came back, or at the last look,
// which left nothing of the kind, unless a change between two looks has let it in. Whatever both allowed, a change since then has come to deny.
func (b *backlog) unseen(own []netip.Addr) func(policy.Connection) bool {
	var judges []*policy.Judge
	for _, node := range []*policy.Node{b.back, b.settled} {
		if node != nil {
			judges = append(judges, policy.NewJudge(node, own))
		}
	}
	return func(c policy.Connection) bool {
		return slices.ContainsFunc(judges, func(j *policy.Judge) bool { return j.DoesDeny(c) }) && !b.opened.all(&b.namers).Has(c.Ends())
	}
}

// openings are what some changes have allowed. It is worked out when a connection is to be ended, and mostly none is.
type openings struct {
	known policy.Affected
	steps []policy.Step // backwards: what they deny, the changes have allowed
}

// mostOpenings are how many changes may wait to be worked out: each keeps what was in force before it.
const mostOpenings = 16

func (o *openings) add(namers *policy.Namers, backwards policy.Step) {
	o.steps = append(o.steps, backwards)
	if len(o.steps) == mostOpenings {
		o.all(namers)
	}
}

func (o *openings) all(namers *policy.Namers) policy.Affected {
	for _, s := range o.steps {
		o.known = o.known.With(namers.AffectedBy(s))
	}
	o.steps = nil
	return o.known
}
