package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/restmapper"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/lab/apiserver"
)

// fieldManager owns the fields that Apply writes.
const fieldManager = "ringfence-lab"

// enforcerUser is whom enforcers are to the API server: the service account that config/default makes on a cluster.
func (l *Lab) enforcerUser() apiserver.User {
	return apiserver.User{
		Name:   "system:serviceaccount:ringfence-system:ringfence-enforcer",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ringfence-system", "system:authenticated"},
	}
}

// prepareCluster writes the objects that are there before any pod: the nodes, and the enforcer's rights. These are the
// very ones that a cluster is given, so that a right that is missing shows here.
func (l *Lab) prepareCluster(ctx context.Context) error {
	for _, n := range l.Nodes {
		if err := n.register(ctx); err != nil {
			return err
		}
	}
	var role rbacv1.ClusterRole
	if err := sigsyaml.UnmarshalStrict(config.EnforcerRole, &role); err != nil {
		return fmt.Errorf("reading the enforcer's role: %w", err)
	}
	roles := l.Client.RbacV1()
	if _, err := roles.ClusterRoles().Create(ctx, &role, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the enforcer's role: %w", err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: l.enforcerUser().Name}},
	}
	if _, err := roles.ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("binding the enforcer's role: %w", err)
	}
	return nil
}

// Apply writes the objects of a YAML stream, of any kind that the API server knows, in their order.
func (l *Lab) Apply(ctx context.Context, stream []byte) error {
	groups, err := restmapper.GetAPIGroupResources(l.Client.Discovery())
	if err != nil {
		return fmt.Errorf("asking for the kinds of objects: %w", err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(stream), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading YAML: %w", err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := l.apply(ctx, mapper, &object); err != nil {
			return fmt.Errorf("applying %s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
		}
	}
}

func (l *Lab) apply(ctx context.Context, mapper meta.RESTMapper, object *unstructured.Unstructured) error {
	gvk := object.GroupVersionKind()
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return err
	}
	client := l.dynamic.Resource(mapping.Resource).Namespace(object.GetNamespace())
	_, err = client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	return err
}

// ApplyDir applies all manifests of a directory, those with namespaces first. A kustomization is not followed.
func (l *Lab) ApplyDir(ctx context.Context, files fs.FS, dir string) error {
	var namespaces, rest [][]byte
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return fmt.Errorf("reading manifests: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == "kustomization.yaml" || !strings.HasSuffix(entry.Name(), ".yaml") {
			continue
		}
		text, err := fs.ReadFile(files, dir+"/"+entry.Name())
		if err != nil {
			return fmt.Errorf("reading manifests: %w", err)
		}
		if bytes.Contains(text, []byte("\nkind: Namespace\n")) {
			namespaces = append(namespaces, text)
		} else {
			rest = append(rest, text)
		}
	}
	for _, text := range append(namespaces, rest...) {
		if err := l.Apply(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// DeleteNamespace deletes a namespace with all that is in it and waits until it is gone.
func (l *Lab) DeleteNamespace(ctx context.Context, name string) error {
	client := l.Client.CoreV1().Namespaces()
	if err := client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("deleting namespace %s: %w", name, err)
	}
	return Poll(ctx, func(ctx context.Context) error {
		_, err := client.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("deleting namespace %s: it is still there", name)
	})
}
