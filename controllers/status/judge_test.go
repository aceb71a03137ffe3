package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// having is the report of a node that has seen all changes of policies up to a version, and enforces on these pods.
func having(version string, digests ...uint64) *cached.ReportEntry {
	return &cached.ReportEntry{
		Families: []v1alpha1.Family{v1alpha1.IPv4, v1alpha1.IPv6}, Versions: map[string]string{testapi.KindOfPolicy: version}, Digests: digests,
	}
}

// failing is a report of a node that does not enforce what the API says.
func failing(r *cached.ReportEntry) *cached.ReportEntry {
	r.Failing = true
	return r
}

func unread(r *cached.ReportEntry) *cached.ReportEntry {
	r.Unread = true
	return r
}

// node is one that runs selected pods, and is heard of.
func node(r *cached.ReportEntry, pods ...uint64) *NodeCase {
	return &NodeCase{Pods: pods, Report: r, Heard: true}
}

func silent(n *NodeCase) *NodeCase {
	n.Heard = false
	return n
}

func lacking(family v1alpha1.Family, n *NodeCase) *NodeCase {
	n.Family = family
	return n
}

// nodes are several, named from a.
func nodes(all ...*NodeCase) map[string]*NodeCase {
	named := map[string]*NodeCase{}
	for i, n := range all {
		named[string(rune('a'+i))] = n
	}
	return named
}

