package rights

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/ringfence-io/ringfence/test/kit"
)

// kind is a kind of object that people or programs write. One of each is there while these tests run.
type kind struct {
	resource schema.GroupVersionResource
	object   string
}

func core(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: resource}
}

func in(group, version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
}

var (
	inDefault = `metadata: {name: one, namespace: default}`
	inSystem  = `metadata: {name: one, namespace: ` + system + `}`
	aSubject  = `spec: {tier: Admin, priority: 7, subject: {namespaces: {}}}`

	kinds = []kind{
		{core("pods"), `{apiVersion: v1, kind: Pod, ` + inDefault + `, spec: {containers: [{name: c, image: i}]}}`},
		{core("namespaces"), `{apiVersion: v1, kind: Namespace, metadata: {name: one}}`},
		{core("nodes"), `{apiVersion: v1, kind: Node, metadata: {name: one}}`},
		{core("secrets"), `{apiVersion: v1, kind: Secret, ` + inSystem + `}`},
		{core("configmaps"), `{apiVersion: v1, kind: ConfigMap, ` + inDefault + `}`},
		{core("services"), `{apiVersion: v1, kind: Service, ` + inDefault + `, spec: {clusterIP: None}}`},
		{core("serviceaccounts"), `{apiVersion: v1, kind: ServiceAccount, ` + inSystem + `}`},
		{core("events"), `{apiVersion: v1, kind: Event, ` + inDefault + `, involvedObject: {namespace: default}}`},
		{in("events.k8s.io", "v1", "events"), `{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: two, namespace: default},
			eventTime: "2026-01-01T00:00:00.000000Z", reportingController: ringfence, reportingInstance: c1, action: Look, reason: Because,
			type: Normal, regarding: {namespace: default}}`},
		{in("apps", "v1", "daemonsets"), `{apiVersion: apps/v1, kind: DaemonSet, ` + inSystem + `, spec: {selector: {matchLabels: {a: b}},
			template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`},
		{in("coordination.k8s.io", "v1", "leases"), `{apiVersion: coordination.k8s.io/v1, kind: Lease, ` + inDefault + `}`},
		{in("rbac.authorization.k8s.io", "v1", "clusterroles"),
			`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: one}, rules: []}`},
		{in("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings"),
			`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: one},
			spec: {policyName: none, validationActions: [Audit]}}`},
		{in("apiextensions.k8s.io", "v1", "customresourcedefinitions"), `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition,
			metadata: {name: ones.example.com}, spec: {group: example.com, scope: Cluster, names: {kind: One, plural: ones},
			versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}}`},
		{networkPolicies, `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, ` + inDefault + `, spec: {podSelector: {}}}`},
		{in("policy.networking.k8s.io", "v1beta1", "clusternetworkpolicies"),
			`{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: one}, ` + aSubject + `}`},
		{clusterPolicies, `{apiVersion: policy.ringfence.io/v1alpha1, kind: ClusterNetworkPolicy, metadata: {name: one}, ` + aSubject + `}`},
		{isolations, `{apiVersion: policy.ringfence.io/v1alpha1, kind: NamespaceIsolation, metadata: {name: one},
			spec: {namespaceSelector: {}, tier: Baseline}}`},
		{policyEnforcements, `{apiVersion: policy.ringfence.io/v1alpha1, kind: PolicyEnforcement, ` + inDefault + `}`},
		{nodeEnforcements, `{apiVersion: policy.ringfence.io/v1alpha1, kind: NodeEnforcement, metadata: {name: one}}`},
		{connectionReports, `{apiVersion: policy.ringfence.io/v1alpha1, kind: ConnectionReport, ` + inDefault + `}`},
		{nodeConnections, `{apiVersion: policy.ringfence.io/v1alpha1, kind: NodeConnections, metadata: {name: one}}`},
	}
	// ownKinds are what controllers write in their own namespace: a lease, by which they agree who leads, and an Event about that.
	ownKinds = []kind{
		{in("coordination.k8s.io", "v1", "leases"), `{apiVersion: coordination.k8s.io/v1, kind: Lease, ` + inSystem + `}`},
		{core("events"), `{apiVersion: v1, kind: Event, ` + inSystem + `, involvedObject: {namespace: ` + system + `}}`},
	}
	ownLease = ownKinds[0]
)

