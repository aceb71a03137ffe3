package enforcer

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// A change of a namespace's NetworkPolicies that asks for many new sets would hold up the changes of all others for seconds. So it waits, and nobody else
// does: with each sync some of its sets are made, which no rule names yet, and once they are all there its rules come in one step
// (docs/adr/0021-large-changes-wait.md). Until then the namespace has its policies as they were, all of them: a policy that is gone stays, since the one that
// is to take its place may not be there yet. They apply to its pods as they did. A pod that comes meanwhile, and brings policies that applied to no pod here,
// is isolated by them, and they allow it nothing yet.

// workAtOnce is how much one sync does for changes that wait, and from how much on a change waits, in entries of sets: a fifth of a second, since an entry
// takes some 2 µs, and a set as long as iptables.WorkOfSet of them.
const workAtOnce = 100_000

// waiting are the namespaces whose changes wait.
type waiting struct {
	atOnce     int              // as workAtOnce
	inForce    compile.Snapshot // the last that came into force
	namespaces map[string]bool
	before     compile.Lag         // of these namespaces, as it is in force
	applied    map[part]bool       // their policies that applied to a pod here
	freed      map[string]bool     // which of them ask for more though nothing is new: where a policy goes, there is room in a budget for others
	closed     map[policy.Ref]bool // the policies of which something may come that is not in force, since only a new pod has brought them
	over       []compile.Problem   // likewise, since a budget refuses them
	next       *next               // what is being made ready, nil if nothing is
}

// next is a change that is being made ready. What it is does not change any more, so that it comes to an end: what comes meanwhile is the next one.
type next struct {
	planner    *planner
	namespaces map[string]bool
	lag        compile.Lag      // theirs as it will be
	made       iptables.Ruleset // its sets that are there
	stage      readiness
}

// readiness is how far the next change has come. Each step but the third takes one sync.
type readiness int

const (
	found    readiness = iota // a sync has found it, which has taken long enough
	unread                    // it is to be read, which takes long too
	unmade                    // some of its sets are to be made
	ready                     // it is to be put in force
	heldBack                  // likewise, once what others have changed is
)

func newWaiting() *waiting {
	return &waiting{atOnce: workAtOnce, namespaces: map[string]bool{}, applied: map[part]bool{}, freed: map[string]bool{}}
}

// isReady reports whether what has been made ready is to be put in force now.
func (w *waiting) isReady() bool { return w.next != nil && w.next.stage == ready }

// holdBack has what is ready wait for what others have changed, since it takes long.
func (w *waiting) holdBack() {
	if w.isReady() {
		w.next.stage = heldBack
	}
}

// letGo ends that, and reports whether something was held back.
func (w *waiting) letGo() bool {
	if w.next == nil || w.next.stage != heldBack {
		return false
	}
	w.next.stage = ready
	return true
}

// snapshot is what of s is to be in force after this sync.
func (w *waiting) snapshot(s compile.Snapshot) compile.Snapshot {
	if w.isReady() {
		return w.coming(s)
	}
	return s.Lagging(w.namespaces, w.before)
}

// coming is what of s is to be in force once what is being made ready is.
func (w *waiting) coming(s compile.Snapshot) compile.Snapshot {
	return s.Lagging(w.namespaces, w.before).Lagging(w.next.namespaces, w.next.lag)
}

// lags reports whether a namespace has its policies as they were in this sync.
func (w *waiting) lags(namespace string) bool {
	return w.namespaces[namespace] && !(w.isReady() && w.next.namespaces[namespace])
}

// close is n with the policies closed that only a new pod of a namespace that waits has brought.
func (w *waiting) close(n policy.Node) policy.Node {
	w.closed = map[policy.Ref]bool{}
	if len(w.namespaces) == 0 {
		return n
	}
	n.Policies = slices.Clone(n.Policies)
	for i, p := range n.Policies {
		if p.Stage == policy.NetworkPolicies && w.lags(p.Ref.Namespace) && !w.applied[part{p.Ref, p.Part}] {
			n.Policies[i] = p.Closed(func(policy.Direction, policy.Rule) bool { return false })
			w.closed[p.Ref] = true
		}
	}
	return n
}

