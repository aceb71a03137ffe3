package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Fake is a Dataplane over a kernel of its own, in memory. It takes the same plans in the same order, refuses what the
// kernel refuses (rules that name what does not exist, the destruction of what is referred to, names that are too long), and passes the
// same tests. It starts with empty base chains and no sets.
type Fake struct {
	// Before, if set, is called before each step of a plan; the step fails with the error that it returns. It may
	// look at the Fake: that is the state between two steps.
	Before func(Step) error
	// Layout is as in [Options].
	Layout iptables.Layout

	applying     sync.Mutex // held for a whole plan, so that plans take turns
	mu           sync.Mutex // guards what follows
	capabilities Capabilities
	tables       map[iptables.Family]savedTable
	sets         map[string]fakeSet
	guards       map[string]iptables.Guard
	inward       iptables.Inward
	counter      Counter
	readers      map[uint16]*fakeReader // by NFLOG group
	tracking     fakeTracking
	limits       Limits
}

// fakeSet is a set of a Fake's kernel, with entries that it may write to, sorted.
type fakeSet struct {
	iptables.Set
	entries []iptables.Entry
}

// StepKind is a kind of step, in the words of iptables.Plan.
type StepKind string

// The kinds of steps.
const (
	CreateSet  StepKind = "create set"
	AddEntries StepKind = "add entries"
	Restore    StepKind = "restore"
	FixJump    StepKind = "fix jump"
	Guard      StepKind = "guard links"
	Elsewhere  StepKind = "clean up elsewhere"
	DelEntries StepKind = "delete entries"
	DestroySet StepKind = "destroy set"
)

// Step is one step of a plan.
type Step struct {
	Kind   StepKind
	Family iptables.Family
	Name   string // of the set, or of the base chain; empty for a restore, and elsewhere
}

// NewFake is a Fake with these capabilities. An empty Table means security, and no Families means both.
func NewFake(c Capabilities) *Fake {
	if c.Table == "" {
		c.Table = securityTable
	}
	if len(c.Families) == 0 {
		c.Families = slices.Clone(iptables.Families[:])
	}
	f := &Fake{capabilities: c, tables: map[iptables.Family]savedTable{}, sets: map[string]fakeSet{}, guards: map[string]iptables.Guard{}}
	for _, family := range c.Families {
		t := savedTable{chains: map[string][]iptables.Rule{}, packets: map[string]uint64{}}
		for _, base := range hookChains {
			t.declare(base)
		}
		f.tables[family] = t
	}
	return f
}

// Backend is "fake".
func (f *Fake) Backend() string { return "fake" }

// Capabilities are those that it was made with.
func (f *Fake) Capabilities() Capabilities { return f.capabilities }

// Findings are none.
func (f *Fake) Findings() []Finding { return nil }

// ObserveReusing is as Dataplane's, but always a copy.
func (f *Fake) ObserveReusing(ctx context.Context, _ iptables.Ruleset) (iptables.Ruleset, error) {
	return f.Observe(ctx)
}

// Yielding is the context itself: there are no programs.
func (f *Fake) Yielding(ctx context.Context) context.Context { return ctx }

