package crds

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

func TestDefaults(t *testing.T) {
	tests := []struct {
		name, kind, written, kept string
	}{
		{"a policy is enforced", "ClusterNetworkPolicy",
			"{tier: Baseline, priority: 0, subject: {namespaces: {}}}",
			"{tier: Baseline, priority: 0, subject: {namespaces: {}}, mode: Enforce}"},
		{"what is written stays", "ClusterNetworkPolicy",
			"{tier: Baseline, priority: 0, subject: {namespaces: {}}, mode: Audit}",
			"{tier: Baseline, priority: 0, subject: {namespaces: {}}, mode: Audit}"},
		{"rules get nothing", "ClusterNetworkPolicy",
			"{mode: Enforce, tier: Admin, priority: 1, subject: {pods: {podSelector: {}}}, ingress: [{action: Pass, from: [{nodes: {}}]}]}",
			"{mode: Enforce, tier: Admin, priority: 1, subject: {pods: {podSelector: {}}}, ingress: [{action: Pass, from: [{nodes: {}}]}]}"},
		{"an isolation is enforced, in the Baseline tier, both ways, and allows its tenant and DNS", "NamespaceIsolation",
			"{namespaceSelector: {}}",
			"{namespaceSelector: {}, mode: Enforce, tier: Baseline, directions: [Ingress, Egress], allow: {sameTenant: true, dns: true}}"},
		{"what is null is not written", "NamespaceIsolation",
			"{namespaceSelector: {}, mode: null, tier: null, directions: null, allow: {sameTenant: null}}",
			"{namespaceSelector: {}, mode: Enforce, tier: Baseline, directions: [Ingress, Egress], allow: {sameTenant: true, dns: true}}"},
		{"one allowance leaves the others", "NamespaceIsolation",
			"{namespaceSelector: {}, tier: Admin, directions: [Ingress], allow: {ingress: [{from: [{nodes: {}}]}]}}",
			"{namespaceSelector: {}, mode: Enforce, tier: Admin, directions: [Ingress], allow: {sameTenant: true, dns: true, ingress: [{from: [{nodes: {}}]}]}}"},
		{"what is refused to a tenant stays refused", "NamespaceIsolation",
			"{namespaceSelector: {}, mode: Audit, allow: {sameTenant: false, dns: false}}",
			"{namespaceSelector: {}, mode: Audit, tier: Baseline, directions: [Ingress, Egress], allow: {sameTenant: false, dns: false}}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := dryRun(t, object(t, v1alpha1.GroupVersion.String(), tt.kind, tt.written))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(toYAML(t, object(t, "", "", tt.kept).Object["spec"]), toYAML(t, got.Object["spec"])); diff != "" {
				t.Errorf("the server keeps (-want +got):\n%s", diff)
			}
		})
	}
}

// toYAML makes text that differs where the values do: numbers come in several Go types.
func toYAML(t *testing.T, value any) string {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
