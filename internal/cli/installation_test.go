package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/controllers/install"
)

func TestWhatTheControllerInstalls(t *testing.T) {
	const probes = "--health-probe-bind-address=127.0.0.1:9440"
	set := []string{"--deployment=net/controller", "--enforcer-image=example.com/r:v2"}
	tests := []struct {
		name  string
		flags []string
		env   map[string]string
		args  []any // of the enforcers
	}{
		{"as config/default", append(set, "--install-enforcers=default"), nil, []any{"enforcer", probes}},
		{"with the CNI plugin", append(set, "--install-enforcers=first-packet"), nil,
			[]any{"enforcer", probes, "--cni-conf-dir=/host/cni/net.d", "--cni-bin-dir=/host/cni/bin,/host/usr/lib/cni,/host/usr/libexec/cni"}},
		{"with more flags", append(set, "--install-enforcers=default", "--enforcer-args= --log-denied  --dns-service=a/b,c/d "), nil,
			[]any{"enforcer", probes, "--log-denied", "--dns-service=a/b,c/d"}},
		{"by the environment", nil, map[string]string{"INSTALL_ENFORCERS": "default", "DEPLOYMENT": "net/controller",
			"RELATED_IMAGE_ENFORCER": "example.com/r:v2", "ENFORCER_ARGS": "--log-denied"}, []any{"enforcer", probes, "--log-denied"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, err := installationOf(t, tt.flags, tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if want := (types.NamespacedName{Namespace: "net", Name: "controller"}); in.Deployment != want {
				t.Errorf("the Deployment is %s, want %s", in.Deployment, want)
			}
			for _, o := range in.Objects {
				text, err := o.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(text), "$(") {
					t.Errorf("%s: a mark is left in\n%s", o.GetKind(), text)
				}
				if got := o.GetLabels()["app.kubernetes.io/version"]; got != thisBuild().Version {
					t.Errorf("%s is of version %q, want that of the controller", o.GetKind(), got)
				}
				switch o.GetKind() {
				case "DaemonSet":
					containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
					got := []any{o.GetNamespace(), containers[0].(map[string]any)["image"], containers[0].(map[string]any)["args"]}
					if diff := cmp.Diff([]any{"net", "example.com/r:v2", tt.args}, got); diff != "" {
						t.Errorf("namespace, image and arguments (-want +got):\n%s", diff)
					}
				case "ValidatingAdmissionPolicy":
					of, _, _ := strings.Cut(o.GetName(), "-pods") // ringfence-enforcer-pods is about the enforcers too
					if !strings.Contains(string(text), "'serviceaccount', 'net', '"+of+"'") {
						t.Errorf("the admission policy %s is not about the one of namespace net:\n%s", o.GetName(), text)
					}
				}
			}
		})
	}
}

func TestNothingIsInstalledUnasked(t *testing.T) {
	if in, err := installationOf(t, nil, map[string]string{"DEPLOYMENT": "net/controller", "RELATED_IMAGE_ENFORCER": "r"}); in != nil || err != nil {
		t.Errorf("got %v, %v", in, err)
	}
}

func TestInstallationsThatAreRefused(t *testing.T) {
	const variant, deployment, image = "--install-enforcers=default", "--deployment=net/controller", "--enforcer-image=r"
	tests := []struct {
		flags []string
		why   string
	}{
		{[]string{"--install-enforcers=all", deployment, image}, `--install-enforcers "all": give default or first-packet`},
		{[]string{"--install-enforcers=../olm/default", deployment, image}, `--install-enforcers "../olm/default"`},
		{[]string{variant, image}, `--deployment "" names no Deployment`},
		{[]string{variant, image, "--deployment=controller"}, `--deployment "controller" names no Deployment`},
		{[]string{variant, image, "--deployment=a'b/controller"}, `--deployment "a'b/controller" names no Deployment`},
		{[]string{variant, deployment}, "--enforcer-image is empty"},
	}
	for _, tt := range tests {
		if _, err := installationOf(t, tt.flags, nil); err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%q: got %v, want: %s", tt.flags, err, tt.why)
		}
	}
}

func installationOf(t *testing.T, flags []string, env map[string]string) (*install.Installation, error) {
	t.Helper()
	for _, name := range []string{"INSTALL_ENFORCERS", "DEPLOYMENT", "RELATED_IMAGE_ENFORCER", "ENFORCER_ARGS"} {
		t.Setenv(name, env[name])
	}
	var o controllerOptions
	if err := o.flags().Parse(flags); err != nil {
		t.Fatal(err)
	}
	return o.installation.installation()
}
