package crds

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/apiserver"
	"github.com/ringfence-io/ringfence/test/kit"
)

// patience is how long the server may take to serve a kind as it has become.
const patience = 30 * time.Second

// A policy that was stored before its CIDRs had to be masked can be changed, and its status written, as long as its networks stay. Whoever changes its rules
// is told what to write.
func TestCIDRsThatAreStoredAlreadyMayStay(t *testing.T) {
	const unmasked = "ingress: [{action: Deny, from: [{networks: [10.0.0.1/8]}]}]"
	o := object(t, v1alpha1.GroupVersion.String(), "ClusterNetworkPolicy", policy(unmasked+", egress: [{action: Deny, to: [{namespaces: {}}]}]"))
	storeUnmasked(t, o)

	changes := []struct {
		name, patch, refused string
	}{
		{"a label", `{"metadata":{"labels":{"a":"b"}}}`, ""},
		{"the priority", `{"spec":{"priority":2}}`, ""},
		{"the rules of the other direction", `{"spec":{"egress":[]}}`, ""},
		{"another rule beside it", `{"spec":{"ingress":[{"action":"Deny","from":[{"networks":["10.0.0.1/8"]}]},{"action":"Deny","from":[{"namespaces":{}}]}]}}`,
			`spec.ingress[0].from[0].networks[0]: Invalid value: "10.0.0.1/8": bits behind the prefix must be zero: write 10.0.0.0/8 for 10.1.2.3/8`},
		{"what it should be", `{"spec":{"ingress":[{"action":"Deny","from":[{"networks":["10.0.0.0/8"]}]}]}}`, ""},
	}
	for _, tt := range changes {
		t.Run(tt.name, func(t *testing.T) {
			err := server.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(tt.patch)), client.DryRunAll)
			if diff := cmp.Diff(tt.refused, reasons(t, err)); diff != "" {
				t.Errorf("the server says (-want +got):\n%s", diff)
			}
		})
	}
	status := `{"status":{"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
	if err := server.Status().Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(status))); err != nil {
		t.Errorf("its status cannot be written: %v", err)
	}
}

// storeUnmasked stores an object that the server refuses for its CIDRs, while the CRD does not ask for masked ones.
func storeUnmasked(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	asking := readCRDs(t, apiserver.CRDs)
	for _, crd := range asking {
		if crd.Spec.Names.Kind == o.GetKind() {
			lax := crd.DeepCopy()
			for i := range lax.Spec.Versions {
				if forgets := forget(lax.Spec.Versions[i].Schema.OpenAPIV3Schema, "masked()"); forgets != 2 {
					t.Fatalf("the CRD asks %d times for masked CIDRs, want twice", forgets)
				}
			}
			replace(t, lax)
			t.Cleanup(func() { replace(t, crd) })
			kit.EventuallySucceeds(t, patience, "the server stores it", func(ctx context.Context) error { return server.Create(ctx, o) })
			t.Cleanup(func() { _ = server.Delete(context.Background(), o) })
			replace(t, crd)
			refused := object(t, o.GetAPIVersion(), o.GetKind(), "")
			refused.Object["spec"] = o.Object["spec"]
			refused.SetName("refused")
			kit.EventuallySucceeds(t, patience, "the server asks for masked CIDRs again", func(context.Context) error {
				if _, err := dryRun(t, refused); err == nil {
					return fmt.Errorf("it takes others")
				}
				return nil
			})
		}
	}
}

// forget takes the rules that have a text out of a schema, and says how many there were.
func forget(schema *apiextensionsv1.JSONSchemaProps, text string) int {
	forgotten := 0
	kept := schema.XValidations[:0]
	for _, rule := range schema.XValidations {
		if strings.Contains(rule.Rule, text) {
			forgotten++
			continue
		}
		kept = append(kept, rule)
	}
	schema.XValidations = kept
	for name, field := range schema.Properties {
		forgotten += forget(&field, text)
		schema.Properties[name] = field
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		forgotten += forget(schema.Items.Schema, text)
	}
	return forgotten
}

// replace gives a CRD of the server another spec.
func replace(t *testing.T, with *apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	kit.EventuallySucceeds(t, patience, "the CRD is another", func(ctx context.Context) error {
		crd := new(apiextensionsv1.CustomResourceDefinition)
		if err := server.Get(ctx, client.ObjectKeyFromObject(with), crd); err != nil {
			return err
		}
		crd.Spec = with.Spec
		return server.Update(ctx, crd)
	})
}
