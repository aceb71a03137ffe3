package rights

import (
	"context"
	"fmt"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/test/kit"
)

func TestAnEnforcerWritesItsOwnNode(t *testing.T) {
	n1, owner := as(t, enforcer, "n1"), boundTo(t.Context(), "n1")
	removed(t, "n1")
	ownedBy := func(uid types.UID) func(*unstructured.Unstructured) {
		return owners(metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: "n1", UID: uid})
	}
	steps := []struct {
		name   string
		object *unstructured.Unstructured
	}{
		{"it makes the object", report("n1", ownedBy(owner.UID))},
		{"it changes it", report("n1", ownedBy(owner.UID), set("legacy", "status", "backend"))},
		{"the Node was made anew", report("n1", ownedBy("00000000-0000-0000-0000-000000000001"))},
		{"it names no owner any more", report("n1")},
	}
	for _, step := range steps {
		if err := apply(t.Context(), n1, step.object); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	got := &unstructured.Unstructured{Object: report("n1").Object}
	kit.Must(t, admin.Get(t.Context(), client.ObjectKey{Name: "n1"}, got))
	if backend, _, _ := unstructured.NestedString(got.Object, "status", "backend"); backend != "nft" {
		t.Errorf("the backend is %q, want what was applied last", backend)
	}
}

func TestAnEnforcerWritesNothingElse(t *testing.T) {
	n1, owner := as(t, enforcer, "n1"), boundTo(t.Context(), "n1")
	other := boundTo(t.Context(), "n2")
	removed(t, "n1")
	removed(t, "n2")
	kit.Must(t, apply(t.Context(), as(t, enforcer, "n2"), report("n2")))

	const notOurs = "the token of this enforcer is for node n1, so that it may write NodeEnforcement n1 and no other. " +
		"If this is not the name of its node, mend --node-name"
	const notAnOwner = "an enforcer may name no other owner of its NodeEnforcement than Node n1, and without blockOwnerDeletion"
	const noFinalizer = "an enforcer may not change the finalizers of its NodeEnforcement: it has to go when its Node does"
	const noRight = `User "system:serviceaccount:ringfence-system:ringfence-enforcer" cannot `
	ownedBy := func(apiVersion, kind, name string, uid types.UID, block bool) *unstructured.Unstructured {
		return report("n1", owners(metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid, BlockOwnerDeletion: &block}))
	}
	applied := func(object *unstructured.Unstructured) func() error {
		return func() error { return apply(t.Context(), n1, object) }
	}
	both := ownedBy("v1", "Node", "n1", owner.UID, false)
	kit.Must(t, unstructured.SetNestedSlice(both.Object, []any{
		map[string]any{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": string(owner.UID)},
		map[string]any{"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": string(other.UID)},
	}, "metadata", "ownerReferences"))

	tests := []struct {
		name string
		try  func() error
		why  string
	}{
		{"another node's object, which is there", applied(report("n2", set("legacy", "status", "backend"))), notOurs},
		{"another node's object, which is not", applied(report("n3")), notOurs},
		{"an object of any name", func() error {
			object := report("")
			object.SetGenerateName("n")
			_, err := n1.Resource(nodeEnforcements).Create(t.Context(), object, metav1.CreateOptions{})
			return err
		}, notOurs},
		{"a patch of another node's object", func() error {
			patch := []byte(`{"status": {"backend": "legacy"}}`)
			_, err := n1.Resource(nodeEnforcements).Patch(t.Context(), "n2", types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		}, notOurs},
		{"a finalizer", applied(report("n1", func(o *unstructured.Unstructured) { o.SetFinalizers([]string{"example.com/stay"}) })), noFinalizer},
		{"another Node as the owner", applied(ownedBy("v1", "Node", "n2", other.UID, false)), notAnOwner},
		{"another kind as the owner", applied(ownedBy("v1", "Namespace", "n1", owner.UID, false)), notAnOwner},
		{"another group's Node as the owner", applied(ownedBy("example.com/v1", "Node", "n1", owner.UID, false)), notAnOwner},
		{"another owner beside the Node", applied(both), notAnOwner},
		{"an owner that it holds up", applied(ownedBy("v1", "Node", "n1", owner.UID, true)), notAnOwner},
		{"the end of another's object", func() error {
			return n1.Resource(nodeEnforcements).Delete(t.Context(), "n2", metav1.DeleteOptions{})
		}, noRight + `delete resource "nodeenforcements"`},
		{"the end of its own", func() error {
			return n1.Resource(nodeEnforcements).Delete(t.Context(), "n1", metav1.DeleteOptions{})
		}, noRight + `delete resource "nodeenforcements"`},
	}
	for _, there := range []bool{false, true} {
		if there {
			kit.Must(t, apply(t.Context(), n1, report("n1")))
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, its own there: %t", tt.name, there), func(t *testing.T) { refused(t, tt.try(), tt.why) })
		}
	}
}

// Whatever else somebody lets enforcers do, the admission policy holds.
func TestAWiderRoleDoesNotHelp(t *testing.T) {
	removed(t, "n1")
	removed(t, "n2")
	n1 := as(t, enforcer, "n1")
	kit.Must(t, apply(t.Context(), n1, report("n1")))
	kit.Must(t, apply(t.Context(), as(t, enforcer, "n2"), report("n2")))
	role := parsed(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: wide},
		rules: [{apiGroups: [policy.ringfence.io], resources: ["*"], verbs: ["*"]}]}`)
	binding := parsed(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: wide},
		roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: wide},
		subjects: [{kind: ServiceAccount, namespace: ringfence-system, name: ringfence-enforcer}]}`)
	kit.Must(t, admin.Create(t.Context(), role))
	kit.Must(t, admin.Create(t.Context(), binding))
	untilWide(t, n1, true)
	t.Cleanup(func() {
		kit.Must(t, admin.Delete(context.Background(), binding))
		kit.Must(t, admin.Delete(context.Background(), role))
		untilWide(t, n1, false)
	})

	own := n1.Resource(nodeEnforcements)
	const deletesNone = "an enforcer deletes no NodeEnforcement: it goes when its Node does"
	for _, name := range []string{"n1", "n2"} {
		refused(t, own.Delete(t.Context(), name, metav1.DeleteOptions{}), deletesNone)
	}
	refused(t, own.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}), deletesNone)
	n2, err := own.Get(t.Context(), "n2", metav1.GetOptions{})
	kit.Must(t, err)
	_, err = own.Update(t.Context(), n2, metav1.UpdateOptions{})
	refused(t, err, "the token of this enforcer is for node n1")
}