func TestJudgeSaysWhereAPolicyIsProgrammed(t *testing.T) {
	const (
		unheard  = "its enforcer has not been heard of for too long: see what its pod says; what it enforced is still in force"
		nobody   = "no enforcer has reported from this node: see that a pod of the DaemonSet runs there"
		awaited  = "its next report is waited for"
		noFamily = "it does not enforce IPv6, and selected pods have such addresses: see the findings in its NodeEnforcement"
	)
	many := make([]uint64, v1alpha1.MaxPodDigests)
	for i := range many {
		many[i] = uint64(i)
	}
	type troubles []v1alpha1.NodeTrouble
	for _, tt := range []struct {
		name  string
		nodes map[string]*NodeCase
		mode  v1alpha1.Mode
		since string
		want  string
		nodeCounts
		troubles troubles
	}{
		{name: "no node runs a selected pod", since: "100",
			want: "True NoPods at 4: no running pod is selected: there is nothing to enforce yet"},
		{name: "every node has it", since: "100", nodes: nodes(node(having("100", 1, 2), 1, 2), node(having("1000", 3), 3)),
			want: "True Programmed at 4: enforced on 3 pods, on 2 nodes", nodeCounts: nodeCounts{pods: 3, desired: 2, programmed: 2}},
		{name: "one pod on one node", since: "100", nodes: nodes(node(having("100", 1), 1)),
			want: "True Programmed at 4: enforced on 1 pod, on 1 node", nodeCounts: nodeCounts{pods: 1, desired: 1, programmed: 1}},
		{name: "audited", since: "100", mode: v1alpha1.Audit, nodes: nodes(node(having("100", 1), 1)),
			want:       "True Programmed at 4: audited on 1 pod, on 1 node: nothing is denied by it",
			nodeCounts: nodeCounts{pods: 1, desired: 1, programmed: 1}},
		{name: "an older version of the policy", since: "100", nodes: nodes(node(having("99", 1), 1)),
			want:       "False Pending at 4: 1 of 1 node does not enforce generation 4: a",
			nodeCounts: nodeCounts{pods: 1, desired: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodePending, Message: awaited}}},
		{name: "resource versions are numbers", since: "1000", nodes: nodes(node(having("999", 1), 1)),
			want:       "False Pending at 4: 1 of 1 node does not enforce generation 4: a",
			nodeCounts: nodeCounts{pods: 1, desired: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodePending, Message: awaited}}},
		{name: "a report without the kind", since: "100", nodes: nodes(node(&cached.ReportEntry{Digests: []uint64{1}}, 1)),
			want:       "False Pending at 4: 1 of 1 node does not enforce generation 4: a",
			nodeCounts: nodeCounts{pods: 1, desired: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodePending, Message: awaited}}},
		{name: "programmed before anybody looked", nodes: nodes(node(having("1", 1), 1)),
			want: "True Programmed at 4: enforced on 1 pod, on 1 node", nodeCounts: nodeCounts{pods: 1, desired: 1, programmed: 1}},
		{name: "a pod that the node has not reported", since: "100", nodes: nodes(node(having("100", 1, 3), 1, 2), node(having("100", 4), 4)),
			want:       "False Pending at 4: 1 of 2 nodes do not enforce generation 4: a",
			nodeCounts: nodeCounts{pods: 3, desired: 2, programmed: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodePending, Message: awaited}}},
		{name: "a node that has never reported", since: "100", nodes: nodes(node(nil, 1)),
			want:       "False NodesUnknown at 4: 1 of 1 node does not enforce generation 4: a; a: " + nobody,
			nodeCounts: nodeCounts{pods: 1, desired: 1, unknown: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodeUnknown, Message: nobody}}},
		{name: "a node that fell silent, whatever it had", since: "100", nodes: nodes(silent(node(having("100", 1), 1))),
			want:       "False NodesUnknown at 4: 1 of 1 node does not enforce generation 4: a; a: " + unheard,
			nodeCounts: nodeCounts{pods: 1, desired: 1, unknown: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodeUnknown, Message: unheard}}},
		{name: "a kernel that refuses it", since: "100", nodes: nodes(node(failing(having("99", 1)), 1)),
			want:       "False NodesFailing at 4: 1 of 1 node does not enforce generation 4: a; a: " + refusedMessage,
			nodeCounts: nodeCounts{pods: 1, desired: 1, failed: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodeFailing, Message: refusedMessage}}},
		{name: "a kernel that refuses something else", since: "100", nodes: nodes(node(failing(having("100", 1)), 1)),
			want: "True Programmed at 4: enforced on 1 pod, on 1 node", nodeCounts: nodeCounts{pods: 1, desired: 1, programmed: 1}},
		{name: "a kernel that cannot be read", since: "100", nodes: nodes(node(unread(failing(having("100", 1))), 1)),
			want:       "False NodesFailing at 4: 1 of 1 node does not enforce generation 4: a; a: " + unreadableMessage,
			nodeCounts: nodeCounts{pods: 1, desired: 1, failed: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodeFailing, Message: unreadableMessage}}},
		{name: "a family that the node does not enforce", since: "100", nodes: nodes(lacking(v1alpha1.IPv6, node(having("100", 1), 1))),
			want:       "False NodesFailing at 4: 1 of 1 node does not enforce generation 4: a; a: " + noFamily,
			nodeCounts: nodeCounts{pods: 1, desired: 1, failed: 1}, troubles: troubles{{Name: "a", Standing: v1alpha1.NodeFailing, Message: noFamily}}},
		{name: "more pods than a node can report", since: "100", nodes: nodes(node(having("100", many...), 5000)),
			want:       "False NodesFailing at 4: 1 of 1 node does not enforce generation 4: a; a: it has more than 1024 pods, and can report no more of them",
			nodeCounts: nodeCounts{pods: 1, desired: 1, failed: 1},
			troubles:   troubles{{Name: "a", Standing: v1alpha1.NodeFailing, Message: "it has more than 1024 pods, and can report no more of them"}}},
		{name: "the worst comes first, then the name", since: "100",
			nodes: nodes(node(having("99", 1), 1), node(nil, 2), node(failing(having("99", 3)), 3), node(having("99", 4), 4), node(failing(having("99", 5)), 5)),
			want:  "False NodesFailing at 4: 5 of 5 nodes do not enforce generation 4: c, e, b, a, d; c: " + refusedMessage, nodeCounts: nodeCounts{pods: 5, desired: 5, failed: 2, unknown: 1},
			troubles: troubles{
				{Name: "c", Standing: v1alpha1.NodeFailing, Message: refusedMessage}, {Name: "e", Standing: v1alpha1.NodeFailing, Message: refusedMessage},
				{Name: "b", Standing: v1alpha1.NodeUnknown, Message: nobody},
				{Name: "a", Standing: v1alpha1.NodePending, Message: awaited}, {Name: "d", Standing: v1alpha1.NodePending, Message: awaited},
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Judge(PolicyCase{Resource: testapi.KindOfPolicy, Generation: 4, Mode: tt.mode, Since: tt.since, Nodes: tt.nodes}, nil)
			if diff := cmp.Diff(tt.want, testapi.ConditionLine(got.Conditions, v1alpha1.ProgrammedCondition)); diff != "" {
				t.Errorf("Programmed (-want +got):\n%s", diff)
			}
			want := v1alpha1.EnforcementStatus{
				ObservedGeneration: 4, ObservedSince: tt.since, Mode: tt.mode, Pods: tt.pods, Nodes: v1alpha1.NodeCounts{
					Ready: fmt.Sprintf("%d/%d", tt.programmed, tt.desired), Desired: tt.desired, Programmed: tt.programmed, Failed: tt.failed, Unknown: tt.unknown, NotProgrammed: tt.troubles,
				},
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(v1alpha1.EnforcementStatus{}, "Conditions")); diff != "" {
				t.Errorf("the rest of the status (-want +got):\n%s", diff)
			}
		})
	}
}

