package enforcer_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// four are a and b, which are here, and c and d, which are elsewhere. All of allowed may reach a and b.
func four(allowed ...string) compile.Snapshot {
	return elsewhere(elsewhere(snapshot([]string{"a", "b", "c", "d"}, allowed), 3), 2)
}

// without is a snapshot in which a pod is gone.
func without(s compile.Snapshot, name string) compile.Snapshot {
	s.Local = slices.DeleteFunc(slices.Clone(s.Local), func(p *compile.Pod) bool { return p.Name == name })
	s.Remote = s.Remote.Without("ns", name)
	return s
}

// relabelled is a snapshot in which a pod has the labels of another name.
func relabelled(s compile.Snapshot, name, to string) compile.Snapshot {
	for p := range s.Pods() {
		if p.Name == name {
			other := *p
			other.Labels = compile.Labels{{Key: "name", Value: to}}
			return without(s, name).WithPods(&other)
		}
	}
	return s
}

// alsoFrom has another policy let pods of a name reach a alone.
func alsoFrom(s compile.Snapshot, name string) compile.Snapshot {
	more := named(snapshot(nil, []string{name}), "ns", "p")
	more.Name = "more"
	more.Spec.PodSelector.MatchLabels = map[string]string{"name": "a"}
	return with(s, more)
}

// The numbers of the pods' addresses.
const a, b, c, d = 1, 2, 3, 4

