package enforcer_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var (
	_ enforcer.Tracker = (*dataplane.Dataplane)(nil)
	_ enforcer.Tracker = (*dataplane.Fake)(nil)
)

// from is a live connection of the pod with a number, as snapshot numbers them, to another one's port 80.
func from(a, b byte) policy.Connection {
	src, dst := netip.AddrFrom4([4]byte{10, 0, 0, a}), netip.AddrFrom4([4]byte{10, 0, 0, b})
	return policy.Connection{
		Original: policy.Tuple{Protocol: policy.TCP, Src: src, Dst: dst, SrcPort: 40000, DstPort: 80},
		Reply:    policy.Tuple{Protocol: policy.TCP, Src: dst, Dst: src, SrcPort: 80, DstPort: 40000},
		ID:       uint32(a)<<8 | uint32(b),
	}
}

// following is an Enforcer with a Live that follows it, on a kernel of its own.
func following() (*dataplane.Fake, *enforcer.Enforcer, *enforcer.Connections) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e, live := enforcer.New(kernel, options), enforcer.NewConnections(kernel)
	e.Follow(live)
	return kernel, e, live
}

func due(live *enforcer.Connections) bool {
	select {
	case <-live.Due():
		return true
	default:
		return false
	}
}

func mustCut(t *testing.T, live *enforcer.Connections) enforcer.Ended {
	t.Helper()
	e, err := live.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// left are the connections that still live.
func left(t *testing.T, kernel *dataplane.Fake) (ids []uint32) {
	t.Helper()
	if err := kernel.Connections(t.Context(), policy.Affected{All: true}, func(c policy.Connection) { ids = append(ids, c.ID) }); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestAChangeThatMayDenySaysSo(t *testing.T) {
	both := snapshot(all, all)
	fewer := snapshot(all, all)
	fewer.Local = fewer.Local[:1]
	more := elsewhere(snapshot(append(slices.Clone(all), "c"), append(slices.Clone(all), "c")), 2)
	remote := snapshot(append(slices.Clone(all), "c"), append(slices.Clone(all), "c"))
	remote.Local = remote.Local[:2]
	// wider has one rule more, and its author has put it first.
	wider := snapshot(all, all)
	p := named(wider, "ns", "p").DeepCopy()
	p.Spec.Ingress = append([]networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
		{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24"}}}}}, p.Spec.Ingress...)
	wider = with(wider, p)
	for _, c := range []struct {
		name          string
		before, after compile.Snapshot
		verify        bool
		want          bool
	}{
		{"a policy allows more", both, wider, false, false},
		{"a policy allows less", wider, both, false, true},
		{"a pod of this node comes", fewer, both, false, true},
		{"nothing changes", both, both, false, false},
		{"the kernel is looked at", both, both, true, true},
		{"a policy changes", both, snapshot(all, []string{"a"}), false, true},
		{"a pod elsewhere is accepted", remote, more, false, false},
		{"a pod elsewhere goes", more, remote, false, true},
		{"a pod of this node goes", both, fewer, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, e, live := following()
			mustSync(t, e, c.before, false)
			if !due(live) {
				t.Error("the first sync does not say so")
			}
			mustCut(t, live)
			mustSync(t, e, c.after, c.verify)
			if got := due(live); got != c.want {
				t.Errorf("due %t, want %t", got, c.want)
			}
		})
	}
}

func TestCutEndsWhatIsDeniedAndNothingElse(t *testing.T) {
	kernel, e, live := following()
	mustSync(t, e, snapshot(all, all), false)
	node := netip.MustParseAddr("172.18.0.1")
	fromNode := from(9, 1)
	fromNode.Original.Src, fromNode.Reply.Dst = node, node
	kernel.Track([]netip.Addr{node}, from(1, 2), from(2, 1), fromNode, from(8, 9))
	if got := mustCut(t, live); got.Cut != 0 || got.Seen != 4 {
		t.Errorf("with all allowed: %+v", got)
	}

	mustSync(t, e, snapshot(all, []string{"a"}), false)
	got := mustCut(t, live)
	if got.Cut != 1 || len(got.First) != 1 || got.First[0].ID != from(2, 1).ID || got.First[0].Reason == "" {
		t.Errorf("with b denied: %+v", got)
	}
	if d := cmp.Diff([]uint32{from(1, 2).ID, fromNode.ID, from(8, 9).ID}, left(t, kernel)); d != "" {
		t.Errorf("what lives on (-want +got):\n%s", d)
	}
	if again := mustCut(t, live); again.Seen != 0 {
		t.Errorf("nothing has changed since, and %d connections were looked at", again.Seen)
	}
}

// changing is a kernel whose policy changes while the connections are listed.
type changing struct {
	*dataplane.Fake
	meanwhile func()
}

func (c *changing) Connections(ctx context.Context, affected policy.Affected, visit func(policy.Connection)) error {
	err := c.Fake.Connections(ctx, affected, visit)
	if c.meanwhile != nil {
		c.meanwhile()
		c.meanwhile = nil
	}
	return err
}

func TestWhatIsAllowedMeanwhileIsNotCut(t *testing.T) {
	kernel := &changing{Fake: dataplane.NewFake(dataplane.Capabilities{})}
	e, live := enforcer.New(kernel, options), enforcer.NewConnections(kernel)
	e.Follow(live)
	mustSync(t, e, snapshot(all, []string{"a"}), false)
	kernel.Track(nil, from(2, 1), from(1, 2))
	kernel.meanwhile = func() { mustSync(t, e, snapshot(all, []string{"b"}), false) }
	if got := mustCut(t, live); got.Cut != 0 {
		t.Errorf("cut %+v", got)
	}
	// The change that came meanwhile is still due: it denies the other one.
	if got := mustCut(t, live); got.Cut != 1 || got.First[0].ID != from(1, 2).ID {
		t.Errorf("cut %+v", got)
	}
}

func TestWhatCouldNotBeCutIsTriedAgain(t *testing.T) {
	kernel, e, live := following()
	mustSync(t, e, snapshot(all, []string{"a"}), false)
	kernel.Track(nil, from(2, 1))
	refused := errors.New("refused")
	kernel.FailTracking(refused)
	if _, err := live.Cut(t.Context()); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	kernel.FailTracking(nil)
	if got := mustCut(t, live); got.Cut != 1 {
		t.Errorf("got %+v", got)
	}
}

// TestAFailedSyncCutsAllTheSame: what the policy denies ends, even if something of the policy could not be applied.
func TestAFailedSyncCutsAllTheSame(t *testing.T) {
	kernel, e, live := following()
	mustSync(t, e, snapshot(all, all), false)
	mustCut(t, live)
	kernel.Track(nil, from(2, 1))
	kernel.Before = func(s dataplane.Step) error {
		if s.Kind == dataplane.DestroySet {
			return errors.New("no")
		}
		return nil
	}
	if _, err := e.Sync(t.Context(), snapshot(all, []string{"a"}), false); err == nil {
		t.Fatal("the sync went well")
	}
	if got := mustCut(t, live); got.Cut != 1 {
		t.Errorf("got %+v", got)
	}
}

// TestOnlyWhatMayHaveBegunUnseenIsNotHeldOff: a may reach b, b may not reach a, and connection tracking says that b has begun. Either a did and nobody saw it, or
// b did and must not come back with a's next packet.
func TestOnlyWhatMayHaveBegunUnseenIsNotHeldOff(t *testing.T) {
	fromA, none := snapshot(all, []string{"a"}), snapshot(all, []string{"nobody"})
	flush := func(t *testing.T, kernel *dataplane.Fake) {
		if err := kernel.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	overtake := func(t *testing.T, kernel *dataplane.Fake) {
		for _, f := range iptables.Families {
			if err := kernel.Restore(f, "*security\n-I FORWARD 1 -j ACCEPT\nCOMMIT\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name    string
		before  []compile.Snapshot                         // enforced and dealt with, by another run of the enforcer
		damage  func(t *testing.T, kernel *dataplane.Fake) // by another program; nil if there is none
		after   []compile.Snapshot                         // that come one after another, the first with a look at the kernel
		restart bool
		held    bool
	}{
		{"rules come to a node", nil, nil, []compile.Snapshot{fromA}, false, false},
		{"rules come back", []compile.Snapshot{fromA}, flush, []compile.Snapshot{fromA}, false, false},
		{"rules come back with the next run", []compile.Snapshot{fromA}, flush, []compile.Snapshot{fromA}, true, false},
		{"rules come back, and something else changes", []compile.Snapshot{fromA}, flush, []compile.Snapshot{fromA, snapshot(append(slices.Clone(all), "c"), []string{"a"})}, false, false},
		{"rules come back, and nobody may reach anybody", []compile.Snapshot{none}, flush, []compile.Snapshot{none}, false, true},
		{"rules come back, and then a change denies it", []compile.Snapshot{snapshot(all, all)}, flush, []compile.Snapshot{snapshot(all, all), fromA}, false, true},
		{"another program's rule was in front", []compile.Snapshot{fromA}, overtake, []compile.Snapshot{fromA}, false, false},
		{"a change denies it", []compile.Snapshot{snapshot(all, all)}, nil, []compile.Snapshot{fromA}, false, true},
		{"a change denies it between two runs", []compile.Snapshot{snapshot(all, all)}, nil, []compile.Snapshot{fromA}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			kernel, e, live := following()
			for _, s := range c.before {
				mustSync(t, e, s, false)
				mustCut(t, live)
			}
			if c.restart {
				e, live = enforcer.New(kernel, options), enforcer.NewConnections(kernel)
				e.Follow(live)
			}
			if c.damage != nil {
				c.damage(t, kernel)
			}
			kernel.Track(nil, from(2, 1))
			for i, s := range c.after {
				mustSync(t, e, s, i == 0)
			}
			got := mustCut(t, live)
			if held := len(kernel.Held()) == 1; got.Cut != 1 || held != c.held || (got.Forgotten == 1) == c.held {
				t.Errorf("held off %t, want %t: %+v", held, c.held, got)
			}
		})
	}
}

// TestWhatAWiderPolicyLetBeginIsHeldOff: a policy denies b, then allows more, which asks for no look, and then denies b again.
func TestWhatAWiderPolicyLetBeginIsHeldOff(t *testing.T) {
	kernel, e, live := following()
	narrow := snapshot(all, []string{"a"})
	wide := snapshot(all, []string{"a"})
	p := named(wide, "ns", "p").DeepCopy()
	p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{})
	wide = with(wide, p)
	mustSync(t, e, narrow, false)
	mustCut(t, live)
	mustSync(t, e, wide, false)
	if due(live) && mustCut(t, live).Seen != 0 {
		t.Error("a policy that allows more asks for a look")
	}
	kernel.Track(nil, from(2, 1))
	mustSync(t, e, narrow, false)
	if got := mustCut(t, live); got.Cut != 1 || len(kernel.Held()) != 1 || got.Forgotten != 0 {
		t.Errorf("held off %v: %+v", kernel.Held(), got)
	}
}

// TestTheNextRunKnowsWhatMayHaveBegunUnseen: an enforcer ends between the sync that brings the rules back and the look at the connections.
func TestTheNextRunKnowsWhatMayHaveBegunUnseen(t *testing.T) {
	fromA := snapshot(all, []string{"a"})
	for _, c := range []struct {
		name       string
		look, held bool
	}{
		{"it had not looked", false, false},
		{"it had looked", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			kernel, e, live := following()
			noted := false
			live.Remember(false, func(unseen bool) { noted = unseen })
			kernel.Before = func(dataplane.Step) error {
				if !noted {
					t.Error("the rules are there, and nothing is noted")
				}
				return nil
			}
			mustSync(t, e, fromA, false)
			kernel.Before = nil
			if c.look {
				mustCut(t, live)
			}
			e, live = enforcer.New(kernel, options), enforcer.NewConnections(kernel)
			live.Remember(noted, func(unseen bool) { noted = unseen })
			e.Follow(live)
			kernel.Track(nil, from(2, 1))
			mustSync(t, e, fromA, false)
			if got := mustCut(t, live); got.Cut != 1 || len(kernel.Held()) == 1 != c.held {
				t.Errorf("held off %v, want %t: %+v", kernel.Held(), c.held, got)
			}
			if noted {
				t.Error("it has looked, and the note stays")
			}
		})
	}
}

// TestRulesThatGoAwayUnnoticed: the look at the kernel found them, and they are gone when the connections are looked at.
func TestRulesThatGoAwayUnnoticed(t *testing.T) {
	for _, c := range []struct {
		name string
		then []compile.Snapshot // that come in between
		held bool
	}{
		{"nothing else changes", nil, false},
		{"something else changes", []compile.Snapshot{snapshot(append(slices.Clone(all), "c"), []string{"a"})}, false},
		{"nobody may reach anybody any more", []compile.Snapshot{snapshot(all, []string{"nobody"})}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			kernel, e, live := following()
			mustSync(t, e, snapshot(all, []string{"a"}), false)
			mustCut(t, live)
			mustSync(t, e, snapshot(all, []string{"a"}), true)
			kernel.Track(nil, from(2, 1))
			for _, s := range c.then {
				mustSync(t, e, s, false)
			}
			if got := mustCut(t, live); got.Cut != 1 || len(kernel.Held()) == 1 != c.held {
				t.Errorf("held off %v, want %t: %+v", kernel.Held(), c.held, got)
			}
		})
	}
}

// TestRulesThatCameBackAreForgottenOnceSeenTo: what a later change denies is held off again.
func TestRulesThatCameBackAreForgottenOnceSeenTo(t *testing.T) {
	kernel, e, live := following()
	kernel.Track(nil, from(2, 1))
	mustSync(t, e, snapshot(all, all), false)
	mustCut(t, live)
	for _, s := range []compile.Snapshot{snapshot(all, []string{"nobody"}), snapshot(all, []string{"a"})} {
		mustSync(t, e, s, false)
	}
	if got := mustCut(t, live); got.Cut != 1 || got.Forgotten != 0 || len(kernel.Held()) != 1 {
		t.Errorf("held off %v: %+v", kernel.Held(), got)
	}
}
