package rights

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/test/kit"
)

// A PolicyEnforcement from its beginning to its end.
func TestTheControllerWritesPolicyEnforcements(t *testing.T) {
	policy := parsed(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: default}, spec: {podSelector: {}}}`)
	kit.Must(t, admin.Create(t.Context(), policy))
	t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), policy)) })
	object := parsed(`{apiVersion: policy.ringfence.io/v1alpha1, kind: PolicyEnforcement, metadata: {name: web, namespace: default}}`)
	owners(metav1.OwnerReference{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: "web", UID: policy.GetUID()})(object)

	own := as(t, controller, "").Resource(policyEnforcements).Namespace("default")
	_, err := own.Create(t.Context(), object, metav1.CreateOptions{})
	kit.Must(t, err)
	object, err = own.Patch(t.Context(), "web", types.MergePatchType, []byte(`{"status": {"pods": 3}}`), metav1.PatchOptions{}, "status")
	kit.Must(t, err)
	if pods, _, _ := unstructured.NestedInt64(object.Object, "status", "pods"); pods != 3 {
		t.Errorf("the status has %d pods, want 3", pods)
	}
	_, err = own.Update(t.Context(), object, metav1.UpdateOptions{})
	refused(t, err, `cannot update resource "policyenforcements"`)
	kit.Must(t, own.Delete(t.Context(), "web", metav1.DeleteOptions{}))
}

// A status write changes nothing but the status, whatever stands in it.
func TestTheControllerWritesNothingButTheStatusOfPolicies(t *testing.T) {
	c := as(t, controller, "")
	for _, k := range kinds {
		object := parsed(k.object)
		if kind := object.GetKind(); kind != "ClusterNetworkPolicy" && kind != "NamespaceIsolation" {
			continue
		}
		t.Run(k.resource.GroupResource().String(), func(t *testing.T) {
			kit.Must(t, admin.Create(t.Context(), object))
			t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), object)) })
			patch := []byte(`{
				"metadata": {
					"labels": {"touched": "yes"}, "annotations": {"touched": "yes"}, "finalizers": ["example.com/stay"],
					"ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": "1"}]
				},
				"spec": {"tier": "Admin"},
				"status": {"conditions": [
					{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
				]}
			}`)
			updated, err := c.Resource(k.resource).Patch(t.Context(), "one", types.MergePatchType, patch, metav1.PatchOptions{}, "status")
			kit.Must(t, err)
			onlyTheStatus(t, object, updated)

			_, err = c.Resource(k.resource).Patch(t.Context(), "one", types.MergePatchType, patch, metav1.PatchOptions{})
			refused(t, err, fmt.Sprintf("User %q cannot patch resource %q in API group %q at the cluster scope",
				"system:serviceaccount:ringfence-system:ringfence-controller", k.resource.Resource, k.resource.Group))
		})
	}
}

// onlyTheStatus checks that an object differs from what it was by its status, which has been written, and nothing else.
func onlyTheStatus(t *testing.T, was, is *unstructured.Unstructured) {
	t.Helper()
	if conditions, _, _ := unstructured.NestedSlice(is.Object, "status", "conditions"); len(conditions) != 1 {
		t.Errorf("the status has %d conditions, want the one that was written", len(conditions))
	}
	if diff := cmp.Diff(plain(was), plain(is)); diff != "" {
		t.Errorf("a status write changes (-was +is):\n%s", diff)
	}
}

// plain is an object without its status and what the API server keeps of each write.
func plain(object *unstructured.Unstructured) map[string]any {
	out := object.DeepCopy()
	delete(out.Object, "status")
	out.SetManagedFields(nil)
	out.SetResourceVersion("")
	return out.Object
}

// What an enforcer says, the controller reads and cannot change.
func TestTheControllerDoesNotSpeakForNodes(t *testing.T) {
	c := as(t, controller, "")
	for _, of := range ofNodes {
		removed(t, of.says("n1"))
		kit.Must(t, apply(t.Context(), as(t, enforcer, "n1"), of.says("n1")))
		resource := resourceOf(of.says("n1"))
		all, err := c.Resource(resource).List(t.Context(), metav1.ListOptions{})
		kit.Must(t, err)
		if !slices.ContainsFunc(all.Items, func(o unstructured.Unstructured) bool { return o.GetName() == "n1" }) {
			t.Errorf("it sees %d %s, and not that of n1", len(all.Items), resource.Resource)
		}
		const who = `User "system:serviceaccount:ringfence-system:ringfence-controller" cannot `
		refused(t, apply(t.Context(), c, of.says("n1", set(of.another, "status", of.field))), who+`patch resource "`+resource.Resource+`"`)
		refused(t, c.Resource(resource).Delete(t.Context(), "n1", metav1.DeleteOptions{}), who+`delete resource "`+resource.Resource+`"`)
	}
}

// A ConnectionReport from its beginning to its end, as the controller writes it. An enforcer writes none.
func TestTheControllerWritesConnectionReports(t *testing.T) {
	said := parsed(`{apiVersion: policy.ringfence.io/v1alpha1, kind: ConnectionReport, metadata: {name: connections, namespace: default}, status: {denied: 3}}`)
	options := metav1.ApplyOptions{FieldManager: "ringfence-controller", Force: true}
	_, err := as(t, enforcer, "n1").Resource(connectionReports).Namespace("default").Apply(t.Context(), "connections", said, options)
	refused(t, err, `User "system:serviceaccount:ringfence-system:ringfence-enforcer" cannot patch resource "connectionreports"`)

	own := as(t, controller, "").Resource(connectionReports).Namespace("default")
	object, err := own.Apply(t.Context(), "connections", said, options)
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, client.IgnoreNotFound(admin.Delete(context.Background(), said))) })
	_, err = own.Update(t.Context(), object, metav1.UpdateOptions{})
	refused(t, err, `cannot update resource "connectionreports"`)
	kit.Must(t, own.Delete(t.Context(), "connections", metav1.DeleteOptions{}))
}

// Whoever leads says so in one namespace alone.
func TestTheControllerHasItsOwnLeases(t *testing.T) {
	c := as(t, controller, "").Resource(ownLease.resource)
	lease := parsed(ownLease.object)
	lease, err := c.Namespace(system).Create(t.Context(), lease, metav1.CreateOptions{})
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, client.IgnoreNotFound(admin.Delete(context.Background(), lease))) })
	lease, err = c.Namespace(system).Get(t.Context(), lease.GetName(), metav1.GetOptions{})
	kit.Must(t, err)
	_, err = c.Namespace(system).Update(t.Context(), lease, metav1.UpdateOptions{})
	kit.Must(t, err)

	_, err = c.Namespace("kube-system").Get(t.Context(), "kube-scheduler", metav1.GetOptions{})
	refused(t, err, `cannot get resource "leases" in API group "coordination.k8s.io" in the namespace "kube-system"`)
}
