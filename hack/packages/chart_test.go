package main

import (
	"path/filepath"
	"regexp"
	"slices"
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

const (
	// asKustomize are the values by which a release is what kustomize makes, to the last object: the namespace and the kinds go with it.
	asKustomize = "namespace: {create: true}\ncrds: {keep: false}\nimage: {tag: latest}\n"
	// monitored are those by which it has all of config/prometheus besides.
	monitored = "serviceMonitor: {enabled: true}\nprometheusRule: {enabled: true}\ndashboard: {enabled: true}\n"
	// releaseName is what the releases of these tests are called.
	releaseName = "any"
)

func TestTheChartRendersWhatKustomizeDoes(t *testing.T) {
	tests := []struct {
		name, namespace, values string
		dirs                    []string
	}{
		{"config/default", home, asKustomize, []string{"default"}},
		{"with the CNI plugin", home, asKustomize + "firstPacket: {enabled: true}", []string{"first-packet"}},
		{"with monitors", home, asKustomize + monitored, []string{"default", "prometheus"}},
		{"in another namespace", "net-policy", asKustomize, []string{"default"}},
		{"all of it in another namespace", "net-policy", asKustomize + monitored + "firstPacket: {enabled: true}",
			[]string{"first-packet", "prometheus"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			same(t, asHelm(t, kustomized(t, tt.namespace, tt.dirs...)), released(t, tt.namespace, tt.values))
		})
	}
}

// The default differs in what Helm's users expect: the namespace is Helm's, and uninstalling deletes nobody's policies.
func TestADefaultRelease(t *testing.T) {
	want := asHelm(t, without(kustomized(t, home, "default"), "Namespace"))
	for id, o := range want {
		if strings.HasPrefix(id, "DaemonSet") || strings.HasPrefix(id, "Deployment") {
			set(t, o, strings.Split("spec.template.spec.containers.0.image", "."), `"ringfence:`+load(t).Metadata.AppVersion+`"`)
		}
	}
	kinds := 0
	for _, o := range want {
		if object := (&unstructured.Unstructured{Object: o.(map[string]any)}); is(object, "CustomResourceDefinition") {
			kinds++
			annotations := object.GetAnnotations()
			annotations["helm.sh/resource-policy"] = "keep"
			object.SetAnnotations(annotations)
		}
	}
	if kinds != 6 {
		t.Errorf("there are %d kinds, want 6", kinds)
	}
	same(t, want, released(t, home, ""))
}

// asHelm is what kustomize makes with the labels of a release in the place of its own.
func asHelm(t *testing.T, objects map[string]any) map[string]any {
	t.Helper()
	metadata := load(t).Metadata
	for id, o := range objects {
		object := &unstructured.Unstructured{Object: o.(map[string]any)}
		labels := object.GetLabels()
		if labels["app.kubernetes.io/name"] != packageName || labels["app.kubernetes.io/part-of"] != packageName ||
			labels[instanceLabel] != packageName || labels[managedByLabel] != "kustomize" || labels[versionLabel] != metadata.AppVersion {
			t.Errorf("%s has the labels %v", id, labels)
		}
		labels[instanceLabel], labels[managedByLabel], labels["helm.sh/chart"] = releaseName, "Helm", metadata.Name+"-"+metadata.Version
		object.SetLabels(labels)
		if pods, found, _ := unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels"); found {
			pods[instanceLabel] = releaseName
			must(t, unstructured.SetNestedStringMap(object.Object, pods, "spec", "template", "metadata", "labels"))
		}
	}
	return objects
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
		podLabels  = "spec.template.metadata.labels"
		container  = "spec.template.spec.containers.0."
		digest     = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	)
	version := load(t).Metadata.AppVersion
	both := func(path, value string) map[string]string {
		return map[string]string{enforcer + " " + path: value, controller + " " + path: value}
	}
	tests := []struct {
		values string
		want   map[string]string // what stands there then, by object and path
	}{
		{"image: {repository: example.com/a/ringfence}", both(container+"image", `"example.com/a/ringfence:`+version+`"`)},
		{"image: {tag: v1}", both(container+"image", `"ringfence:v1"`)},
		{"image: {tag: ''}", nil},
		{"image: {digest: '" + digest + "'}", both(container+"image", `"ringfence:`+version+`@`+digest+`"`)},
		{"image: {pullPolicy: Always}", both(container+"imagePullPolicy", `"Always"`)},
		{"imagePullSecrets: [{name: registry}]", both(pod+"imagePullSecrets", `[{"name":"registry"}]`)},
		{"enforcer: {extraArgs: [--log-denied, --dns-service=a/b]}", map[string]string{
			enforcer + " " + container + "args": `["enforcer","--health-probe-bind-address=127.0.0.1:9440","--log-denied","--dns-service=a/b"]`}},
		{"controller: {extraArgs: [--log-level=debug]}", map[string]string{
			controller + " " + container + "args": `["controller","--leader-elect","--log-level=debug"]`}},
		{"logLevel: info", nil},
		{"logLevel: debug\ncontroller: {extraArgs: [--log-level=error]}", map[string]string{
			enforcer + " " + container + "args":   `["enforcer","--health-probe-bind-address=127.0.0.1:9440","--log-level=debug"]`,
			controller + " " + container + "args": `["controller","--leader-elect","--log-level=debug","--log-level=error"]`}},
		{"enforcer: {extraEnv: [{name: GOMEMLIMIT, value: 1GiB}]}", map[string]string{enforcer + " " + container + "env": `[
			{"name":"NODE_NAME","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}},{"name":"GOMEMLIMIT","value":"1GiB"}]`}},
		{"controller: {extraEnv: [{name: GOMEMLIMIT, value: 1GiB}]}", map[string]string{
			controller + " " + container + "env": `[{"name":"GOMEMLIMIT","value":"1GiB"}]`}},
		{"controller: {podAnnotations: {a: b}}", map[string]string{controller + " spec.template.metadata.annotations": `{
			"kubectl.kubernetes.io/default-container":"controller","a":"b"}`}},
		{"enforcer: {podLabels: {team: network}}", map[string]string{enforcer + " " + podLabels: `{"app.kubernetes.io/name":"ringfence",
			"app.kubernetes.io/part-of":"ringfence","app.kubernetes.io/component":"enforcer","app.kubernetes.io/instance":"any","team":"network"}`}},
		{"enforcer: {updateStrategy: {type: OnDelete, rollingUpdate: null}}", map[string]string{enforcer + " spec.updateStrategy": `{"type":"OnDelete"}`}},
		{"controller: {updateStrategy: {type: Recreate}}", map[string]string{controller + " spec.strategy": `{"type":"Recreate"}`}},
		{"enforcer: {serviceAccount: {annotations: {a: b}}}", map[string]string{
			"ServiceAccount ringfence-system/ringfence-enforcer metadata.annotations": `{"a":"b"}`}},
		{"enforcer: {resources: {requests: {cpu: 1, memory: null}}}", map[string]string{
			enforcer + " " + container + "resources": `{"limits":{"memory":"512Mi"},"requests":{"cpu":1}}`}},
		{"controller: {replicas: 0}", map[string]string{controller + " spec.replicas": "0"}},
		{"enforcer: {tolerations: []}", map[string]string{enforcer + " " + pod + "tolerations": "null"}},
		{"enforcer: {nodeSelector: {pool: a}}", map[string]string{
			enforcer + " " + pod + "nodeSelector": `{"kubernetes.io/os":"linux","pool":"a"}`}},
		{"enforcer: {affinity: {nodeAffinity: {}}}", map[string]string{enforcer + " " + pod + "affinity": `{"nodeAffinity":{}}`}},
		{"controller: {priorityClassName: ''}", map[string]string{controller + " " + pod + "priorityClassName": "null"}},
		{"firstPacket: {hostPaths: {cniBin: /bin}}", nil}, // the plugin is off
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
	objects := released(t, home, "firstPacket: {enabled: true, hostPaths: {cniBin: /opt/other}}")
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

	if got := len(without(released(t, home, "crds: {install: false}"))); got != len(released(t, home, ""))-6 {
		t.Errorf("without kinds a release has %d objects", got)
	}
}

