package lab

import (
	"context"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ringfence-io/ringfence/config"
)

// What config/default makes of the short names in our manifests.
const (
	systemNamespace = "ringfence-system"
	namePrefix      = "ringfence-"
)

// Whom the manifests give rights, by their short names.
const (
	enforcerAccount   = "enforcer"
	controllerAccount = "controller"
)

// account is a service account as it is called on a cluster.
func account(short string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: namePrefix + short}}
}

// grantRights gives our programs what a cluster gives them.
func (l *Lab) grantRights(ctx context.Context) error {
	objects, err := Rights()
	if err != nil {
		return err
	}
	if err := l.apply(ctx, objects); err != nil {
		return err
	}
	return l.API.WriteTokenKubeconfig(ctx, l.controllerKubeconfig(), l.inside(), account(controllerAccount), nil)
}

func (l *Lab) controllerKubeconfig() string {
	return filepath.Join(l.Dir, controllerAccount+".kubeconfig")
}

// inside is where the lab's own hosts reach the API server.
func (l *Lab) inside() string { return l.API.URL(l.WorldAddresses()[0]) }

// Rights are the service accounts of our programs and all that they are allowed, by the names that config/default gives, but without its
// labels.
func Rights() ([]*unstructured.Unstructured, error) {
	namespace, err := readDir(config.Rights, "enforcer")
	if err != nil {
		return nil, err
	}
	rbac, err := readDir(config.Rights, "rbac")
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, text := range slices.Concat(namespace, rbac) {
		objects, err := config.Decode(text)
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	for _, object := range out {
		rename(object)
	}
	return out, nil
}

// rename gives an object its names on a cluster, where kustomize would change them: its own, and those by which it refers to others of ours.
func rename(object *unstructured.Unstructured) {
	if object.GetKind() == "Namespace" {
		object.SetName(systemNamespace)
		return
	}
	object.SetName(namePrefix + object.GetName())
	if object.GetNamespace() != "" {
		object.SetNamespace(systemNamespace)
	}
	if role, ok := object.Object["roleRef"].(map[string]any); ok {
		prefix(role, "name")
	}
	if spec, ok := object.Object["spec"].(map[string]any); ok {
		prefix(spec, "policyName")
	}
	subjects, _ := object.Object["subjects"].([]any)
	for _, subject := range subjects {
		if subject, ok := subject.(map[string]any); ok {
			prefix(subject, "name")
			subject["namespace"] = systemNamespace
		}
	}
}

// prefix puts the prefix before a name, if there is one.
func prefix(in map[string]any, field string) {
	if name, ok := in[field].(string); ok {
		in[field] = namePrefix + name
	}
}
