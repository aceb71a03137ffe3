package status

import (
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/config"
)

// The mapper asks nobody, so that what it says of our kinds has to be what their definitions say. NodeConnections is a plural in itself.
func TestTheMapperKnowsOurKindsByTheirResources(t *testing.T) {
	mapper, err := RESTMapper(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for object := range CacheOptions().ByObject {
		kinds, _, err := Scheme().ObjectKinds(object)
		if err != nil {
			t.Fatal(err)
		}
		kind := kinds[0]
		got, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
		if crd := definitionOf(t, kind.GroupKind()); crd != nil && err == nil {
			scope := meta.RESTScopeName(map[apiextensionsv1.ResourceScope]meta.RESTScopeName{
				apiextensionsv1.ClusterScoped: meta.RESTScopeNameRoot, apiextensionsv1.NamespaceScoped: meta.RESTScopeNameNamespace,
			}[crd.Spec.Scope])
			if want := kind.GroupVersion().WithResource(crd.Spec.Names.Plural); got.Resource != want || got.Scope.Name() != scope {
				t.Errorf("%s is read as %v in scope %s, want %v in %s", kind.Kind, got.Resource, got.Scope.Name(), want, scope)
			}
		}
	}
}

// definitionOf is the CustomResourceDefinition of a kind, nil if it is Kubernetes' own.
func definitionOf(t *testing.T, kind schema.GroupKind) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	if kind.Group != v1alpha1.GroupVersion.Group {
		return nil
	}
	files, err := config.CRDs.ReadDir("crd/bases")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := config.CRDs.ReadFile("crd/bases/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(text, &crd); err != nil {
			t.Fatal(err)
		}
		if crd.Spec.Names.Kind == kind.Kind {
			return &crd
		}
	}
	t.Fatalf("nothing defines %s", kind)
	return nil
}
