package crds

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// A row is an object and what becomes of it.
type row struct {
	name string
	spec string // YAML; empty is no spec at all
	// refused is all that a person reads about it; empty if the object is accepted.
	refused string
}

// check sends each row's object to the server, which keeps nothing of it.
func check(t *testing.T, kind string, rows []row) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			_, err := dryRun(t, object(t, v1alpha1.GroupVersion.String(), kind, r.spec))
			if diff := cmp.Diff(r.refused, reasons(t, err)); diff != "" {
				t.Errorf("the server says (-want +got):\n%s", diff)
			}
		})
	}
}

// reasons are the fields that an object was refused for, each with its reason.
func reasons(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Reason != metav1.StatusReasonInvalid {
		t.Fatalf("the server cannot judge the object: %v", err)
	}
	var out []string
	for _, cause := range status.Status().Details.Causes {
		if cause.Field == "<nil>" {
			continue // the server's remark that there may be more
		}
		out = append(out, cause.Field+": "+cause.Message)
	}
	return strings.Join(out, "; ")
}

const objectName = "under-test"

// object makes an object of a spec, whatever it says.
func object(t *testing.T, apiVersion, kind, spec string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": objectName},
	}}
	if spec != "" {
		var fields any
		if err := yaml.Unmarshal([]byte(spec), &fields); err != nil {
			t.Fatalf("reading the spec %s: %v", spec, err)
		}
		o.Object["spec"] = fields
	}
	return o
}

// dryRun is what the server would keep of an object.
func dryRun(t *testing.T, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	t.Helper()
	out := o.DeepCopy()
	err := server.Create(t.Context(), out, client.DryRunAll)
	return out, err
}

// What follows writes specs around the part that a row is about.

// policy is a ClusterNetworkPolicy's spec with more fields.
func policy(more string) string {
	return "{tier: Admin, priority: 1, subject: {namespaces: {}}, " + more + "}"
}

func subject(s string) string { return "{tier: Admin, priority: 1, subject: " + s + "}" }

// selector stands where any selector could.
func selector(s string) string { return subject("{namespaces: " + s + "}") }

// expression is a selector of one requirement.
func expression(s string) string { return selector("{matchExpressions: [" + s + "]}") }

func from(peer string) string { return policy("ingress: [{action: Deny, from: [" + peer + "]}]") }

func to(peer string) string { return policy("egress: [{action: Deny, to: [" + peer + "]}]") }

// ingress is an ingress rule from all pods with more fields.
func ingress(more string) string {
	return policy("ingress: [{from: [{namespaces: {}}], " + more + "}]")
}

// egress is an egress rule to all pods with more fields.
func egress(more string) string { return policy("egress: [{to: [{namespaces: {}}], " + more + "}]") }

func protocol(p string) string { return ingress("action: Accept, protocols: [" + p + "]") }

func port(p string) string { return protocol("{tcp: {destinationPort: " + p + "}}") }

// isolation is a NamespaceIsolation's spec with more fields.
func isolation(more string) string { return "{namespaceSelector: {}, " + more + "}" }

// times is a YAML list of n items made by a format that counts.
func times(n int, format string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = strings.ReplaceAll(format, "#", fmt.Sprint(i))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// fields is a YAML map of n entries.
func fields(n int, format string) string {
	list := times(n, format)
	return "{" + list[1:len(list)-1] + "}"
}
