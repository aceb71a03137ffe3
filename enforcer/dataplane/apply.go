package dataplane

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// steps are what a plan consists of, taken on the kernel or on a Fake.
type steps interface {
	createSet(context.Context, iptables.Set) error
	addEntries(context.Context, iptables.SetEntries) error
	restoreAll(context.Context, map[iptables.Family]string) map[iptables.Family]error
	fixJump(context.Context, iptables.JumpFix) error
	guard(context.Context, []iptables.Guard) error
	unguard(context.Context, []string) error
	bringInward(context.Context, iptables.Inward) error
	cleanElsewhere(context.Context, []iptables.Family) error
	delEntries(context.Context, iptables.SetEntries) error
	destroySets(context.Context, []iptables.SetRef) error
}

// apply takes a plan's steps in the order that iptables.Plan documents. Later steps of a family rely on its earlier ones:
// rules on their sets, deletions on nothing needing the entry any more, and what is opened on the rules about it. So a family's first failure is its last step.
func apply(ctx context.Context, k steps, p iptables.Plan) error {
	o := outcome{failed: map[iptables.Family]bool{}}
	for _, s := range p.CreateSets {
		o.take(ctx, s.Family, func() error { return k.createSet(ctx, s) })
	}
	for _, s := range p.Close {
		o.take(ctx, s.Family, func() error { return k.delEntries(ctx, s) })
	}
	for _, s := range p.AddEntries {
		o.take(ctx, s.Family, func() error { return k.addEntries(ctx, s) })
	}
	o.restore(ctx, k, p.Restore)
	for _, j := range p.Jumps {
		op := fmt.Sprintf("putting the jump in front of %s", j.Chain)
		o.take(ctx, j.Family, func() error { return familyError(j.Family, op, k.fixJump(ctx, j)) })
	}
	o.guard(ctx, k, p)
	if p.Elsewhere {
		o.cleanElsewhere(ctx, k)
	}
	for _, s := range p.DelEntries {
		s = withoutReplaced(s, p.AddEntries)
		o.take(ctx, s.Family, func() error { return k.delEntries(ctx, s) })
	}
	for _, s := range p.Open {
		o.take(ctx, s.Family, func() error { return k.addEntries(ctx, s) })
	}
	err := o.retire(ctx, k, p.DestroySets)
	if sets := stillInUse(err); len(o.errs) == 0 && len(sets) > 0 {
		return &iptables.Leftover{Sets: sets, Err: err}
	}
	return errors.Join(append(o.errs, err)...)
}

// stillInUse are the sets that could not be destroyed because a rule refers to them, if that is all that an error is about.
func stillInUse(err error) (sets []string) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, one := range all {
		set := (*SetError)(nil)
		if !errors.As(one, &set) || !errors.Is(set.Err, ErrSetInUse) {
			return nil
		}
		sets = append(sets, set.Set)
	}
	return sets
}

// outcome is how the steps went so far.
type outcome struct {
	failed map[iptables.Family]bool
	left   bool // something may be left elsewhere
	errs   []error
}

// take takes a step of a family, unless the family has failed or the context has ended.
func (o *outcome) take(ctx context.Context, f iptables.Family, step func() error) {
	if o.failed[f] {
		return
	}
	err := context.Cause(ctx)
	if err != nil {
		err = &FamilyError{Family: f, Op: "leaving the rest of the plan undone", Err: err}
	} else {
		err = step()
	}
	o.note(f, err)
}

// note notes how a family's step went.
func (o *outcome) note(f iptables.Family, err error) {
	if err != nil {
		o.failed[f] = true
		if set := (*SetError)(nil); errors.As(err, &set) {
			set.Family = f
		}
		o.errs = append(o.errs, err)
	}
}

// restore has the chains of all families that have come this far written at the same time: no family waits for another.
func (o *outcome) restore(ctx context.Context, k steps, inputs map[iptables.Family]string) {
	ready := map[iptables.Family]string{}
	for _, f := range iptables.Families {
		if input, ok := inputs[f]; ok {
			o.take(ctx, f, func() error {
				ready[f] = input
				return nil
			})
		}
	}
	errs := k.restoreAll(ctx, ready)
	for _, f := range iptables.Families {
		o.note(f, familyError(f, "restoring the chains", errs[f]))
	}
}

// guard takes the steps of links, which are of no family: they go on where a family has failed, and hold up none.
func (o *outcome) guard(ctx context.Context, k steps, p iptables.Plan) {
	for _, step := range []struct {
		wanted bool
		take   func() error
	}{
		{len(p.Guards) > 0, func() error { return k.guard(ctx, p.Guards) }},
		{len(p.Unguard) > 0, func() error { return k.unguard(ctx, p.Unguard) }},
		{p.Inward != nil, func() error { return k.bringInward(ctx, *p.Inward) }},
	} {
		if !step.wanted {
			continue
		}
		err := context.Cause(ctx)
		if err == nil {
			err = step.take()
		}
		if err != nil {
			o.errs = append(o.errs, err)
		}
	}
}

// cleanElsewhere removes what is left elsewhere of the families that have come this far. If it fails, entries are deleted all the same: for want of them
// nothing is let through by mistake, while for their sake something might be for as long as this fails.
func (o *outcome) cleanElsewhere(ctx context.Context, k steps) {
	families := slices.DeleteFunc(slices.Clone(iptables.Families[:]), func(f iptables.Family) bool { return o.failed[f] })
	if len(families) == 0 {
		return
	}
	err := context.Cause(ctx)
	if err != nil {
		err = fmt.Errorf("leaving what is left elsewhere: %w", err)
	} else {
		err = k.cleanElsewhere(ctx, families)
	}
	if err != nil {
		o.left, o.errs = true, append(o.errs, err)
	}
}

// retire destroys the sets of the families that have come this far: where a family has failed, the rules that are in force there refer to them. A set of no
// family is tried in any case, the kernel refuses what is still referred to.
func (o *outcome) retire(ctx context.Context, k steps, sets []iptables.SetRef) error {
	if o.left {
		return nil // rules there may refer to them
	}
	sets = slices.DeleteFunc(slices.Clone(sets), func(s iptables.SetRef) bool { return o.failed[s.Family] })
	if len(sets) == 0 {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("leaving %d sets undestroyed: %w", len(sets), err)
	}
	return k.destroySets(ctx, sets)
}

// withoutReplaced leaves away the entries of a deletion that differ from an added one by NoMatch alone. The kernel knows an
// entry by its prefix: adding it with the flag turned has replaced it, and deleting the old one would take the new one away.
func withoutReplaced(s iptables.SetEntries, added []iptables.SetEntries) iptables.SetEntries {
	if s.Type != iptables.HashNet {
		return s
	}
	replaced := map[policy.Prefix]bool{}
	for _, a := range added {
		for _, e := range a.Entries {
			replaced[e.Prefix] = replaced[e.Prefix] || a.Set == s.Set
		}
	}
	s.Entries = slices.DeleteFunc(slices.Clone(s.Entries), func(e iptables.Entry) bool { return replaced[e.Prefix] })
	return s
}

func familyError(f iptables.Family, op string, err error) error {
	if err == nil {
		return nil
	}
	return &FamilyError{Family: f, Op: op, Err: err}
}
