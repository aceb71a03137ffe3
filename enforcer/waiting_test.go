package enforcer_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// settled is an enforcer with a snapshot in force.
func settled(t *testing.T, kernel *dataplane.Fake, s compile.Snapshot) *enforcer.Enforcer {
	t.Helper()
	e := enforcer.New(kernel, options)
	if report, err := e.Sync(t.Context(), s, true); err != nil || len(report.Waiting) > 0 {
		t.Fatalf("the first sync: %v, waiting are %q", err, report.Waiting)
	}
	return e
}

// many are policies of namespace a that ask for 400 sets each.
func many(n int) []*networkingv1.NetworkPolicy {
	var all []*networkingv1.NetworkPolicy
	for i := range n {
		all = append(all, allowEach("a", fmt.Sprint("large", i), 80, names(fmt.Sprint("p", i, "-"), 400)...))
	}
	return all
}

func held(t *testing.T, kernel *dataplane.Fake) iptables.Ruleset {
	t.Helper()
	held, err := kernel.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func countInForce(kernel *dataplane.Fake, all []*networkingv1.NetworkPolicy) (n int) {
	for _, np := range all {
		if inForce(kernel, np) {
			n++
		}
	}
	return n
}

// untilReady syncs until nothing waits, calls each after each sync, and returns how many it took.
func untilReady(t *testing.T, e *enforcer.Enforcer, s *compile.Snapshot, each func(waiting bool)) int {
	t.Helper()
	for n := 1; n <= 100; n++ {
		report, err := e.Sync(t.Context(), *s, false)
		if err != nil {
			t.Fatal(err)
		}
		each(len(report.Waiting) > 0)
		if len(report.Waiting) == 0 {
			return n
		}
	}
	t.Fatal("still waiting after 100 syncs")
	return 0
}

// A namespace whose change asks for very many sets waits, all of it, until these are there; others do not, and a policy that is gone stays as long.
func TestALargeChangeWaitsByItself(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	before, large := allow("a", "before", 80, "client"), many(10)
	e := settled(t, kernel, with(town(), before))
	s := with(town(), large...)
	sets := held(t, kernel).Sets.Len()
	var last *networkingv1.NetworkPolicy
	took := untilReady(t, e, &s, func(waiting bool) {
		others := allow("b", fmt.Sprint("others", s.Policies.Len()), 80, "client")
		now, was := countInForce(kernel, large), inForce(kernel, before)
		switch {
		case waiting && (now > 0 || !was):
			t.Fatalf("while it waits %d of %d are in force; the one that is gone is in force: %t", now, len(large), was)
		case !waiting && (now < len(large) || was):
			t.Fatalf("once it is ready %d of %d are in force; the one that is gone is in force: %t", now, len(large), was)
		}
		made := held(t, kernel).Sets.Len() - sets
		if sets += made; made > 2*1000+20 {
			t.Errorf("one sync has made %d sets", made)
		}
		if last != nil && !inForce(kernel, last) {
			t.Errorf("another namespace's change is not in force: %s", last.Name)
		}
		s, last = with(s, others), others
	})
	if took < 5 {
		t.Errorf("it took %d syncs; that many sets are not to come with so few", took)
	}
}

// recorder is a Fake that remembers the plans which it has carried out.
type recorder struct {
	*dataplane.Fake
	plans []iptables.Plan
}

func (r *recorder) Apply(ctx context.Context, p iptables.Plan) error {
	r.plans = append(r.plans, p)
	return r.Fake.Apply(ctx, p)
}

// The rules of a large change take long. What others have changed comes before them in the same sync, whose report has both.
func TestALargeChangeComesBehindWhatOthersHaveChanged(t *testing.T) {
	kernel := &recorder{Fake: dataplane.NewFake(dataplane.Capabilities{})}
	e := enforcer.New(kernel, options)
	if _, err := e.Sync(t.Context(), town(), true); err != nil {
		t.Fatal(err)
	}
	all := many(10)
	s := with(town(), all...)
	mark := func(np *networkingv1.NetworkPolicy) string {
		return "NetworkPolicy " + np.Namespace + "/" + np.Name + " "
	}
	for range 100 {
		others := allow("b", fmt.Sprint("others", s.Policies.Len()), 80, "client")
		s = with(s, others)
		kernel.plans = nil
		report, err := e.Sync(t.Context(), s, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Waiting) > 0 {
			continue
		}
		at := func(np *networkingv1.NetworkPolicy) int {
			return slices.IndexFunc(kernel.plans, func(p iptables.Plan) bool { return strings.Contains(p.Restore[iptables.IPv4], mark(np)) })
		}
		if first, large := at(others), at(all[0]); first != 0 || large <= first {
			t.Errorf("of %d plans the one with the others' change is at %d, that with the large one at %d", len(kernel.plans), first, large)
		}
		for _, np := range []*networkingv1.NetworkPolicy{others, all[0]} {
			if !strings.Contains(report.Applied.String(), mark(np)) {
				t.Errorf("the report does not have the change of %s", np.Name)
			}
		}
		return
	}
	t.Fatal("still waiting after 100 syncs")
}

// What is being made ready comes into force, however often it changes meanwhile, as long as some of it is still there; then what it has become.
func TestALargeChangeThatGoesOnChangingComesIntoForce(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := settled(t, kernel, town())
	first := many(10)
	came := false
	s := with(town(), first...)
	for i := range 40 {
		if _, err := e.Sync(t.Context(), s, i%3 == 0); err != nil {
			t.Fatal(err)
		}
		if came = came || countInForce(kernel, first) == len(first); came {
			break
		}
		other := func(name string) *networkingv1.NetworkPolicy {
			return allowEach("a", fmt.Sprint(name, i), 80, names(fmt.Sprint(name, i, "-"), 480)...)
		}
		s = with(town(), first[0], other("other"), other("more"))
	}
	if !came {
		t.Fatal("it has never been in force")
	}
	untilReady(t, e, &s, func(bool) {})
	if now := countInForce(kernel, slices.Collect(s.Policies.All())); now != s.Policies.Len() || countInForce(kernel, first[1:]) > 0 {
		t.Errorf("in the end %d of %d are in force, and %d of those before", now, s.Policies.Len(), countInForce(kernel, first[1:]))
	}
	fresh := dataplane.NewFake(dataplane.Capabilities{})
	settled(t, fresh, s)
	if plan := iptables.Diff(held(t, fresh), held(t, kernel)); !plan.Empty() {
		t.Errorf("an enforcer that begins now would change:\n%s", plan)
	}
}

// A pod that comes while its namespace waits has the policies that the namespace had; one that goes takes its place with it.
func TestPodsComeWhileTheirNamespaceWaits(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	s := with(town(), allow("a", "before", 80, "client"))
	e := settled(t, kernel, s)
	s.Policies = compile.ObjectsOf(many(10)...)
	if report, err := e.Sync(t.Context(), s, false); err != nil || !slices.Equal(report.Waiting, []string{"a"}) {
		t.Fatalf("%v, waiting are %q", err, report.Waiting)
	}
	other := *s.Local[0]
	other.Name, other.UID, other.Addrs = "server2", "server2", []netip.Addr{netip.MustParseAddr("10.0.0.9")}
	s.Local = append(slices.Clone(s.Local[1:]), &other)
	if _, err := e.Sync(t.Context(), s, false); err != nil {
		t.Fatal(err)
	}
	if !isolated(kernel, "10.0.0.9") || isolated(kernel, "10.0.0.1") {
		t.Errorf("the pod that came is isolated: %t; the one that went: %t", isolated(kernel, "10.0.0.9"), isolated(kernel, "10.0.0.1"))
	}
}

// A kernel that does not take the sets costs those alone who ask for them, as with any other change.
func TestSetsThatCannotBeMadeReady(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := settled(t, kernel, town())
	kernel.Limit(dataplane.Limits{Sets: 1500})
	large, other := many(10), allow("b", "other", 80, "client")
	s := with(town(), append(large, other)...)
	untilReady(t, e, &s, func(bool) {
		if !inForce(kernel, other) {
			t.Error("another namespace's change is not in force")
		}
	})
	report, err := e.Sync(t.Context(), s, false)
	if err != nil || len(report.Refused) == 0 || slices.Contains(refusedNames(report), "b/other") || !isolated(kernel, "10.0.0.1") {
		t.Errorf("%v, refused are %q, the pods are isolated: %t", err, refusedNames(report), isolated(kernel, "10.0.0.1"))
	}
}

// What was to come and has gone again before it was ready never comes, and its sets go.
func TestALargeChangeThatGoesAgain(t *testing.T) {
	for _, also := range []*networkingv1.NetworkPolicy{nil, allow("a", "another", 82, "client")} {
		largeChangeThatGoesAgain(t, also)
	}
}

// largeChangeThatGoesAgain has another policy come as it goes, if there is one.
func largeChangeThatGoesAgain(t *testing.T, also *networkingv1.NetworkPolicy) {
	t.Helper()
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	s := with(town(), allow("a", "one", 80, "client"), allow("a", "two", 81, "client"))
	e := settled(t, kernel, s)
	sets := held(t, kernel).Sets.Len()
	large := many(10)
	for range 3 {
		if report, err := e.Sync(t.Context(), with(s, large...), false); err != nil || !slices.Equal(report.Waiting, []string{"a"}) {
			t.Fatalf("%v, waiting are %q", err, report.Waiting)
		}
	}
	if held(t, kernel).Sets.Len() < sets+900 {
		t.Fatalf("%d sets are there: nothing has been made ready", held(t, kernel).Sets.Len())
	}
	s.Policies = s.Policies.Without("a", "two")
	if also != nil {
		s = with(s, also)
	}
	report, err := e.Sync(t.Context(), s, false)
	if err != nil || len(report.Waiting) > 0 || countInForce(kernel, slices.Collect(s.Policies.All())) != s.Policies.Len() || countInForce(kernel, large) > 0 || held(t, kernel).Sets.Len() > sets {
		t.Errorf("%v, waiting are %q, %d of what has gone are in force, and %d sets are there", err, report.Waiting, countInForce(kernel, large), held(t, kernel).Sets.Len())
	}
}

// Where policies go, there is room in the budget of their namespace for others, and these are what is waited for. They never come if they go too, or if only
// those are left that were in force.
func TestWhatThereIsRoomForGoesAgain(t *testing.T) {
	for name, left := range map[string]func(all []*networkingv1.NetworkPolicy, refused map[string]bool) []*networkingv1.NetworkPolicy{
		"all go": func([]*networkingv1.NetworkPolicy, map[string]bool) []*networkingv1.NetworkPolicy { return nil },
		"those that were refused go": func(all []*networkingv1.NetworkPolicy, refused map[string]bool) []*networkingv1.NetworkPolicy {
			return slices.DeleteFunc(slices.Clone(all), func(np *networkingv1.NetworkPolicy) bool { return refused[np.Namespace+"/"+np.Name] })
		},
	} {
		t.Run(name, func(t *testing.T) {
			kernel := dataplane.NewFake(dataplane.Capabilities{})
			all := many(24)
			e := settled(t, kernel, with(town(), all...))
			report, err := e.Sync(t.Context(), with(town(), all...), false)
			if err != nil || len(report.Refused) < 10 {
				t.Fatalf("%v, refused are %q", err, refusedNames(report))
			}
			refused := map[string]bool{}
			for _, name := range refusedNames(report) {
				refused[name] = true
			}
			fewer := slices.DeleteFunc(slices.Clone(all), func(np *networkingv1.NetworkPolicy) bool {
				return !refused[np.Namespace+"/"+np.Name] && np.Name < "large5"
			})
			sets := held(t, kernel).Sets.Len()
			for range 3 {
				if report, err = e.Sync(t.Context(), with(town(), fewer...), false); err != nil || !slices.Equal(report.Waiting, []string{"a"}) {
					t.Fatalf("%v, waiting are %q", err, report.Waiting)
				}
			}
			if made := held(t, kernel).Sets.Len() - sets; made < 900 {
				t.Fatalf("%d sets more are there: nothing has been made ready", made)
			}
			s := with(town(), left(fewer, refused)...)
			report, err = e.Sync(t.Context(), s, false)
			if err != nil || len(report.Waiting) > 0 || countInForce(kernel, all) != s.Policies.Len() || countInForce(kernel, slices.Collect(s.Policies.All())) != s.Policies.Len() {
				t.Errorf("%v, waiting are %q, %d are in force, and %d are left", err, report.Waiting, countInForce(kernel, all), s.Policies.Len())
			}
			fresh := dataplane.NewFake(dataplane.Capabilities{})
			settled(t, fresh, s)
			if plan := iptables.Diff(held(t, fresh), held(t, kernel)); !plan.Empty() {
				t.Errorf("an enforcer that begins now would change:\n%s", plan)
			}
		})
	}
}

// Policies that selected nobody, until a pod is relabelled or comes, are as much work as new ones. The pod that is relabelled keeps what it had until they are
// ready. One that comes gets nothing through until then.
func TestAPodThatBringsManyPoliciesWaits(t *testing.T) {
	for _, comes := range []bool{false, true} {
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		large := many(10)
		s := with(town(), append([]*networkingv1.NetworkPolicy{allow("b", "own", 80, "client")}, large...)...)
		was := *s.Local[0]
		was.Labels = compile.Labels{{Key: "name", Value: "idle"}}
		is := s.Local[0]
		before := s
		before.Local = append([]*compile.Pod{&was}, s.Local[1:]...)
		if comes {
			before.Local = s.Local[1:]
		}
		e := settled(t, kernel, before)
		first := true
		var later []*networkingv1.NetworkPolicy
		took := untilReady(t, e, &s, func(waiting bool) {
			others := allow("b", fmt.Sprint("others", s.Policies.Len()), 80, "client")
			now, shut := countInForce(kernel, large), isolated(kernel, is.Addrs[0].String())
			switch {
			case first && !waiting:
				t.Error("it comes at once")
			case waiting && (now > 0 || shut != comes):
				t.Fatalf("comes %t: while it waits %d of %d are in force, and the pod is isolated: %t", comes, now, len(large), shut)
			case !waiting && (now < len(large) || !shut):
				t.Fatalf("comes %t: once it is ready %d of %d are in force, and the pod is isolated: %t", comes, now, len(large), shut)
			}
			if len(later) > 0 && !inForce(kernel, later[len(later)-1]) {
				t.Errorf("another namespace's change is not in force: %s", later[len(later)-1].Name)
			}
			first = false
			s, later = with(s, others), append(later, others)
		})
		if took < 5 {
			t.Errorf("comes %t: it took %d syncs; that many sets are not to come with so few", comes, took)
		}
		flips := before
		for i := range 6 { // between one and the other: as it was, at the last
			state := []compile.Snapshot{with(flips, later...), s}[i%2]
			if _, err := e.Sync(t.Context(), state, false); err != nil {
				t.Fatal(err)
			}
		}
		untilReady(t, e, &s, func(bool) {})
		if now := countInForce(kernel, large); now != len(large) {
			t.Errorf("comes %t: in the end %d of %d are in force", comes, now, len(large))
		}
	}
}
