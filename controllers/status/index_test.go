package status

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

var web = policyKey{testapi.KindOfPolicy, "shop", "web"}

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
			tx, ok := x.begin(web, tt.then, started)
			if !ok || tx.version.since != tt.since || tx.version.first != tt.first {
				t.Errorf("known: %t, since %s, the first %t; want since %s, the first %t", ok, tx.version.since, tx.version.first, tt.since, tt.first)
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
	if _, ok := x.begin(web, webAt(1, "10"), started); ok {
		t.Error("a policy that nobody has seen is known")
	}
	x.see(web, webAt(2, "11"), started)
	for _, np := range []*networkingv1.NetworkPolicy{
		webAt(1, "10"), webAt(3, "12"), webAt(2, "11", "Audit"), anew(webAt(2, "11")), cutShort(webAt(2, "11")),
	} {
		if _, ok := x.begin(web, np, started); ok {
			t.Errorf("generation %d of %s in mode %q is known", np.Generation, np.UID, ownMode(np))
		}
	}
	x.forget(web)
	if _, ok := x.begin(web, webAt(2, "11"), started); ok || len(x.policies)+len(x.spaces)+len(x.nodes) > 0 {
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
			tx, _ := x.begin(web, np, started)
			tx.restore(tt.status, v1alpha1.Enforce)
			tx.commit()
			again, _ := x.begin(web, np, started)
			if tx.version.since != tt.want || again.version.since != tt.want {
				t.Errorf("known since %q, and for the next worker %q, want %q", tx.version.since, again.version.since, tt.want)
			}
		})
	}
}

func TestOnlyTheFirstVersionIsTakenOver(t *testing.T) {
	other := statusSaying("True", v1alpha1.ProgrammedReason, func(s *v1alpha1.EnforcementStatus) { s.ObservedSince = "7" })
	x := newIndex()
	x.see(web, webAt(2, "20"), started)
	tx, _ := x.begin(web, webAt(2, "20"), started)
	ends(tx, nil, nil, true)
	if tx, _ = x.begin(web, webAt(2, "20"), started); tx.restore(other, v1alpha1.Enforce) {
		t.Error("it is taken over after it was judged")
	}
	x.see(web, webAt(3, "21"), started)
	other.Conditions[1].ObservedGeneration = 3
	if tx, _ = x.begin(web, webAt(3, "21"), started); tx.restore(other, v1alpha1.Enforce) {
		t.Error("a version that this process has seen come is taken over")
	}
}

// ends commits what a worker has found: nodes that exist, nodes that do not, and whether the policy is programmed on all.
func ends(tx *transaction, nodes map[string]*NodeCase, absent []string, programmed bool) (fresh []string) {
	tx.judged.on, tx.judged.programmed = slices.AppendSeq(slices.Clone(absent), maps.Keys(nodes)), programmed
	return tx.commit()
}

// writes records that a PolicyEnforcement was made, and a status written into it.
func writes(tx *transaction, status *v1alpha1.EnforcementStatus, made, updated string) {
	tx.record(func(w *written) { w.created(made) })
	tx.record(func(w *written) { w.updated(status, updated, started) })
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
	tx, _ := x.begin(web, np, started)
	x.mark(web, false) // a report: the worker has read the one before
	ends(tx, nodes(node(nil, 1)), nil, true)
	if got := waiting(x, "a"); !slices.Equal(got, []string{"web"}) {
		t.Errorf("a worker has overlooked a mark, and the policies that wait for the node are %v", got)
	}
	tx, _ = x.begin(web, np, started)
	ends(tx, nodes(node(nil, 1)), nil, false)
	if got := waiting(x, "a"); !slices.Equal(got, []string{"web"}) {
		t.Errorf("a policy is not programmed, and those that wait for the node are %v", got)
	}
	tx, _ = x.begin(web, np, started)
	ends(tx, nodes(node(nil, 1)), nil, true)
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
	tx, _ := x.begin(web, np, started)
	if !tx.marks.review {
		t.Error("a new policy needs no review")
	}
	x.mark(web, true) // a pod
	ends(tx, nil, nil, true)
	if tx, _ = x.begin(web, np, started); !tx.marks.review {
		t.Error("the review was before the pod came, and is not made again")
	}
	tx.judged.remarks = []compile.Remark{{Reason: "New"}}
	ends(tx, nil, nil, true)
	x.mark(web, false)
	if tx, _ = x.begin(web, np, started); tx.marks.review || tx.judged.remarks[0].Reason != "New" {
		t.Errorf("after a review, without a change, one is needed: %t, and the remarks are %v", tx.marks.review, tx.judged.remarks)
	}
}

