package lab

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/config"
)

// fieldManager owns the fields that Apply writes.
const fieldManager = "ringfence-lab"

// prepareCluster writes the objects that are there before any pod: our kinds, the nodes, and the rights of our programs. These are
// the very ones that a cluster is given, so that a right that is missing shows here.
func (l *Lab) prepareCluster(ctx context.Context) error {
	if err := l.installKinds(ctx); err != nil {
		return err
	}
	if err := l.grantRights(ctx); err != nil {
		return err
	}
	for _, n := range l.Nodes {
		if err := n.register(ctx); err != nil {
			return err
		}
	}
	return nil
}

// installKinds installs our CustomResourceDefinitions, and returns when the API server serves what they define.
func (l *Lab) installKinds(ctx context.Context) error {
	if err := l.ApplyDir(ctx, config.CRDs, "crd/bases"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, kindsPatience, fmt.Errorf("waited %s for our kinds", kindsPatience))
	defer cancel()
	return Poll(ctx, func(context.Context) error {
		served, err := l.Client.Discovery().ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
		if err != nil {
			return fmt.Errorf("asking for our kinds: %w", err)
		}
		for _, kind := range []string{"ClusterNetworkPolicy", "NamespaceIsolation", "NodeEnforcement", "PolicyEnforcement"} {
			if !slices.ContainsFunc(served.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind }) {
				return fmt.Errorf("the API server does not serve %s yet", kind)
			}
		}
		return nil
	})
}

// kindsPatience is for an API server that has just started, and reads new kinds in its own time.
const kindsPatience = time.Minute

// Apply writes the objects of a YAML stream, of any kind that the API server knows, in their order.
func (l *Lab) Apply(ctx context.Context, stream []byte) error {
	objects, err := config.Decode(stream)
	if err != nil {
		return err
	}
	return l.apply(ctx, objects)
}

func (l *Lab) apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	return l.each(objects, func(mapper meta.RESTMapper, object *unstructured.Unstructured) error {
		client, err := l.clientOf(mapper, object)
		if err != nil {
			return err
		}
		_, err = client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		return err
	})
}

// each does something with the objects, in their order.
func (l *Lab) each(objects []*unstructured.Unstructured, do func(meta.RESTMapper, *unstructured.Unstructured) error) error {
	groups, err := restmapper.GetAPIGroupResources(l.Client.Discovery())
	if err != nil {
		return fmt.Errorf("asking for the kinds of objects: %w", err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	for _, object := range objects {
		if err := do(mapper, object); err != nil {
			return fmt.Errorf("writing %s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
		}
	}
	return nil
}

// clientOf is the client of an object's kind, in its namespace.
func (l *Lab) clientOf(mapper meta.RESTMapper, object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := object.GroupVersionKind()
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	return l.dynamic.Resource(mapping.Resource).Namespace(object.GetNamespace()), nil
}

// Delete deletes the objects of a YAML stream. What is not there is as it should be.
func (l *Lab) Delete(ctx context.Context, stream []byte) error {
	objects, err := config.Decode(stream)
	if err != nil {
		return err
	}
	return l.each(objects, func(mapper meta.RESTMapper, object *unstructured.Unstructured) error {
		client, err := l.clientOf(mapper, object)
		if err != nil {
			return err
		}
		err = client.Delete(ctx, object.GetName(), metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// ApplyDir applies all manifests of a directory, those with namespaces first. A kustomization is not followed.
func (l *Lab) ApplyDir(ctx context.Context, files fs.FS, dir string) error {
	manifests, err := readDir(files, dir)
	if err != nil {
		return err
	}
	for _, text := range manifests {
		if err := l.Apply(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// DeleteDir deletes what ApplyDir has applied, the last first.
func (l *Lab) DeleteDir(ctx context.Context, files fs.FS, dir string) error {
	manifests, err := readDir(files, dir)
	if err != nil {
		return err
	}
	for _, text := range slices.Backward(manifests) {
		if err := l.Delete(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// readDir reads the manifests of a directory, those with namespaces first.
func readDir(files fs.FS, dir string) ([][]byte, error) {
	var namespaces, rest [][]byte
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == "kustomization.yaml" || !strings.HasSuffix(entry.Name(), ".yaml") {
			continue
		}
		text, err := fs.ReadFile(files, dir+"/"+entry.Name())
		if err != nil {
			return nil, fmt.Errorf("reading manifests: %w", err)
		}
		if bytes.Contains(text, []byte("\nkind: Namespace\n")) {
			namespaces = append(namespaces, text)
		} else {
			rest = append(rest, text)
		}
	}
	return append(namespaces, rest...), nil
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