// Each part of monitoring by itself.
func TestValuesOfMonitoring(t *testing.T) {
	standard := released(t, home, "")
	for values, want := range map[string][]string{
		"serviceMonitor: {enabled: true, labels: {release: mine}, interval: 15s}": {
			"Service ringfence-system/ringfence-controller-metrics", "Service ringfence-system/ringfence-enforcer-metrics",
			"ServiceMonitor ringfence-system/ringfence-controller release=mine interval=15s",
			"ServiceMonitor ringfence-system/ringfence-enforcer release=mine interval=15s"},
		"serviceMonitor: {enabled: true}": {
			"Service ringfence-system/ringfence-controller-metrics", "Service ringfence-system/ringfence-enforcer-metrics",
			"ServiceMonitor ringfence-system/ringfence-controller", "ServiceMonitor ringfence-system/ringfence-enforcer"},
		"prometheusRule: {enabled: true, labels: {release: mine}}": {"PrometheusRule ringfence-system/ringfence-alerts release=mine"},
		"dashboard: {enabled: true, labels: {release: mine}}":      {"ConfigMap ringfence-system/ringfence-dashboard release=mine"},
		"serviceMonitor: {interval: 15s}":                          nil,
	} {
		var got []string
		for id, o := range released(t, home, values) {
			if standard[id] != nil {
				continue
			}
			object := &unstructured.Unstructured{Object: o.(map[string]any)}
			if release := object.GetLabels()["release"]; release != "" {
				id += " release=" + release
			}
			endpoints, _, _ := unstructured.NestedSlice(object.Object, "spec", "endpoints")
			for _, e := range endpoints {
				if interval := e.(map[string]any)["interval"]; interval != nil {
					id += " interval=" + interval.(string)
				}
			}
			got = append(got, id)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: what comes with it (-want +got):\n%s", values, diff)
		}
	}
}

