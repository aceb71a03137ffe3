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

// ofNodes are the two kinds that an enforcer writes of its node. A field of each has a value here, and another one that it can have as well.
var ofNodes = []struct {
	kind           string
	says           func(node string, with ...func(*unstructured.Unstructured)) *unstructured.Unstructured
	field          string
	value, another string
}{
	{"NodeEnforcement", report, "backend", "nft", "legacy"},
	{"NodeConnections", seenBy, "since", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},
}

func TestAnEnforcerWritesItsOwnNode(t *testing.T) {
	n1, owner := as(t, enforcer, "n1"), boundTo(t.Context(), "n1")
	ownedBy := func(uid types.UID) func(*unstructured.Unstructured) {
		return owners(metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: "n1", UID: uid})
	}
	for _, of := range ofNodes {
		t.Run(of.kind, func(t *testing.T) {
			removed(t, of.says("n1"))
			steps := []struct {
				name   string
				object *unstructured.Unstructured
			}{
				{"it makes the object", of.says("n1", ownedBy(owner.UID))},
				{"it changes it", of.says("n1", ownedBy(owner.UID), set(of.another, "status", of.field))},
				{"the Node was made anew", of.says("n1", ownedBy("00000000-0000-0000-0000-000000000001"))},
				{"it names no owner any more", of.says("n1")},
			}
			for _, step := range steps {
				if err := apply(t.Context(), n1, step.object); err != nil {
					t.Errorf("%s: %v", step.name, err)
				}
			}
			got := of.says("n1")
			kit.Must(t, admin.Get(t.Context(), client.ObjectKey{Name: "n1"}, got))
			if value, _, _ := unstructured.NestedString(got.Object, "status", of.field); value != of.value {
				t.Errorf("%s is %q, want what was applied last", of.field, value)
			}
		})
	}
}

func TestAnEnforcerWritesNothingElse(t *testing.T) {
	n1, owner := as(t, enforcer, "n1"), boundTo(t.Context(), "n1")
	other := boundTo(t.Context(), "n2")
	const noFinalizer = "an enforcer may not change the finalizers of what it writes of its node: it has to go when its Node does"
	const noRight = `User "system:serviceaccount:ringfence-system:ringfence-enforcer" cannot `
	for _, of := range ofNodes {
		removed(t, of.says("n1"))
		removed(t, of.says("n2"))
		kit.Must(t, apply(t.Context(), as(t, enforcer, "n2"), of.says("n2")))
		resource := resourceOf(of.says("n1"))
		notOurs := "the token of this enforcer is for node n1, so that it may write " + of.kind + " n1 and no other. " +
			"If this is not the name of its node, mend --node-name"
		notAnOwner := "an enforcer may name no other owner of its " + of.kind + " than Node n1, and without blockOwnerDeletion"
		ownedBy := func(apiVersion, kind, name string, uid types.UID, block bool) *unstructured.Unstructured {
			return of.says("n1", owners(metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid, BlockOwnerDeletion: &block}))
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
			{"another node's object, which is there", applied(of.says("n2", set(of.another, "status", of.field))), notOurs},
			{"another node's object, which is not", applied(of.says("n3")), notOurs},
			{"what another node's object says, asked for by a change that is not carried out", func() error {
				return apply(t.Context(), n1, parsed(`{apiVersion: policy.ringfence.io/v1alpha1, kind: `+of.kind+`, metadata: {name: n2}}`), metav1.DryRunAll)
			}, notOurs},
			{"an object of any name", func() error {
				object := of.says("")
				object.SetGenerateName("n")
				_, err := n1.Resource(resource).Create(t.Context(), object, metav1.CreateOptions{})
				return err
			}, notOurs},
			{"a patch of another node's object", func() error {
				patch := fmt.Appendf(nil, `{"status": {%q: %q}}`, of.field, of.another)
				_, err := n1.Resource(resource).Patch(t.Context(), "n2", types.MergePatchType, patch, metav1.PatchOptions{})
				return err
			}, notOurs},
			{"a finalizer", applied(of.says("n1", func(o *unstructured.Unstructured) { o.SetFinalizers([]string{"example.com/stay"}) })), noFinalizer},
			{"another Node as the owner", applied(ownedBy("v1", "Node", "n2", other.UID, false)), notAnOwner},
			{"another kind as the owner", applied(ownedBy("v1", "Namespace", "n1", owner.UID, false)), notAnOwner},
			{"another group's Node as the owner", applied(ownedBy("example.com/v1", "Node", "n1", owner.UID, false)), notAnOwner},
			{"another owner beside the Node", applied(both), notAnOwner},
			{"an owner that it holds up", applied(ownedBy("v1", "Node", "n1", owner.UID, true)), notAnOwner},
			{"the end of another's object", func() error {
				return n1.Resource(resource).Delete(t.Context(), "n2", metav1.DeleteOptions{})
			}, noRight + `delete resource "` + resource.Resource},
			{"the end of its own", func() error {
				return n1.Resource(resource).Delete(t.Context(), "n1", metav1.DeleteOptions{})
			}, noRight + `delete resource "` + resource.Resource},
			{"to read its own", func() error {
				_, err := n1.Resource(resource).Get(t.Context(), "n1", metav1.GetOptions{})
				return err
			}, noRight + `get resource "` + resource.Resource},
			{"to read all", func() error {
				_, err := n1.Resource(resource).List(t.Context(), metav1.ListOptions{})
				return err
			}, noRight + `list resource "` + resource.Resource},
		}
		for _, there := range []bool{false, true} {
			if there {
				kit.Must(t, apply(t.Context(), n1, of.says("n1")))
			}
			for _, tt := range tests {
				t.Run(fmt.Sprintf("%s: %s, its own there: %t", of.kind, tt.name, there), func(t *testing.T) { refused(t, tt.try(), tt.why) })
			}
		}
	}
}

