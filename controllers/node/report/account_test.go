package report

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// What a program or a kernel says of a thing may be long, and the schema's bounds hold for it all the same.
func TestFindingsKeepWithinTheSchema(t *testing.T) {
	long := strings.Repeat("what the kernel said ", 100)
	var findings []v1alpha1.Finding
	for i := range v1alpha1.MaxFindings + 5 {
		findings = append(findings, v1alpha1.Finding{Name: fmt.Sprint(i), Detail: long, Cost: long, Remedy: long})
	}
	a := NewAccount(v1alpha1.NodeEnforcementStatus{Findings: findings})
	if len(a.status.Findings) != v1alpha1.MaxFindings {
		t.Errorf("%d findings", len(a.status.Findings))
	}
	for _, f := range a.status.Findings {
		if len(f.Detail) > cached.MaxMessage || len(f.Cost) > cached.MaxMessage || len(f.Remedy) > cached.MaxMessage {
			t.Fatalf("%s: %d, %d and %d bytes", f.Name, len(f.Detail), len(f.Cost), len(f.Remedy))
		}
	}
}

// syncOf is what a sync says that is about these policies and pods.
func syncOf(objects []policy.Object, pods ...uint64) Synced {
	return Synced{
		Report: testapi.Report(objects, pods...), ResourceVersions: map[string]string{testapi.KindOfPolicy: "10"}, At: time.Unix(1000, 0),
	}
}

func failed(s Synced, text string) Synced {
	s.Err = errors.New(text)
	return s
}

func TestWhatIsWorthAReport(t *testing.T) {
	web := []policy.Object{testapi.Object("web", 1)}
	for _, tt := range []struct {
		name   string
		change func(*Synced)
		want   bool
	}{
		{"nothing", func(*Synced) {}, false},
		{"how far the caches have come", func(s *Synced) { s.ResourceVersions[testapi.KindOfPolicy] = "99" }, false},
		{"sizes", func(s *Synced) { s.Report.Counts = enforcer.Counts{Chains: 9, Rules: 9, Sets: 9, Entries: 9} }, false},
		{"the time", func(s *Synced) { s.At = s.At.Add(time.Hour) }, false},
		{"what was changed in the kernel", func(s *Synced) { s.Report.Applied.Sets = 1 }, false},
		{"how many links are tied", func(s *Synced) { s.SourceCheck = &v1alpha1.SourceCheckStatus{Results: 9} }, false},
		{"whether all pods are held to their addresses", func(s *Synced) {
			s.Sources = &metav1.Condition{Type: v1alpha1.SourcesCheckedCondition, Status: metav1.ConditionFalse, Reason: v1alpha1.LinksUnknownReason}
		}, true},
		{"a generation", func(s *Synced) { s.Report.Concerns.Objects[0].Generation = 2 }, true},
		{"a policy made anew under its name", func(s *Synced) { s.Report.Concerns.Objects[0].UID = "another" }, true},
		{"a mode", func(s *Synced) { s.Report.Concerns.Objects[0].Audit = true }, true},
		{"the same mode in other words, for which the controller waits", func(s *Synced) { s.Report.Concerns.Objects[0].Mode = "Enforce" }, true},
		{"one policy more", func(s *Synced) {
			s.Report.Concerns.Objects = append(s.Report.Concerns.Objects, testapi.Object("db", 1))
		}, true},
		{"no policy", func(s *Synced) { s.Report.Concerns.Objects = nil }, true},
		{"another pod", func(s *Synced) { s.Report.Concerns.Pods = []uint64{8} }, true},
		{"no pod", func(s *Synced) { s.Report.Concerns.Pods = nil }, true},
		{"a repair", func(s *Synced) { s.Report.Repairs.Sets = 1 }, true},
		{"a refusal", func(s *Synced) { s.Err = errors.New("no") }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := NewAccount(v1alpha1.NodeEnforcementStatus{})
			if !a.Note(syncOf(web, 7)) {
				t.Error("the first sync is not worth a report")
			}
			s := syncOf([]policy.Object{testapi.Object("web", 1)}, 7)
			tt.change(&s)
			if got := a.Note(s); got != tt.want {
				t.Errorf("worth a report: %t, want %t", got, tt.want)
			}
			if a.Note(s) && s.Report.Repairs.Empty() {
				t.Error("the same again is worth a report again")
			}
		})
	}
}

