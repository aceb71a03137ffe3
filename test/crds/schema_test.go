package crds

import (
	"maps"
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/ringfence-io/ringfence/test/apiserver"
)

// kubectl explain shows descriptions, and nothing but a type where there is none.
func TestEveryFieldHasADescription(t *testing.T) {
	for _, crd := range readCRDs(t, apiserver.CRDs) {
		for _, version := range crd.Spec.Versions {
			schema := version.Schema.OpenAPIV3Schema
			if schema.Description == "" {
				t.Errorf("%s has no description", crd.Spec.Names.Kind)
			}
			properties := maps.Clone(schema.Properties)
			delete(properties, "metadata") // kubectl knows it
			if fields := describe(t, crd.Spec.Names.Kind, properties); fields < 20 {
				t.Errorf("%s has %d fields: that cannot be all", crd.Spec.Names.Kind, fields)
			}
		}
	}
}

// describe looks at the fields below path, and counts them.
func describe(t *testing.T, path string, properties map[string]apiextensionsv1.JSONSchemaProps) int {
	fields := 0
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		field := properties[name]
		if field.Description == "" {
			t.Errorf("%s.%s has no description", path, name)
		}
		below := field.Properties
		if field.Items != nil {
			below = field.Items.Schema.Properties
		}
		fields += 1 + describe(t, path+"."+name, below)
	}
	return fields
}