// end ends the waiting of namespaces where all has gone again that was to come.
func (w *waiting) end(s compile.Snapshot) {
	if len(w.namespaces) == 0 {
		return
	}
	now := s.Lag()
	for ns := range w.namespaces {
		if w.hasGone(now, ns) {
			w.leave(ns)
		}
	}
	w.before = w.before.Of(w.namespaces)
	if w.next != nil && len(w.next.namespaces) == 0 {
		w.next = nil
	}
}

// hasGone reports whether nothing is left to come of what a namespace waits for.
func (w *waiting) hasGone(now compile.Lag, namespace string) bool {
	if w.freed[namespace] {
		return now.HasNothingNew(w.before, namespace) && !now.HasPolicy(namespace, w.isClosed)
	}
	coming := w.next != nil && w.next.namespaces[namespace]
	return now.HasNothingNew(w.before, namespace) || coming && !now.HasOneOf(w.before, w.next.lag, namespace)
}

// refuse takes in which policies budgets refuse.
func (w *waiting) refuse(problems []compile.Problem) {
	w.over = problems
}

// isClosed reports whether something of a policy may come that is not in force.
func (w *waiting) isClosed(ref policy.Ref) bool {
	first, _ := slices.BinarySearchFunc(w.over, ref, func(p compile.Problem, ref policy.Ref) int { return p.Ref.Compare(ref) })
	for _, p := range w.over[first:] {
		if p.Ref != ref {
			break
		}
		if p.Here && p.TooLarge {
			return true
		}
	}
	return w.closed[ref]
}

func (w *waiting) leave(namespace string) {
	delete(w.namespaces, namespace)
	delete(w.freed, namespace)
	if w.next != nil {
		delete(w.next.namespaces, namespace)
	}
	maps.DeleteFunc(w.applied, func(p part, _ bool) bool { return p.ref.Namespace == namespace })
}

// begin has further namespaces wait.
func (w *waiting) begin(late []string, s compile.Snapshot, taken map[part]policy.Policy) {
	now, inForce := s.Lag(), w.inForce.Lag()
	more := make(map[string]bool, len(late))
	for _, ns := range late {
		w.namespaces[ns], more[ns], w.freed[ns] = true, true, now.HasNothingNew(inForce, ns)
	}
	w.before = w.before.And(inForce.Of(more))
	w.apply(more, taken)
}

// apply notes which policies of some namespaces apply to a pod here.
func (w *waiting) apply(namespaces map[string]bool, taken map[part]policy.Policy) {
	for p := range taken {
		if namespaces[p.ref.Namespace] {
			w.applied[p] = true
		}
	}
}

// late are the namespaces whose changes would make a sync too long: all but those that ask for least, which come first. Nobody is late before something of this
// process has come into force, since nothing is policed until then; nor is who has waited already.
func (e *Enforcer) late(n *policy.Node) []string {
	if !e.refusals.settled || e.known == nil {
		return nil
	}
	asked := e.refusals.newWork(n, len(e.options.Families))
	left := e.waiting.atOnce
	bySize := slices.SortedFunc(maps.Keys(asked), func(a, b string) int { return cmp.Or(asked[a]-asked[b], strings.Compare(a, b)) })
	return slices.DeleteFunc(bySize, func(ns string) bool {
		left -= asked[ns]
		return e.waiting.namespaces[ns] || left >= 0
	})
}

