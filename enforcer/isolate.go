package enforcer

import (
	"context"
	"slices"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// What the kernel refuses costs the object that asked for it, and nobody else (docs/adr/0019-refusals-by-object.md).

// How long it may take to find out whose a refusal is. What has not been found out by then is closed, and tried again one by one.
const (
	maxAttempts   = 24 // at applying something
	longestSearch = 5 * time.Second
)

// search finds out which objects the kernel refuses.
type search struct {
	*Enforcer
	node     policy.Node
	objects  map[policy.Ref]policy.Object
	suspects []policy.Ref // that ask for something new
	attempts int
	until    time.Time
	repairs  policy.Changes
}

// isolate has the rest of a node in force after a sync that failed, and says how that went. An error that is no object's doing comes back as it is.
func (e *Enforcer) isolate(ctx context.Context, node policy.Node, report Report, err error) (Report, error) {
	if len(refusalsIn(err)) == 0 {
		return report, err
	}
	e.recognise(ctx, &node)
	before := e.refusals.remember()
	s := &search{
		Enforcer: e, node: node, objects: versions(&node), suspects: e.refusals.changed(&node),
		attempts: maxAttempts, until: time.Now().Add(longestSearch), repairs: report.Repairs,
	}
	for err != nil {
		refused, failed := refusalsIn(err), s.failed
		if len(refused) == 0 || ctx.Err() != nil || !s.blame(ctx, refused) {
			e.refusals.by = before // whoever was suspected, it was not their doing alone
			return report, err
		}
		if slices.ContainsFunc(refused, func(r iptables.Refusal) bool { return r.Full }) {
			s.makeRoom(ctx, failed)
		}
		report, err = s.try(ctx, e.refusals.close(node))
	}
	e.refusals.accept(e.refusals.close(node))
	return report, nil
}

// try applies what is left of the node.
func (s *search) try(ctx context.Context, n policy.Node) (Report, error) {
	s.attempts--
	report, err := s.enforce(ctx, n, false)
	report.Repairs = s.repairs
	return report, err
}

// makeRoom destroys the sets that a plan has made before it failed: no rule refers to them yet, and what they take is what others lack. Those that are still
// wanted are made again. Where that fails too, the next plan says so.
func (s *search) makeRoom(ctx context.Context, p iptables.Plan) {
	if room := p.MakingRoom(); !room.Empty() {
		_ = s.dataplane.Apply(ctx, room)
	}
}

func (s *search) over() bool { return s.attempts <= 0 || time.Now().After(s.until) }

// blame closes whose doing the refusals are, and reports whether it has found anybody. Where the kernel names a set or a rule, those who ask for it; where
// there is no room, the one who asks for most of what is new; else those who are found by taking all that is new out, and in again by halves.
func (s *search) blame(ctx context.Context, refused []iptables.Refusal) bool {
	found := false
	for _, r := range refused {
		if s.over() {
			break
		}
		switch stuck := s.known(r.Set); {
		case len(stuck) > 0:
			found = s.refuse(s.owners(asksForSet(r.Set)), r.Word, stuck) || found
		case r.Full:
			found = s.refuse(s.largest(), r.Word, nil) || found
		case r.Set != "":
			found = s.refuse(s.owners(asksForSet(r.Set)), r.Word, nil) || found
		case r.Rule != "":
			found = s.refuse(s.owners(asksForRule(r.Family, r.Rule)), r.Word, nil) || found
		}
	}
	if !found {
		found = s.bisect(ctx, refused[0].Word)
	}
	return found
}

// known are the sets in force that have a name.
func (s *search) known(name string) (ids []policy.SetID) {
	if name == "" {
		return nil
	}
	for id, set := range s.refusals.sets.All() {
		if slices.Contains(s.options.Layout.SetNames(id, set.Kind), name) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *search) refuse(refs []policy.Ref, word string, stuck []policy.SetID) bool {
	found, gone := false, setOf(refs)
	for _, ref := range refs {
		object, ok := s.objects[ref]
		if !ok {
			object = policy.Object{Ref: ref}
		}
		found = s.refusals.refuse(object, word, stuck, time.Now()) || found
	}
	s.suspects = slices.DeleteFunc(s.suspects, func(r policy.Ref) bool { return gone[r] })
	return found
}

func setOf(refs []policy.Ref) map[policy.Ref]bool {
	set := make(map[policy.Ref]bool, len(refs))
	for _, ref := range refs {
		set[ref] = true
	}
	return set
}

// largest is who asks for most of what is new.
func (s *search) largest() []policy.Ref {
	if len(s.suspects) == 0 {
		return nil
	}
	s.refusals.bySize(&s.node, s.suspects)
	return s.suspects[len(s.suspects)-1:]
}

// owners are the objects whose rendering has what is asked about, found by rendering halves of them.
func (s *search) owners(asks func(iptables.Ruleset) bool) []policy.Ref {
	var refs []policy.Ref
	seen := map[policy.Ref]bool{}
	for _, p := range s.node.Policies {
		if !seen[p.Ref] {
			seen[p.Ref] = true
			refs = append(refs, p.Ref)
		}
	}
	return s.among(refs, asks)
}

func (s *search) among(refs []policy.Ref, asks func(iptables.Ruleset) bool) []policy.Ref {
	if len(refs) == 0 || !asks(s.alone(refs)) {
		return nil
	}
	if len(refs) == 1 {
		return refs
	}
	half := len(refs) / 2
	return slices.Concat(s.among(refs[:half], asks), s.among(refs[half:], asks))
}

// aloneIn is what would be rendered if there were no other objects.
func (e *Enforcer) aloneIn(n policy.Node, refs []policy.Ref) iptables.Ruleset {
	n.Closed = policy.Closed{}
	o := e.options
	o.HoldCut = false // its sets are nobody's
	wanted := setOf(refs)
	return iptables.Render(n.Applying(func(p *policy.Policy) bool { return wanted[p.Ref] }), o)
}

func (s *search) alone(refs []policy.Ref) iptables.Ruleset { return s.aloneIn(s.node, refs) }

func asksForSet(name string) func(iptables.Ruleset) bool {
	return func(r iptables.Ruleset) bool {
		_, ok := r.Sets.Lookup(name)
		return ok
	}
}

// asksForRule looks for what a rule matches: where it leads to depends on who else there is.
func asksForRule(f iptables.Family, rule iptables.Rule) func(iptables.Ruleset) bool {
	match := rule.Match()
	return func(r iptables.Ruleset) bool { return r.Matches(f)[match] }
}

// bisect finds whom the kernel refuses where it does not say. All that is new is held as it was, or left away; then it is let in by halves. At every instant
// each object is as it was or as it is. Nobody is found if the rest fails too: then it is no new object's doing.
func (s *search) bisect(ctx context.Context, word string) bool {
	if len(s.suspects) == 0 || s.over() {
		return s.giveUp(word)
	}
	held := setOf(s.suspects)
	if _, err := s.try(ctx, s.refusals.hold(s.refusals.close(s.node), held)); err != nil {
		return false
	}
	s.refusals.bySize(&s.node, s.suspects)
	return s.refuse(s.letIn(ctx, slices.Clone(s.suspects), held), word, nil)
}

// letIn lets held objects in, and returns those that are refused.
func (s *search) letIn(ctx context.Context, refs []policy.Ref, held map[policy.Ref]bool) []policy.Ref {
	if s.over() || ctx.Err() != nil {
		return refs
	}
	for _, ref := range refs {
		delete(held, ref)
	}
	_, err := s.try(ctx, s.refusals.hold(s.refusals.close(s.node), held))
	if err == nil {
		return nil
	}
	for _, ref := range refs {
		held[ref] = true
	}
	switch {
	case len(refusalsIn(err)) == 0:
		return nil // something else is the matter now: nobody is to blame for that
	case len(refs) == 1:
		return refs
	}
	half := len(refs) / 2
	return slices.Concat(s.letIn(ctx, refs[:half], held), s.letIn(ctx, refs[half:], held))
}

// giveUp closes, when there is no time left, what is new in the namespaces that have something refused already, and the second time all that is new.
func (s *search) giveUp(word string) bool {
	refused := map[string]bool{}
	for ref := range s.refusals.by {
		refused[ref.Namespace] = refused[ref.Namespace] || s.refusals.refuses(ref)
	}
	var some []policy.Ref
	for _, ref := range s.suspects {
		if refused[ref.Namespace] {
			some = append(some, ref)
		}
	}
	if len(some) == 0 {
		some = slices.Clone(s.suspects)
	}
	return s.refuse(some, "one of the objects that changed at the same time, and it has not been found out which: "+word, nil)
}
