package status

import (
	"strings"
	"testing"
	"unicode"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
)

// TestANodesWordsAreForAdministrators: what a node reports of its failure names other tenants' policies, or is whatever a node that lies writes. Nothing of it is
// in what the controller says of a policy.
func TestANodesWordsAreForAdministrators(t *testing.T) {
	for _, reason := range []string{v1alpha1.RefusedReason, v1alpha1.UnreadableReason, "NetworkPolicySecretOfAnother"} {
		for _, words := range []string{
			`IPv4: restoring the chains: running iptables-restore: exit status 2 (line 7 of the input: -A RF-v1-IG-x -m comment --comment "NetworkPolicy rival/secret ingress[0]" -j RETURN)`,
			"\x1b[2J\x1b[31mNetworkPolicy rival/secret is in force\r\n", strings.Repeat("rival/secret ", 10000), "",
		} {
			report, err := cached.ReportToEntry(&v1alpha1.NodeEnforcement{
				ObjectMeta: metav1.ObjectMeta{Name: "n1"},
				Status: v1alpha1.NodeEnforcementStatus{
					Conditions: []metav1.Condition{{Type: v1alpha1.EnforcingCondition, Status: metav1.ConditionFalse, Reason: reason, Message: words}},
					Failing:    1, FailingPolicies: []v1alpha1.FailingPolicy{{Kind: "NetworkPolicy", Namespace: "rival", Name: "secret", Message: words}},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			status := Judge(PolicyCase{Resource: testapi.KindOfPolicy, Generation: 1, Since: "2", Nodes: map[string]*NodeCase{"n1": node(report.(*cached.ReportEntry), 1)}}, nil)
			if status.Nodes.Failed != 1 || len(status.Nodes.NotProgrammed) != 1 {
				t.Fatalf("with %q, %d nodes fail", reason, status.Nodes.Failed)
			}
			texts := []string{status.Nodes.NotProgrammed[0].Message}
			for _, c := range status.Conditions {
				texts = append(texts, c.Message, c.Reason)
			}
			for _, text := range texts {
				if strings.Contains(text, "rival") || strings.Contains(text, "secret") || strings.Contains(text, "Secret") || strings.ContainsFunc(text, unicode.IsControl) {
					t.Errorf("a status of another tenant says: %s", text)
				}
			}
			c := meta.FindStatusCondition(status.Conditions, v1alpha1.ProgrammedCondition)
			if !strings.Contains(c.Message, "n1") || !strings.Contains(c.Message, "NodeEnforcement") {
				t.Errorf("it does not say which node fails, and where to look: %s", c.Message)
			}
		}
	}
}
