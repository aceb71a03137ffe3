package install

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// What limits enforcers is cluster-scoped, and is there before any enforcer. All else keeps its order, whatever the names of the namespaces are.
func TestWhatLimitsEnforcersIsInstalledFirst(t *testing.T) {
	object := func(namespace, name string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{}}
		o.SetNamespace(namespace)
		o.SetName(name)
		return o
	}
	r := &Installation{Objects: []*unstructured.Unstructured{
		object("ringfence-system", "account"), object("", "policy"), object("kube-system", "role"), object("ringfence-system", "enforcer"), object("", "binding"),
	}}
	var names []string
	for _, o := range r.ordered() {
		names = append(names, o.GetName())
	}
	if want := []string{"policy", "binding", "account", "role", "enforcer"}; !slices.Equal(names, want) {
		t.Errorf("installed in the order %v, want %v", names, want)
	}
}
