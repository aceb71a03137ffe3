package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

var web = policyKey{kindOfPolicy, "shop", "web"}

// started is when these tests begin.
var started = time.Unix(1_000_000, 0)

// webAt is the NetworkPolicy web at a generation and a resource version, with a mode if one is given.
func webAt(generation int64, version string, mode ...string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web", UID: "uid-1", Generation: generation, ResourceVersion: version,
	}}
	if len(mode) > 0 {
		np.Annotations = map[string]string{v1alpha1.ModeAnnotation: mode[0]}
	}
	return np
}

// anew is np, deleted and created again.
func anew(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	np.UID = "uid-2"
	return np
}

func TestSinceWhenAVersionIsKnown(t *testing.T) {
	for _, tt := range []struct {
		name  string
		then  *networkingv1.NetworkPolicy
		fresh bool
		since string
		first bool
	}{
		{"the same again", webAt(1, "10"), false, "10", true},
		{"a label", webAt(1, "11"), false, "10", true},
		{"a generation", webAt(2, "11"), true, "11", false},
		{"a mode", webAt(1, "11", "Audit"), true, "11", false},
		{"the same mode in words", webAt(1, "11", "Enforce"), true, "11", false},
		{"another of its name", anew(webAt(1, "11")), true, "11", false},
		{"without a field that the API server does not know any more", cutShort(webAt(1, "11")), true, "11", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newIndex()
			if !x.see(web, webAt(1, "10"), started) {
				t.Error("a new policy is no news")
			}
			if got := x.see(web, tt.then, started); got != tt.fresh {
				t.Errorf("news: %t, want %t", got, tt.fresh)
			}
			p, ok := x.begin(web, tt.then)
			if !ok || p.since != tt.since || p.first != tt.first {
				t.Errorf("known: %t, since %s, the first %t; want since %s, the first %t", ok, p.since, p.first, tt.since, tt.first)
			}
		})
	}
}

// cutShort is a policy as an API server hands it out that does not have a field of it.
func cutShort(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{})
	return np
}

func TestAWorkerThatHasAnotherVersionWaits(t *testing.T) {
	x := newIndex()
	if _, ok := x.begin(web, webAt(1, "10")); ok {
		t.Error("a policy that nobody has seen is known")
	}
	x.see(web, webAt(2, "11"), started)
	for _, np := range []*networkingv1.NetworkPolicy{
		webAt(1, "10"), webAt(3, "12"), webAt(2, "11", "Audit"), anew(webAt(2, "11")), cutShort(webAt(2, "11")),
	} {
		if _, ok := x.begin(web, np); ok {
			t.Errorf("generation %d of %s in mode %q is known", np.Generation, np.UID, ownMode(np))
		}
	}
	x.forget(web)
	if _, ok := x.begin(web, webAt(2, "11")); ok || len(x.policies)+len(x.spaces)+len(x.nodes) > 0 {
		t.Error("what was forgotten is known")
	}
}

// What another process knew is taken over, unless it is of another version.
func TestAnotherProcessKnewTheVersionBefore(t *testing.T) {
	status := func(programmed metav1.ConditionStatus, reason string, change ...func(*v1alpha1.EnforcementStatus)) *v1alpha1.EnforcementStatus {
		return statusSaying(programmed, reason, append([]func(*v1alpha1.EnforcementStatus){func(s *v1alpha1.EnforcementStatus) { s.ObservedSince = "7" }}, change...)...)
	}
	since := func(version string) func(*v1alpha1.EnforcementStatus) {
		return func(s *v1alpha1.EnforcementStatus) { s.ObservedSince = version }
	}
	for _, tt := range []struct {
		name   string
		status *v1alpha1.EnforcementStatus
		want   string // since when it is known
	}{
		{"programmed", status("True", v1alpha1.ProgrammedReason), "7"},
		{"waited for", status("False", v1alpha1.PendingReason), "7"},
		{"nothing was said", &v1alpha1.EnforcementStatus{ObservedSince: "7"}, "20"},
		{"of an older generation", status("True", v1alpha1.ProgrammedReason, func(s *v1alpha1.EnforcementStatus) { s.Conditions[1].ObservedGeneration = 1 }), "20"},
		{"of another mode", status("True", v1alpha1.ProgrammedReason, func(s *v1alpha1.EnforcementStatus) { s.Mode = v1alpha1.Audit }), "20"},
		{"programmed, in conditions only", status("True", v1alpha1.ProgrammedReason, since(""), func(s *v1alpha1.EnforcementStatus) { s.Mode = "" }), ""},
		{"waited for, in conditions only", status("False", v1alpha1.PendingReason, since("")), "20"},
		{"known since it is as it is", status("True", v1alpha1.ProgrammedReason, since("20")), "20"},
		{"known before it was there", status("True", v1alpha1.ProgrammedReason, since("21")), "20"},
		{"known since nonsense", status("False", v1alpha1.PendingReason, since("soon")), "20"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newIndex()
			np := webAt(2, "20")
			x.see(web, np, started)
			p, _ := x.begin(web, np)
			if p.restore(tt.status, v1alpha1.Enforce) {
				x.restored(web, p)
			}
			again, _ := x.begin(web, np)
			if p.since != tt.want || again.since != tt.want {
				t.Errorf("known since %q, and for the next worker %q, want %q", p.since, again.since, tt.want)
			}
		})
	}
}

