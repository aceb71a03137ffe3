package enforcer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// halfway is a kernel that is read as it is at two moments: chains and guards at one, sets at another. It counts how often it is read in whole.
type halfway struct {
	*dataplane.Fake
	between func() // of a reading; may be nil
	reads   int
	fails   error
	cut     bool // chains are shown without their last rules
}

func (h *halfway) ObserveReusing(ctx context.Context, known iptables.Ruleset) (iptables.Ruleset, error) {
	h.reads++
	first, err := h.Fake.ObserveReusing(ctx, known)
	for f, t := range first.Tables {
		edits := map[string]*[]iptables.Rule{}
		for name, rules := range t.Chains.All() {
			if short := rules[:len(rules)/2]; h.cut {
				edits[name] = &short
			}
		}
		t.Chains = t.Chains.Edited(edits)
		first.Tables[f] = t
	}
	if err != nil || h.between == nil {
		return first, errors.Join(err, h.fails)
	}
	h.between()
	second, err := h.Fake.ObserveReusing(ctx, known)
	first.Sets = second.Sets
	return first, errors.Join(err, h.fails)
}

// some is a snapshot at random: of three pods some are elsewhere or away, and some are allowed.
func some(rng *rand.Rand) compile.Snapshot {
	var pods, allowed []string
	for i := range 1 + rng.IntN(3) {
		pods = append(pods, fmt.Sprint("pod-", i))
	}
	for i := range 3 {
		if rng.IntN(2) == 0 {
			allowed = append(allowed, fmt.Sprint("pod-", i))
		}
	}
	if len(allowed) == 0 {
		allowed = []string{"nobody"}
	}
	s := snapshot(pods, allowed)
	if len(pods) > 1 && rng.IntN(2) == 0 {
		s = elsewhere(s, len(pods)-1)
	}
	return s
}

