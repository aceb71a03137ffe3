package crds

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	shipped "github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/sig"
)

// eachCRD runs a test with each of the SIG's CRDs in turn.
func eachCRD(t *testing.T, test func(*testing.T, sig.Release, string)) {
	for _, release := range sig.Releases {
		for _, channel := range sig.Channels {
			t.Run(release.Name+" "+channel, func(t *testing.T) {
				dir, err := release.Bases(channel)
				if err != nil {
					t.Fatal(err)
				}
				install(t, dir)
				test(t, release, channel)
			})
		}
	}
}

// An object that the SIG's CRD accepts is accepted by ours with another apiVersion, and what is kept of it is the same but for our
// defaults.
func TestWhatTheSIGAcceptsWeAccept(t *testing.T) {
	eachCRD(t, func(t *testing.T, release sig.Release, channel string) {
		dir, err := release.Dir()
		if err != nil {
			t.Fatal(err)
		}
		theirs := slices.Concat(manifests(t, dir, "conformance/base"), userStories(t, dir))
		if len(theirs) < 25 {
			t.Fatalf("the SIG's module has %d ClusterNetworkPolicies: that cannot be all", len(theirs))
		}
		for name, spec := range sigSpecs {
			theirs = append(theirs, manifest{name, object(t, release.GroupVersion().String(), "ClusterNetworkPolicy", spec)})
		}
		for _, m := range theirs {
			t.Run(m.name, func(t *testing.T) { compareWithOurs(t, release, channel, m.object) })
		}
	})
}

func compareWithOurs(t *testing.T, release sig.Release, channel string, o *unstructured.Unstructured) {
	t.Helper()
	theirs, err := stored(t, o)
	if channel == "standard" && (hasPeer(t, o, "nodes") || hasPeer(t, o, "domainNames") || release != sig.V02 && hasNamedPort(t, o)) {
		if err == nil {
			t.Error("the SIG's standard CRD accepts a field of the experimental channel")
		}
		return
	}
	if err != nil {
		t.Fatalf("the SIG's own CRD refuses it: %v", err)
	}
	ours, err := stored(t, converted(o))
	if hasPeer(t, o, "domainNames") {
		if got := reasons(t, err); !strings.HasSuffix(got, ".domainNames: Invalid value: domainNames is not enforced: write networks") {
			t.Errorf("with domainNames ours says %q", got)
		}
		return
	}
	if err != nil {
		t.Fatalf("the SIG's CRD accepts it, ours says: %v", err)
	}
	want := theirs.DeepCopy()
	if err := unstructured.SetNestedField(want.Object, string(v1alpha1.Enforce), "spec", "mode"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Object["spec"], ours.Object["spec"]); diff != "" {
		t.Errorf("the spec is kept otherwise (-the SIG's +ours):\n%s", diff)
	}
}

// hasPeer reports whether an egress rule has a peer of a kind.
func hasPeer(t *testing.T, o *unstructured.Unstructured, kind string) bool {
	t.Helper()
	rules, _, err := unstructured.NestedSlice(o.Object, "spec", "egress")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(rules, func(rule any) bool {
		return slices.ContainsFunc(rule.(map[string]any)["to"].([]any), func(peer any) bool {
			_, ok := peer.(map[string]any)[kind]
			return ok
		})
	})
}

// hasNamedPort reports whether a rule has a named port.
func hasNamedPort(t *testing.T, o *unstructured.Unstructured) bool {
	t.Helper()
	text, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(text, []byte(`"destinationNamedPort"`))
}

// stored is what the server hands out after it has been given the object, which is gone again afterwards.
func stored(t *testing.T, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	t.Helper()
	created := o.DeepCopy()
	if err := server.Create(t.Context(), created); err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	out.SetGroupVersionKind(o.GroupVersionKind())
	if err := server.Get(t.Context(), client.ObjectKeyFromObject(created), out); err != nil {
		t.Fatalf("reading what is stored: %v", err)
	}
	if err := server.Delete(t.Context(), created); err != nil {
		t.Fatalf("deleting what was stored: %v", err)
	}
	return out, nil
}

// converted is the object with our apiVersion.
func converted(o *unstructured.Unstructured) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{"kind": o.GetKind(), "spec": o.DeepCopy().Object["spec"]}}
	out.SetAPIVersion(v1alpha1.GroupVersion.String())
	out.SetName(o.GetName())
	return out
}