// Whatever else somebody lets enforcers do, the admission policy holds.
func TestAWiderRoleDoesNotHelp(t *testing.T) {
	n1, other := as(t, enforcer, "n1"), as(t, enforcer, "n2")
	for _, of := range ofNodes {
		removed(t, of.says("n1"))
		removed(t, of.says("n2"))
		kit.Must(t, apply(t.Context(), n1, of.says("n1")))
		kit.Must(t, apply(t.Context(), other, of.says("n2")))
	}
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

	const deletesNone = "an enforcer deletes no NodeEnforcement and no NodeConnections: they go when their Node does"
	for _, of := range ofNodes {
		own := n1.Resource(resourceOf(of.says("n1")))
		for _, name := range []string{"n1", "n2"} {
			refused(t, own.Delete(t.Context(), name, metav1.DeleteOptions{}), deletesNone)
		}
		refused(t, own.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}), deletesNone)
		n2, err := own.Get(t.Context(), "n2", metav1.GetOptions{})
		kit.Must(t, err)
		_, err = own.Update(t.Context(), n2, metav1.UpdateOptions{})
		refused(t, err, "the token of this enforcer is for node n1")
	}
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
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "enforcer-x"},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: enforcer, HostNetwork: true,
			Containers: []corev1.Container{{Name: "enforcer", Image: "ringfence"}}},
	}
	kit.Must(t, admin.Create(t.Context(), pod))
	t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), pod, client.GracePeriodSeconds(0))) })
	ofPod := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}

	for _, of := range ofNodes {
		removed(t, of.says("n1"))
		t.Run(of.kind+", a pod's", func(t *testing.T) {
			c := asBoundTo(t, enforcer, ofPod)
			kit.Must(t, apply(t.Context(), c, of.says("n1")))
			refused(t, apply(t.Context(), c, of.says("n2")), "the token of this enforcer is for node n1")
		})
		t.Run(of.kind+", one that is bound to nothing", func(t *testing.T) {
			refused(t, apply(t.Context(), as(t, enforcer, ""), of.says("n1")),
				"the token of this enforcer does not say which node it is for, so that it may write nothing of a node. Run the enforcer by its "+
					"DaemonSet, with the token of its pod and not one from a Secret, on Kubernetes 1.32 or later (from 1.30 on with the feature gate "+
					"ServiceAccountTokenPodNodeInfo). Outside of a pod, give it a token from 'kubectl create token' with --bound-object-kind Node")
		})
	}
}

// What others have put into the object is no reason to refuse what the enforcer says; it may not take it out either.
func TestWhatOthersPutThereStays(t *testing.T) {
	n1 := as(t, enforcer, "n1")
	for _, of := range ofNodes {
		t.Run(of.kind, func(t *testing.T) {
			removed(t, of.says("n1"))
			kit.Must(t, apply(t.Context(), n1, of.says("n1")))
			patched(t, of.says("n1"), `{"metadata": {"finalizers": ["example.com/look"], "labels": {"example.com/rack": "7"},
				"ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "x", "uid": "1"}]}}`)
			t.Cleanup(func() { patched(t, of.says("n1"), `{"metadata": {"finalizers": null}}`) })

			kit.Must(t, apply(t.Context(), n1, of.says("n1", set(of.another, "status", of.field))))
			for patch, why := range map[string]string{
				`{"metadata": {"finalizers": null}}`: "an enforcer may not change the finalizers",
				`{"metadata": {"ownerReferences": [{"apiVersion":"v1","kind":"Pod","name":"n1","uid":"2"}]}}`: "an enforcer may name no other owner",
			} {
				_, err := n1.Resource(resourceOf(of.says("n1"))).Patch(t.Context(), "n1", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
				refused(t, err, why)
			}
		})
	}
}

// The policy is about enforcers: an administrator writes as before, and deletes.
func TestOthersAreNotHeldUp(t *testing.T) {
	for _, of := range ofNodes {
		removed(t, of.says("n1"))
		object := of.says("n1", func(o *unstructured.Unstructured) { o.SetFinalizers([]string{"example.com/stay"}) })
		kit.Must(t, admin.Create(t.Context(), object))
		patched(t, of.says("n1"), `{"metadata": {"finalizers": null}}`)
		kit.Must(t, admin.Delete(t.Context(), object))
	}
}

// patched changes an object as an administrator.
func patched(t *testing.T, object *unstructured.Unstructured, patch string) {
	t.Helper()
	kit.Must(t, admin.Patch(context.Background(), object, client.RawPatch(types.MergePatchType, []byte(patch))))
}

// removed sees to it that an object is not there, now and after the test.
func removed(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	remove := func() { kit.Must(t, client.IgnoreNotFound(admin.Delete(context.Background(), object.DeepCopy()))) }
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
