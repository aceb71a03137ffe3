package crds

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// words are what one might write for a label's key or value, or for a port's name.
var words = []string{
	"", "a", "A", "0", "-", "_", ".", "/", "a-", "-a", "a_", "_a", "a.", ".a", "a-b", "a--b", "a_b", "a__b", "a..b", "a.-b", "a-.b", "a b", " a", "a\n", "ä", "a:b", "a=b",
	"example.com/a", "Example.com/a", "example.com/A", "example.com/", "/a", "//a", "a/b/c", "example..com/a", "example.com./a", ".example.com/a", "-a/b", "a-/b", "a--b/c",
	"a-.b/c", "a.-b/c", "a_b/c", "0/0", "ex ample/a", "example.com/-a", "example.com/a-", "http", "http-alt", "80", "8080-a", "HTTP", "h--p", "-http", "http-", "h.p",
	strings.Repeat("a", 15), strings.Repeat("a", 16), strings.Repeat("a", 63), strings.Repeat("a", 64),
	strings.Repeat("p", 253) + "/" + strings.Repeat("k", 63), strings.Repeat("p", 253) + "/" + strings.Repeat("k", 64),
	strings.Repeat("p", 254) + "/a", strings.Repeat("p", 254) + "/" + strings.Repeat("k", 63), strings.Repeat("ä", 63),
}

// What the server takes for a selector or a port's name is what Kubernetes takes for one: no more, so that what is stored can be
// compiled, and no less.
func TestTheServerAgreesWithKubernetes(t *testing.T) {
	understands := func(s v1alpha1.LabelSelector) bool {
		_, err := s.Selector()
		return err == nil
	}
	expression := func(key, value string) v1alpha1.LabelSelector {
		return v1alpha1.LabelSelector{MatchExpressions: []v1alpha1.LabelSelectorRequirement{{Key: key, Operator: "In", Values: []string{value}}}}
	}
	tests := []struct {
		name, kind, spec string // the spec with %q for the word
		kubernetes       func(word string) bool
	}{
		{"a key of matchLabels", "ClusterNetworkPolicy", selector("{matchLabels: {%q: v}}"),
			func(word string) bool {
				return understands(v1alpha1.LabelSelector{MatchLabels: map[string]string{word: "v"}})
			}},
		{"a value of matchLabels", "ClusterNetworkPolicy", selector("{matchLabels: {k: %q}}"),
			func(word string) bool {
				return understands(v1alpha1.LabelSelector{MatchLabels: map[string]string{"k": word}})
			}},
		{"a key of matchExpressions", "ClusterNetworkPolicy", selector("{matchExpressions: [{key: %q, operator: In, values: [v]}]}"),
			func(word string) bool { return understands(expression(word, "v")) }},
		{"a value of matchExpressions", "ClusterNetworkPolicy", selector("{matchExpressions: [{key: k, operator: In, values: [%q]}]}"),
			func(word string) bool { return understands(expression("k", word)) }},
		{"a tenantLabel", "NamespaceIsolation", isolation("tenantLabel: %q"),
			func(word string) bool { return len(validation.IsQualifiedName(word)) == 0 }},
		{"a destinationNamedPort", "ClusterNetworkPolicy", protocol("{destinationNamedPort: %q}"),
			func(word string) bool { return len(validation.IsValidPortName(word)) == 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, word := range words {
				_, err := dryRun(t, object(t, v1alpha1.GroupVersion.String(), tt.kind, fmt.Sprintf(tt.spec, word)))
				if got, want := reasons(t, err) == "", tt.kubernetes(word); got != want {
					t.Errorf("%q: the server accepts it: %t, Kubernetes does: %t", word, got, want)
				}
			}
		})
	}
}

// Compile reads what the server takes for a CIDR.
func TestAnAcceptedCIDRCanBeRead(t *testing.T) {
	for _, cidr := range []string{
		"10.0.0.0/8", "10.0.0.1/8", "0.0.0.0/0", "::/0", "fd00::/8", "FD00::/8", "fd00::1/8", "10.0.0.0/08", "10.0.0.0/+8", "010.0.0.0/8", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/33",
		"fd00::/129", "::ffff:10.0.0.0/104", "::10.0.0.0/104", "fe80::%eth0/64", "10.0.0.0/255.0.0.0", " 10.0.0.0/8", "10.0.0.0/8 ", "10.0.0.0", "fd00::", "/8", "10.0.0.0/", "[fd00::]/8",
	} {
		_, err := dryRun(t, object(t, v1alpha1.GroupVersion.String(), "ClusterNetworkPolicy", to(fmt.Sprintf("{networks: [%q]}", cidr))))
		if reasons(t, err) != "" {
			continue
		}
		if _, err := netip.ParsePrefix(cidr); err != nil {
			t.Errorf("the server accepts a CIDR that nobody can read: %v", err)
		}
	}
}