// sigSpecs go to the bounds of the SIG's objects, which its manifests do not.
var sigSpecs = map[string]string{
	"no rules":     policy(""),
	"bounds":       "{tier: Baseline, priority: 1000, subject: {pods: {namespaceSelector: {}, podSelector: {}}}}",
	"lowest bound": "{tier: Admin, priority: 0, subject: {namespaces: {}}}",
	"25 rules":     policy("ingress: " + times(25, "{name: r#, action: Pass, from: [{namespaces: {}}]}")),
	"25 peers":     to(unlisted(times(25, "{networks: [10.#.0.0/16]}"))),
	"25 networks":  to("{networks: " + times(25, "10.#.0.0/16") + "}"),
	"25 protocols": egress("action: Accept, protocols: " + times(25, "{tcp: {destinationPort: {number: 80#}}}")),
	"longest name": ingress("action: Accept, name: " + strings.Repeat("ü", 100)),
	"everything":   to("{networks: [0.0.0.0/0, '::/0']}"),
	"all ports":    port("{range: {start: 1, end: 65535}}"),
	"named port":   protocol("{destinationNamedPort: dns-tcp}"),
	"nodes":        to("{nodes: {matchExpressions: [{key: node-role.kubernetes.io/control-plane, operator: Exists}]}}"),
	"expressions":  expression("{key: env, operator: NotIn, values: [a, b]}, {key: env, operator: DoesNotExist}, {key: team, operator: In, values: ['']}"),
	"domain names": to("{domainNames: ['*.example.com', example.com]}"),
	"all at once":  policy("ingress: [{action: Deny, from: [{namespaces: {}}, {pods: {podSelector: {}}}]}], egress: [{action: Pass, to: [{pods: {podSelector: {}}}, {networks: [10.0.0.0/8]}], protocols: [{sctp: {destinationPort: {number: 9}}}]}]"),
}

// These the SIG's CRD accepts, in one channel at least, and ours refuses: nobody could enforce them.
func TestWhatTheSIGAcceptsWeRefuseWithAReason(t *testing.T) {
	named := policy("egress: [{action: Accept, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: http}]}]")
	portName := row{"a port name that cannot be", protocol("{destinationNamedPort: HTTP}"), `spec.ingress[0].protocols[0].destinationNamedPort: Invalid value: "HTTP": ` +
		"write the name of a container port, such as http: at most 15 of a-z, 0-9 and single hyphens inside, at least one letter"}
	unmasked := row{"bits behind the prefix", to("{networks: [10.0.0.1/8, 'fd00::1/8']}"),
		`spec.egress[0].to[0].networks[0]: Invalid value: "10.0.0.1/8": bits behind the prefix must be zero: write 10.0.0.0/8 for 10.1.2.3/8; ` +
			`spec.egress[0].to[0].networks[1]: Invalid value: "fd00::1/8": bits behind the prefix must be zero: write 10.0.0.0/8 for 10.1.2.3/8`}
	tests := map[string][]row{
		"v0.2.0 standard": {portName, unmasked, {"named ports of networks", named, "spec.egress[0].protocols: Invalid value: destinationNamedPort does not go " +
			"with networks or nodes, whose ports have no names: write tcp, udp or sctp with a number, or a rule of its own"}},
		"v0.2.0 experimental": {portName, unmasked},
		"v0.3.0 experimental": {portName},
		"standard": {
			{"an operator of other selectors", expression("{key: app, operator: Gt, values: ['1']}"),
				`spec.subject.namespaces.matchExpressions[0].operator: Unsupported value: "Gt": supported values: "In", "NotIn", "Exists", "DoesNotExist"`},
			{"no values", expression("{key: app, operator: In}"),
				"spec.subject.namespaces.matchExpressions[0]: Invalid value: In and NotIn need values"},
			{"a label that cannot be", selector("{matchLabels: {app: my app}}"),
				`spec.subject.namespaces.matchLabels[app]: Invalid value: "my app": write the value of a label, such as web or v1.2: letters, digits, and between them - _ . too`},
			{"more labels than we take", selector("{matchLabels: " + fields(33, "k#: v") + "}"),
				"spec.subject.namespaces.matchLabels: Too many: 33: must have at most 32 items"},
		},
		"experimental": {
			{"domain names", policy("egress: [{action: Accept, to: [{domainNames: ['*.example.com']}]}]"),
				"spec.egress[0].to[0].domainNames: Invalid value: domainNames is not enforced: write networks"},
		},
	}
	eachCRD(t, func(t *testing.T, release sig.Release, channel string) {
		rows := slices.Concat(tests[channel], tests[release.Name+" "+channel])
		for _, r := range rows {
			if _, err := dryRun(t, object(t, release.GroupVersion().String(), "ClusterNetworkPolicy", r.spec)); err != nil {
				t.Errorf("%s: the SIG's CRD refuses it too: %v", r.name, err)
			}
		}
		check(t, "ClusterNetworkPolicy", rows)
	})
}

