package packets

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// wide are objects that belong to no namespace.
type wide struct {
	policies   []*v1alpha1.ClusterNetworkPolicy
	isolations []*v1alpha1.NamespaceIsolation
}

// readWide reads objects from YAML of the form "cnp NAME: spec" and "isolation NAME: spec". Over IPv6, IPv4 networks become those of the
// twins.
func readWide(t *testing.T, text string, f iptables.Family) wide {
	t.Helper()
	specs := map[string]json.RawMessage{}
	if err := yaml.UnmarshalStrict([]byte(text), &specs); err != nil {
		t.Fatalf("reading cluster-wide objects: %v\n%s", err, text)
	}
	var w wide
	for _, key := range slices.Sorted(maps.Keys(specs)) {
		kind, name, _ := strings.Cut(key, " ")
		if err := w.add(kind, name, specs[key], f); err != nil {
			t.Fatalf("reading %q: %v", key, err)
		}
	}
	return w
}

func (w *wide) add(kind, name string, spec []byte, f iptables.Family) error {
	switch kind {
	case "cnp":
		p := &v1alpha1.ClusterNetworkPolicy{}
		p.Name = name
		if err := yaml.UnmarshalStrict(spec, &p.Spec); err != nil {
			return err
		}
		for _, r := range p.Spec.Ingress {
			translateNetworks(r.From, f)
		}
		for _, r := range p.Spec.Egress {
			translateNetworks(r.To, f)
		}
		w.policies = append(w.policies, p)
	case "isolation":
		n := &v1alpha1.NamespaceIsolation{}
		n.Name = name
		if err := yaml.UnmarshalStrict(spec, &n.Spec); err != nil {
			return err
		}
		for _, r := range n.Spec.Allow.Ingress {
			translateNetworks(r.From, f)
		}
		for _, r := range n.Spec.Allow.Egress {
			translateNetworks(r.To, f)
		}
		w.isolations = append(w.isolations, n)
	default:
		return fmt.Errorf("no kind %q", kind)
	}
	return nil
}

func translateNetworks(peers []v1alpha1.Peer, f iptables.Family) {
	for _, p := range peers {
		for i := range p.Networks {
			p.Networks[i] = v1alpha1.CIDR(translateBlock(string(p.Networks[i]), f))
		}
	}
}
