package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const home = "ringfence-system"

// asKustomize are the values by which a release is what kustomize makes, to the last object: the namespace and the kinds go with it.
const asKustomize = "namespace: {create: true}\ncrds: {keep: false}\n"

func TestTheChartRendersWhatKustomizeDoes(t *testing.T) {
	tests := []struct {
		name, namespace, values string
		dirs                    []string
	}{
		{"config/default", home, asKustomize, []string{"default"}},
		{"with the CNI plugin", home, asKustomize + "firstPacket: {enabled: true}", []string{"first-packet"}},
		{"with monitors", home, asKustomize + "prometheus: {enabled: true}", []string{"default", "prometheus"}},
		{"in another namespace", "net-policy", asKustomize, []string{"default"}},
		{"all of it in another namespace", "net-policy", asKustomize + "firstPacket: {enabled: true}\nprometheus: {enabled: true}",
			[]string{"first-packet", "prometheus"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			same(t, kustomized(t, tt.namespace, tt.dirs...), released(t, tt.namespace, tt.values))
		})
	}
}

// The default differs in what Helm's users expect: the namespace is Helm's, and uninstalling deletes nobody's policies.
func TestADefaultRelease(t *testing.T) {
	want := without(kustomized(t, home, "default"), "Namespace")
	kinds := 0
	for _, o := range want {
		if object := (&unstructured.Unstructured{Object: o.(map[string]any)}); is(object, "CustomResourceDefinition") {
			kinds++
			annotations := object.GetAnnotations()
			annotations["helm.sh/resource-policy"] = "keep"
			object.SetAnnotations(annotations)
		}
	}
	if kinds != 4 {
		t.Errorf("there are %d kinds, want 4", kinds)
	}
	same(t, want, released(t, home, ""))
}

// Each admission policy has to name the service account that it holds wherever that is.
func TestTheAdmissionPoliciesFollowTheNamespace(t *testing.T) {
	want := map[string]string{
		"ringfence-controller": "ringfence-controller", "ringfence-enforcer": "ringfence-enforcer", "ringfence-enforcer-pods": "ringfence-enforcer",
	}
	for account := range want {
		want[account] = "['system', 'serviceaccount', 'NAMESPACE', '" + want[account] + "']"
	}
	for _, namespace := range []string{home, "net-policy", "1234"} {
		got := map[string]string{}
		for _, o := range released(t, namespace, "") {
			policy := &unstructured.Unstructured{Object: o.(map[string]any)}
			if !is(policy, "ValidatingAdmissionPolicy") {
				continue
			}
			conditions, _, _ := unstructured.NestedSlice(policy.Object, "spec", "matchConditions")
			expression := strings.Join(strings.Fields(conditions[0].(map[string]any)["expression"].(string)), " ")
			account, _ := strings.CutPrefix(expression, "request.userInfo.username.split(':') == ")
			got[policy.GetName()] = strings.ReplaceAll(account, "'"+namespace+"'", "'NAMESPACE'")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in namespace %s the policies are about (-want +got):\n%s", namespace, diff)
		}
	}
}

// What each value changes of a release, and that it changes nothing else.
func TestValues(t *testing.T) {
	const (
		enforcer   = "DaemonSet ringfence-system/ringfence-enforcer"
		controller = "Deployment ringfence-system/ringfence-controller"
		pod        = "spec.template.spec."
		container  = "spec.template.spec.containers.0."
		digest     = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	)
	both := func(path, value string) map[string]string {
		return map[string]string{enforcer + " " + path: value, controller + " " + path: value}
	}
	tests := []struct {
		values string
		want   map[string]string // what stands there then, by object and path
	}{
		{"image: {repository: example.com/a/ringfence}", both(container+"image", `"example.com/a/ringfence:latest"`)},
		{"image: {tag: v1}", both(container+"image", `"ringfence:v1"`)},
		{"image: {tag: ''}", both(container+"image", `"ringfence"`)},
		{"image: {digest: '" + digest + "'}", both(container+"image", `"ringfence:latest@`+digest+`"`)},
		{"image: {pullPolicy: Always}", both(container+"imagePullPolicy", `"Always"`)},
		{"imagePullSecrets: [{name: registry}]", both(pod+"imagePullSecrets", `[{"name":"registry"}]`)},
		{"enforcer: {extraArgs: [--log-denied, --dns-service=a/b]}", map[string]string{
			enforcer + " " + container + "args": `["enforcer","--health-probe-bind-address=127.0.0.1:9440","--log-denied","--dns-service=a/b"]`}},
		{"controller: {extraArgs: [--log-level=debug]}", map[string]string{
			controller + " " + container + "args": `["controller","--leader-elect","--log-level=debug"]`}},
		{"enforcer: {resources: {requests: {cpu: 1, memory: null}}}", map[string]string{
			enforcer + " " + container + "resources": `{"limits":{"memory":"512Mi"},"requests":{"cpu":1}}`}},
		{"controller: {replicas: 0}", map[string]string{controller + " spec.replicas": "0"}},
		{"enforcer: {tolerations: []}", map[string]string{enforcer + " " + pod + "tolerations": "null"}},
		{"enforcer: {nodeSelector: {pool: a}}", map[string]string{
			enforcer + " " + pod + "nodeSelector": `{"kubernetes.io/os":"linux","pool":"a"}`}},
		{"enforcer: {affinity: {nodeAffinity: {}}}", map[string]string{enforcer + " " + pod + "affinity": `{"nodeAffinity":{}}`}},
		{"controller: {priorityClassName: ''}", map[string]string{controller + " " + pod + "priorityClassName": "null"}},
		{"firstPacket: {hostPaths: {cni-bin: /bin}}", nil}, // the plugin is off
	}
	standard := released(t, home, "")
	for _, tt := range tests {
		t.Run(tt.values, func(t *testing.T) {
			want := map[string]any{}
			for id, o := range standard {
				want[id] = (&unstructured.Unstructured{Object: o.(map[string]any)}).DeepCopy().Object
			}
			for where, value := range tt.want {
				i := strings.LastIndex(where, " ")
				set(t, want[where[:i]], strings.Split(where[i+1:], "."), value)
			}
			same(t, want, released(t, home, tt.values))
		})
	}
}

