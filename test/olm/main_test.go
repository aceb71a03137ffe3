// Package olm tries against a real API server what the OLM bundle installs: a bundle's objects are put there as the Operator Lifecycle Manager (OLM)
// puts them, and what the bundle's Deployment runs is run with the rights, the arguments and the environment that the bundle gives it.
//
// There is no garbage collector here: what goes with its owner is seen by who owns it.
package olm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	syaml "sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/config"
	labserver "github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/test/apiserver"
	"github.com/ringfence-io/ringfence/test/kit"
)

const manifests = "../../bundle/manifests"

var (
	// restConfig reaches the API server of this test run, with every right. The other two use it.
	restConfig *rest.Config
	admin      client.Client
	kube       *kubernetes.Clientset
	// ringfence is the program.
	ringfence string
)

// patience is for everything that happens some time after it was asked for.
const patience = time.Minute

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run runs the tests with a directory for the program, and removes it. It returns the exit status: an exit of its own would leave the directory.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ringfence-olm-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a directory for the program:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	ringfence = filepath.Join(dir, "ringfence")
	return apiserver.Run(m, prepare)
}

// prepare installs the bundle's kinds, and builds the program.
func prepare(env *envtest.Environment) error {
	restConfig = env.Config
	log.SetLogger(logr.Discard())
	var err error
	if admin, err = client.New(restConfig, client.Options{}); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if kube, err = kubernetes.NewForConfig(restConfig); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if err := apiserver.InstallCRDs(restConfig, manifests); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", ringfence, "github.com/ringfence-io/ringfence")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w: %s", err, out)
	}
	return nil
}

// csv is what is read of a ClusterServiceVersion.
type csv struct {
	Spec struct {
		Install struct {
			Spec struct {
				Deployments []struct {
					Name  string
					Label map[string]string
					Spec  appsv1.DeploymentSpec
				}
				Permissions, ClusterPermissions []struct {
					ServiceAccountName string
					Rules              []rbacv1.PolicyRule
				}
			}
		}
	}
}

// installation is a bundle that OLM has installed.
type installation struct {
	t          *testing.T
	namespace  string
	deployment *appsv1.Deployment
	controller corev1.Container
	config     *rest.Config // the controller's
}

// install puts a bundle's objects into a namespace of its own. Roles stay in the namespace: with an OperatorGroup for all namespaces OLM widens them,
// and a program that can do with less can do with more.
func install(t *testing.T) *installation {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(manifests, "ringfence.clusterserviceversion.yaml"))
	kit.Must(t, err)
	var bundle csv
	kit.Must(t, syaml.Unmarshal(text, &bundle))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "olm-"}}
	kit.Must(t, admin.Create(t.Context(), ns))
	in := &installation{t: t, namespace: ns.Name}
	accounts := map[string]bool{}
	for _, p := range bundle.Spec.Install.Spec.ClusterPermissions {
		name := in.namespace + "-" + p.ServiceAccountName
		in.grant(accounts, p.ServiceAccountName, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: p.Rules},
			&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: roleRef("ClusterRole", name), Subjects: in.subjects(p.ServiceAccountName)})
	}
	for _, p := range bundle.Spec.Install.Spec.Permissions {
		meta := metav1.ObjectMeta{Namespace: in.namespace, Name: p.ServiceAccountName}
		in.grant(accounts, p.ServiceAccountName, &rbacv1.Role{ObjectMeta: meta, Rules: p.Rules},
			&rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: roleRef("Role", meta.Name), Subjects: in.subjects(p.ServiceAccountName)})
	}
	if len(bundle.Spec.Install.Spec.Deployments) != 1 {
		t.Fatalf("the bundle has %d Deployments, want the controller's", len(bundle.Spec.Install.Spec.Deployments))
	}
	d := bundle.Spec.Install.Spec.Deployments[0]
	in.deployment = &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: in.namespace, Name: d.Name, Labels: d.Label}, Spec: d.Spec}
	kit.Must(t, admin.Create(t.Context(), in.deployment))
	in.controller = d.Spec.Template.Spec.Containers[0]
	in.config = in.as(d.Spec.Template.Spec.ServiceAccountName)
	t.Cleanup(in.remove)
	return in
}

func roleRef(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func (in *installation) subjects(account string) []rbacv1.Subject {
	return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: in.namespace, Name: account}}
}