// Observe is as Dataplane's.
func (f *Fake) Observe(ctx context.Context) (iptables.Ruleset, error) {
	if err := context.Cause(ctx); err != nil {
		return iptables.Ruleset{}, fmt.Errorf("observing: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, sets := iptables.Ruleset{Tables: map[iptables.Family]iptables.Table{}}, map[string]iptables.Set{}
	for family, t := range f.tables {
		r.Tables[family] = t.ours(f.capabilities.Table)
	}
	r.Guards, r.Inward = maps.Clone(f.guards), f.inward
	for name, s := range f.sets {
		sets[name] = s.Set
		if !f.Layout.IsOther(name) { // as list does
			sets[name] = s.Holding(slices.Clone(s.entries))
		}
	}
	r.Sets = policy.MapOf(sets)
	return r, nil
}

// ObserveSets is as Dataplane's, but always a copy.
func (f *Fake) ObserveSets(ctx context.Context, names []string, _ iptables.Ruleset) (map[string]iptables.Set, error) {
	all, err := f.ObserveReusing(ctx, iptables.Ruleset{})
	sets := map[string]iptables.Set{}
	for _, name := range names {
		if s, there := all.Sets.Lookup(name); there {
			sets[name] = s
		}
	}
	return sets, err
}

// Apply is as Dataplane's.
func (f *Fake) Apply(ctx context.Context, p iptables.Plan) error {
	f.applying.Lock()
	defer f.applying.Unlock()
	return apply(ctx, (*fakeSteps)(f), p)
}

// Cleanup is as Dataplane's.
func (f *Fake) Cleanup(ctx context.Context) error {
	f.applying.Lock()
	defer f.applying.Unlock()
	k := (*fakeSteps)(f)
	errs := []error{k.unguard(ctx, slices.Collect(maps.Keys(f.guards))), k.bringInward(ctx, iptables.Inward{})}
	for family, t := range f.tables {
		if input := t.removal(f.capabilities.Table); input != "" {
			errs = append(errs, familyError(family, "cleaning up", k.restore(ctx, family, input)))
		}
	}
	var sets []iptables.SetRef
	for _, name := range slices.Sorted(maps.Keys(f.sets)) {
		sets = append(sets, iptables.SetRef{Name: name, Family: f.sets[name].Family})
	}
	return errors.Join(append(errs, k.destroySets(ctx, sets))...)
}

// Restore hands input to the Fake's iptables-restore --noflush, to break what is ours or to add what is another program's.
func (f *Fake) Restore(family iptables.Family, input string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.tables[family]
	if !ok {
		return fmt.Errorf("there are no tables of the family %s", family)
	}
	t, err := t.restored(f.capabilities.Table, input, f.hasSet(family))
	if err == nil {
		f.tables[family] = t
	}
	return err
}

// Save is what iptables-save -t prints of the Fake's table, other programs' rules included.
func (f *Fake) Save(family iptables.Family) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tables[family].text(f.capabilities.Table)
}

func (f *Fake) hasSet(family iptables.Family) func(string) error {
	return func(name string) error {
		switch s, ok := f.sets[name]; {
		case !ok:
			return fmt.Errorf("set %s does not exist", name)
		case s.Family != family:
			return fmt.Errorf("set %s is of the family %s", name, s.Family)
		}
		return nil
	}
}

// fakeSteps are a Fake's steps, apart from its methods for everybody.
type fakeSteps Fake

var _ steps = (*fakeSteps)(nil)

func (k *fakeSteps) before(s Step) error {
	if k.Before == nil {
		return nil
	}
	return k.Before(s)
}

func (k *fakeSteps) createSet(_ context.Context, s iptables.Set) error {
	if err := k.before(Step{CreateSet, s.Family, s.Name}); err != nil {
		return &SetError{Set: s.Name, Op: "creating it", Err: err}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(s.Name) > maxSetName {
		return &SetError{Set: s.Name, Op: "creating it", Err: errors.New("its name is too long")}
	}
	if _, ok := k.sets[s.Name]; ok && k.refers(s.Name) {
		return &SetError{Set: s.Name, Op: "destroying it", Err: ErrSetInUse}
	}
	if err := k.roomForSet(s.Name); err != nil {
		return &SetError{Set: s.Name, Op: "creating it", Err: err}
	}
	k.sets[s.Name] = fakeSet{Set: s.Holding(nil)}
	return k.add(iptables.SetEntries{Set: s.Name, Type: s.Type, Family: s.Family, Entries: s.Entries()})
}

// maxSetName is IPSET_MAXNAMELEN, less the final zero.
const maxSetName = 31

func (k *fakeSteps) addEntries(_ context.Context, s iptables.SetEntries) error {
	if err := k.before(Step{AddEntries, s.Family, s.Set}); err != nil {
		return &SetError{Set: s.Set, Op: "adding entries", Err: err}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.add(s)
}

func (k *fakeSteps) add(s iptables.SetEntries) error {
	set, ok := k.sets[s.Set]
	if !ok {
		return &SetError{Set: s.Set, Op: "adding entries", Err: errors.New("no such set")}
	}
	for _, e := range s.Entries {
		if err := acceptable(set.Set, e.Prefix.IPs()); err != nil {
			return &SetError{Set: s.Set, Op: "adding entries", Err: fmt.Errorf("%s: %w", e.Text(s.Type), err)}
		}
		i, found := slices.BinarySearchFunc(set.entries, e, iptables.Entry.Compare)
		if found {
			set.entries[i] = e
		} else if err := k.roomForEntry(set.Set, len(set.entries)); err != nil {
			k.sets[s.Set] = set
			return &SetError{Set: s.Set, Op: "adding entries", Err: fmt.Errorf("%s: %w", e.Text(s.Type), err)}
		} else {
			set.entries = slices.Insert(set.entries, i, e)
		}
	}
	k.sets[s.Set] = set
	return nil
}

func acceptable(s iptables.Set, p netip.Prefix) error {
	switch {
	case iptables.FamilyOf(p.Addr()) != s.Family:
		return fmt.Errorf("the set is of the family %s", s.Family)
	case s.Type == iptables.HashNet && p.Bits() == 0:
		return errors.New("hash:net takes no prefix of length 0")
	case s.Type != iptables.HashNet && !p.IsSingleIP():
		return fmt.Errorf("%s takes single addresses", s.Type)
	}
	return nil
}

func (k *fakeSteps) delEntries(_ context.Context, s iptables.SetEntries) error {
	if err := k.before(Step{DelEntries, s.Family, s.Set}); err != nil {
		return &SetError{Set: s.Set, Op: "deleting entries", Err: err}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	set, ok := k.sets[s.Set]
	if !ok {
		return &SetError{Set: s.Set, Op: "deleting entries", Err: errors.New("no such set")}
	}
	gone := iptables.SortEntries(slices.Clone(s.Entries))
	set.entries = slices.DeleteFunc(set.entries, func(e iptables.Entry) bool {
		_, found := slices.BinarySearchFunc(gone, e, iptables.Entry.Compare)
		return found
	})
	k.sets[s.Set] = set
	return nil
}

// restoreAll takes one family after the other, so that what it notes is in the same order each time.
func (k *fakeSteps) restoreAll(ctx context.Context, inputs map[iptables.Family]string) map[iptables.Family]error {
	errs := map[iptables.Family]error{}
	for _, f := range iptables.Families {
		if input, ok := inputs[f]; ok {
			errs[f] = k.restore(ctx, f, input)
		}
	}
	return errs
}

func (k *fakeSteps) restore(_ context.Context, f iptables.Family, input string) error {
	if err := k.before(Step{Kind: Restore, Family: f}); err != nil {
		return err
	}
	if err := k.refuses(input); err != nil {
		return err
	}
	return (*Fake)(k).Restore(f, input)
}

func (k *fakeSteps) fixJump(_ context.Context, j iptables.JumpFix) error {
	if err := k.before(Step{FixJump, j.Family, j.Chain}); err != nil {
		return err
	}
	k.mu.Lock()
	present := k.tables[j.Family].chains[j.Chain]
	k.mu.Unlock()
	stale := jumpsToUs(present)
	if jumpIsRight(j, present, stale) {
		return nil
	}
	return (*Fake)(k).Restore(j.Family, moveJump(j, stale))
}

func (k *fakeSteps) guard(_ context.Context, all []iptables.Guard) error {
	return k.link(func() {
		for _, g := range all {
			k.guards[g.Link] = g
		}
	})
}

func (k *fakeSteps) unguard(_ context.Context, links []string) error {
	return k.link(func() {
		for _, l := range links {
			delete(k.guards, l)
		}
	})
}

func (k *fakeSteps) bringInward(_ context.Context, in iptables.Inward) error {
	return k.link(func() { k.inward = in })
}

// link takes a step of links.
func (k *fakeSteps) link(change func()) error {
	if err := k.before(Step{Kind: Guard}); err != nil {
		return fmt.Errorf("guarding links: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	return nil
}

// cleanElsewhere finds nothing: there is no other back end.
func (k *fakeSteps) cleanElsewhere(context.Context, []iptables.Family) error {
	return k.before(Step{Kind: Elsewhere})
}

func (k *fakeSteps) destroySets(_ context.Context, sets []iptables.SetRef) error {
	var errs []error
	for _, s := range sets {
		if err := k.before(Step{DestroySet, s.Family, s.Name}); err != nil {
			errs = append(errs, &SetError{Set: s.Name, Op: "destroying it", Err: err})
			continue
		}
		k.mu.Lock()
		if k.refers(s.Name) {
			errs = append(errs, &SetError{Set: s.Name, Op: "destroying it", Err: ErrSetInUse})
		} else {
			delete(k.sets, s.Name)
		}
		k.mu.Unlock()
	}
	return errors.Join(errs...)
}

// refers reports whether some rule names the set.
func (k *fakeSteps) refers(set string) bool {
	for _, t := range k.tables {
		for _, rules := range t.chains {
			for _, r := range rules {
				if strings.Contains(string(r), set) && slices.Contains(matchedSets(r), set) {
					return true
				}
			}
		}
	}
	return false
}