func TestARefusalKeepsWhatIsApplied(t *testing.T) {
	a := NewAccount(v1alpha1.NodeEnforcementStatus{Backend: "nft"})
	a.Note(syncOf([]policy.Object{testapi.Object("web", 1), testapi.Object("db", 1)}, 7, 8))
	applied := a.status.Applied

	refusal := failed(syncOf([]policy.Object{testapi.Object("web", 2), testapi.Object("db", 1), testapi.Object("new", 1)}, 7, 8, 9), "line 3: no")
	refusal.ResourceVersions = map[string]string{testapi.KindOfPolicy: "20"}
	if !a.Note(refusal) || a.Note(refusal) {
		t.Error("a refusal is worth one report")
	}
	if a.status.Applied != applied {
		t.Errorf("what is applied is now %v", a.status.Applied)
	}
	want := []v1alpha1.FailingPolicy{
		{Kind: "NetworkPolicy", Namespace: "shop", Name: "web", Generation: 2, Message: "line 3: no"},
		{Kind: "NetworkPolicy", Namespace: "shop", Name: "new", Generation: 1, Message: "line 3: no"},
	}
	if diff := cmp.Diff(want, a.status.FailingPolicies); diff != "" || a.status.Failing != 2 {
		t.Errorf("%d fail (-want +got):\n%s", a.status.Failing, diff)
	}
	if got := a.says(); got != "False Refused at 0: line 3: no" {
		t.Errorf("the condition says %s", got)
	}
	if !a.Note(failed(refusal, "line 4: no")) {
		t.Error("another refusal is not worth a report")
	}
	if !a.Note(syncOf([]policy.Object{testapi.Object("web", 2)}, 7)) || a.status.Failing != 0 || a.status.FailingPolicies != nil {
		t.Errorf("after a sync that went well %d fail: %v", a.status.Failing, a.status.FailingPolicies)
	}
	if got := a.says(); got != "True Enforcing at 0: the kernel holds what the API says" {
		t.Errorf("the condition says %s", got)
	}
}

// says is the condition Enforcing in a line.
func (a *Account) says() string {
	return testapi.ConditionLine(a.status.Conditions, v1alpha1.EnforcingCondition)
}

func TestAKernelThatCannotBeReadEnforcesNothingForSure(t *testing.T) {
	a := NewAccount(v1alpha1.NodeEnforcementStatus{})
	a.Note(syncOf([]policy.Object{testapi.Object("web", 1)}, 7))
	s := failed(syncOf([]policy.Object{testapi.Object("web", 1)}, 7), "no such table")
	s.Report.Unread = true
	if !a.Note(s) {
		t.Error("it is not worth a report")
	}
	if got := a.says(); got != "False Unreadable at 0: no such table" || a.status.Failing != 1 {
		t.Errorf("%d policies fail, and the condition says %s", a.status.Failing, got)
	}
	e, err := cached.ReportToEntry(&v1alpha1.NodeEnforcement{Status: a.status})
	if err != nil || !e.(*cached.ReportEntry).Unread || !e.(*cached.ReportEntry).Failing {
		t.Errorf("the controller reads %+v, %v", e, err)
	}
}

func TestTheTimeOfATransitionIsKept(t *testing.T) {
	a := NewAccount(v1alpha1.NodeEnforcementStatus{})
	at := func(s Synced, seconds int64) Synced {
		s.At = time.Unix(seconds, 0)
		return s
	}
	for _, tt := range []struct {
		sync Synced
		want int64
	}{
		{at(syncOf(nil), 100), 100}, {at(syncOf(nil), 200), 100},
		{at(failed(syncOf(nil), "no"), 300), 300}, {at(failed(syncOf(nil), "still no"), 400), 300}, {at(syncOf(nil), 500), 500},
	} {
		a.Note(tt.sync)
		if got := a.status.Conditions[0].LastTransitionTime.Unix(); got != tt.want {
			t.Errorf("after the sync at %d the condition is since %d, want %d", tt.sync.At.Unix(), got, tt.want)
		}
	}
}

// Whatever comes, a report has room in what the schema allows, and in little space.
func TestAReportIsBounded(t *testing.T) {
	var findings []v1alpha1.Finding
	for i := range 100 {
		findings = append(findings, v1alpha1.Finding{Name: fmt.Sprint(i)})
	}
	a := NewAccount(v1alpha1.NodeEnforcementStatus{Findings: findings})
	var objects []policy.Object
	var pods []uint64
	for i := range 5000 {
		objects, pods = append(objects, testapi.Object(strings.Repeat("n", 240)+fmt.Sprint(i), 1)), append(pods, uint64(i))
	}
	a.Note(syncOf(objects, pods...))
	a.Note(failed(syncOf(nil), "x"))
	for i := range objects {
		objects[i].Generation++
	}
	a.Note(failed(syncOf(objects, pods...), strings.Repeat("long ", 10000)))
	s := a.status
	if s.Failing != 5000 || len(s.FailingPolicies) != v1alpha1.MaxFailingPolicies || len(s.Findings) != v1alpha1.MaxFindings {
		t.Errorf("%d fail, %d are named, with %d findings", s.Failing, len(s.FailingPolicies), len(s.Findings))
	}
	if len(s.FailingPolicies[0].Message) > 512 || len(s.Applied.PodDigests) != 8*v1alpha1.MaxPodDigests || s.Applied.Counts.Pods != 5000 {
		t.Errorf("a message has %d bytes, the digests %d, of %d pods", len(s.FailingPolicies[0].Message), len(s.Applied.PodDigests), s.Applied.Counts.Pods)
	}
	if n := base64.StdEncoding.EncodedLen(len(s.Applied.PodDigests)); n > 10924 {
		t.Errorf("the digests take %d characters: the schema allows 10924", n)
	}
	if text, err := json.Marshal(s); err != nil || len(text) > 32<<10 {
		t.Errorf("the status takes %d bytes (%v): want at most 32 KB", len(text), err)
	}
}

