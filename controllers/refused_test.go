package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// refusedIn are policies of a namespace that a kernel refuses.
func refusedIn(namespace string, n int) []enforcer.Refused {
	var all []enforcer.Refused
	for i := range n {
		name := fmt.Sprintf("p%04d", i)
		all = append(all, enforcer.Refused{
			Object: policy.Object{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: namespace, Name: name}, UID: namespace + name, Generation: 3}, Word: "no room",
		})
	}
	return all
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
		{"one", refusedIn("a", 1), []string{"a/p0000"}, []string{"a/p0001", "b/p0000"}},
		{"more than are named", refusedIn("a", 500), []string{"a/p0000", "a/p0499"}, []string{"a/p0500", "b/p0000"}},
		{"more than there is room for", slices.Concat(refusedIn("a", 5000), refusedIn("b", 3)), []string{"a/p0000", "a/p4999", "b/p0002"}, []string{"b/p0003"}},
	} {
		a := newAccount(v1alpha1.NodeEnforcementStatus{})
		s := syncOf([]policy.Object{object("web", 1)}, 7)
		s.Report.Refused = tt.refused
		for _, r := range tt.refused {
			s.Report.Concerns.Objects = append(s.Report.Concerns.Objects, r.Object)
		}
		if !a.note(s) || a.note(s) {
			t.Errorf("%s: a refusal is worth one report", tt.name)
		}
		if int(a.status.Failing) != len(tt.refused) || len(a.status.FailingPolicies) > v1alpha1.MaxFailingPolicies || len(a.status.Refused) > 8*v1alpha1.MaxRefused {
			t.Errorf("%s: %d fail, %d named, %d bytes", tt.name, a.status.Failing, len(a.status.FailingPolicies), len(a.status.Refused))
		}
		entry, err := reportToEntry(&v1alpha1.NodeEnforcement{Status: a.status})
		if err != nil {
			t.Fatal(err)
		}
		standing := func(key string) (v1alpha1.NodeStanding, string) {
			namespace, name, _ := strings.Cut(key, "/")
			n := node(entry.(*reportEntry), 7)
			return n.standing(policyCase{resource: kindOfPolicy, since: "10", uid: types.UID(namespace + name), namespace: namespace, name: name})
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

// One namespace with many refused policies leaves room for those of others.
func TestRefusedPoliciesAreNamedByTurns(t *testing.T) {
	got := byTurns(slices.Concat(refusedIn("a", 100), refusedIn("b", 2), refusedIn("c", 1)), 6)
	var names []string
	for _, r := range got {
		names = append(names, r.Object.Ref.Namespace+"/"+r.Object.Ref.Name)
	}
	want := []string{"a/p0000", "b/p0000", "c/p0000", "a/p0001", "b/p0001", "a/p0002"}
	if !slices.Equal(names, want) {
		t.Errorf("named: %v, want %v", names, want)
	}
}

// What is over a budget is said so, and not as the kernel's doing; where single policies have no room, as that of their namespace.
func TestWhatIsRefusedIsSaidByItsKind(t *testing.T) {
	large := refusedIn("a", 1)
	large[0].TooLarge, large[0].Word = true, "spec.ingress[0]: it has 600000 addresses in sets, where 524288 are allowed"
	for _, tt := range []struct {
		name    string
		refused []enforcer.Refused
		want    string // of the standing
		word    string // the beginning of what the NodeEnforcement says
	}{
		{"by the kernel", refusedIn("a", 1), refusedPartMessage, "the kernel refuses a part of it, which is closed: no room"},
		{"too large", large, largeMessage, large[0].Word},
		{"very many", refusedIn("a", 5000), refusedNamespaceMessage, "the kernel refuses a part of it"},
	} {
		a := newAccount(v1alpha1.NodeEnforcementStatus{})
		s := syncOf(nil, 7)
		s.Report.Refused = tt.refused
		a.note(s)
		entry, err := reportToEntry(&v1alpha1.NodeEnforcement{Status: a.status})
		if err != nil {
			t.Fatal(err)
		}
		if got := entry.(*reportEntry).refuses(policyCase{uid: "ap0000", namespace: "a"}); got != tt.want {
			t.Errorf("%s: the policy's status says %q, want %q", tt.name, got, tt.want)
		}
		if got := a.status.FailingPolicies[0].Message; !strings.HasPrefix(got, tt.word) {
			t.Errorf("%s: the NodeEnforcement says %q, want %q first", tt.name, got, tt.word)
		}
	}
}

// Of a namespace whose policies are in force as they were nothing is said to be programmed; of others everything is.
func TestPoliciesOfANamespaceThatWaitsArePending(t *testing.T) {
	for _, refused := range [][]enforcer.Refused{nil, refusedIn("c", 5000), refusedIn("c", v1alpha1.MaxRefused)} {
		a := newAccount(v1alpha1.NodeEnforcementStatus{})
		s := syncOf([]policy.Object{object("web", 1)}, 7)
		s.Report.Refused, s.Report.Waiting = refused, []string{"a", "z"}
		if !a.note(s) || a.note(s) {
			t.Error("that namespaces wait is worth one report")
		}
		if len(a.status.Refused) > 8*v1alpha1.MaxRefused {
			t.Errorf("%d bytes", len(a.status.Refused))
		}
		entry, err := reportToEntry(&v1alpha1.NodeEnforcement{Status: a.status})
		if err != nil {
			t.Fatal(err)
		}
		for namespace, want := range map[string]v1alpha1.NodeStanding{"a": v1alpha1.NodePending, "z": v1alpha1.NodePending, "b": "", "": ""} {
			n := node(entry.(*reportEntry), 7)
			if got, message := n.standing(policyCase{resource: kindOfPolicy, since: "10", uid: "own", namespace: namespace}); got != want {
				t.Errorf("beside %d that are refused: a policy of namespace %q is %q (%s), want %q", len(refused), namespace, got, message, want)
			}
		}
		s.Report.Waiting = nil
		if !a.note(s) {
			t.Error("that they wait no more is worth a report")
		}
	}
}
