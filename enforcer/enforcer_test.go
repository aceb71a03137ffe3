package enforcer_test

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var (
	all     = []string{"a", "b"}
	options = iptables.Options{Families: iptables.Families[:], Table: "security", SelfMatch: true, NamedRules: math.MaxInt} // policies are found by their names
)

// snapshot has one pod for each name, numbered in order, and a policy that lets the pods of "allowed" reach all of them.
func snapshot(pods, allowed []string) compile.Snapshot {
	s := compile.Snapshot{Node: "n", Namespaces: compile.ObjectsOf(&compile.Namespace{Name: "ns"})}
	for i, name := range pods {
		s = s.WithPods(&compile.Pod{Namespace: "ns", Name: name, UID: name, Node: "n",
			Labels: compile.Labels{{Key: "name", Value: name}},
			Addrs:  []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}})
	}
	s.Policies = compile.ObjectsOf(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{
			From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{
				MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "name", Operator: metav1.LabelSelectorOpIn, Values: allowed}}}}},
		}}},
	})
	return s
}

// elsewhere is a snapshot with one of its local pods on another node.
func elsewhere(s compile.Snapshot, pod int) compile.Snapshot {
	p := s.Local[pod]
	p.Node = "elsewhere"
	s.Local = slices.Delete(slices.Clone(s.Local), pod, pod+1)
	return s.WithPods(p)
}

// wanted is what the kernel must hold for a snapshot.
func wanted(s compile.Snapshot) string {
	node, _ := compile.Compile(s)
	return iptables.Render(node, options).String()
}

func holds(t *testing.T, kernel *dataplane.Fake, s compile.Snapshot) {
	t.Helper()
	have, err := kernel.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wanted(s), have.String()); diff != "" {
		t.Errorf("the kernel does not hold the policy (-want +got):\n%s", diff)
	}
}

func mustSync(t *testing.T, e *enforcer.Enforcer, s compile.Snapshot, verify bool) enforcer.Report {
	t.Helper()
	r, err := e.Sync(t.Context(), s, verify)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Leftover) > 0 {
		t.Fatalf("sets are destroyed before the rules that name them: %q", r.Leftover)
	}
	return r
}

func TestSyncAppliesOnlyWhatChanged(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := enforcer.New(kernel, options)
	mustSync(t, e, snapshot(all, []string{"a"}), false)
	holds(t, kernel, snapshot(all, []string{"a"}))

	if again := mustSync(t, e, snapshot(all, []string{"a"}), false); !again.Applied.Empty() {
		t.Errorf("an unchanged snapshot was applied again:\n%s", again.Applied)
	}
	changed := mustSync(t, e, snapshot(append(all, "c"), []string{"a"}), false)
	if changed.Applied.Sets > 0 {
		t.Errorf("one pod more made sets:\n%s", changed.Applied)
	}
	holds(t, kernel, snapshot(append(all, "c"), []string{"a"}))
}

func TestARemotePodCostsOneEntryAndNoRule(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := enforcer.New(kernel, options)
	before := snapshot(all, []string{"a", "remote"})
	mustSync(t, e, before, false)

	after := elsewhere(snapshot(append(all, "remote"), []string{"a", "remote"}), 2)
	r := mustSync(t, e, after, false)
	text := r.Applied.String()
	r.Applied.Text = nil
	if r.Applied != (policy.Changes{Added: 1}) {
		t.Errorf("want one entry added and nothing else, got:\n%s", text)
	}
}

func TestVerifyRepairsWhatOthersBrokeAndSaysSo(t *testing.T) {
	s := snapshot(all, []string{"a"})
	node, _ := compile.Compile(s)
	intact := iptables.Render(node, options)

	broken := map[string]func(r iptables.Ruleset) iptables.Plan{
		"an entry deleted": func(r iptables.Ruleset) iptables.Plan { return entryDeleted(r) },
		"all rules flushed": func(r iptables.Ruleset) iptables.Plan {
			empty := iptables.Ruleset{Tables: map[iptables.Family]iptables.Table{}, Sets: r.Sets}
			for f, t := range r.Tables {
				empty.Tables[f] = iptables.Table{Name: t.Name, Chains: policy.MapOf(map[string][]iptables.Rule{"RF-FORWARD": nil, "RF-INPUT": nil})}
			}
			return iptables.Diff(empty, r)
		},
	}
	for name, breakIt := range broken {
		t.Run(name, func(t *testing.T) {
			kernel := dataplane.NewFake(dataplane.Capabilities{})
			e := enforcer.New(kernel, options)
			mustSync(t, e, s, false)
			if err := kernel.Apply(t.Context(), breakIt(intact)); err != nil {
				t.Fatal(err)
			}
			r := mustSync(t, e, s, true)
			if r.Repairs.Empty() {
				t.Error("the repair was not reported")
			}
			holds(t, kernel, s)
			if r := mustSync(t, e, s, true); !r.Repairs.Empty() || !r.Applied.Empty() {
				t.Errorf("a second look found more to repair:\n%s%s", r.Repairs, r.Applied)
			}
		})
	}
}