// nodeCounts are the figures of a status.
type nodeCounts struct{ pods, desired, programmed, failed, unknown int32 }

func TestJudgeNamesTenNodesAtMost(t *testing.T) {
	all := map[string]*NodeCase{}
	for i := range 100 {
		all[fmt.Sprintf("node-%03d", i)] = node(failing(having("1")), uint64(i))
	}
	got := Judge(PolicyCase{Resource: testapi.KindOfPolicy, Generation: 1, Since: "2", Nodes: all}, nil)
	var names []string
	for _, trouble := range got.Nodes.NotProgrammed {
		names = append(names, trouble.Name)
		if len(trouble.Message) > cached.MaxMessage {
			t.Errorf("a message has %d bytes", len(trouble.Message))
		}
	}
	want := "node-000, node-001, node-002, node-003, node-004, node-005, node-006, node-007, node-008, node-009"
	if diff := cmp.Diff(want, strings.Join(names, ", ")); diff != "" {
		t.Errorf("named nodes (-want +got):\n%s", diff)
	}
	if got.Nodes.Failed != 100 || got.Nodes.Desired != 100 {
		t.Errorf("%d of %d failed, want 100 of 100", got.Nodes.Failed, got.Nodes.Desired)
	}
	line := testapi.ConditionLine(got.Conditions, v1alpha1.ProgrammedCondition)
	if begin := "False NodesFailing at 1: 100 of 100 nodes do not enforce generation 1: " + want + ", 90 more; node-000: " + refusedMessage; !strings.HasPrefix(line, begin) {
		t.Errorf("the condition says %s\nwant it to begin with %s", line, begin)
	}
}

