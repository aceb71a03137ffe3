package olm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	installer "github.com/ringfence-io/ringfence/controllers/install"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/test/apiserver"
	"github.com/ringfence-io/ringfence/test/kit"
)

// What the bundle's Deployment runs makes a whole installation of it, keeps it, and takes what a Subscription sets.
func TestTheControllerInstallsTheEnforcers(t *testing.T) {
	in := install(t)
	stop := in.run()
	want := in.installed("default", in.controller.Image)
	in.untilAll("installed", want)

	enforcers := found(t, want[len(want)-1])
	image, _, _ := unstructured.NestedSlice(enforcers.Object, "spec", "template", "spec", "containers")
	if got := image[0].(map[string]any)["image"]; got != in.controller.Image {
		t.Errorf("enforcers run %v, the controller runs %v", got, in.controller.Image)
	}
	for _, o := range want {
		in.owned(o)
	}

	in.damage(t, want)

	stop()
	other := in.installed("first-packet", in.controller.Image, "--log-denied", "--resync-interval=10s")
	stop = in.run("INSTALL_ENFORCERS=first-packet", "ENFORCER_ARGS=--log-denied  --resync-interval=10s")
	in.untilAll("what the Subscription chooses", other)
	stop()
	in.run()
	in.untilAll("as before", want)
}

// damage does what people do, and waits until it is undone.
func (in *installation) damage(t *testing.T, want []*unstructured.Unstructured) {
	for _, o := range want {
		patch := map[string]string{
			"DaemonSet": `{"metadata": {"labels": {"app.kubernetes.io/component": null}}, "spec": {"template": {"spec": {
				"hostNetwork": false, "containers": [{"name": "enforcer", "image": "other", "args": ["enforcer", "--resync-interval=1h"]}]}}}}`,
			"ValidatingAdmissionPolicy":        `{"spec": {"failurePolicy": "Ignore", "validations": [{"expression": "true"}]}}`,
			"ValidatingAdmissionPolicyBinding": `{"spec": {"validationActions": ["Audit"]}}`,
		}[o.GetKind()]
		if patch == "" {
			t.Fatalf("nobody damages %s", o.GetKind())
		}
		kit.Must(t, admin.Patch(t.Context(), o.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch))))
		if o.GetKind() != "ValidatingAdmissionPolicyBinding" {
			in.untilAll("repaired", []*unstructured.Unstructured{o})
			continue
		}
		kit.EventuallySucceeds(t, patience, "denying again", func(context.Context) error {
			actions, _, _ := unstructured.NestedStringSlice(found(t, o).Object, "spec", "validationActions")
			if !slices.Contains(actions, "Deny") { // actions are a set: that of others stays in it
				return fmt.Errorf("its actions are %v", actions)
			}
			return nil
		})
	}
	for _, o := range want {
		before := found(t, o)
		kit.Must(t, admin.Delete(t.Context(), before.DeepCopy()))
		kit.Eventually(t, patience, "there again: "+o.GetKind(), func() bool {
			now := found(t, o)
			return now != nil && now.GetUID() != before.GetUID()
		})
		in.owned(o)
	}
	in.untilAll("complete again", want)
}

// An upgrade is another controller with other manifests: what they say no more goes, what others have put there stays.
func TestAnUpgrade(t *testing.T) {
	in := install(t)
	before := in.installed("first-packet", "ringfence:v1", "--log-denied")
	reconcile(t, in, before)
	enforcers := before[len(before)-1]
	kit.Must(t, admin.Patch(t.Context(), enforcers.DeepCopy(), client.RawPatch(types.MergePatchType,
		[]byte(`{"metadata": {"labels": {"team": "network"}}, "spec": {"template": {"metadata": {"annotations": {"restarted": "yes"}}}}}`))))

	after := in.installed("default", "ringfence:v2")
	reconcile(t, in, after)
	in.all(t, after)
	got := &appsv1.DaemonSet{}
	kit.Must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(enforcers), got))
	if got.Labels["team"] != "network" || got.Spec.Template.Annotations["restarted"] != "yes" {
		t.Errorf("labels %v and annotations %v have lost what others had put there", got.Labels, got.Spec.Template.Annotations)
	}
	plain := &appsv1.DaemonSet{}
	kit.Must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(kustomized(t, "DaemonSet", enforcers.GetName()).Object, plain))
	volumes, args := got.Spec.Template.Spec.Volumes, got.Spec.Template.Spec.Containers[0].Args
	if len(volumes) != len(plain.Spec.Template.Spec.Volumes) || !slices.Equal(args, plain.Spec.Template.Spec.Containers[0].Args) {
		t.Errorf("the enforcers still have %d volumes and the arguments %q", len(volumes), args)
	}
	written := got.ResourceVersion
	reconcile(t, in, after)
	kit.Must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(enforcers), got))
	if got.ResourceVersion != written {
		t.Error("an installation that is complete was written again")
	}
}

