package rights

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/test/kit"
)

// overlays are what can be applied to a cluster without kinds of others.
var overlays = []string{
	"default", "first-packet", "uninstall", "overlays/kind", "overlays/kind-first-packet", "overlays/kind-uninstall",
	"overlays/k3s", "overlays/k3s-first-packet", "overlays/k3s-uninstall",
}

// TestTheAPIServerTakesEachOverlay applies each over what is installed, and keeps nothing. Fields that the API does not know are refused.
func TestTheAPIServerTakesEachOverlay(t *testing.T) {
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			objects, err := render("../../config/" + overlay)
			kit.Must(t, err)
			for _, object := range objects {
				options := []client.ApplyOption{client.FieldOwner("test"), client.ForceOwnership, client.DryRunAll}
				if err := admin.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), options...); err != nil {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
			}
		})
	}
}

// Of the pods that are made, the admission of Pod Security lets each in where docs/security.md says, and not below.
func TestPodSecurity(t *testing.T) {
	for _, level := range []string{"privileged", "baseline", "restricted"} {
		kit.Must(t, admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "level-" + level, Labels: map[string]string{"pod-security.kubernetes.io/enforce": level},
		}}))
		kit.Must(t, admin.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "level-" + level, Name: enforcer}}))
		kit.Must(t, admin.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "level-" + level, Name: controller}}))
	}
	tests := []struct {
		kind string
		want map[string]bool
	}{
		{"DaemonSet", map[string]bool{"privileged": true, "baseline": false, "restricted": false}},
		{"Deployment", map[string]bool{"privileged": true, "baseline": true, "restricted": true}},
	}
	for _, tt := range tests {
		got := map[string]bool{}
		for level := range tt.want {
			err := admin.Create(t.Context(), podOf(t, rendered, tt.kind, "level-"+level), client.DryRunAll)
			if err != nil && !strings.Contains(err.Error(), "violates PodSecurity") {
				t.Fatalf("%s at %s: %v", tt.kind, level, err)
			}
			got[level] = err == nil
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("where the pods of the %s are let in (-want +got):\n%s", tt.kind, diff)
		}
	}
	if labels := rendered[0].GetLabels(); rendered[0].GetKind() != "Namespace" || labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("%s %s has the labels %v", rendered[0].GetKind(), rendered[0].GetName(), labels)
	}
}

// podOf is a pod as the workload of a kind makes it.
func podOf(t *testing.T, objects []*unstructured.Unstructured, kind, namespace string) *corev1.Pod {
	t.Helper()
	template := templateOf(t, objects, kind)
	template.Spec.PriorityClassName = "" // the quota of the namespace is another matter
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: namespace, Labels: template.Labels}, Spec: template.Spec,
	}
}

func templateOf(t *testing.T, objects []*unstructured.Unstructured, kind string) corev1.PodTemplateSpec {
	t.Helper()
	for _, object := range objects {
		if object.GetKind() == kind {
			var workload appsv1.DaemonSet // a Deployment's template is at the same place
			kit.Must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &workload))
			return workload.Spec.Template
		}
	}
	t.Fatalf("there is no %s", kind)
	return corev1.PodTemplateSpec{}
}

// Every container of every overlay is held as tightly as it can be.
func TestContainersAreConfined(t *testing.T) {
	for _, overlay := range append([]string{"overlays/openshift", "overlays/openshift-first-packet", "overlays/openshift-uninstall"}, overlays...) {
		objects, err := render("../../config/" + overlay)
		kit.Must(t, err)
		for kind, want := range map[string]string{
			"DaemonSet":  "user 0, +[NET_ADMIN NET_RAW] -[ALL], system-node-critical",
			"Deployment": "user 65532, +[] -[ALL], system-cluster-critical",
		} {
			template := templateOf(t, objects, kind)
			for _, c := range append(template.Spec.InitContainers, template.Spec.Containers...) {
				if got := confined(&template.Spec, &c); got != want {
					t.Errorf("%s: container %s of the %s: %s, want %s", overlay, c.Name, kind, got, want)
				}
				if len(c.Resources.Requests) != 2 {
					t.Errorf("%s: container %s of the %s asks for %v", overlay, c.Name, kind, c.Resources.Requests)
				}
			}
		}
	}
}

// confined is how a container is held; what is loose comes first.
func confined(pod *corev1.PodSpec, c *corev1.Container) string {
	s, p := c.SecurityContext, pod.SecurityContext
	if p == nil {
		p = &corev1.PodSecurityContext{}
	}
	seccomp := s.SeccompProfile
	if seccomp == nil {
		seccomp = p.SeccompProfile
	}
	user := s.RunAsUser
	if user == nil {
		user = p.RunAsUser
	}
	loose := ""
	switch {
	case s.Privileged == nil || *s.Privileged:
		loose = "privileged, "
	case s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation:
		loose = "may get more rights, "
	case s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem:
		loose = "may write its root, "
	case seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault:
		loose = "may use all system calls, "
	case *user != 0 && (p.RunAsNonRoot == nil || !*p.RunAsNonRoot):
		loose = "may be root, "
	}
	return fmt.Sprintf("%suser %d, +%v -%v, %s", loose, *user, s.Capabilities.Add, s.Capabilities.Drop, pod.PriorityClassName)
}