func TestOnlyTheFirstVersionIsTakenOver(t *testing.T) {
	other := statusSaying("True", v1alpha1.ProgrammedReason, func(s *v1alpha1.EnforcementStatus) { s.ObservedSince = "7" })
	x := newIndex()
	x.see(web, webAt(2, "20"), started)
	p, _ := x.begin(web, webAt(2, "20"))
	x.end(web, p, nil, nil, true, started)
	if p, _ = x.begin(web, webAt(2, "20")); p.restore(other, v1alpha1.Enforce) {
		t.Error("it is taken over after it was judged")
	}
	x.see(web, webAt(3, "21"), started)
	other.Conditions[1].ObservedGeneration = 3
	if p, _ = x.begin(web, webAt(3, "21")); p.restore(other, v1alpha1.Enforce) {
		t.Error("a version that this process has seen come is taken over")
	}
}

// waiting are the policies that a node's report is waited for.
func waiting(x *index, node string) []string {
	var names []string
	for _, key := range x.waitingFor(node) {
		names = append(names, key.name)
	}
	return names
}

func TestAReportThatComesWhileAWorkerJudgesIsNotLost(t *testing.T) {
	np := webAt(1, "10")
	x := newIndex()
	x.see(web, np, started)
	p, _ := x.begin(web, np)
	x.mark(web, false) // a report: the worker has read the one before
	x.end(web, p, nodes(node(nil, 1)), nil, true, started)
	if got := waiting(x, "a"); !slices.Equal(got, []string{"web"}) {
		t.Errorf("a worker has overlooked a mark, and the policies that wait for the node are %v", got)
	}
	p, _ = x.begin(web, np)
	x.end(web, p, nodes(node(nil, 1)), nil, false, started)
	if got := waiting(x, "a"); !slices.Equal(got, []string{"web"}) {
		t.Errorf("a policy is not programmed, and those that wait for the node are %v", got)
	}
	p, _ = x.begin(web, np)
	x.end(web, p, nodes(node(nil, 1)), nil, true, started)
	if got := waiting(x, "a"); got != nil {
		t.Errorf("the policy is programmed, and those that wait for the node are %v", got)
	}
	if got := x.on("a"); len(got) != 1 {
		t.Errorf("the policies of the node are %v", got)
	}
}

func TestARemarkThatIsOutOfDateIsNotKept(t *testing.T) {
	np := webAt(1, "10")
	x := newIndex()
	x.see(web, np, started)
	p, _ := x.begin(web, np)
	if !p.unreviewed {
		t.Error("a new policy needs no review")
	}
	x.mark(web, true) // a pod
	x.end(web, p, nil, nil, true, started)
	if p, _ = x.begin(web, np); !p.unreviewed {
		t.Error("the review was before the pod came, and is not made again")
	}
	p.remarks = []compile.Remark{{Reason: "New"}}
	x.end(web, p, nil, nil, true, started)
	x.mark(web, false)
	if p, _ = x.begin(web, np); p.unreviewed || p.remarks[0].Reason != "New" {
		t.Errorf("after a review, without a change, one is needed: %t, and the remarks are %v", p.unreviewed, p.remarks)
	}
}

func TestWhereAPolicySelectsPods(t *testing.T) {
	np := webAt(1, "10")
	x := newIndex()
	x.see(web, np, started)
	for _, step := range []struct {
		nodes  []*nodeCase
		absent []string
		fresh  string
		on     string
	}{
		{[]*nodeCase{node(nil), node(nil)}, nil, "a b", "a b"},
		{[]*nodeCase{node(nil), node(nil)}, []string{"gone"}, "gone", "a b gone"},
		{[]*nodeCase{node(nil)}, []string{"gone"}, "", "a gone"},
		{nil, nil, "", ""},
		{[]*nodeCase{node(nil)}, nil, "a", "a"},
	} {
		p, _ := x.begin(web, np)
		fresh := x.end(web, p, nodes(step.nodes...), step.absent, true, started)
		slices.Sort(fresh)
		var on []string
		for _, name := range []string{"a", "b", "gone"} {
			if len(x.on(name)) == 1 {
				on = append(on, name)
			}
		}
		if got := strings.Join(fresh, " "); got != step.fresh || strings.Join(on, " ") != step.on {
			t.Errorf("on %v, of which %q were not known: want %q, %q", on, got, step.on, step.fresh)
		}
		if len(x.nodes) != len(on) {
			t.Errorf("%d nodes are remembered, want %d", len(x.nodes), len(on))
		}
	}
	p, _ := x.begin(web, np)
	x.see(web, webAt(2, "11"), started)
	x.end(web, p, nodes(node(nil), node(nil)), nil, true, started)
	if len(x.on("a")) != 1 || len(x.on("b")) != 0 || !slices.Equal(waiting(x, "a"), []string{"web"}) {
		t.Error("what a worker found of an older version counts for the new one")
	}
	x.forget(web)
	if len(x.nodes) > 0 {
		t.Errorf("a policy that is gone is on %v", x.nodes)
	}
}

