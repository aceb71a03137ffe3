// Package enforcer keeps one node's kernel at what the cluster's policies say.
//
//	Snapshot ─> compile ─> render ─> diff ─> apply ─> Report
//	                └─────────────────────────┴─> Connections: those that policy has come to deny are cut
//
// [Enforcer.Sync] is that line, read from left to right. It is level-triggered: what it does depends on the snapshot and on the
// kernel, never on the events in between. It holds what it knows of the kernel, so that a change costs as much as the change; it looks at
// the kernel itself at the start, after a failure, and whenever it is asked to verify.
//
// Invariants:
//   - at every instant the kernel enforces an old policy or the new one, for each object: what cannot be put in force is closed or stays as it was;
//   - what one object asks for holds up no other: what the kernel refuses is closed (isolate.go), what takes long waits (waiting.go);
//   - a Report says what was found and done, in words that no back end has for itself;
//   - a live connection that policy allows is never touched.
//
// An Enforcer is not safe for concurrent use: one worker owns it. [Connections] work beside it.
//
// The package watches nothing and writes no log: package controllers brings snapshots, and says what came of them. It touches the kernel through [Dataplane]
// and [Tracker] alone.
package enforcer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Dataplane is the node's kernel.
type Dataplane interface {
	// ObserveReusing returns all that is ours in the kernel, with entries of known where a set holds the same. It may run beside the other methods.
	ObserveReusing(ctx context.Context, known iptables.Ruleset) (iptables.Ruleset, error)
	// ObserveSets returns the sets of these names that are there, likewise.
	ObserveSets(ctx context.Context, names []string, known iptables.Ruleset) (map[string]iptables.Set, error)
	// Yielding is a context for what runs beside the Syncs and has time: programs that are started with it leave the processors to others.
	Yielding(context.Context) context.Context
	// Apply carries out a plan. After an error the kernel may hold part of it: never more than the old and the new
	// policy allow.
	Apply(context.Context, iptables.Plan) error
}

// Enforcer keeps one kernel at what snapshots say.
type Enforcer struct {
	dataplane Dataplane
	options   iptables.Options
	known     *iptables.Ruleset // what the kernel holds, nil while we do not know; see [Enforcer.knows]
	reading   *reading          // of the kernel beside Syncs, nil if there is none
	inForce   *policy.Node      // what is known to be in force, likewise
	failed    iptables.Plan     // the last that was not carried out in whole
	planner   *planner
	made      made
	tookOver  bool      // nothing of an earlier run is left
	follower  follower  // of changes, which live connections may have to follow
	refusals  *refusals // what the kernel does not take
	leftovers leftovers // what it does not let go
	waiting   *waiting  // changes that would hold up others
	said      said      // of policies, in the last report
	counted   counted
}

// planner says what snapshots of a node, one after the other, come to. It keeps what they have in common.
type planner struct {
	compiler compile.Compiler
	renderer iptables.Renderer
}

// plannerLike is a planner that makes everything anew, without memory of its own for sets that a node has.
func plannerLike(node policy.Node) *planner { return &planner{compiler: compile.Like(node)} }

// New returns an Enforcer that has not looked at the kernel yet.
func New(d Dataplane, o iptables.Options) *Enforcer {
	return &Enforcer{dataplane: d, options: o, planner: &planner{}, follower: nobody{}, refusals: newRefusals(), leftovers: leftovers{}, waiting: newWaiting()}
}

// SetOptions has rules made by other options from the next Sync on, which looks at the kernel itself: other families, or another table, may be about what an
// earlier run has left. It changes nothing if the options are the same.
func (e *Enforcer) SetOptions(o iptables.Options) {
	if reflect.DeepEqual(e.options, o) {
		return
	}
	e.options, e.tookOver = o, false
	e.knows(nil, iptables.Plan{})
}

// follower is told of each change of what is in force.
type follower interface {
	// change has apply make the changes of a step. The error is that of apply.
	change(s step, apply func() error) error
}

var (
	_ follower = (*Connections)(nil)
	_ follower = nobody{}
)

// nobody follows where live connections are left alone.
type nobody struct{}

func (nobody) change(_ step, apply func() error) error { return apply() }

// Follow has connections follow each change that may deny some of them.
func (e *Enforcer) Follow(connections *Connections) { e.follower = connections }

// Report says what one Sync found and did.
type Report struct {
	// Problems are the parts of policies that could not be understood, and those that the kernel refuses.
	Problems []compile.Problem
	// Refused are the policies that the kernel refuses something of, that ask for more than a budget allows which depends on this node, or that name pods which
	// are not known yet, sorted. They are in force but for that, which is closed.
	Refused []Refused
	Counts  Counts
	// Concerns are the policies and pods that this node enforces something for: of the snapshot, whether the kernel took it or not.
	Concerns policy.Concerns
	// Leftover are sets that are needed no more, and stay because rules of another program refer to them, sorted. All else is in force.
	Leftover []string
	// Waiting are the namespaces whose NetworkPolicies are in force as they were, while what they have become is being made ready, sorted. The syncs that
	// follow bring it, and are to begin soon.
	Waiting []string
	// Unread is set if the kernel could not be read back, so that nobody knows what it holds.
	Unread bool
	// Points are the places in the wanted rules where packets are counted or logged, by ID.
	Points policy.Map[string, policy.Point]
	// Applied is what was changed in the kernel, empty if nothing was.
	Applied policy.Changes
	// Repairs is what another program had changed in Ringfence's part of the kernel since the last Sync: it has been undone.
	Repairs policy.Changes
}

// Counts are sizes of what is enforced.
type Counts struct {
	Policies, Endpoints, Chains, Rules, Sets, Entries int
}

