package crds

import (
	"context"
	"io/fs"
	"path"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	shipped "github.com/ringfence-io/ringfence/config"
)

// The API server takes every sample as it stands: the application and its policies, which come together, and each of those that are
// applied by themselves. A field that it does not know is an error.
func TestSamplesAreAccepted(t *testing.T) {
	files, err := fs.Glob(shipped.Samples, "samples/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	applied := 0
	for _, file := range namespacesFirst(files) {
		if path.Base(file) == "kustomization.yaml" {
			continue
		}
		for _, o := range readObjects(t, file) {
			if o.GetKind() == "NetworkPolicy" && o.GetNamespace() == "" {
				o.SetNamespace(metav1.NamespaceDefault) // kubectl's, unless it is told another
			}
			strict := client.WithFieldValidation(server, metav1.FieldValidationStrict)
			if err := strict.Create(t.Context(), o); err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			t.Cleanup(func() { _ = server.Delete(context.Background(), o) }) // the test's own context has ended by then
			applied++
		}
	}
	if applied < 25 {
		t.Errorf("%d objects are applied: that cannot be all", applied)
	}
}

// namespacesFirst is the order in which nothing is applied to a namespace that does not exist yet.
func namespacesFirst(files []string) []string {
	isLater := func(file string) bool { return path.Base(file) != "namespaces.yaml" }
	return append(slices.DeleteFunc(slices.Clone(files), isLater), slices.DeleteFunc(files, func(f string) bool { return !isLater(f) })...)
}

// readObjects reads the objects of a sample.
func readObjects(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	text, err := shipped.Samples.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := shipped.Decode(text)
	if err != nil {
		t.Fatalf("reading %s: %v", file, err)
	}
	return objects
}
