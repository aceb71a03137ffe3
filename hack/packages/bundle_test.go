package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/operator-framework/api/pkg/manifests"
	operatorsv1alpha1 "github.com/operator-framework/api/pkg/operators/v1alpha1"
	"github.com/operator-framework/api/pkg/validation"
	validator "github.com/operator-framework/api/pkg/validation/interfaces"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// validators are all of the operator framework's that are about a bundle, but for MultipleArchitectures: it pulls the images, which no check of a tree
// should need.
var validators = validator.Validators{
	validation.ClusterServiceVersionValidator, validation.CustomResourceDefinitionValidator, validation.BundleValidator,
	validation.OperatorHubV2Validator, validation.StandardCategoriesValidator, validation.StandardCapabilitiesValidator,
	validation.ObjectValidator, validation.CommunityOperatorValidator, validation.AlphaDeprecatedAPIsValidator, validation.GoodPracticesValidator,
}

// expectedWarnings are those of the validators that are as they should be.
var expectedWarnings = []string{
	// Nobody makes objects of these kinds but our programs.
	"policy.ringfence.io/v1alpha1, Kind=NodeEnforcement", "policy.ringfence.io/v1alpha1, Kind=PolicyEnforcement",
	"policy.ringfence.io/v1alpha1, Kind=NodeConnections", "policy.ringfence.io/v1alpha1, Kind=ConnectionReport",
	// It looks at the name of a resource alone: the rule is about both groups that clients write Events to, of versions that are there.
	"Migrate the API(s) for events",
}

func TestTheBundleIsValid(t *testing.T) {
	bundle := loaded(t)
	if bundle.CSV == nil || len(bundle.V1CRDs) != 6 {
		t.Fatalf("the bundle has %d kinds, want 6, and the ClusterServiceVersion %v", len(bundle.V1CRDs), bundle.CSV)
	}
	warned := map[string]bool{}
	for _, result := range validators.Validate(append([]any{bundle}, bundle.ObjectsToValidate()...)...) {
		for _, e := range result.Errors {
			t.Errorf("%s: %v", result.Name, e)
		}
		for _, w := range result.Warnings {
			i := slices.IndexFunc(expectedWarnings, func(expected string) bool { return strings.Contains(w.Error(), expected) })
			if i < 0 {
				t.Errorf("%s: %v", result.Name, w)
				continue
			}
			warned[expectedWarnings[i]] = true
		}
	}
	for _, expected := range expectedWarnings {
		if !warned[expected] {
			t.Errorf("no warning names %s any more", expected)
		}
	}
}

// Together the bundle and what its controller installs are what config/default is, but for what has to be there before. Rights are looked at below.
func TestTheBundleHasAllOfConfigDefault(t *testing.T) {
	got := map[string]any{}
	for _, d := range strategy(t, "deployments") {
		containers, _, _ := unstructured.NestedFieldNoCopy(d, "spec", "template", "spec", "containers")
		container := containers.([]any)[0].(map[string]any)
		env, _ := container["env"].([]any)
		env = slices.DeleteFunc(env, func(v any) bool {
			added := []string{"POD_NAMESPACE", "DEPLOYMENT", "RELATED_IMAGE_ENFORCER", "INSTALL_ENFORCERS", "ENFORCER_ARGS"}
			return slices.Contains(added, v.(map[string]any)["name"].(string))
		})
		if container["env"] = env; len(env) == 0 {
			delete(container, "env")
		}
		labels := d["label"].(map[string]any)
		if labels[managedByLabel] != "olm" {
			t.Errorf("Deployment %v is managed by %v", d["name"], labels[managedByLabel])
		}
		labels[managedByLabel] = "kustomize"
		got["Deployment "+home+"/"+d["name"].(string)] = map[string]any{"labels": labels, "spec": d["spec"]}
	}
	for _, o := range bundled(t) {
		if is(o, "PodDisruptionBudget") {
			o.SetNamespace(home) // where OLM puts it
		}
		asKustomizes(t, o, "olm")
		if !is(o, "ClusterServiceVersion") {
			got[identity(o)] = o.Object
		}
	}
	installed := strings.NewReplacer("$(NAMESPACE)", home, "$(IMAGE)", "ringfence:latest", "$(VERSION)", "v"+versionOf(t), "        - $(ARGS)\n", "")
	objects, err := decode([]byte(installed.Replace(read(t, "config/olm/default.yaml"))))
	must(t, err)
	for _, o := range objects {
		asKustomizes(t, o, "ringfence-controller")
	}
	byIdentity(t, got, objects)

	all := kustomized(t, home, "default")
	want := without(all, append(beforehand, "Namespace", "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")...)
	// Nothing of ours is bound to these.
	for _, forPeople := range []string{"ClusterRole /ringfence-metrics-reader", "ClusterRole /ringfence-view"} {
		want[forPeople] = all[forPeople]
	}
	for id, o := range want {
		if object := (&unstructured.Unstructured{Object: o.(map[string]any)}); is(object, "Deployment") {
			want[id] = map[string]any{"labels": anyMap(object.GetLabels()), "spec": object.Object["spec"]}
		}
	}
	same(t, want, got)
}