func TestWhereAPolicySelectsPods(t *testing.T) {
	np := webAt(1, "10")
	x := newIndex()
	x.see(web, np, started)
	for _, step := range []struct {
		nodes  []*NodeCase
		absent []string
		fresh  string
		on     string
	}{
		{[]*NodeCase{node(nil), node(nil)}, nil, "a b", "a b"},
		{[]*NodeCase{node(nil), node(nil)}, []string{"gone"}, "gone", "a b gone"},
		{[]*NodeCase{node(nil)}, []string{"gone"}, "", "a gone"},
		{nil, nil, "", ""},
		{[]*NodeCase{node(nil)}, nil, "a", "a"},
	} {
		tx, _ := x.begin(web, np, started)
		fresh := ends(tx, nodes(step.nodes...), step.absent, true)
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
	tx, _ := x.begin(web, np, started)
	x.see(web, webAt(2, "11"), started)
	ends(tx, nodes(node(nil), node(nil)), nil, true)
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
	first, _ := x.begin(web, webAt(1, "10"), started)
	writes(first, status, "11", "12")
	x.see(web, webAt(2, "13"), started)
	tx, _ := x.begin(web, webAt(2, "13"), started)
	if w := tx.written; !w.made || w.status != status || w.resourceVersion != "12" || w.at != started {
		t.Errorf("after a change of the policy it is not known what was written: %+v", w)
	}
	next := anew(webAt(1, "14"))
	x.see(web, next, started)
	for _, late := range []*transaction{nil, first} {
		if late != nil { // a worker ends that has begun before
			writes(late, status, "15", "15")
		}
		if tx, _ := x.begin(web, next, started); tx.written.made || tx.written.status != nil {
			t.Errorf("what was written of one policy counts for another of its name: %+v", tx.written)
		}
	}
	tx, _ = x.begin(web, next, started)
	writes(tx, status, "15", "16")
	x.enforcementGone(web)
	if tx, _ := x.begin(web, next, started); tx.written.made || tx.written.status != nil {
		t.Errorf("what was deleted counts as written: %+v", tx.written)
	}
}

// TestAWriteIsRememberedThoughThePolicyHasChanged: what a worker has found of an older version is dropped, and what it has written stands in the API.
func TestAWriteIsRememberedThoughThePolicyHasChanged(t *testing.T) {
	x := newIndex()
	x.see(web, webAt(1, "10"), started)
	late, _ := x.begin(web, webAt(1, "10"), started)
	x.see(web, webAt(2, "11"), started)
	late.judged.remarks = []compile.Remark{{Reason: "Old"}}
	ends(late, nodes(node(nil, 1)), nil, true)
	status := statusSaying("True", v1alpha1.ProgrammedReason)
	writes(late, status, "12", "13")
	tx, _ := x.begin(web, webAt(2, "11"), started)
	if tx.judged.remarks != nil || tx.judged.programmed || tx.judged.on != nil || !tx.marks.review {
		t.Errorf("what was found of an older version counts: %+v, %+v", tx.judged, tx.marks)
	}
	if w := tx.written; !w.made || w.status != status || w.resourceVersion != "13" {
		t.Errorf("it is not known what was written: %+v", w)
	}
	// A deletion that is heard of between two writes of one worker is not forgotten by the second.
	x.enforcementGone(web)
	tx.record(func(w *written) { w.updated(status, "14", started) })
	if tx, _ = x.begin(web, webAt(2, "11"), started); tx.written.made || tx.written.resourceVersion != "14" {
		t.Errorf("after a deletion and a write: %+v", tx.written)
	}
}

func TestHowLongAPolicyMaySlip(t *testing.T) {
	x := newIndex()
	x.see(web, webAt(1, "10"), started)
	for _, step := range []struct {
		after time.Duration
		again bool
		want  time.Duration
	}{
		{0, true, podGrace},
		{podGrace / 2, true, podGrace / 2},
		{podGrace / 2, false, 0},
		{time.Minute, true, podGrace}, // another time
		{time.Minute + podGrace, true, 0},
		{time.Minute + 2*podGrace, true, -podGrace},
	} {
		tx, _ := x.begin(web, webAt(1, "10"), started.Add(step.after))
		tx.pend(step.again)
		tx.commit()
		if got := tx.grace(); got != step.want {
			t.Errorf("after %s, pending again %t: it may wait %s, want %s", step.after, step.again, got, step.want)
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
	want := map[countKey]int{{testapi.KindOfPolicy, false}: 1, {all.resource, false}: 1}
	if diff := cmp.Diff(want, x.count(), cmpopts.EquateComparable(countKey{})); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	x.forgetKind(all.resource)
	if len(x.in("")) > 0 || len(x.in("shop")) != 1 {
		t.Error("a kind that is gone is there, or another is not")
	}
}