// Every object and every pod has the common labels, and the component's own come before them.
func TestCommonLabels(t *testing.T) {
	const values = asKustomize + monitored + "commonLabels: {team: network, tier: one}\nenforcer: {podLabels: {tier: two}}\n"
	for id, o := range released(t, home, values) {
		object := &unstructured.Unstructured{Object: o.(map[string]any)}
		if labels := object.GetLabels(); labels["team"] != "network" || labels["tier"] != "one" {
			t.Errorf("%s has the labels %v", id, labels)
		}
		pods, found, _ := unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels")
		want := map[string]string{"DaemonSet": "two", "Deployment": "one"}[object.GetKind()]
		if found && (pods["team"] != "network" || pods["tier"] != want) {
			t.Errorf("the pods of %s have the labels %v", id, pods)
		}
	}
}

// A service account may have another name, or be one that is there: the pod, the rights and the admission policies go with it.
func TestServiceAccountsOfOnesOwn(t *testing.T) {
	for values, made := range map[string]bool{
		"enforcer: {serviceAccount: {name: fences}}":                true,
		"enforcer: {serviceAccount: {name: fences, create: false}}": false,
	} {
		objects := released(t, home, values)
		if got := objects["ServiceAccount ringfence-system/fences"] != nil; got != made || objects["ServiceAccount ringfence-system/ringfence-enforcer"] != nil {
			t.Errorf("%s: the account is made: %t, want %t", values, got, made)
		}
		text, err := encode(objects)
		must(t, err)
		for what, want := range map[string]int{
			`'fences'`: 2, `serviceAccountName: fences`: 1, `kind: ServiceAccount\n +name: fences`: 2,
			`'ringfence-enforcer'`: 0, `serviceAccountName: ringfence-enforcer`: 0, `kind: ServiceAccount\n +name: ringfence-enforcer`: 0,
		} {
			if got := len(regexp.MustCompile(what).FindAllString(text, -1)); got != want {
				t.Errorf("%s: %d times %s, want %d", values, got, what, want)
			}
		}
	}
	_, err := release(t, home, "enforcer: {serviceAccount: {name: ringfence-controller}}")
	if err == nil || !strings.Contains(err.Error(), "an account of its own") {
		t.Errorf("one account for both programs: got %v", err)
	}
}