// TestALookIsAboutWhatAChangeAffects: which connections are judged and which cut, and whether that can wait.
func TestALookIsAboutWhatAChangeAffects(t *testing.T) {
	everyone := []string{"a", "b", "c", "d"}
	whole, more := four(everyone...), alsoFrom(four(everyone...), "z")
	unpoliced := whole
	unpoliced.Policies = unpoliced.Policies.Without("ns", "p")
	live := []policy.Connection{from(c, a), from(c, b), from(d, a), from(a, b), from(b, a), from(c, 9), from(a, c), from(8, 9)}
	for _, row := range []struct {
		name                string
		before, after       compile.Snapshot
		damage, verify      bool
		judged              int
		cut                 []policy.Connection
		all, check, patient bool
	}{
		{name: "a pod elsewhere goes", before: whole, after: without(whole, "c"), judged: 2, cut: live[0:2], patient: true},
		{name: "a pod elsewhere is another one to policy", before: more, after: relabelled(more, "c", "z"), judged: 2, cut: live[1:2]},
		{name: "a pod elsewhere is nobody to policy", before: whole, after: relabelled(whole, "c", "z"), judged: 2, cut: live[0:2]},
		{name: "a policy loses a peer", before: whole, after: four("a", "b", "c"), judged: 5, cut: live[2:3]},
		{name: "a policy of one pod loses a peer", before: alsoFrom(four("a", "b"), "c"), after: alsoFrom(four("a", "b"), "x"), judged: 3,
			cut: []policy.Connection{from(c, a), from(d, a)}},
		{name: "a policy comes", before: unpoliced, after: four("a", "b"), judged: 5, cut: live[0:3]},
		{name: "a pod of this node comes", before: without(four("a", "b", "d"), "b"), after: four("a", "b", "d"), judged: 2, cut: live[1:2]},
		{name: "nothing changes, and the kernel is looked at", before: whole, after: whole, verify: true, judged: 8,
			all: true, check: true, patient: true},
		{name: "others have changed our rules", before: whole, after: whole, damage: true, verify: true, judged: 8, all: true},
		{name: "others have, and a pod goes", before: whole, after: without(whole, "c"), damage: true, verify: true, judged: 8,
			cut: live[0:2], all: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			kernel, e, connections := following()
			mustSync(t, e, row.before, false)
			mustCut(t, connections)
			kernel.Track(nil, live...)
			if row.damage {
				if err := kernel.Cleanup(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			mustSync(t, e, row.after, row.verify)
			if !due(connections) || connections.Urgent() == row.patient {
				t.Errorf("urgent %t, want %t", connections.Urgent(), !row.patient)
			}
			got := mustCut(t, connections)
			if got.Seen != row.judged || got.All != row.all || got.Check != row.check || got.Since.IsZero() != row.check {
				t.Errorf("want %d judged, all %t, check %t: %+v", row.judged, row.all, row.check, got)
			}
			var want []uint32
			for _, one := range live {
				if !slices.Contains(row.cut, one) {
					want = append(want, one.ID)
				}
			}
			if diff := cmp.Diff(want, left(t, kernel)); diff != "" {
				t.Errorf("what lives on (-want +got):\n%s", diff)
			}
			if connections.Urgent() || mustCut(t, connections).Seen > 0 {
				t.Error("something is due, though all has been looked at")
			}
		})
	}
}

// TestWhereTheKernelIsNotKnownAllAreLookedAt: rules by other options say nothing of what those before them let in.
func TestWhereTheKernelIsNotKnownAllAreLookedAt(t *testing.T) {
	kernel, e, live := following()
	mustSync(t, e, four("c"), false)
	mustCut(t, live)
	kernel.Track(nil, from(c, a), from(d, a))
	other := options
	other.SelfMatch = !other.SelfMatch
	e.SetOptions(other)
	mustSync(t, e, four("c"), false)
	if got := mustCut(t, live); !got.All || got.Check || got.Cut != 1 {
		t.Errorf("want a look at all, and one that is cut: %+v", got)
	}
}

// TestWhatBelongsToACutConnectionGoesWithIt: though it has other ends, so that the change does not affect it. What belongs to one that lives stays, whatever
// policy says of it.
func TestWhatBelongsToACutConnectionGoesWithIt(t *testing.T) {
	kernel, e, live := following()
	everyone := []string{"a", "b", "c", "d"}
	mustSync(t, e, four(everyone...), false)
	mustCut(t, live)
	gone, stays := from(9, b), from(8, b)
	gone.Master, stays.Master = from(c, a).Original, from(d, a).Original
	kernel.Track(nil, gone, stays, from(c, a), from(d, a))
	mustSync(t, e, without(four(everyone...), "c"), false)
	if got := mustCut(t, live); got.Cut != 2 || got.Seen != 1 {
		t.Errorf("want one that is judged, and two that are cut: %+v", got)
	}
	if diff := cmp.Diff([]uint32{stays.ID, from(d, a).ID}, left(t, kernel)); diff != "" {
		t.Errorf("what lives on (-want +got):\n%s", diff)
	}
}

// TestWhatALookThatFailsWasAboutIsLookedAtAgain: together with what has changed meanwhile.
func TestWhatALookThatFailsWasAboutIsLookedAtAgain(t *testing.T) {
	kernel, e, live := following()
	everyone := []string{"a", "b", "c", "d"}
	mustSync(t, e, four(everyone...), false)
	mustCut(t, live)
	kernel.Track(nil, from(c, a), from(d, a), from(a, b))
	mustSync(t, e, without(four(everyone...), "c"), false)
	kernel.FailTracking(errors.New("refused"))
	if _, err := live.Cut(t.Context()); err == nil {
		t.Fatal("the look went well")
	}
	mustSync(t, e, without(without(four(everyone...), "c"), "d"), false)
	kernel.FailTracking(nil)
	if got := mustCut(t, live); got.Cut != 2 || got.Seen != 2 {
		t.Errorf("want those of c and of d: %+v", got)
	}
}

// TestAChangeThatComesWhileALookRunsIsLookedAt: it is about what comes after the look began, though that had passed it already.
func TestAChangeThatComesWhileALookRunsIsLookedAt(t *testing.T) {
	kernel := &changing{Fake: dataplane.NewFake(dataplane.Capabilities{})}
	e, live := enforcer.New(kernel, options), enforcer.NewConnections(kernel)
	e.Follow(live)
	everyone := []string{"a", "b", "c", "d"}
	mustSync(t, e, four(everyone...), false)
	mustCut(t, live)
	kernel.Track(nil, from(c, a), from(d, a), from(a, b))
	mustSync(t, e, without(four(everyone...), "c"), false)
	kernel.meanwhile = func() { mustSync(t, e, without(without(four(everyone...), "c"), "d"), false) }
	first, second := mustCut(t, live), mustCut(t, live)
	if first.Seen != 1 || first.Cut != 1 || second.Seen != 1 || second.Cut != 1 {
		t.Errorf("want the connection of c, and then that of d: %+v, %+v", first, second)
	}
}

// TestWhatBeganBetweenTwoLooksIsHeldOff: pods of other nodes go, which can wait for long. Meanwhile policy lets c begin, and then denies it again. Nobody's
// rules had been away: what c has begun is held off, though the policy of the last look denied it too.
func TestWhatBeganBetweenTwoLooksIsHeldOff(t *testing.T) {
	kernel, e, live := following()
	mustSync(t, e, four("a", "d"), false)
	mustCut(t, live)
	mustSync(t, e, without(four("a", "d"), "d"), false)
	mustSync(t, e, without(four("a", "c", "d"), "d"), false)
	kernel.Track(nil, from(c, a))
	mustSync(t, e, without(four("a", "d"), "d"), false)
	if got := mustCut(t, live); got.Cut != 1 || got.Forgotten != 0 || len(kernel.Held()) != 1 {
		t.Errorf("held off %v: %+v", kernel.Held(), got)
	}
}

// TestConnectionsAreCheckedNowAndThen: for a quarter of a percent of the time, in case that something was missed. What a change affects is looked at all the same.
func TestConnectionsAreCheckedNowAndThen(t *testing.T) {
	for n, want := range map[int]int{1000: 20, 37_500: 20, 100_000: 6, 500_000: 1} {
		synctest.Test(t, func(t *testing.T) {
			kernel := &flood{Fake: dataplane.NewFake(dataplane.Capabilities{}), held: map[netip.Addr]int{}}
			kernel.n, kernel.make = n, func(i int) policy.Connection { return opened(netip.AddrFrom4([4]byte{10, 0, 0, a}), i) }
			e, live := enforcer.New(kernel, options), enforcer.NewConnections(kernel)
			e.Follow(live)
			mustSync(t, e, four("c"), false)
			mustCut(t, live)
			checks := 0
			for range 20 { // ten minutes
				time.Sleep(30 * time.Second) // of the bubble's clock
				mustSync(t, e, four("c"), true)
				if got := mustCut(t, live); got.Check {
					checks++
				}
			}
			if checks != want {
				t.Errorf("%d connections were checked %d times, want %d", n, checks, want)
			}
		})
	}
}
