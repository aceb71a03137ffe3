package status

import (
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// syncOf is what a sync says that is about these policies and pods.
func syncOf(objects []policy.Object, pods ...uint64) report.Synced {
	return report.Synced{
		Report: testapi.Report(objects, pods...), ResourceVersions: map[string]string{testapi.KindOfPolicy: "10"}, At: time.Unix(1000, 0),
	}
}

// What a kernel refuses of one policy is said of that policy, with its own word, and of no other.
func TestARefusedPolicyIsSaidToFailAndNoOther(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refused []enforcer.Refused
		failing []string // namespace/name
		others  []string
	}{
		{"none", nil, nil, []string{"a/p0000", "b/p0000"}},
		{"one", testapi.RefusedIn("a", 1), []string{"a/p0000"}, []string{"a/p0001", "b/p0000"}},
		{"more than are named", testapi.RefusedIn("a", 500), []string{"a/p0000", "a/p0499"}, []string{"a/p0500", "b/p0000"}},
		{"more than there is room for", slices.Concat(testapi.RefusedIn("a", 5000), testapi.RefusedIn("b", 3)), []string{"a/p0000", "a/p4999", "b/p0002"}, []string{"b/p0003"}},
	} {
		a := report.NewAccount(v1alpha1.NodeEnforcementStatus{})
		s := syncOf([]policy.Object{testapi.Object("web", 1)}, 7)
		s.Report.Refused = tt.refused
		for _, r := range tt.refused {
			s.Report.Concerns.Objects = append(s.Report.Concerns.Objects, r.Object)
		}
		if !a.Note(s) || a.Note(s) {
			t.Errorf("%s: a refusal is worth one report", tt.name)
		}
		if int(a.Status().Failing) != len(tt.refused) || len(a.Status().FailingPolicies) > v1alpha1.MaxFailingPolicies || len(a.Status().Refused) > 8*v1alpha1.MaxRefused {
			t.Errorf("%s: %d fail, %d named, %d bytes", tt.name, a.Status().Failing, len(a.Status().FailingPolicies), len(a.Status().Refused))
		}
		entry, err := cached.ReportToEntry(&v1alpha1.NodeEnforcement{Status: a.Status()})
		if err != nil {
			t.Fatal(err)
		}
		standing := func(key string) (v1alpha1.NodeStanding, string) {
			namespace, name, _ := strings.Cut(key, "/")
			n := node(entry.(*cached.ReportEntry), 7)
			return n.standing(PolicyCase{Resource: testapi.KindOfPolicy, Since: "10", UID: types.UID(namespace + name), Namespace: namespace, Name: name})
		}
		for _, key := range tt.failing {
			if got, message := standing(key); got != v1alpha1.NodeFailing || message == "" {
				t.Errorf("%s: %s is %q: %s", tt.name, key, got, message)
			}
		}
		for _, key := range tt.others {
			if got, message := standing(key); got != "" {
				t.Errorf("%s: %s is %q: %s", tt.name, key, got, message)
			}
		}
	}
}

// What is over a budget is said so, and not as the kernel's doing; where single policies have no room, as that of their namespace.
func TestWhatIsRefusedIsSaidByItsKind(t *testing.T) {
	large := testapi.RefusedIn("a", 1)
	large[0].TooLarge, large[0].Word = true, "spec.ingress[0]: it has 600000 addresses in sets, where 524288 are allowed"
	unsure := testapi.RefusedIn("a", 1)
	unsure[0].Unknown, unsure[0].Word = true, "spec.ingress[0].from: the pods of namespace b are not known on this node yet"
	for _, tt := range []struct {
		name    string
		refused []enforcer.Refused
		want    string // of the standing
		word    string // the beginning of what the NodeEnforcement says
	}{
		{"by the kernel", testapi.RefusedIn("a", 1), refusedPartMessage, "the kernel refuses a part of it, which is closed: no room"},
		{"too large", large, largeMessage, large[0].Word},
		{"pods are not known", unsure, unsureMessage, unsure[0].Word},
		{"very many", testapi.RefusedIn("a", 5000), refusedNamespaceMessage, "the kernel refuses a part of it"},
	} {
		a := report.NewAccount(v1alpha1.NodeEnforcementStatus{})
		s := syncOf(nil, 7)
		s.Report.Refused = tt.refused
		a.Note(s)
		entry, err := cached.ReportToEntry(&v1alpha1.NodeEnforcement{Status: a.Status()})
		if err != nil {
			t.Fatal(err)
		}
		if got := refusal(entry.(*cached.ReportEntry), PolicyCase{UID: "ap0000", Namespace: "a"}); got != tt.want {
			t.Errorf("%s: the policy's status says %q, want %q", tt.name, got, tt.want)
		}
		if got := a.Status().FailingPolicies[0].Message; !strings.HasPrefix(got, tt.word) {
			t.Errorf("%s: the NodeEnforcement says %q, want %q first", tt.name, got, tt.word)
		}
	}
}

// Of a namespace whose policies are in force as they were nothing is said to be programmed; of others everything is.
func TestPoliciesOfANamespaceThatWaitsArePending(t *testing.T) {
	for _, refused := range [][]enforcer.Refused{nil, testapi.RefusedIn("c", 5000), testapi.RefusedIn("c", v1alpha1.MaxRefused)} {
		a := report.NewAccount(v1alpha1.NodeEnforcementStatus{})
		s := syncOf([]policy.Object{testapi.Object("web", 1)}, 7)
		s.Report.Refused, s.Report.Waiting = refused, []string{"a", "z"}
		if !a.Note(s) || a.Note(s) {
			t.Error("that namespaces wait is worth one report")
		}
		if len(a.Status().Refused) > 8*v1alpha1.MaxRefused {
			t.Errorf("%d bytes", len(a.Status().Refused))
		}
		entry, err := cached.ReportToEntry(&v1alpha1.NodeEnforcement{Status: a.Status()})
		if err != nil {
			t.Fatal(err)
		}
		for namespace, want := range map[string]v1alpha1.NodeStanding{"a": v1alpha1.NodePending, "z": v1alpha1.NodePending, "b": "", "": ""} {
			n := node(entry.(*cached.ReportEntry), 7)
			if got, message := n.standing(PolicyCase{Resource: testapi.KindOfPolicy, Since: "10", UID: "own", Namespace: namespace}); got != want {
				t.Errorf("beside %d that are refused: a policy of namespace %q is %q (%s), want %q", len(refused), namespace, got, message, want)
			}
		}
		s.Report.Waiting = nil
		if !a.Note(s) {
			t.Error("that they wait no more is worth a report")
		}
	}
}