// What each program may write, of all there is: every other write is refused. Nothing is kept of what is tried here.
func TestWhatEachMayWrite(t *testing.T) {
	own := slices.Concat(kinds, ownKinds)
	for _, k := range own {
		object := parsed(k.object)
		kit.Must(t, admin.Create(t.Context(), object))
		t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), object)) })
	}
	tests := []struct {
		account string
		kinds   []kind
		want    []string
	}{
		{enforcer, own, []string{
			"create nodeenforcements.policy.ringfence.io", "patch nodeenforcements.policy.ringfence.io",
			"create nodeconnections.policy.ringfence.io", "patch nodeconnections.policy.ringfence.io",
			"patch pods/status",
		}},
		{controller, kinds, []string{
			"patch nodes", // see TestTheControllerTakesNothingFromANodeButTheStartupTaint
			"create events.events.k8s.io", "patch events.events.k8s.io",
			"patch clusternetworkpolicies.policy.networking.k8s.io/status",
			"patch clusternetworkpolicies.policy.ringfence.io/status",
			"patch namespaceisolations.policy.ringfence.io/status",
			"create policyenforcements.policy.ringfence.io", "delete policyenforcements.policy.ringfence.io",
			"patch policyenforcements.policy.ringfence.io/status",
			"create connectionreports.policy.ringfence.io", "patch connectionreports.policy.ringfence.io", "delete connectionreports.policy.ringfence.io",
		}},
		{controller, ownKinds, []string{"create events", "create leases.coordination.k8s.io", "update leases.coordination.k8s.io"}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s, %d kinds", tt.account, len(tt.kinds)), func(t *testing.T) {
			c := as(t, tt.account, "")
			var got []string
			for _, k := range tt.kinds {
				got = append(got, allowed(t, c, k)...)
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("what %s may write (-want +got):\n%s", tt.account, diff)
			}
		})
	}
}

// Questions to the API server are writes, too, though nothing is kept of them. Of what is somebody else's, each program may ask whose a token is, and
// what its owner may do; neither gets a token.
func TestWhatEachMayAsk(t *testing.T) {
	const anybody = `spec: {user: somebody, resourceAttributes: {verb: get, resource: pods, namespace: default}}`
	questions := []kind{
		{in("authentication.k8s.io", "v1", "tokenreviews"), `{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {token: forged}}`},
		{in("authorization.k8s.io", "v1", "subjectaccessreviews"), `{apiVersion: authorization.k8s.io/v1, kind: SubjectAccessReview, ` + anybody + `}`},
		{in("authorization.k8s.io", "v1", "localsubjectaccessreviews"),
			`{apiVersion: authorization.k8s.io/v1, kind: LocalSubjectAccessReview, metadata: {namespace: default}, ` + anybody + `}`},
		{core("serviceaccounts"), `{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, metadata: {namespace: default, name: default}}`},
	}
	want := []string{"subjectaccessreviews", "tokenreviews"}
	for _, account := range []string{enforcer, controller} {
		t.Run(account, func(t *testing.T) {
			c := as(t, account, "")
			var got []string
			for _, q := range questions {
				object, resource := parsed(q.object), q.resource.Resource
				var sub []string
				if object.GetKind() == "TokenRequest" {
					sub, resource = []string{"token"}, resource+"/token"
				}
				_, err := c.Resource(q.resource).Namespace(object.GetNamespace()).Create(t.Context(), object, metav1.CreateOptions{}, sub...)
				if err == nil {
					got = append(got, resource)
				} else if !withoutRight(err, "create", resource) {
					t.Errorf("asking for %s: %v", resource, err)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what %s may ask (-want +got):\n%s", account, diff)
			}
		})
	}
}

// allowed tries all writes to a kind, and returns those that are not refused for want of a right.
func allowed(t *testing.T, c dynamic.Interface, k kind) []string {
	t.Helper()
	object := parsed(k.object)
	there := &unstructured.Unstructured{}
	there.SetGroupVersionKind(object.GroupVersionKind())
	kit.Must(t, admin.Get(t.Context(), types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}, there))
	resource := c.Resource(k.resource).Namespace(object.GetNamespace())
	patch := []byte(`{"metadata": {"labels": {"touched": "yes"}}}`)
	all := []string{metav1.DryRunAll}

	var out []string
	for verb, try := range map[string]func(subresources ...string) error{
		"create": func(sub ...string) error {
			another := object.DeepCopy()
			another.SetName("another" + strings.TrimPrefix(object.GetName(), "one"))
			_, err := resource.Create(t.Context(), another, metav1.CreateOptions{DryRun: all}, sub...)
			return err
		},
		"update": func(sub ...string) error {
			_, err := resource.Update(t.Context(), there, metav1.UpdateOptions{DryRun: all}, sub...)
			return err
		},
		"patch": func(sub ...string) error {
			_, err := resource.Patch(t.Context(), there.GetName(), types.MergePatchType, patch, metav1.PatchOptions{DryRun: all}, sub...)
			return err
		},
		"delete": func(sub ...string) error {
			return resource.Delete(t.Context(), there.GetName(), metav1.DeleteOptions{DryRun: all}, sub...)
		},
		"deletecollection": func(...string) error {
			return resource.DeleteCollection(t.Context(), metav1.DeleteOptions{DryRun: all}, metav1.ListOptions{})
		},
	} {
		name := k.resource.GroupResource().String()
		if !withoutRight(try(), verb, k.resource.Resource) {
			out = append(out, verb+" "+name)
		}
		if (verb == "update" || verb == "patch") && !withoutRight(try("status"), verb, k.resource.Resource+"/status") {
			out = append(out, verb+" "+name+"/status")
		}
	}
	return out
}

// withoutRight reports whether a request was refused because no role allows it, not because of what is in it.
func withoutRight(err error, verb, resource string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), fmt.Sprintf("cannot %s resource %q", verb, resource))
}