// Somebody else's objects are left alone, the rest is installed, and the Deployment has an Event.
func TestWhatWasInstalledOtherwiseIsLeft(t *testing.T) {
	in := install(t)
	want := in.installed("default", in.controller.Image)
	others := kustomized(t, "ValidatingAdmissionPolicy", "ringfence-enforcer")
	kit.Must(t, admin.Create(t.Context(), others.DeepCopy()))
	stop := in.run()
	defer stop()

	kit.EventuallySucceeds(t, patience, "an Event says it", func(context.Context) error {
		var events corev1.EventList
		kit.Must(t, admin.List(t.Context(), &events, client.InNamespace(in.namespace)))
		for _, e := range events.Items {
			if e.Reason == "NotInstalled" && e.InvolvedObject.Name == in.deployment.Name &&
				strings.Contains(e.Message, "ValidatingAdmissionPolicy ringfence-enforcer is there and was installed otherwise") {
				return nil
			}
		}
		return fmt.Errorf("there are %d Events, and none says it", len(events.Items))
	})
	if diff := difference(others, found(t, others)); diff != "" {
		t.Errorf("it was changed (-was +is):\n%s", diff)
	}
	rest := slices.DeleteFunc(slices.Clone(want), func(o *unstructured.Unstructured) bool {
		return o.GetKind() == others.GetKind() && o.GetName() == others.GetName()
	})
	in.untilAll("installed besides it", rest)

	kit.Must(t, admin.Delete(t.Context(), others))
	in.untilAll("installed after it", want)
}

// While an installation goes, nothing is put there again.
func TestNothingComesAfterTheDeployment(t *testing.T) {
	in := install(t)
	kit.Must(t, admin.Delete(t.Context(), in.deployment))
	want := in.installed("default", in.controller.Image)
	reconcile(t, in, want)
	for _, o := range want {
		if found(t, o) != nil {
			t.Errorf("%s was installed for a Deployment that is gone", o.GetKind())
		}
	}
}

// Admission policies go with the kind that they are about, and come again with it.
func TestAdmissionPoliciesBelongToTheirKind(t *testing.T) {
	in := install(t)
	crd := empty("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "nodeenforcements.policy.ringfence.io")
	kit.Must(t, admin.Delete(t.Context(), crd))
	kit.Eventually(t, patience, "the kind is gone", func() bool { return found(t, crd) == nil })
	want := in.installed("default", in.controller.Image)
	_, err := attempt(t, in, want)
	if err == nil || !strings.Contains(err.Error(), "looking for CustomResourceDefinition /nodeenforcements.policy.ringfence.io") {
		t.Errorf("without the kind: got %v", err)
	}
	for _, o := range want {
		if o.GetNamespace() == "" && found(t, o) != nil {
			t.Errorf("there is %s %s, which nothing owns", o.GetKind(), o.GetName())
		}
	}
	if found(t, want[len(want)-1]) == nil {
		t.Error("without the kind there are no enforcers")
	}
	kit.Must(t, apiserver.InstallCRDs(restConfig, manifests))
	reconcile(t, in, want)
	for _, o := range want {
		in.owned(o)
	}
}

// untilAll waits until what is wanted stands in the API, field by field; defaults may stand beside it.
func (in *installation) untilAll(what string, want []*unstructured.Unstructured) {
	in.t.Helper()
	kit.EventuallySucceeds(in.t, patience, what, func(context.Context) error {
		missing := ""
		for _, o := range want {
			missing += difference(o, found(in.t, o))
		}
		if missing != "" {
			return errors.New(missing)
		}
		return nil
	})
}

// all checks the same at once.
func (in *installation) all(t *testing.T, want []*unstructured.Unstructured) {
	t.Helper()
	for _, o := range want {
		if diff := difference(o, found(t, o)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", o.GetKind(), diff)
		}
	}
}

// difference is what an object lacks of what is wanted.
func difference(want, got *unstructured.Unstructured) string {
	if got == nil {
		return want.GetKind() + " is not there"
	}
	return cmp.Diff(any(want.Object), common(want.Object, got.Object))
}

// common is a value without the fields of maps that are not wanted.
func common(want, got any) any {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return got
		}
		out := map[string]any{}
		for k := range maps.Keys(w) {
			if v, ok := g[k]; ok {
				out[k] = common(w[k], v)
			}
		}
		return out
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return got
		}
		out := make([]any, len(w))
		for i := range w {
			out[i] = common(w[i], g[i])
		}
		return out
	}
	return got
}

// owned checks by what an object's end is decided: namespaced ones go with the Deployment, others with the kind that they are about.
func (in *installation) owned(o *unstructured.Unstructured) {
	in.t.Helper()
	want := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: in.deployment.Name, UID: in.deployment.UID}
	if o.GetNamespace() == "" {
		crd := found(in.t, empty("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "nodeenforcements.policy.ringfence.io"))
		want = metav1.OwnerReference{APIVersion: crd.GetAPIVersion(), Kind: crd.GetKind(), Name: crd.GetName(), UID: crd.GetUID()}
	}
	if diff := cmp.Diff([]metav1.OwnerReference{want}, found(in.t, o).GetOwnerReferences()); diff != "" {
		in.t.Errorf("owners of %s (-want +got):\n%s", o.GetKind(), diff)
	}
}

// reconcile installs objects as a controller of theirs does, once.
func reconcile(t *testing.T, in *installation, objects []*unstructured.Unstructured) {
	t.Helper()
	_, err := attempt(t, in, objects)
	kit.Must(t, err)
}

func attempt(t *testing.T, in *installation, objects []*unstructured.Unstructured) (ctrl.Result, error) {
	t.Helper()
	skip := true
	m, err := ctrl.NewManager(in.config, ctrl.Options{
		Cache: status.CacheOptions(), Scheme: status.Scheme(), MapperProvider: status.RESTMapper,
		Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip},
	})
	kit.Must(t, err)
	i := &installer.Installation{Objects: objects, Deployment: types.NamespacedName{Namespace: in.namespace, Name: in.deployment.Name}}
	kit.Must(t, i.SetupWithManager(m))
	return i.Reconcile(t.Context(), ctrl.Request{})
}