func entryDeleted(r iptables.Ruleset) iptables.Plan {
	for _, s := range r.Sets.All() {
		for e := range s.All() {
			return iptables.Plan{DelEntries: []iptables.SetEntries{{Set: s.Name, Type: s.Type, Family: s.Family, Entries: []iptables.Entry{e}}}}
		}
	}
	return iptables.Plan{}
}

func TestAnythingThatFailsIsMadeGoodByTheNextSync(t *testing.T) {
	before, after := snapshot(all, []string{"a"}), snapshot(append(all, "c"), []string{"b", "c"})
	steps := countSteps(t, before, after)
	if steps < 3 {
		t.Fatalf("the change takes %d steps, too few to say anything", steps)
	}
	for fail := range steps {
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e := enforcer.New(kernel, options)
		mustSync(t, e, before, false)
		n := 0
		kernel.Before = func(dataplane.Step) error {
			n++
			if n == fail+1 {
				return errors.New("no memory")
			}
			return nil
		}
		if _, err := e.Sync(t.Context(), after, false); err == nil {
			t.Fatalf("step %d failed and Sync said nothing", fail)
		}
		kernel.Before = nil
		mustSync(t, e, after, false)
		holds(t, kernel, after)
	}
}

func countSteps(t *testing.T, before, after compile.Snapshot) int {
	t.Helper()
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := enforcer.New(kernel, options)
	mustSync(t, e, before, false)
	n := 0
	kernel.Before = func(dataplane.Step) error { n++; return nil }
	mustSync(t, e, after, false)
	return n
}

// A process that starts finds what another one has left: it goes on from there without a rule being taken away that both want.
func TestARestartTakesOver(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	s := snapshot(all, []string{"a"})
	mustSync(t, enforcer.New(kernel, options), s, false)

	if r := mustSync(t, enforcer.New(kernel, options), s, false); !r.Applied.Empty() || !r.Repairs.Empty() {
		t.Errorf("a restart changed what was right:\n%s%s", r.Applied, r.Repairs)
	}
	changed := snapshot(all, []string{"b"})
	mustSync(t, enforcer.New(kernel, options), changed, false)
	holds(t, kernel, changed)
}

// asked notes which plans ask for what is left elsewhere to go.
type asked struct {
	*dataplane.Fake
	elsewhere []bool
}

func (k *asked) Apply(ctx context.Context, p iptables.Plan) error {
	k.elsewhere = append(k.elsewhere, p.Elsewhere)
	return k.Fake.Apply(ctx, p)
}

func TestWhatIsLeftElsewhereGoesWithTheFirstPlanThatSucceeds(t *testing.T) {
	k := &asked{Fake: dataplane.NewFake(dataplane.Capabilities{})}
	e := enforcer.New(k, options)
	k.Before = func(s dataplane.Step) error {
		if s.Kind == dataplane.Elsewhere {
			return errors.New("the lock is held")
		}
		return nil
	}
	s := snapshot(all, []string{"a"})
	if _, err := e.Sync(t.Context(), s, false); err == nil {
		t.Error("what is elsewhere is still there, and Sync said nothing")
	}
	holds(t, k.Fake, s)
	k.Before = nil
	if r := mustSync(t, e, s, false); !r.Applied.Empty() {
		t.Errorf("what was enforced was applied again:\n%s", r.Applied)
	}
	mustSync(t, e, s, true)
	mustSync(t, e, snapshot(all, []string{"b"}), false)
	if want := []bool{true, true, false}; !slices.Equal(k.elsewhere, want) {
		t.Errorf("plans that ask for it: %v, want %v", k.elsewhere, want)
	}
}

