package rights

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/controllers/startup"
	"github.com/ringfence-io/ringfence/test/kit"
)

// tainted is a node as one that has just been registered: with the startup taint in two effects, between others' taints.
const tainted = `{apiVersion: v1, kind: Node, metadata: {name: tainted, labels: {zone: a}, annotations: {note: b}}, spec: {podCIDR: 10.244.9.0/24,
	podCIDRs: [10.244.9.0/24], providerID: "kind://9", unschedulable: true, taints: [
	{key: node.ringfence.io/not-ready, effect: NoSchedule}, {key: example.com/gpu, value: "1", effect: NoSchedule},
	{key: node.ringfence.io/not-ready, effect: NoExecute, value: "yes"}, {key: example.com/gpu, effect: NoExecute}]}}`

// without takes the startup taint away.
const without = `{"op": "remove", "path": "/spec/taints/2"}, {"op": "remove", "path": "/spec/taints/0"}`

// Whoever has the controller's token can take this one taint from nodes, and do nothing else to them.
func TestTheControllerTakesNothingFromANodeButTheStartupTaint(t *testing.T) {
	object := parsed(tainted)
	kit.Must(t, admin.Create(t.Context(), object))
	t.Cleanup(func() { kit.Must(t, client.IgnoreNotFound(admin.Delete(context.Background(), object))) })
	nodes := as(t, controller, "").Resource(core("nodes"))
	held(t, nodes)

	const others = "of the taints of a node the controller takes away node.ringfence.io/not-ready, with all its effects, and leaves the others as they are"
	for _, tt := range []struct{ name, patch, why string }{
		{"another taint goes", `{"op": "remove", "path": "/spec/taints/1"}`, others},
		{"another taint goes too", without + `, {"op": "remove", "path": "/spec/taints/0"}`, others},
		{"another taint changes", without + `, {"op": "replace", "path": "/spec/taints/0/value", "value": "2"}`, others},
		{"others change their order", without + `, {"op": "move", "from": "/spec/taints/1", "path": "/spec/taints/0"}`, others},
		{"one effect of two goes", `{"op": "remove", "path": "/spec/taints/2"}`, others},
		{"a taint comes", without + `, {"op": "add", "path": "/spec/taints/-", "value": {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}}`, others},
		{"the taint comes again", `{"op": "add", "path": "/spec/taints/-", "value": {"key": "node.ringfence.io/not-ready", "effect": "PreferNoSchedule"}}`, others},
		{"a cordon goes", without + `, {"op": "remove", "path": "/spec/unschedulable"}`, "changes nothing of a node's spec but one taint"},
		{"a label changes", without + `, {"op": "replace", "path": "/metadata/labels/zone", "value": "b"}`, "changes nothing of a node's metadata"},
		{"a label comes", without + `, {"op": "add", "path": "/metadata/labels/more", "value": "b"}`, "changes nothing of a node's metadata"},
		{"the annotations go", without + `, {"op": "remove", "path": "/metadata/annotations"}`, "changes nothing of a node's metadata"},
		{"a finalizer comes", without + `, {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/stay"]}`, "changes nothing of a node's metadata"},
		{"an owner comes", without + `, {"op": "add", "path": "/metadata/ownerReferences", "value":
			[{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "1"}]}`, "changes nothing of a node's metadata"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := nodes.Patch(t.Context(), "tainted", types.JSONPatchType, []byte("["+tt.patch+"]"), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			refused(t, err, tt.why)
		})
	}
	t.Run("its status", func(t *testing.T) {
		_, err := nodes.Patch(t.Context(), "tainted", types.MergePatchType, []byte(`{"status": {"phase": "Pending"}}`), metav1.PatchOptions{}, "status")
		refused(t, err, `cannot patch resource "nodes/status"`)
	})

	after, err := nodes.Patch(t.Context(), "tainted", types.JSONPatchType, []byte("["+without+"]"), metav1.PatchOptions{})
	kit.Must(t, err)
	taints := func(object *unstructured.Unstructured) []any {
		list, _, err := unstructured.NestedSlice(object.Object, "spec", "taints")
		kit.Must(t, err)
		return list
	}
	isOurs := func(taint any) bool { return taint.(map[string]any)["key"] == startup.DefaultTaint }
	if diff := cmp.Diff(slices.DeleteFunc(taints(object), isOurs), taints(after)); diff != "" || len(taints(after)) < 2 {
		t.Errorf("the taints that are left (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"zone": "a"}, after.GetLabels()); diff != "" {
		t.Errorf("the labels (-want +got):\n%s", diff)
	}
	_, err = nodes.Patch(t.Context(), "tainted", types.JSONPatchType, []byte(`[{"op": "remove", "path": "/spec/taints/0"}]`), metav1.PatchOptions{})
	refused(t, err, others)
}

// The controller's policy does not hold others.
func TestOthersWriteNodesAsEver(t *testing.T) {
	object := parsed(`{apiVersion: v1, kind: Node, metadata: {name: free}, spec: {taints: [{key: a, effect: NoSchedule}]}}`)
	kit.Must(t, admin.Create(t.Context(), object))
	t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), object)) })
	unstructured.RemoveNestedField(object.Object, "spec", "taints")
	object.SetLabels(map[string]string{"touched": "yes"})
	kit.Must(t, admin.Update(t.Context(), object))
}

// held waits until the API server holds the controller to its admission policy.
func held(t *testing.T, nodes dynamic.NamespaceableResourceInterface) {
	t.Helper()
	kit.Eventually(t, patience, "the admission policy counts", func() bool {
		_, err := nodes.Patch(t.Context(), "tainted", types.MergePatchType, []byte(`{"metadata": {"labels": {"touched": "yes"}}}`),
			metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsForbidden(err)
	})
}