func TestWhatWasWrittenIsOfOnePolicy(t *testing.T) {
	x := newIndex()
	x.see(web, webAt(1, "10"), started)
	status := statusSaying("True", v1alpha1.ProgrammedReason)
	x.made(web, "uid-1", "11")
	x.wrote(web, "uid-1", status, "12", started)
	x.see(web, webAt(2, "13"), started)
	if p, _ := x.begin(web, webAt(2, "13")); !p.made || p.written != status || p.writtenVersion != "12" || p.writtenAt != started {
		t.Errorf("after a change of the policy it is not known what was written: %+v", p)
	}
	next := anew(webAt(1, "14"))
	x.see(web, next, started)
	for _, late := range []types.UID{"", "uid-1"} {
		if late != "" { // a worker ends that has begun before
			x.made(web, late, "15")
			x.wrote(web, late, status, "15", started)
		}
		if p, _ := x.begin(web, next); p.made || p.written != nil {
			t.Errorf("what was written of one policy counts for another of its name: %+v", p)
		}
	}
	x.made(web, "uid-2", "15")
	x.wrote(web, "uid-2", status, "16", started)
	x.unmade(web)
	if p, _ := x.begin(web, next); p.made || p.written != nil {
		t.Errorf("what was deleted counts as written: %+v", p)
	}
}

func TestHowLongAPolicyMaySlip(t *testing.T) {
	x := newIndex()
	x.see(web, webAt(1, "10"), started)
	for _, step := range []struct {
		after   time.Duration
		slipped bool
		want    time.Duration
	}{
		{0, true, podGrace},
		{podGrace / 2, true, podGrace / 2},
		{podGrace / 2, false, 0},
		{time.Minute, true, podGrace}, // another time
		{time.Minute + podGrace, true, 0},
		{time.Minute + 2*podGrace, true, -podGrace},
	} {
		if got := x.slip(web, step.slipped, started.Add(step.after)); got != step.want {
			t.Errorf("after %s, slipped %t: it may wait %s, want %s", step.after, step.slipped, got, step.want)
		}
	}
}

func TestPoliciesAreFoundByWhatTheySelect(t *testing.T) {
	x := newIndex()
	x.see(web, webAt(1, "10"), started)
	all := policyKey{"clusternetworkpolicies.policy.ringfence.io", "", "all"}
	x.see(all, &v1alpha1.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "all"},
		Spec: v1alpha1.ClusterNetworkPolicySpec{Tier: "Admin", Subject: v1alpha1.Subject{
			Namespaces: &v1alpha1.LabelSelector{MatchLabels: map[string]string{"team": "a"}},
		}},
	}, started)
	in := func(namespace, team string) (*compile.Pod, *compile.Namespace) {
		return visible(namespace, "n1"), &compile.Namespace{Name: namespace, Labels: compile.NewLabels(map[string]string{"team": team})}
	}
	for _, tt := range []struct{ namespace, team, want string }{
		{"shop", "a", "[all web]"}, {"shop", "b", "[web]"}, {"other", "a", "[all]"}, {"other", "b", "[]"},
	} {
		var names []string
		for _, key := range x.selecting(in(tt.namespace, tt.team)) {
			names = append(names, key.name)
		}
		slices.Sort(names)
		if got := fmt.Sprint(names); got != tt.want {
			t.Errorf("a pod in %s of team %s is selected by %s, want %s", tt.namespace, tt.team, got, tt.want)
		}
	}
	if got := x.in("shop"); !slices.Equal(got, []policyKey{web}) || len(x.clusterPolicies()) != 1 {
		t.Errorf("in the namespace are %v, in the cluster %d", got, len(x.clusterPolicies()))
	}
	want := map[standing]int{{kindOfPolicy, false}: 1, {all.resource, false}: 1}
	if diff := cmp.Diff(want, x.count(), cmpopts.EquateComparable(standing{})); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	x.forgetKind(all.resource)
	if len(x.in("")) > 0 || len(x.in("shop")) != 1 {
		t.Error("a kind that is gone is there, or another is not")
	}
}