// What the conversion of Go objects relies on, too.
func TestOursHasEveryFieldOfTheSIGs(t *testing.T) {
	hasFields(t, "spec", reflect.TypeFor[v1alpha1.ClusterNetworkPolicySpec](), reflect.TypeFor[signetv1beta1.ClusterNetworkPolicySpec]())
}

// hasFields compares two types by their fields' JSON names.
func hasFields(t *testing.T, path string, ours, theirs reflect.Type) {
	t.Helper()
	for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Map}, theirs.Kind()) {
		if ours.Kind() != theirs.Kind() {
			t.Errorf("%s is a %s, and the SIG's a %s", path, ours, theirs)
			return
		}
		ours, theirs = ours.Elem(), theirs.Elem()
	}
	if ours.Kind() != theirs.Kind() {
		t.Errorf("%s is a %s, and the SIG's a %s", path, ours, theirs)
		return
	}
	if theirs.Kind() != reflect.Struct {
		return
	}
	for _, field := range reflect.VisibleFields(theirs) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		twin, ok := fieldNamed(ours, name)
		if !ok {
			t.Errorf("%s has no %s, and the SIG's has", path, name)
			continue
		}
		hasFields(t, path+"."+name, twin.Type, field.Type)
	}
}

func fieldNamed(in reflect.Type, name string) (reflect.StructField, bool) {
	for _, field := range reflect.VisibleFields(in) {
		if got, _, _ := strings.Cut(field.Tag.Get("json"), ","); got == name {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

// A manifest is a ClusterNetworkPolicy, and where it is from.
type manifest struct {
	name   string
	object *unstructured.Unstructured
}

// userStories reads the examples of the SIG's site. The fourth is left out: it is about what the API cannot say yet, and is no YAML.
func userStories(t *testing.T, module string) []manifest {
	t.Helper()
	var out []manifest
	for _, story := range []string{"1", "2", "3", "5"} {
		out = append(out, manifests(t, module, "site-src/user-story-examples/user-story-"+story+".yaml")...)
	}
	return out
}

// manifests reads the ClusterNetworkPolicies of a file of the SIG's module, or of all files below a directory.
func manifests(t *testing.T, module, below string) []manifest {
	t.Helper()
	var out []manifest
	err := fs.WalkDir(os.DirFS(module), below, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(filepath.Join(module, path))
		if err != nil {
			return err
		}
		objects, err := shipped.Decode(rendered(t, path, string(text)))
		if err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		for _, o := range objects {
			if o.GetKind() == "ClusterNetworkPolicy" {
				out = append(out, manifest{path + " " + o.GetName(), o})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("looking for the SIG's manifests: %v", err)
	}
	return out
}

// rendered fills in the ports that the SIG's suite would find free on the hosts.
func rendered(t *testing.T, name, text string) []byte {
	t.Helper()
	parsed, err := template.New(name).Parse(text)
	if err != nil {
		t.Fatalf("reading %s: %v", name, err)
	}
	ports := struct{ HostNetworkPorts []int }{[]int{34345, 34346, 34347, 34348, 34349, 34350, 34351, 34352}}
	var out bytes.Buffer
	if err := parsed.Execute(&out, ports); err != nil {
		t.Fatalf("filling in %s: %v", name, err)
	}
	return out.Bytes()
}

// install installs the CRDs of a directory until the test ends.
func install(t *testing.T, dir string) {
	t.Helper()
	options := envtest.CRDInstallOptions{CRDs: readCRDs(t, dir)}
	if _, err := envtest.InstallCRDs(config, options); err != nil {
		t.Fatalf("installing the CRDs of %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := envtest.UninstallCRDs(config, options); err != nil {
			t.Errorf("removing the CRDs of %s: %v", dir, err)
		}
		kit.Eventually(t, time.Minute, "the CRDs of "+dir+" are gone", func() bool {
			return !slices.ContainsFunc(options.CRDs, func(crd *apiextensionsv1.CustomResourceDefinition) bool {
				err := server.Get(context.Background(), client.ObjectKeyFromObject(crd), new(apiextensionsv1.CustomResourceDefinition))
				return !apierrors.IsNotFound(err)
			})
		})
	})
}