func TestAFamilyThatCannotBeReadDoesNotHoldUpTheOther(t *testing.T) {
	k := &halfBlind{dataplane.NewFake(dataplane.Capabilities{})}
	s := snapshot(all, []string{"a"})
	if _, err := enforcer.New(k, options).Sync(t.Context(), s, false); err == nil {
		t.Error("a family could not be read, and Sync said nothing")
	}
	have, err := k.Fake.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	node, _ := compile.Compile(s)
	want := iptables.Render(node, options).Tables[iptables.IPv4]
	if diff := cmp.Diff(want.String(), have.Tables[iptables.IPv4].String()); diff != "" {
		t.Errorf("IPv4 is not enforced (-want +got):\n%s", diff)
	}
}

// halfBlind cannot read IPv6.
type halfBlind struct{ *dataplane.Fake }

func (k *halfBlind) ObserveReusing(ctx context.Context, _ iptables.Ruleset) (iptables.Ruleset, error) {
	r, err := k.Fake.Observe(ctx)
	delete(r.Tables, iptables.IPv6)
	return r, errors.Join(err, errors.New("ip6tables-save: no such file"))
}

func TestAPolicyThatCannotBeUnderstoodIsReportedAndClosed(t *testing.T) {
	s := snapshot(all, []string{"a"})
	bad := named(s, "ns", "p").DeepCopy()
	bad.Name = "bad"
	bad.Spec.Ingress[0].From = []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/99"}}}
	s = with(s, bad)

	kernel := dataplane.NewFake(dataplane.Capabilities{})
	r := mustSync(t, enforcer.New(kernel, options), s, false)
	if len(r.Problems) != 1 || r.Problems[0].Field != "spec.ingress[0].from[0].ipBlock.cidr" ||
		r.Problems[0].Ref != (policy.Ref{Kind: "NetworkPolicy", Namespace: "ns", Name: "bad"}) {
		t.Errorf("problems: %v", r.Problems)
	}
	holds(t, kernel, s)
}

// A family that can be enforced later than at the start is, and nothing is lost of the other.
func TestOptionsMayGrow(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	options := iptables.Options{Families: iptables.Families[:1], Table: "security"}
	e := enforcer.New(kernel, options)
	syncs := func() enforcer.Report {
		t.Helper()
		r, err := e.Sync(t.Context(), compile.Snapshot{Node: "n1"}, false)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	syncs()
	e.SetOptions(options)
	if r := syncs(); !r.Applied.Empty() {
		t.Errorf("the same options have changed something: %s", r.Applied)
	}
	options.Families = iptables.Families[:]
	e.SetOptions(options)
	r := syncs()
	if r.Applied.Tables != 1 || r.Applied.Jumps != 2 || !r.Repairs.Empty() {
		t.Errorf("applied %s, repaired %s", r.Applied, r.Repairs)
	}
	if r := syncs(); !r.Applied.Empty() {
		t.Errorf("applied again: %s", r.Applied)
	}
}

// TestGuardsStayWhileLinksAreUnread: an enforcer that starts where the kernel does not answer for a moment opens nothing.
func TestGuardsStayWhileLinksAreUnread(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	guarding := options
	guarding.Guards = true
	linked := snapshot(all, []string{"a"})
	linked.SourceCheck = compile.SourceCheckEnforce
	linked.Links = []compile.Link{{Name: "v1", Index: 1, Held: linked.Local[0].Addrs, Bridged: true}}
	guards := func() int {
		t.Helper()
		have, err := kernel.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(have.Inward.Ports); n != len(have.Guards) {
			t.Errorf("%d ports of a bridge are looked at, and there are %d guards", n, len(have.Guards))
		}
		return len(have.Guards)
	}
	mustSync(t, enforcer.New(kernel, guarding), linked, false)
	next := enforcer.New(kernel, guarding)
	unread := snapshot(all, []string{"b"})
	unread.Unread = true
	for _, tt := range []struct {
		name     string
		snapshot compile.Snapshot
		verify   bool
		want     int
	}{
		{"links are not read", unread, false, 1},
		{"nor when all is verified", unread, true, 1},
		{"links are read", linked, false, 1},
		{"nothing is to be checked", snapshot(all, []string{"a"}), false, 0},
	} {
		mustSync(t, next, tt.snapshot, tt.verify)
		if got := guards(); got != tt.want {
			t.Errorf("%s: %d guards are there, want %d", tt.name, got, tt.want)
		}
	}
}