// untilWide waits until a role that lets enforcers read what they write is in force, or is not any more.
func untilWide(t *testing.T, enforcer dynamic.Interface, wide bool) {
	t.Helper()
	kit.Eventually(t, patience, fmt.Sprintf("the role counts: %t", wide), func() bool {
		_, err := enforcer.Resource(nodeEnforcements).List(context.Background(), metav1.ListOptions{})
		if err != nil && !apierrors.IsForbidden(err) {
			t.Fatal(err)
		}
		return (err == nil) == wide
	})
}

// The claim is what counts, wherever it comes from.
func TestTheTokenSaysWhichNode(t *testing.T) {
	removed(t, "n1")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "enforcer-x"},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: enforcer, HostNetwork: true,
			Containers: []corev1.Container{{Name: "enforcer", Image: "ringfence"}}},
	}
	kit.Must(t, admin.Create(t.Context(), pod))
	t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), pod, client.GracePeriodSeconds(0))) })
	ofPod := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}

	t.Run("a pod's", func(t *testing.T) {
		c := asBoundTo(t, enforcer, ofPod)
		kit.Must(t, apply(t.Context(), c, report("n1")))
		refused(t, apply(t.Context(), c, report("n2")), "the token of this enforcer is for node n1")
	})
	t.Run("one that is bound to nothing", func(t *testing.T) {
		refused(t, apply(t.Context(), as(t, enforcer, ""), report("n1")),
			"the token of this enforcer does not say which node it is for, so that it may write no NodeEnforcement. Run the enforcer by its "+
				"DaemonSet, with the token of its pod and not one from a Secret, on Kubernetes 1.32 or later (from 1.30 on with the feature gate "+
				"ServiceAccountTokenPodNodeInfo). Outside of a pod, give it a token from 'kubectl create token' with --bound-object-kind Node")
	})
}

// What others have put into the object is no reason to refuse what the enforcer says; it may not take it out either.
func TestWhatOthersPutThereStays(t *testing.T) {
	n1 := as(t, enforcer, "n1")
	removed(t, "n1")
	kit.Must(t, apply(t.Context(), n1, report("n1")))
	patched(t, `{"metadata": {"finalizers": ["example.com/look"], "labels": {"example.com/rack": "7"},
		"ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "x", "uid": "1"}]}}`)
	t.Cleanup(func() { patched(t, `{"metadata": {"finalizers": null}}`) })

	kit.Must(t, apply(t.Context(), n1, report("n1", set("legacy", "status", "backend"))))
	for patch, why := range map[string]string{
		`{"metadata": {"finalizers": null}}`: "an enforcer may not change the finalizers",
		`{"metadata": {"ownerReferences": [{"apiVersion":"v1","kind":"Pod","name":"n1","uid":"2"}]}}`: "an enforcer may name no other owner",
	} {
		_, err := n1.Resource(nodeEnforcements).Patch(t.Context(), "n1", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		refused(t, err, why)
	}
}

// The policy is about enforcers: an administrator writes as before, and deletes.
func TestOthersAreNotHeldUp(t *testing.T) {
	removed(t, "n1")
	object := report("n1", func(o *unstructured.Unstructured) { o.SetFinalizers([]string{"example.com/stay"}) })
	kit.Must(t, admin.Create(t.Context(), object))
	patched(t, `{"metadata": {"finalizers": null}}`)
	kit.Must(t, admin.Delete(t.Context(), object))
}

// patched changes NodeEnforcement n1 as an administrator.
func patched(t *testing.T, patch string) {
	t.Helper()
	kit.Must(t, admin.Patch(context.Background(), report("n1"), client.RawPatch(types.MergePatchType, []byte(patch))))
}

// removed sees to it that a NodeEnforcement is not there, now and after the test.
func removed(t *testing.T, name string) {
	t.Helper()
	remove := func() { kit.Must(t, client.IgnoreNotFound(admin.Delete(context.Background(), report(name)))) }
	remove()
	t.Cleanup(remove)
}

func set(value string, field ...string) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) {
		if err := unstructured.SetNestedField(o.Object, value, field...); err != nil {
			panic(err)
		}
	}
}

func owners(refs ...metav1.OwnerReference) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) { o.SetOwnerReferences(refs) }
}