func TestARepairIsSaid(t *testing.T) {
	a := NewAccount(v1alpha1.NodeEnforcementStatus{})
	for range 2 {
		s := syncOf(nil)
		s.Report.Repairs = policy.Changes{Sets: 2}
		a.Note(s)
	}
	a.Note(syncOf(nil))
	if a.status.Repairs.Count != 2 || a.status.Repairs.LastTime.Unix() != 1000 || a.status.Repairs.Last != "others had changed set: 2" {
		t.Errorf("repairs: %+v", a.status.Repairs)
	}
	guards := syncOf(nil)
	guards.Report.Repairs = policy.Changes{Others: 1}
	if a.Note(guards); a.status.Repairs.Count != 3 || a.status.Repairs.Last != "others had changed guard: 1" {
		t.Errorf("repairs of guards: %+v", a.status.Repairs)
	}
}

// A policy of one namespace is the business of the nodes that run pods there, one of the cluster that of all.
func TestHowManyNodesMayWriteForTheSameReason(t *testing.T) {
	in := func(namespace string, generation int64) policy.Object {
		return policy.Object{Ref: policy.Ref{Kind: "Policy", Namespace: namespace, Name: "p"}, Generation: generation}
	}
	nodes := func(namespace string) int { return map[string]int{"": 1000, "wide": 50, "narrow": 3}[namespace] }
	for _, tt := range []struct {
		name          string
		before, after []policy.Object
		want          int
	}{
		{"nothing changes", []policy.Object{in("", 1), in("wide", 1)}, []policy.Object{in("", 1), in("wide", 1)}, 1},
		{"a pod comes", nil, nil, 1},
		{"a policy of a namespace comes", nil, []policy.Object{in("narrow", 1)}, 3},
		{"one goes", []policy.Object{in("wide", 1), in("narrow", 1)}, []policy.Object{in("narrow", 1)}, 50},
		{"two change", []policy.Object{in("wide", 1), in("narrow", 1)}, []policy.Object{in("narrow", 2), in("wide", 2)}, 50},
		{"one of the cluster changes", []policy.Object{in("", 1), in("narrow", 1)}, []policy.Object{in("", 2), in("narrow", 1)}, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := NewAccount(v1alpha1.NodeEnforcementStatus{})
			a.Note(syncOf(tt.before, 7))
			s := syncOf(tt.after, 7, 8)
			s.Nodes = nodes
			a.Note(s)
			if a.fanOut != tt.want {
				t.Errorf("a fan-out of %d, want %d", a.fanOut, tt.want)
			}
		})
	}
}

// TestAReportHasPlainText: an error of a program goes into the report as one line that does nothing to a terminal.
func TestAReportHasPlainText(t *testing.T) {
	for text, want := range map[string]string{
		"no":                                   "no",
		"line 1:\n\tno\r\n":                    "line 1: no",
		"\x1b[31mred\x1b[0m \x07bell":          "[31mred [0m bell",
		"\xff\xfeno":                           "no",
		"a\u202eb\u200bc":                      "a b c",
		"Ärger":                                "Ärger",
		strings.Repeat("ü", cached.MaxMessage): strings.Repeat("ü", cached.MaxMessage/2-2) + "...",
	} {
		a := NewAccount(v1alpha1.NodeEnforcementStatus{Findings: []v1alpha1.Finding{{Name: "x", Detail: text}}})
		a.Note(failed(syncOf([]policy.Object{testapi.Object("web", 1)}), text))
		for _, got := range []string{a.status.FailingPolicies[0].Message, a.status.Conditions[0].Message, a.status.Findings[0].Detail} {
			if got != want {
				t.Errorf("%q is said as %q, want %q", text, got, want)
			}
		}
	}
}