// newWork is how much work there is for the policies that have changed, to make the sets that are not there yet: by namespace, and at the most.
func (r *refusals) newWork(n *policy.Node, families int) map[string]int {
	asked, seen := map[string]int{}, map[policy.SetID]bool{}
	if r.holds(n.Policies) {
		return asked
	}
	for i := range n.Policies {
		p := &n.Policies[i]
		if p.Stage != policy.NetworkPolicies || r.by[p.Ref] != nil || r.isInForce(p) {
			continue // what was refused is tried with few others
		}
		for _, rules := range p.Rules {
			if len(rules) > 0 {
				asked[p.Ref.Namespace] += families * iptables.WorkOfSet // of the pods that it isolates, where many policies share a chain
			}
			for _, rule := range rules {
				for _, id := range []policy.SetID{rule.Peer.Set, rule.Ports.Set} {
					if id != "" && !r.sets.Has(id) && !seen[id] {
						seen[id] = true
						asked[p.Ref.Namespace] += families*iptables.WorkOfSet + n.Sets.Get(id).Members.Len()
					}
				}
			}
		}
	}
	return asked
}

// plan is what of a snapshot is to be in force after this sync.
func (e *Enforcer) plan(s compile.Snapshot) (compile.Snapshot, policy.Node, []compile.Problem) {
	w := e.waiting
	w.end(s)
	if w.isReady() {
		e.planner = w.next.planner // which has read what is new
	}
	present := w.snapshot(s)
	node, problems := e.planner.compiler.Compile(present)
	late := e.late(&node)
	if len(late) == 0 {
		return present, node, problems
	}
	w.begin(late, s, e.refusals.taken)
	if w.next == nil { // what has just been read is what is to come
		w.next = &next{planner: e.planner}
		e.planner = plannerLike(node)
		w.next.take(w, s)
	}
	present = w.snapshot(s)
	node, problems = e.planner.compiler.Compile(present)
	return present, node, problems
}

// take makes it all that waits now.
func (n *next) take(w *waiting, s compile.Snapshot) {
	n.namespaces, n.made = maps.Clone(w.namespaces), iptables.Ruleset{}
	n.lag = s.Lag().Of(n.namespaces)
}

// cameIntoForce notes that a snapshot is in force, which was compiled to a node, out of the one that was to be, with what the kernel has taken. Who has changed
// again since waits on.
func (w *waiting) cameIntoForce(s, present compile.Snapshot, node policy.Node, taken map[part]policy.Policy) {
	w.inForce = present
	if w.isReady() {
		now := s.Lag()
		for ns := range w.next.namespaces {
			if now.HasNothingNew(w.next.lag, ns) && w.next.lag.HasNothingNew(now, ns) {
				w.leave(ns)
			}
		}
		w.apply(w.next.namespaces, taken)
		w.next = nil
		w.before = present.Lag().Of(w.namespaces)
	}
	if w.next == nil && len(w.namespaces) > 0 {
		w.next = &next{planner: plannerLike(node)}
		w.next.take(w, s)
	}
}

// prepare makes some of the sets that a change needs which waits. Where the kernel does not take one, the change comes as it is: whose doing that is, is found
// out then.
func (e *Enforcer) prepare(ctx context.Context, s compile.Snapshot) {
	n := e.waiting.next
	switch {
	case n == nil || n.stage > unmade || e.known == nil:
		return
	case n.stage == found:
		n.stage = unread
		return
	}
	node, _ := n.planner.compiler.Compile(e.waiting.coming(s))
	want := n.planner.renderer.Render(e.refusals.close(node), e.options, *e.known)
	plan, all := iptables.MakingSets(want, *e.known, e.waiting.atOnce)
	switch {
	case all && plan.Empty():
		n.stage = ready
		return
	case n.stage == unread:
		n.stage = unmade
		return
	}
	if err := e.dataplane.Apply(ctx, plan); err != nil {
		n.stage = ready
		e.knows(nil, plan)
		return
	}
	if all {
		n.stage = ready
	}
	known := e.known.WithSets(plan)
	n.made = n.made.WithSets(plan)
	e.knows(&known, plan)
}

// withMade is a ruleset with the sets that were made for what waits: they are to stay.
func (w *waiting) withMade(want iptables.Ruleset) iptables.Ruleset {
	if w.next == nil {
		return want
	}
	return want.KeepingSets(w.next.made)
}