func (in *installation) grant(accounts map[string]bool, account string, objects ...client.Object) {
	in.t.Helper()
	if !accounts[account] {
		accounts[account] = true
		objects = append(objects, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: in.namespace, Name: account}})
	}
	for _, o := range objects {
		kit.Must(in.t, admin.Create(in.t.Context(), o))
	}
}

// as reaches the API server with a token of a service account, as a pod has one.
func (in *installation) as(account string) *rest.Config {
	in.t.Helper()
	answer, err := kube.CoreV1().ServiceAccounts(in.namespace).CreateToken(in.t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	kit.Must(in.t, err)
	config := rest.AnonymousClientConfig(restConfig)
	config.BearerToken, config.QPS = answer.Status.Token, -1
	return config
}

// remove removes what would be in the way of another installation.
func (in *installation) remove() {
	for _, o := range in.installed("default", in.controller.Image) {
		if o.GetNamespace() == "" {
			kit.Must(in.t, client.IgnoreNotFound(admin.Delete(context.Background(), o)))
		}
	}
}

// environment is what the kubelet makes of the container's.
func (in *installation) environment(with ...string) []string {
	var out []string
	for _, e := range in.controller.Env {
		value := strings.ReplaceAll(e.Value, "$(POD_NAMESPACE)", in.namespace)
		if e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.namespace" {
			value = in.namespace
		}
		out = append(out, e.Name+"="+value)
	}
	return append(out, with...)
}

// run runs what the Deployment runs, until stop is called, with more environment than the bundle gives: as a Subscription does.
func (in *installation) run(with ...string) (stop func()) {
	in.t.Helper()
	file := filepath.Join(in.t.TempDir(), "kubeconfig")
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"clusters": []any{map[string]any{"name": "it", "cluster": map[string]any{"server": in.config.Host, "certificate-authority-data": in.config.CAData}}},
		"users":    []any{map[string]any{"name": "it", "user": map[string]any{"token": in.config.BearerToken}}},
		"contexts": []any{map[string]any{"name": "it", "context": map[string]any{"cluster": "it", "user": "it"}}},
	})
	kit.Must(in.t, err)
	kit.Must(in.t, os.WriteFile(file, text, 0o600))
	ctx, cancel := context.WithCancel(in.t.Context())
	args := append(append([]string{}, in.controller.Args...), "--kubeconfig="+file, "--leader-elect-namespace="+in.namespace,
		"--metrics-bind-address=0", "--health-probe-bind-address=0")
	cmd := exec.CommandContext(ctx, ringfence, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Env = append(os.Environ(), in.environment(with...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	kit.Must(in.t, cmd.Start())
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			in.t.Errorf("the controller ended with %v", err)
		}
		if in.t.Failed() {
			in.t.Logf("the controller said:\n%s", said.String())
		}
	}
	in.t.Cleanup(stop)
	return stop
}

// installed are the objects of config/olm as they are for this installation.
func (in *installation) installed(variant, image string, args ...string) []*unstructured.Unstructured {
	in.t.Helper()
	text, err := os.ReadFile(filepath.Join("../../config/olm", variant+".yaml"))
	kit.Must(in.t, err)
	lines := ""
	for _, arg := range args {
		lines += "        - " + arg + "\n"
	}
	// The program is built without a version.
	filled := strings.NewReplacer("$(NAMESPACE)", in.namespace, "$(IMAGE)", image, "$(VERSION)", "development", "        - $(ARGS)\n", lines).Replace(string(text))
	return decode(in.t, []byte(filled))
}

func decode(t *testing.T, text []byte) []*unstructured.Unstructured {
	t.Helper()
	objects, err := config.Decode(text)
	kit.Must(t, err)
	return objects
}

// kustomized is an object of config/default.
func kustomized(t *testing.T, kind, name string) *unstructured.Unstructured {
	t.Helper()
	text, err := exec.Command(labserver.Kubectl(), "kustomize", "../../config/default").Output()
	kit.Must(t, err)
	for _, o := range decode(t, text) {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("config/default has no %s %s", kind, name)
	return nil
}

func empty(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// found is an object as it stands in the API now; nil if it is not there.
func found(t *testing.T, like *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	o := empty(like.GetAPIVersion(), like.GetKind(), like.GetNamespace(), like.GetName())
	err := admin.Get(t.Context(), client.ObjectKeyFromObject(o), o)
	if client.IgnoreNotFound(err) == nil && err != nil {
		return nil
	}
	kit.Must(t, err)
	return o
}
