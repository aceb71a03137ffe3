// Package rights holds what config/default lets our programs do, tried against a real API server: each with a token of its own service account,
// as its pods have.
package rights

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/ringfence-io/ringfence/config"
	labserver "github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/test/apiserver"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/sig"
)

// What is installed.
const defaults = "../../config/default"

// What it calls our programs.
const (
	system     = "ringfence-system"
	enforcer   = "ringfence-enforcer"
	controller = "ringfence-controller"
)

var (
	// restConfig reaches the API server of this test run, with every right. The other two use it.
	restConfig *rest.Config
	admin      client.Client
	kube       *kubernetes.Clientset
	// rendered is config/default.
	rendered []*unstructured.Unstructured
)

func TestMain(m *testing.M) { apiserver.Main(m, prepare) }

// prepare installs config/default, as kubectl apply -k would, the SIG's kind, and two nodes.
func prepare(env *envtest.Environment) error {
	restConfig = env.Config
	theSIGs, err := sig.V03.Bases("standard")
	if err != nil {
		return err
	}
	if err := apiserver.InstallCRDs(restConfig, apiserver.CRDs, theSIGs); err != nil {
		return err
	}
	plain, err := client.New(restConfig, client.Options{})
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	admin = client.WithFieldValidation(plain, metav1.FieldValidationStrict)
	if kube, err = kubernetes.NewForConfig(restConfig); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if rendered, err = render(defaults); err != nil {
		return err
	}
	ctx := context.Background()
	for _, object := range rendered {
		if object.GetKind() == "CustomResourceDefinition" {
			continue
		}
		if err := admin.Create(ctx, object.DeepCopy()); err != nil {
			return fmt.Errorf("creating %s %s of config/default: %w", object.GetKind(), object.GetName(), err)
		}
	}
	for _, name := range []string{"n1", "n2"} {
		if err := admin.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return fmt.Errorf("creating node %s: %w", name, err)
		}
	}
	return untilInForce(ctx)
}

// render is what kustomize makes of a directory.
func render(dir string) ([]*unstructured.Unstructured, error) {
	kubectl := labserver.Kubectl()
	cmd := exec.Command(kubectl, "kustomize", dir)
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rendering %s with %s, which hack/kube/build.sh builds: %w: %s", dir, kubectl, err, said.Bytes())
	}
	objects, err := config.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("reading what %s renders to: %w", dir, err)
	}
	return objects, nil
}

// untilInForce waits until the API server, which reads roles and admission policies in its own time, refuses what it should.
func untilInForce(ctx context.Context) error {
	token, err := tokenOf(ctx, enforcer, boundTo(ctx, "n1"))
	if err != nil {
		return err
	}
	n1, err := clientWith(token)
	if err != nil {
		return err
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = apply(ctx, n1, report("n2"), metav1.DryRunAll)
		return last != nil && strings.Contains(last.Error(), "ValidatingAdmissionPolicy"), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the admission policy: %w; the last write of another node's object got: %w", err, last)
	}
	return nil
}

// boundTo is what binds a token to a node; nil if there is no such node.
func boundTo(ctx context.Context, name string) *authenticationv1.BoundObjectReference {
	node, err := kube.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}

// tokenOf is a token of one of our service accounts.
func tokenOf(ctx context.Context, account string, to *authenticationv1.BoundObjectReference) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: to}}
	answer, err := kube.CoreV1().ServiceAccounts(system).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for a token of %s: %w", account, err)
	}
	return answer.Status.Token, nil
}

func clientWith(token string) (dynamic.Interface, error) {
	config := rest.AnonymousClientConfig(restConfig)
	config.BearerToken, config.QPS = token, -1
	return dynamic.NewForConfig(config)
}

// as is one of our programs; that of a node has a token that is bound to it.
func as(t *testing.T, account, node string) dynamic.Interface {
	t.Helper()
	var to *authenticationv1.BoundObjectReference
	if node != "" {
		if to = boundTo(t.Context(), node); to == nil {
			t.Fatalf("there is no node %s", node)
		}
	}
	return asBoundTo(t, account, to)
}

func asBoundTo(t *testing.T, account string, to *authenticationv1.BoundObjectReference) dynamic.Interface {
	t.Helper()
	token, err := tokenOf(t.Context(), account, to)
	kit.Must(t, err)
	c, err := clientWith(token)
	kit.Must(t, err)
	return c
}

// nodeEnforcements, and so on, are resources of the API.
var (
	nodeEnforcements   = ours("nodeenforcements")
	nodeConnections    = ours("nodeconnections")
	policyEnforcements = ours("policyenforcements")
	connectionReports  = ours("connectionreports")
	clusterPolicies    = ours("clusternetworkpolicies")
	isolations         = ours("namespaceisolations")
	networkPolicies    = schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}
)

func ours(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "policy.ringfence.io", Version: "v1alpha1", Resource: resource}
}

// report is what an enforcer says of its node, with changes.
func report(node string, with ...func(*unstructured.Unstructured)) *unstructured.Unstructured {
	object := parsed(fmt.Sprintf(`{apiVersion: policy.ringfence.io/v1alpha1, kind: NodeEnforcement, metadata: {name: %s},
		status: {backend: nft, heartbeatSeconds: 60}}`, node))
	return changedBy(object, with)
}

// seenBy is what the enforcer says that it has seen of denied connections, with changes.
func seenBy(node string, with ...func(*unstructured.Unstructured)) *unstructured.Unstructured {
	return changedBy(parsed(fmt.Sprintf(`{apiVersion: policy.ringfence.io/v1alpha1, kind: NodeConnections, metadata: {name: %s}, status: {
		time: "2026-01-01T00:00:00Z", since: "2026-01-01T00:00:00Z"}}`, node)), with)
}

func changedBy(object *unstructured.Unstructured, with []func(*unstructured.Unstructured)) *unstructured.Unstructured {
	for _, change := range with {
		change(object)
	}
	return object
}

// apply writes what an enforcer says of its node, as it does.
func apply(ctx context.Context, c dynamic.Interface, object *unstructured.Unstructured, dryRun ...string) error {
	options := metav1.ApplyOptions{FieldManager: "ringfence-enforcer", Force: true, DryRun: dryRun}
	_, err := c.Resource(resourceOf(object)).Apply(ctx, object.GetName(), object, options)
	return err
}

// resourceOf is the resource of what an enforcer says of its node.
func resourceOf(object *unstructured.Unstructured) schema.GroupVersionResource {
	if object.GetKind() == "NodeConnections" {
		return nodeConnections
	}
	return nodeEnforcements
}

// parsed reads an object that stands in a test.
func parsed(text string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "\t", " ")), &object.Object); err != nil {
		panic(fmt.Sprintf("%v in %s", err, text))
	}
	return object
}

// refused checks that the API server refuses something, and says why.
func refused(t *testing.T, err error, why string) {
	t.Helper()
	if err == nil {
		t.Errorf("it is allowed, want it refused: %s", why)
	} else if !strings.Contains(err.Error(), why) {
		t.Errorf("it is refused with\n\t%v\nwant\n\t%s", err, why)
	}
}
