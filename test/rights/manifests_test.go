package rights

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ringfence-io/ringfence/controllers/startup"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/kit"
)

// The lab shows a right that is missing only if it gives the same as a cluster.
func TestTheLabGivesTheRightsOfACluster(t *testing.T) {
	granted, err := lab.Rights()
	kit.Must(t, err)
	want := map[string]any{}
	for _, object := range rendered {
		switch object.GetKind() {
		case "CustomResourceDefinition", "DaemonSet", "Deployment", "PodDisruptionBudget", "ResourceQuota":
		default:
			object = object.DeepCopy()
			labels := object.GetLabels()
			maps.DeleteFunc(labels, func(name, _ string) bool { return strings.HasPrefix(name, "app.kubernetes.io/") })
			if len(labels) == 0 {
				labels = nil
			}
			object.SetLabels(labels)
			want[object.GetKind()+" "+object.GetName()] = object.Object
		}
	}
	got := map[string]any{}
	for _, object := range granted {
		got[object.GetKind()+" "+object.GetName()] = object.Object
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the rights (-config/default +lab):\n%s", diff)
	}
}

// The pods of config/default run as those whom it gives rights.
func TestPodsHaveTheAccountsThatHaveTheRights(t *testing.T) {
	got := map[string]string{}
	for _, object := range rendered {
		if account, ok, _ := unstructured.NestedString(object.Object, "spec", "template", "spec", "serviceAccountName"); ok {
			got[object.GetKind()] = object.GetNamespace() + "/" + account
		}
	}
	want := map[string]string{"DaemonSet": system + "/" + enforcer, "Deployment": system + "/" + controller}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("service accounts (-want +got):\n%s", diff)
	}
}

// Whoever installs under other names has the same admission policies: ones that looked for the old names would hold nobody.
func TestTheAdmissionPoliciesFollowTheNames(t *testing.T) {
	dir := t.TempDir()
	kit.Must(t, os.CopyFS(dir, os.DirFS("../../config")))
	file := filepath.Join(dir, "default", "kustomization.yaml")
	text, err := os.ReadFile(file)
	kit.Must(t, err)
	renamed := strings.NewReplacer("\nnamespace: ringfence-system", "\nnamespace: fences", "\nnamePrefix: ringfence-", "\nnamePrefix: east-")
	kit.Must(t, os.WriteFile(file, []byte(renamed.Replace(string(text))), 0o600))
	objects, err := render(filepath.Dir(file))
	kit.Must(t, err)
	got := map[string]any{}
	for _, object := range objects {
		if object.GetKind() == "ValidatingAdmissionPolicy" {
			conditions, _, err := unstructured.NestedSlice(object.Object, "spec", "matchConditions")
			kit.Must(t, err)
			got[object.GetName()] = conditions
		}
	}
	want := map[string]any{}
	for policy, who := range map[string]string{"enforcer": "enforcer", "enforcer-pods": "enforcer", "controller": "controller"} {
		want["east-"+policy] = []any{map[string]any{
			"name": who, "expression": "request.userInfo.username.split(':') == ['system', 'serviceaccount', 'fences', 'east-" + who + "']",
		}}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("whom the policies are about (-want +got):\n%s", diff)
	}
}

// The taint that keeps pods away from a node until policy is in force there must not keep those away that put it in force, and take the taint away.
func TestOurPodsTolerateTheStartupTaint(t *testing.T) {
	for _, object := range rendered {
		list, ok, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "tolerations")
		kit.Must(t, err)
		if !ok {
			continue
		}
		tolerates := func(tolerations any) bool {
			toleration := tolerations.(map[string]any)
			key, named := toleration["key"]
			_, oneEffect := toleration["effect"]
			return toleration["operator"] == "Exists" && !oneEffect && (!named || key == startup.DefaultTaint)
		}
		if !slices.ContainsFunc(list, tolerates) {
			t.Errorf("%s %s does not tolerate %s: %v", object.GetKind(), object.GetName(), startup.DefaultTaint, list)
		}
	}
}
