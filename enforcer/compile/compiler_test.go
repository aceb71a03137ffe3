package compile

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// A policy is read once for each version, and forgotten with its object; the mode of its namespace is not part of what is kept.
func TestEachVersionOfAPolicyIsReadOnce(t *testing.T) {
	first, second := networkPolicy(`{podSelector: {}, ingress: [{ports: [{port: 0}]}]}`).NetworkPolicy, networkPolicy(`{podSelector: {}}`).NetworkPolicy
	ns := &Namespace{Name: first.Namespace}
	s := Snapshot{Namespaces: []*Namespace{ns}, Policies: []*networkingv1.NetworkPolicy{first}}
	var k Compiler
	k.Compile(s)
	read := k.reading.policies[first]
	if read == nil {
		t.Fatal("nothing is kept")
	}
	k.Compile(s)
	if k.reading.policies[first] != read {
		t.Error("what has not changed was read again")
	}
	for _, mode := range []string{string(v1alpha1.Audit), "nonsense", ""} {
		s.Namespaces[0] = &Namespace{Name: ns.Name, Mode: mode}
		_, want := Compile(s)
		_, got := k.Compile(s)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("mode %q (-anew +with what was kept):\n%s", mode, diff)
		}
	}
	s.Policies[0] = second // another object: another version
	k.Compile(s)
	if _, kept := k.reading.policies[first]; kept || k.reading.policies[second] == nil || len(k.reading.policies) != 1 {
		t.Errorf("kept: %d policies, of the version before: %v", len(k.reading.policies), kept)
	}
}