func TestJudgeSaysHowAPolicyIsUnderstood(t *testing.T) {
	var many []compile.Remark
	for i := range 12 {
		many = append(many, compile.Remark{Reason: v1alpha1.UnknownPortReason, Field: fmt.Sprintf("f%d", i), Detail: "d"})
	}
	for _, tt := range []struct {
		name    string
		remarks []compile.Remark
		want    string
	}{
		{"nothing to say", nil, "True Accepted at 4: the policy is understood in full"},
		{"a field", []compile.Remark{{Reason: v1alpha1.NotUnderstoodReason, Field: "spec.x", Detail: "what is it"}}, "False NotUnderstood at 4: spec.x: what is it"},
		{"no field", []compile.Remark{{Reason: v1alpha1.SelectsNothingReason, Detail: "nothing"}}, "True SelectsNothing at 4: nothing"},
		{"several, the first is the reason", []compile.Remark{
			{Reason: v1alpha1.ConflictingReason, Field: "spec.priority", Detail: "a rival"}, {Reason: v1alpha1.NeverMatchesReason, Field: "spec.ingress[0]", Detail: "behind another"},
		}, "True Conflicting at 4: spec.priority: a rival; spec.ingress[0]: behind another"},
		{"many", many, "True UnknownPort at 4: f0: d; f1: d; f2: d; f3: d; f4: d; f5: d; f6: d; f7: d; f8: d; f9: d; and 2 more"},
		{"a long one", []compile.Remark{{Reason: v1alpha1.NeverMatchesReason, Detail: strings.Repeat("x", 5000)}},
			"True NeverMatches at 4: " + strings.Repeat("x", 1021) + "..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Judge(PolicyCase{Resource: testapi.KindOfPolicy, Generation: 4, Remarks: tt.remarks}, nil)
			if diff := cmp.Diff(tt.want, testapi.ConditionLine(got.Conditions, v1alpha1.AcceptedCondition)); diff != "" {
				t.Errorf("Accepted (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJudgeKeepsTimesAndOtherPeoplesConditions(t *testing.T) {
	long := metav1.NewTime(time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC))
	previous := []metav1.Condition{
		{Type: "Somebodys", Status: metav1.ConditionUnknown, Reason: "Else", Message: "stays", ObservedGeneration: 1, LastTransitionTime: long},
		{Type: v1alpha1.AcceptedCondition, Status: metav1.ConditionTrue, Reason: v1alpha1.SelectsNothingReason, ObservedGeneration: 3, LastTransitionTime: long},
		{Type: v1alpha1.ProgrammedCondition, Status: metav1.ConditionTrue, Reason: v1alpha1.NoPodsReason, ObservedGeneration: 3, LastTransitionTime: long},
	}
	kept := append([]metav1.Condition(nil), previous...)
	got := Judge(PolicyCase{Resource: testapi.KindOfPolicy, Generation: 4, Since: "9", Nodes: nodes(node(having("8", 1), 1))}, previous)
	if diff := cmp.Diff(kept, previous); diff != "" {
		t.Errorf("judge wrote to what it was given (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(previous[0], got.Conditions[0]); diff != "" {
		t.Errorf("somebody else's condition (-before +after):\n%s", diff)
	}
	accepted := meta.FindStatusCondition(got.Conditions, v1alpha1.AcceptedCondition)
	if !accepted.LastTransitionTime.Equal(&long) || accepted.ObservedGeneration != 4 {
		t.Errorf("True stays True: since %s at generation %d, want %s at 4", accepted.LastTransitionTime, accepted.ObservedGeneration, long)
	}
	programmed := meta.FindStatusCondition(got.Conditions, v1alpha1.ProgrammedCondition)
	if programmed.Status != metav1.ConditionFalse || time.Since(programmed.LastTransitionTime.Time) > time.Hour {
		t.Errorf("True turns %s, since %s: want False, since now", programmed.Status, programmed.LastTransitionTime)
	}
}

// condition is one of ours, as far as it is compared.
func condition(kind string, status metav1.ConditionStatus, reason string, generation int64) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, ObservedGeneration: generation}
}

// statusSaying is a status that calls a policy accepted and, with a reason, programmed or not.
func statusSaying(status metav1.ConditionStatus, reason string, change ...func(*v1alpha1.EnforcementStatus)) *v1alpha1.EnforcementStatus {
	s := &v1alpha1.EnforcementStatus{
		ObservedGeneration: 2, Mode: v1alpha1.Enforce, Pods: 3, Nodes: v1alpha1.NodeCounts{Desired: 2, Programmed: 1},
		Conditions: []metav1.Condition{
			condition(v1alpha1.AcceptedCondition, metav1.ConditionTrue, v1alpha1.AcceptedReason, 2), condition(v1alpha1.ProgrammedCondition, status, reason, 2),
		},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func TestWhatIsNewInAStatus(t *testing.T) {
	type status = v1alpha1.EnforcementStatus
	base := func(change ...func(*status)) *status {
		return statusSaying(metav1.ConditionTrue, v1alpha1.ProgrammedReason, change...)
	}
	for _, tt := range []struct {
		name          string
		change        func(*status)
		same, verdict bool // nothing new at all; nothing that a person waits for
	}{
		{"nothing", func(*status) {}, true, true},
		{"since when it is known", func(s *status) { s.ObservedSince = "7" }, true, true},
		{"when it turned", func(s *status) { s.Conditions[1].LastTransitionTime = metav1.Now() }, true, true},
		{"another's condition", func(s *status) { s.Conditions = append(s.Conditions, condition("Else", "True", "Why", 1)) }, true, true},
		{"the order of conditions", func(s *status) { s.Conditions[0], s.Conditions[1] = s.Conditions[1], s.Conditions[0] }, true, true},
		{"pods", func(s *status) { s.Pods = 4 }, false, true},
		{"what is ready, as a controller before this one did not write it", func(s *status) { s.Nodes.Ready = "1/2" }, false, true},
		{"desired nodes", func(s *status) { s.Nodes.Desired = 3 }, false, true},
		{"programmed nodes", func(s *status) { s.Nodes.Programmed = 2 }, false, true},
		{"failed nodes", func(s *status) { s.Nodes.Failed = 1 }, false, true},
		{"unknown nodes", func(s *status) { s.Nodes.Unknown = 1 }, false, true},
		{"a node in trouble", func(s *status) { s.Nodes.NotProgrammed = []v1alpha1.NodeTrouble{{Name: "a"}} }, false, true},
		{"a message", func(s *status) { s.Conditions[1].Message = "new" }, false, true},
		{"the mode", func(s *status) { s.Mode = v1alpha1.Audit }, false, false},
		{"a reason", func(s *status) { s.Conditions[1].Reason = v1alpha1.NoPodsReason }, false, false},
		{"another reason", func(s *status) { s.Conditions[0].Reason = v1alpha1.ConflictingReason }, false, false},
		{"a status", func(s *status) { s.Conditions[1].Status = metav1.ConditionFalse }, false, false},
		{"the generation of a condition", func(s *status) { s.Conditions[1].ObservedGeneration = 3 }, false, false},
		{"the generation", func(s *status) { s.ObservedGeneration = 3 }, false, true},
		{"a condition that is missing", func(s *status) { s.Conditions = s.Conditions[:1] }, false, false},
		{"all that is missing", func(s *status) { s.Conditions = nil }, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, pair := range [][2]*status{{base(), base(tt.change)}, {base(tt.change), base()}} {
				if got := sameStatus(pair[0], pair[1]); got != tt.same {
					t.Errorf("sameStatus is %t, want %t", got, tt.same)
				}
				if got := sameVerdict(pair[0], pair[1]); got != tt.verdict {
					t.Errorf("sameVerdict is %t, want %t", got, tt.verdict)
				}
			}
		})
	}
	if none := (&status{}); !sameConditions(none.Conditions, none.Conditions) {
		t.Error("two statuses without conditions differ")
	}
}

func TestWhatMayWaitForAMoment(t *testing.T) {
	programmed := func(change ...func(*v1alpha1.EnforcementStatus)) *v1alpha1.EnforcementStatus {
		return statusSaying(metav1.ConditionTrue, v1alpha1.ProgrammedReason, change...)
	}
	pending := func(change ...func(*v1alpha1.EnforcementStatus)) *v1alpha1.EnforcementStatus {
		return statusSaying(metav1.ConditionFalse, v1alpha1.PendingReason, change...)
	}
	for _, tt := range []struct {
		name        string
		before, now *v1alpha1.EnforcementStatus
		want        bool
	}{
		{"a report is waited for", programmed(), pending(), true},
		{"of a new generation", programmed(), pending(func(s *v1alpha1.EnforcementStatus) { s.Conditions[1].ObservedGeneration = 3 }), false},
		{"in another mode", programmed(), pending(func(s *v1alpha1.EnforcementStatus) { s.Mode = v1alpha1.Audit }), false},
		{"a node fails", programmed(), statusSaying(metav1.ConditionFalse, v1alpha1.NodesFailingReason), false},
		{"a node is silent", programmed(), statusSaying(metav1.ConditionFalse, v1alpha1.NodesUnknownReason), false},
		{"it was not programmed", pending(), pending(), false},
		{"nothing was said before", &v1alpha1.EnforcementStatus{}, pending(), false},
		{"it is programmed again", programmed(), programmed(), false},
	} {
		if got := pendingAgain(tt.before, tt.now); got != tt.want {
			t.Errorf("%s: slipped is %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestUnknownNodesAreNotPresumedToBeBack(t *testing.T) {
	unknown := statusSaying(metav1.ConditionFalse, v1alpha1.NodesUnknownReason)
	programmed := statusSaying(metav1.ConditionTrue, v1alpha1.ProgrammedReason)
	presumed := func() *NodeCase { return &NodeCase{Heard: true, Presumed: true} }
	for _, tt := range []struct {
		name        string
		before, now *v1alpha1.EnforcementStatus
		nodes       map[string]*NodeCase
		want        bool
	}{
		{"of one node it is not known", unknown, programmed, nodes(node(nil), presumed()), true},
		{"all are heard of", unknown, programmed, nodes(node(nil), node(nil)), false},
		{"none is desired", unknown, statusSaying(metav1.ConditionTrue, v1alpha1.NoPodsReason), nil, false},
		{"it is waited for", unknown, statusSaying(metav1.ConditionFalse, v1alpha1.PendingReason), nodes(presumed()), true},
		{"some fail", unknown, statusSaying(metav1.ConditionFalse, v1alpha1.NodesFailingReason), nodes(presumed()), false},
		{"a new generation", unknown, statusSaying(metav1.ConditionTrue, v1alpha1.ProgrammedReason, func(s *v1alpha1.EnforcementStatus) {
			s.Conditions[1].ObservedGeneration = 3
		}), nodes(presumed()), false},
		{"none was unknown", programmed, programmed, nodes(presumed()), false},
		{"nothing was said", &v1alpha1.EnforcementStatus{}, programmed, nodes(presumed()), false},
	} {
		if got := recoveryIsPresumed(tt.before, tt.now, tt.nodes); got != tt.want {
			t.Errorf("%s: hasty is %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestNothingFollowsFromAReportOfLostChanges(t *testing.T) {
	report := func(version, before string) *cached.ReportEntry {
		e, err := cached.ReportToEntry(&v1alpha1.NodeEnforcement{
			ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: version},
			Status: v1alpha1.NodeEnforcementStatus{Before: before, Applied: &v1alpha1.Applied{
				ResourceVersions: map[string]string{testapi.KindOfPolicy: "5000"}, PodDigests: cached.PackDigests([]uint64{7})}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return e.(*cached.ReportEntry)
	}
	for _, tt := range []struct {
		version, before string
		since           string
		want            v1alpha1.NodeStanding
	}{
		{"3100", "", "3050", ""}, // the first of a process
		{"3100", "3000", "3050", ""},
		{"3100", "5001", "3050", v1alpha1.NodePending},
		{"3100", "5001", "", v1alpha1.NodePending},
		{"3100", "3100", "3050", v1alpha1.NodePending},
	} {
		n := NodeCase{Pods: []uint64{7}, Heard: true, Report: report(tt.version, tt.before)}
		if got, message := n.standing(PolicyCase{Resource: testapi.KindOfPolicy, Since: tt.since}); got != tt.want {
			t.Errorf("a report of version %s after %s, policy since %q: %q (%s), want %q", tt.version, tt.before, tt.since, got, message, tt.want)
		}
	}
}