// Sync makes the kernel enforce the snapshot. With verify it compares with the kernel itself rather than with what it knows of it,
// and so repairs what others have broken. What the kernel refuses of a policy is closed, and the rest is put in force. After an error what was enforced
// before stays enforced, as far as it is not what failed, and the next Sync looks at the kernel again. A change that would take very long comes in several
// Syncs, each of which brings what else has changed: see [Report.Waiting].
func (e *Enforcer) Sync(ctx context.Context, s compile.Snapshot, verify bool) (Report, error) {
	e.waiting.holdBack()
	report, err := e.sync(ctx, s, verify)
	if !e.waiting.letGo() || err != nil {
		return report, err
	}
	last, err := e.sync(ctx, s, false)
	last.Applied, last.Repairs = report.Applied.Then(last.Applied), report.Repairs
	return last, err
}

func (e *Enforcer) sync(ctx context.Context, s compile.Snapshot, verify bool) (Report, error) {
	present, node, problems := e.plan(s)
	e.made = made{snapshot: present, node: node, problems: problems}
	node = e.waiting.close(node)
	e.waiting.refuse(problems)
	e.refusals.begin(&node, time.Now())
	closed := e.refusals.close(node)
	report, err := e.enforce(ctx, closed, verify)
	if err == nil {
		e.refusals.accept(closed)
	} else {
		report, err = e.isolate(ctx, node, report, err)
	}
	if err == nil {
		e.waiting.cameIntoForce(s, present, e.made.node, e.refusals.taken)
		e.prepare(ctx, s)
	}
	report.Waiting = slices.Sorted(maps.Keys(e.waiting.namespaces))
	byKernel := e.refusals.list(&node)
	report.Leftover = slices.Sorted(maps.Keys(e.leftovers))
	report.Refused = e.said.withProblems(byKernel, problems, &node)
	if report.Problems = problems; len(byKernel) > 0 {
		report.Problems = slices.Concat(problems, problemsOf(byKernel))
		slices.SortStableFunc(report.Problems, func(a, b compile.Problem) int { return a.Ref.Compare(b.Ref) })
	}
	return report, err
}

// enforce makes the kernel hold what a node is to enforce.
func (e *Enforcer) enforce(ctx context.Context, node policy.Node, verify bool) (Report, error) {
	var known iptables.Ruleset
	knew := e.known != nil
	if knew {
		known = *e.known
	}
	e.made.closed, e.made.options, e.made.ruleset = node, e.options, e.planner.renderer.Render(node, e.options, known)
	want := e.waiting.withMade(e.made.ruleset)
	report := Report{Counts: e.counted.of(want), Concerns: node.Concerns, Points: want.Points}
	report.Counts.Policies, report.Counts.Endpoints = len(node.Policies), len(node.Endpoints)

	have, unread := e.have(ctx, verify || e.leftovers.wanted(want), want, &report)
	if unread != nil {
		e.inForce, report.Unread = nil, true
		e.knows(nil, iptables.Plan{})
		want = want.Comparable(have)
	}
	plan := e.leftovers.due(iptables.Diff(want, have), time.Now())
	report.Applied = plan.Changes()
	change := step{after: &node, held: e.planner.compiler.Holds, changes: report.Applied, verified: verify}
	if knew && e.tookOver && report.Repairs.Empty() && unread == nil {
		change.before = e.inForce
	}
	e.failed = plan
	if err := e.follower.change(change, func() error { return e.apply(ctx, plan) }); err != nil {
		e.inForce = nil
		e.knows(nil, plan)
		return report, errors.Join(unread, fmt.Errorf("applying policy: %w", err))
	}
	e.failed = iptables.Plan{}
	if unread == nil {
		e.inForce = &node
		e.knows(&want, plan)
	}
	return report, unread
}

// apply carries out a plan. The first that succeeds takes over from the run before, which may have been another version's, in another place.
func (e *Enforcer) apply(ctx context.Context, p iptables.Plan) error {
	p.Elsewhere = !e.tookOver
	if p.Empty() {
		return nil
	}
	if err := e.leftovers.note(p, e.dataplane.Apply(ctx, p), time.Now()); err != nil {
		return err
	}
	e.tookOver = true
	return nil
}

// have is what the kernel holds, and notes in the report what of it is not our doing. With an error it is what could be read. It shares
// memory with want.
func (e *Enforcer) have(ctx context.Context, verify bool, want iptables.Ruleset, report *Report) (iptables.Ruleset, error) {
	if e.known != nil && !verify {
		return *e.known, nil
	}
	observed, read := e.read(ctx)
	if !read || !e.damage(observed).Empty() {
		var err error
		if observed, err = e.dataplane.ObserveReusing(ctx, want); err != nil {
			return observed, fmt.Errorf("reading back what is enforced: %w", err)
		}
		report.Repairs = e.damage(observed)
	}
	e.leftovers.keep(observed, want)
	return observed, nil
}

// damage is what takes the kernel, as it was read, to what is known of it.
func (e *Enforcer) damage(observed iptables.Ruleset) policy.Changes {
	if e.known == nil {
		return policy.Changes{}
	}
	return e.leftovers.without(iptables.Diff(*e.known, observed)).Changes()
}

// counted is the last ruleset that was counted.
type counted struct {
	ruleset iptables.Ruleset
	size    iptables.Size
}

// of are the sizes of what a ruleset holds.
func (c *counted) of(r iptables.Ruleset) Counts {
	c.ruleset, c.size = r, r.SizeSince(c.ruleset, c.size)
	return Counts{Chains: c.size.Chains, Rules: c.size.Rules, Sets: c.size.Sets, Entries: c.size.Entries}
}