// Whatever syncs do before, while and after the kernel is read beside them, what they have done is not taken for another program's doing, and what another
// program has done is mended: at once if it was there before the reading, and by the next look if it came with it.
func TestTheKernelIsReadBesideSyncs(t *testing.T) {
	const rounds = 400
	repaired, apart := 0, 0
	for round := range rounds {
		rng := rand.New(rand.NewPCG(7, uint64(round)))
		kernel := &halfway{Fake: dataplane.NewFake(dataplane.Capabilities{})}
		e := enforcer.New(kernel, options)
		s := some(rng)
		sync := func() {
			if rng.IntN(3) == 0 {
				s = some(rng)
				mustSync(t, e, s, false)
			}
		}
		mustSync(t, e, s, false)
		broken := rng.IntN(2) == 0
		if broken {
			breakEntry(t, kernel.Fake)
		}
		before := kernel.reads
		read := e.Read()
		sync()
		kernel.between = sync
		read(t.Context())
		kernel.between = nil
		sync()
		r := mustSync(t, e, s, true)
		if again := !r.Repairs.Empty(); kernel.reads != before+1 && !again {
			t.Fatalf("round %d: the kernel was read %d times, want once, beside the syncs", round, kernel.reads-before)
		}
		holds(t, kernel.Fake, s)
		if !broken && !r.Repairs.Empty() {
			t.Fatalf("round %d: a sync was taken for another program:\n%s", round, r.Repairs)
		}
		if !r.Repairs.Empty() {
			repaired++
		}
		if broken {
			apart++
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	if repaired < rounds/20 || apart < rounds/3 {
		t.Errorf("%d of %d broken ones were repaired: the others have gone by themselves", repaired, apart)
	}
}

// breakEntry takes an entry out of a set, and the rules out of a chain, as another program may. A set without entries stays.
func breakEntry(t *testing.T, kernel *dataplane.Fake) {
	t.Helper()
	have, err := kernel.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := kernel.Apply(t.Context(), entryDeleted(have)); err != nil {
		t.Fatal(err)
	}
}

// A reading that fails, or has not ended, or during which something fails, is no reading: the sync reads the kernel itself.
func TestAReadingThatSaysNothingIsMadeGood(t *testing.T) {
	s := snapshot(all, []string{"a"})
	for name, spoil := range map[string]func(t *testing.T, e *enforcer.Enforcer, kernel *halfway, read func(context.Context)){
		"it fails": func(t *testing.T, _ *enforcer.Enforcer, kernel *halfway, read func(context.Context)) {
			kernel.fails = errors.New("no answer")
			read(t.Context())
			kernel.fails = nil
		},
		"it has not ended": func(*testing.T, *enforcer.Enforcer, *halfway, func(context.Context)) {},
		"a sync fails": func(t *testing.T, e *enforcer.Enforcer, kernel *halfway, read func(context.Context)) {
			kernel.Before = func(dataplane.Step) error { return errors.New("no") }
			if _, err := e.Sync(t.Context(), snapshot(all, []string{"b"}), false); err == nil {
				t.Fatal("the sync did not fail")
			}
			kernel.Before = nil
			read(t.Context())
		},
		"other rules are asked for": func(t *testing.T, e *enforcer.Enforcer, _ *halfway, read func(context.Context)) {
			o := options
			o.NFLogGroup = 7
			e.SetOptions(o)
			read(t.Context())
			e.SetOptions(options)
		},
	} {
		t.Run(name, func(t *testing.T) {
			kernel := &halfway{Fake: dataplane.NewFake(dataplane.Capabilities{})}
			e := enforcer.New(kernel, options)
			if e.Read() != nil {
				t.Error("the kernel is read beside the first sync, before anybody knows what it should hold")
			}
			mustSync(t, e, s, false)
			read := e.Read()
			spoil(t, e, kernel, read)
			breakEntry(t, kernel.Fake)
			before := kernel.reads
			mustSync(t, e, s, true)
			if kernel.reads == before {
				t.Error("the kernel was not read again")
			}
			holds(t, kernel.Fake, s)
		})
	}
}

// A chain of which a reading has seen a part is no damage: nothing is mended that the sync does not see itself.
func TestWhatAReadingFindsIsConfirmed(t *testing.T) {
	kernel := &halfway{Fake: dataplane.NewFake(dataplane.Capabilities{})}
	e := enforcer.New(kernel, options)
	s := snapshot(all, []string{"a"})
	mustSync(t, e, s, false)
	read := e.Read()
	kernel.cut = true
	read(t.Context())
	kernel.cut = false
	if r := mustSync(t, e, s, true); !r.Repairs.Empty() || !r.Applied.Empty() || kernel.reads != 3 {
		t.Errorf("after %d readings repaired %s, and applied %s", kernel.reads, r.Repairs, r.Applied)
	}
	holds(t, kernel.Fake, s)
}

// What another program does to a set that changes all the time is mended all the same.
func TestASetThatChangesAllTheTimeIsMended(t *testing.T) {
	kernel := &halfway{Fake: dataplane.NewFake(dataplane.Capabilities{})}
	e := enforcer.New(kernel, options)
	mustSync(t, e, snapshot(all, []string{"a", "b"}), false)
	have, err := kernel.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var set iptables.Set
	for _, one := range have.Sets.All() {
		if one.Len() == 2 && one.Family == iptables.IPv4 {
			set = one
		}
	}
	read := e.Read()
	after := snapshot(all, []string{"a", "b"}).WithPods(&compile.Pod{
		Namespace: "ns", Name: "more", UID: "more", Node: "elsewhere",
		Labels: compile.Labels{{Key: "name", Value: "a"}}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.77")},
	})
	mustSync(t, e, after, false)
	read(t.Context())
	del := iptables.Plan{DelEntries: []iptables.SetEntries{{Set: set.Name, Type: set.Type, Family: set.Family, Entries: set.Entries()[:1]}}}
	if err := kernel.Apply(t.Context(), del); err != nil {
		t.Fatal(err)
	}
	r := mustSync(t, e, after, true)
	if r.Repairs.Added != 1 || kernel.reads != 3 { // at the start, beside the sync, and before the repair
		t.Errorf("repaired %s after %d readings", r.Repairs, kernel.reads)
	}
	holds(t, kernel.Fake, after)
}