func TestValuesOfOptionalParts(t *testing.T) {
	objects := released(t, home, "firstPacket: {enabled: true, hostPaths: {cni-bin: /opt/other}}")
	var directories []string
	eachVolume([]*unstructured.Unstructured{{Object: objects["DaemonSet ringfence-system/ringfence-enforcer"].(map[string]any)}},
		func(name string, host map[string]any) {
			directories = append(directories, name+" "+host["path"].(string))
		})
	want := []string{"xtables-lock /run/xtables.lock", "run /run/ringfence", "cni-results /var/lib/cni/results", "cni-conf /etc/cni/net.d", "cni-bin /opt/other", "usr /usr"}
	if diff := cmp.Diff(want, directories); diff != "" {
		t.Errorf("directories (-want +got):\n%s", diff)
	}

	for values, want := range map[string]bool{"": false, "firstPacket: {enabled: true}": true} {
		texts, err := release(t, home, values)
		must(t, err)
		if got := strings.Contains(texts[packageName+"/templates/NOTES.txt"], "ringfence cni uninstall"); got != want {
			t.Errorf("%q: the notes speak of the CNI plugin: %t", values, got)
		}
	}

	monitors := 0
	for id, o := range released(t, home, "prometheus: {enabled: true, labels: {release: mine}}") {
		if o := (&unstructured.Unstructured{Object: o.(map[string]any)}); o.GetLabels()["release"] == "mine" {
			monitors++
		} else if strings.HasPrefix(id, "PodMonitor") || strings.HasPrefix(id, "PrometheusRule") {
			t.Errorf("%s has no label of one's own", id)
		}
	}
	if monitors == 0 {
		t.Error("no object has the label that monitors were to have")
	}
	if got := len(without(released(t, home, "crds: {install: false}"))); got != len(released(t, home, ""))-4 {
		t.Errorf("without kinds a release has %d objects", got)
	}
}

// What has no effect, or a bad one, is refused before anything is installed.
func TestValuesThatAreRefused(t *testing.T) {
	for _, values := range []string{
		"imag: {tag: v1}", "image: {tags: v1}", "image: {tag: 1.10}", "image: {digest: abc}", "image: {repository: ''}", "image: {pullPolicy: Sometimes}",
		"controller: {replicas: two}", "enforcer: {extraArgs: --log-denied}", "enforcer: {replicas: 2}", "firstPacket: {enabled: 'yes'}",
	} {
		if _, err := release(t, home, values); err == nil || !strings.Contains(err.Error(), "schema") {
			t.Errorf("%s: got %v, want it refused by the schema", values, err)
		}
	}
}

func TestTheChartHasNoLint(t *testing.T) {
	for _, message := range lint.RunAll(filepath.Join(root, chartDir), map[string]any{}, home).Messages {
		if text := message.Error(); text != "[INFO] Chart.yaml: icon is recommended" {
			t.Error(text)
		}
	}
}

// A release is kept in a Secret, which holds a megabyte: the chart is in it as well as what it renders to, compressed and in base64.
func TestAReleaseFitsIntoItsSecret(t *testing.T) {
	text, err := yaml.Marshal(released(t, home, asKustomize+"firstPacket: {enabled: true}\nprometheus: {enabled: true}"))
	must(t, err)
	if size := 2 * 4 * len(compressed(t, text)) / 3; size > 500_000 {
		t.Errorf("a release takes some %d bytes", size)
	}
}

// released are the objects of a release, by their identities.
func released(t *testing.T, namespace, values string) map[string]any {
	t.Helper()
	texts, err := release(t, namespace, values)
	must(t, err)
	out := map[string]any{}
	for file, text := range texts {
		if strings.HasSuffix(file, "NOTES.txt") {
			continue
		}
		objects, err := decode([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		byIdentity(t, out, objects)
	}
	return out
}

// release renders the chart as helm install does.
func release(t *testing.T, namespace, values string) (map[string]string, error) {
	t.Helper()
	var given map[string]any
	must(t, yaml.Unmarshal([]byte(values), &given))
	all, err := util.ToRenderValues(load(t), given, common.ReleaseOptions{Name: "any", Namespace: namespace, IsInstall: true, Revision: 1}, nil)
	if err != nil {
		return nil, err
	}
	return engine.Render(load(t), all)
}

func load(t *testing.T) *chartv2.Chart {
	t.Helper()
	c, err := loader.LoadDir(filepath.Join(root, chartDir))
	must(t, err)
	return c
}