// Who upgrades with a value that has another name by now is told the new one, before anything changes.
func TestRenamedValuesAreRefusedByName(t *testing.T) {
	for values, want := range map[string]string{
		"prometheus: {enabled: true}":                     "prometheus.enabled: serviceMonitor.enabled, prometheusRule.enabled and dashboard.enabled",
		"prometheus: {labels: {a: b}}":                    "prometheus.labels: serviceMonitor.labels, prometheusRule.labels and dashboard.labels",
		"firstPacket: {hostPaths: {cni-bin: /opt/other}}": "firstPacket.hostPaths.cni-bin: firstPacket.hostPaths.cniBin",
		"firstPacket: {hostPaths: {cni-conf: /etc/cni}}":  "firstPacket.hostPaths.cni-conf: firstPacket.hostPaths.cniConf",
	} {
		old, now, _ := strings.Cut(want, ": ")
		want = old + " is not a value any more: set " + now
		if _, err := release(t, home, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want: %s", values, err, want)
		}
		if !strings.Contains(read(t, "docs/upgrade.md"), "`"+old+"`") {
			t.Errorf("docs/upgrade.md does not name %s", old)
		}
	}
}

// Kinds that were kept belong to the release before: what Helm wants then stands in the notes.
func TestTheNotesSayHowToInstallAgain(t *testing.T) {
	for values, want := range map[string]bool{"": true, "crds: {keep: false}": false} {
		texts, err := release(t, home, values)
		must(t, err)
		if got := strings.Contains(texts[packageName+"/templates/NOTES.txt"], "--take-ownership"); got != want {
			t.Errorf("%q: the notes speak of it: %t", values, got)
		}
	}
}

// A key of the values is in camel case, wherever the chart itself says what it is called.
func TestValuesAreInCamelCase(t *testing.T) {
	var values map[string]any
	must(t, yaml.Unmarshal([]byte(read(t, chartDir+"/values.yaml")), &values))
	free := regexp.MustCompile(`\.(nodeSelector|affinity|tolerations|resources|updateStrategy)\.`) // fields of Kubernetes and people's own
	camel := regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`)
	var check func(path string, in map[string]any)
	check = func(path string, in map[string]any) {
		for key, value := range in {
			at := path + "." + key
			if free.MatchString(at + ".") {
				continue
			}
			if !camel.MatchString(key) {
				t.Errorf("%s is not in camel case", at)
			}
			if m, ok := value.(map[string]any); ok {
				check(at, m)
			}
		}
	}
	check("", values)
}

// What has no effect, or a bad one, is refused before anything is installed.
func TestValuesThatAreRefused(t *testing.T) {
	for _, values := range []string{
		"imag: {tag: v1}", "image: {tags: v1}", "image: {tag: 1.10}", "image: {digest: abc}", "image: {repository: ''}", "image: {pullPolicy: Sometimes}",
		"logLevel: loud", "commonLabels: {app.kubernetes.io/name: mine}", "enforcer: {podLabels: {helm.sh/chart: mine}}",
		"enforcer: {serviceAccount: {nam: x}}", "serviceMonitor: {interval: 15}", "firstPacket: {hostPaths: {other: /x}}",
		"controller: {replicas: two}", "enforcer: {extraArgs: --log-denied}", "enforcer: {replicas: 2}", "firstPacket: {enabled: 'yes'}",
	} {
		if _, err := release(t, home, values); err == nil || !strings.Contains(err.Error(), "schema") {
			t.Errorf("%s: got %v, want it refused by the schema", values, err)
		}
	}
}

func TestTheChartHasNoLint(t *testing.T) {
	for _, message := range lint.RunAll(filepath.Join(root, chartDir), map[string]any{}, home).Messages {
		t.Error(message.Error())
	}
}

// A release is kept in a Secret, which holds a megabyte: the chart is in it as well as what it renders to, compressed and in base64.
func TestAReleaseFitsIntoItsSecret(t *testing.T) {
	text, err := yaml.Marshal(released(t, home, asKustomize+monitored+"firstPacket: {enabled: true}"))
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
	all, err := util.ToRenderValues(load(t), given, common.ReleaseOptions{Name: releaseName, Namespace: namespace, IsInstall: true, Revision: 1}, nil)
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