// asKustomizes gives an object the label that config/default has in the place of the one that says who manages it here.
func asKustomizes(t *testing.T, o *unstructured.Unstructured, managedBy string) {
	t.Helper()
	labels := o.GetLabels()
	if is(o, "ClusterServiceVersion") {
		return
	}
	if labels[managedByLabel] != managedBy {
		t.Errorf("%s is managed by %q, want %q", identity(o), labels[managedByLabel], managedBy)
	}
	relabel(o, "kustomize", labels[versionLabel])
}

func versionOf(t *testing.T) string {
	t.Helper()
	version, _, err := unstructured.NestedString(csvOf(t).Object, "spec", "version")
	must(t, err)
	return version
}

// OLM gives the rights of config/default, and what the controller needs to install the rest. Nothing else may come along.
func TestTheBundlesRights(t *testing.T) {
	got := map[string][]string{}
	for scope, permissions := range map[string]string{"cluster": "clusterPermissions", "namespace": "permissions"} {
		for _, p := range strategy(t, permissions) {
			who := scope + " " + p["serviceAccountName"].(string)
			for _, rule := range p["rules"].([]any) {
				got[who] = append(got[who], text(t, rule))
			}
		}
	}
	want := map[string][]string{
		"namespace ringfence-controller": {
			`{"apiGroups":["apps"],"resourceNames":["ringfence-controller"],"resources":["deployments"],"verbs":["get"]}`,
			`{"apiGroups":["apps"],"resourceNames":["ringfence-enforcer"],"resources":["daemonsets"],"verbs":["get","list","watch","patch"]}`,
			`{"apiGroups":["apps"],"resources":["daemonsets"],"verbs":["create"]}`,
		},
		"cluster ringfence-controller": {
			`{"apiGroups":["admissionregistration.k8s.io"],"resourceNames":["ringfence-enforcer","ringfence-enforcer-pods","ringfence-controller"],` +
				`"resources":["validatingadmissionpolicies","validatingadmissionpolicybindings"],"verbs":["get","list","watch","patch"]}`,
			`{"apiGroups":["admissionregistration.k8s.io"],` +
				`"resources":["validatingadmissionpolicies","validatingadmissionpolicybindings"],"verbs":["create"]}`,
			`{"apiGroups":["apiextensions.k8s.io"],"resourceNames":["nodeenforcements.policy.ringfence.io"],` +
				`"resources":["customresourcedefinitions"],"verbs":["get"]}`,
		},
	}
	objects := kustomized(t, home, "default")
	for _, o := range objects {
		binding := &unstructured.Unstructured{Object: o.(map[string]any)}
		if !is(binding, "RoleBinding", "ClusterRoleBinding") {
			continue
		}
		ref := binding.Object["roleRef"].(map[string]any)
		role := (&unstructured.Unstructured{Object: map[string]any{"kind": ref["kind"]}})
		role.SetName(ref["name"].(string))
		scope := "cluster"
		if is(binding, "RoleBinding") {
			scope = "namespace"
			role.SetNamespace(home)
		}
		for _, subject := range binding.Object["subjects"].([]any) {
			who := scope + " " + subject.(map[string]any)["name"].(string)
			for _, rule := range objects[identity(role)].(map[string]any)["rules"].([]any) {
				want[who] = append(want[who], text(t, rule))
			}
		}
	}
	for _, rules := range []map[string][]string{want, got} {
		for _, texts := range rules {
			slices.Sort(texts)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rights (-config/default and for installing +bundle):\n%s", diff)
	}
}

// What people see of the bundle before they install it.
func TestWhatTheBundleShows(t *testing.T) {
	csv := csvOf(t)
	icons, _, _ := unstructured.NestedSlice(csv.Object, "spec", "icon")
	image, err := base64.StdEncoding.DecodeString(icons[0].(map[string]any)["base64data"].(string))
	must(t, err)
	must(t, xml.Unmarshal(image, new(any)))

	var namespace unstructured.Unstructured
	must(t, json.Unmarshal([]byte(csv.GetAnnotations()["operatorframework.io/suggested-namespace-template"]), &namespace.Object))
	suggested := namespace.GetLabels()
	if namespace.GetName() != home || suggested["pod-security.kubernetes.io/enforce"] != "privileged" || suggested[versionLabel] != "" {
		t.Errorf("the namespace that is suggested is %s, labels %v", namespace.GetName(), namespace.GetLabels())
	}

	var examples []any
	must(t, json.Unmarshal([]byte(csv.GetAnnotations()["alm-examples"]), &examples))
	shown := map[string]bool{}
	for _, e := range examples {
		shown[e.(map[string]any)["kind"].(string)] = true
	}
	if want := map[string]bool{"ClusterNetworkPolicy": true, "NamespaceIsolation": true}; !cmp.Equal(want, shown) {
		t.Errorf("there are examples of %v", shown)
	}

	owned, _, _ := unstructured.NestedSlice(csv.Object, "spec", "customresourcedefinitions", "owned")
	for _, o := range owned {
		kind := o.(map[string]any)
		fields := 0
		for _, part := range []string{"specDescriptors", "statusDescriptors"} {
			descriptors, _ := kind[part].([]any)
			for _, d := range descriptors {
				fields++
				if d.(map[string]any)["description"] == "" {
					t.Errorf("%s: field %s is not described", kind["kind"], d.(map[string]any)["path"])
				}
			}
		}
		if fields == 0 {
			t.Errorf("no field of %s is described", kind["kind"])
		}
	}
}

// What catalogs and consoles read of the bundle: when it was made, from which releases it upgrades, and what it can do with.
func TestWhatCatalogsReadOfTheBundle(t *testing.T) {
	csv := csvOf(t)
	annotations := csv.GetAnnotations()
	if _, err := time.Parse(time.RFC3339, annotations["createdAt"]); err != nil {
		t.Errorf("createdAt: %v", err)
	}
	if got, want := annotations["olm.skipRange"], "<"+versionOf(t); got != want {
		t.Errorf("olm.skipRange is %q, want %q", got, want)
	}
	var features []string
	for name, value := range annotations {
		if feature, ok := strings.CutPrefix(name, "features.operators.openshift.io/"); ok {
			if value != "true" && value != "false" {
				t.Errorf("%s is %q: consoles understand true and false", name, value)
			}
			features = append(features, feature)
		}
	}
	slices.Sort(features)
	want := []string{
		"cnf", "cni", "csi", "disconnected", "fips-compliant", "proxy-aware", "tls-profiles", "token-auth-aws", "token-auth-azure", "token-auth-gcp",
	}
	if diff := cmp.Diff(want, features); diff != "" {
		t.Errorf("features (-want +got):\n%s", diff)
	}
}

// Consoles offer the choices of a field that has some.
func TestFieldsAreShownByWhatTheyAre(t *testing.T) {
	owned, _, _ := unstructured.NestedSlice(csvOf(t).Object, "spec", "customresourcedefinitions", "owned")
	shown := map[string]any{}
	for _, o := range owned {
		kind := o.(map[string]any)
		for _, part := range []string{"spec", "status"} {
			fields, _ := kind[part+"Descriptors"].([]any)
			for _, f := range fields {
				field := f.(map[string]any)
				shown[kind["kind"].(string)+" "+part+"."+field["path"].(string)] = field["x-descriptors"]
			}
		}
	}
	const ui = "urn:alm:descriptor:com.tectonic.ui:"
	for path, want := range map[string]any{
		"ClusterNetworkPolicy spec.tier":         []any{ui + "select:Admin", ui + "select:Baseline"},
		"ClusterNetworkPolicy spec.priority":     []any{ui + "number"},
		"ClusterNetworkPolicy spec.ingress":      nil,
		"NamespaceIsolation spec.tenantLabel":    []any{ui + "text"},
		"PolicyEnforcement status.conditions":    []any{"urn:alm:descriptor:io.kubernetes.conditions"},
		"NodeEnforcement status.heartbeatTime":   []any{ui + "text"},
		"ClusterNetworkPolicy status.conditions": []any{"urn:alm:descriptor:io.kubernetes.conditions"},
	} {
		if diff := cmp.Diff(want, shown[path]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// A bundle that names a namespace works in that one alone; nor does it have what OLM refuses.
func TestWhatCannotBeInABundle(t *testing.T) {
	for _, o := range bundled(t) {
		delete(o.GetAnnotations(), "operatorframework.io/suggested-namespace")
		if !is(o, append(besides, "ClusterServiceVersion")...) {
			t.Errorf("OLM refuses %s", identity(o))
		}
		if !is(o, "ClusterServiceVersion") && names(o.Object, home) {
			t.Errorf("%s names the namespace", identity(o))
		}
	}
	if names(csvOf(t).Object["spec"], home) {
		t.Error("the ClusterServiceVersion names the namespace")
	}
	for _, variant := range variants {
		text := read(t, "config/olm/"+variant+".yaml")
		for _, known := range []string{home, placeholder, "ringfence:latest"} {
			if strings.Contains(text, known) {
				t.Errorf("config/olm/%s.yaml says %s", variant, known)
			}
		}
	}
}

func TestWhatABundleCannotSayIsRefused(t *testing.T) {
	const (
		deployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: ns}, spec: {}}`
		account    = `, subjects: [{kind: ServiceAccount, name: a, namespace: ns}]}`
	)
	tests := []struct{ name, object, why string }{
		{"an object in another namespace", `{apiVersion: v1, kind: Service, metadata: {name: s, namespace: kube-system}}`, "in a namespace of its own"},
		{"a role that is not ours", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: b},
			roleRef: {kind: ClusterRole, name: view}` + account, "which is not one of Ringfence's"},
		{"rights for a user", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: b},
			roleRef: {kind: ClusterRole, name: r}, subjects: [{kind: User, name: u}]}`, "not one of Ringfence's service accounts"},
	}
	for _, tt := range tests {
		objects, err := decode([]byte(strings.ReplaceAll(deployment+"\n---\n"+tt.object, "\t", " ") +
			"\n---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: r}, rules: []}"))
		must(t, err)
		err = (&parts{namespace: "ns", rights: map[string]*rights{}}).sort(objects)
		if err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: got %v, want: %s", tt.name, err, tt.why)
		}
	}
}

// loaded is the bundle as the operator framework sees it. Its own loader reads each file twice through one decoder, which a Kubernetes library of these
// days does not do. This one also refuses fields that the types do not have.
func loaded(t *testing.T) *manifests.Bundle {
	t.Helper()
	var metadata struct{ Annotations manifests.Annotations }
	must(t, yaml.Unmarshal([]byte(read(t, "bundle/metadata/annotations.yaml")), &metadata))
	out := &manifests.Bundle{
		Name: csvOf(t).GetName(), Package: metadata.Annotations.PackageName,
		Channels: strings.Split(metadata.Annotations.Channels, ","), DefaultChannel: metadata.Annotations.DefaultChannelName,
	}
	for _, o := range bundled(t) {
		out.Objects = append(out.Objects, o)
		text, err := yaml.Marshal(o.Object)
		must(t, err)
		out.Size += int64(len(text))
		out.CompressedSize += int64(len(compressed(t, text)))
		switch o.GetKind() {
		case "ClusterServiceVersion":
			out.CSV = &operatorsv1alpha1.ClusterServiceVersion{}
			must(t, yaml.UnmarshalStrict(text, out.CSV))
		case "CustomResourceDefinition":
			crd := &apiextensionsv1.CustomResourceDefinition{}
			must(t, yaml.UnmarshalStrict(text, crd))
			out.V1CRDs = append(out.V1CRDs, crd)
		}
	}
	if out.Package != packageName || out.DefaultChannel != channel || !slices.Equal(out.Channels, []string{channel}) {
		t.Errorf("the bundle is of package %q, channels %q, by default %q", out.Package, out.Channels, out.DefaultChannel)
	}
	return out
}

// bundled are the objects of the bundle.
func bundled(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "bundle/manifests"))
	must(t, err)
	var out []*unstructured.Unstructured
	for _, e := range entries {
		objects, err := decode([]byte(read(t, "bundle/manifests/"+e.Name())))
		must(t, err)
		out = append(out, objects...)
	}
	return out
}

func csvOf(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	objects := bundled(t)
	return objects[slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return is(o, "ClusterServiceVersion") })]
}

// strategy is a list of what OLM installs.
func strategy(t *testing.T, list string) []map[string]any {
	t.Helper()
	items, _, err := unstructured.NestedSlice(csvOf(t).Object, "spec", "install", "spec", list)
	must(t, err)
	return each(items, func(v any) map[string]any { return v.(map[string]any) })
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	must(t, err)
	return string(text)
}

func text(t *testing.T, value any) string {
	t.Helper()
	out, err := json.Marshal(value)
	must(t, err)
	return string(out)
}
