package rights

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
)

// What an enforcer's token can put into its NodeConnections is bounded by the schema, whoever holds it: so many things of each kind, so long texts, and no
// words but those that there are.
func TestWhatANodeHasSeenIsBounded(t *testing.T) {
	n1 := as(t, enforcer, "n1")
	removed(t, seenBy("n1"))
	const end = `{namespace: NAMESPACE, workload: WORKLOAD, pod: POD, address: ADDRESS}`
	const connection = `{verdict: VERDICT, direction: DIRECTION, from: ` + end + `, to: ` + end + `, protocol: PROTOCOL, port: PORT, policy: POLICY, rule: 1, packets: PACKETS,
		firstTime: "2026-01-01T00:00:00Z", lastTime: TIME}`
	const count = `{namespace: NAMESPACE, policy: POLICY, direction: DIRECTION, verdict: VERDICT, packets: PACKETS, lastTime: TIME}`
	long := func(n int) string { return strings.Repeat("x", n) }
	usual := map[string]string{
		"VERDICT": "Denied", "DIRECTION": "Ingress", "NAMESPACE": long(63), "WORKLOAD": long(300), "POD": long(253), "ADDRESS": long(64), "PROTOCOL": long(16),
		"PORT": "65535", "POLICY": long(512), "PACKETS": "9223372036854775807", "TIME": `"2026-01-01T00:00:00Z"`,
	}
	// says is what a node says of as many things of each kind, with others in place of the usual texts.
	says := func(connections, counts, rests int, others map[string]string) func(*unstructured.Unstructured) {
		fill := func(text string) any {
			for name, value := range usual {
				if other, ok := others[name]; ok {
					value = other
				}
				text = strings.ReplaceAll(text, name, value)
			}
			return parsed(text).Object
		}
		lists := map[string][]any{}
		for range connections {
			lists["connections"] = append(lists["connections"], fill(connection))
		}
		for range counts {
			lists["counts"] = append(lists["counts"], fill(count))
		}
		for i := range rests {
			lists["rests"] = append(lists["rests"], fill(fmt.Sprintf(`{namespace: n%d, connections: PACKETS, packets: PACKETS}`, i)))
		}
		return func(o *unstructured.Unstructured) {
			for name, list := range lists {
				kit.Must(t, unstructured.SetNestedSlice(o.Object, list, "status", name))
			}
		}
	}
	// watches is a node that looks for the connections of so many namespaces.
	watches := func(namespaces int, since string) func(*unstructured.Unstructured) {
		return func(o *unstructured.Unstructured) {
			var list []any
			for i := range namespaces {
				list = append(list, parsed(fmt.Sprintf(`{namespace: n%d, since: %s}`, i, since)).Object)
			}
			kit.Must(t, unstructured.SetNestedSlice(o.Object, list, "status", "watched"))
		}
	}
	kit.Must(t, apply(t.Context(), n1, seenBy("n1", watches(v1alpha1.MaxWatched, usual["TIME"])), metav1.DryRunAll))
	kit.Must(t, apply(t.Context(), n1, seenBy("n1", says(v1alpha1.MaxNodeConnections, v1alpha1.MaxConnectionCounts, v1alpha1.MaxConnectionRests, nil))))

	one := func(name, value string) func(*unstructured.Unstructured) {
		return says(1, 1, 1, map[string]string{name: value})
	}
	for _, tt := range []struct {
		name string
		with func(*unstructured.Unstructured)
		why  string
	}{
		{"a connection more", says(v1alpha1.MaxNodeConnections+1, 0, 0, nil), "status.connections: Too many: 201: must have at most 200 items"},
		{"a count more", says(0, v1alpha1.MaxConnectionCounts+1, 0, nil), "status.counts: Too many: 201: must have at most 200 items"},
		{"a rest more", says(0, 0, v1alpha1.MaxConnectionRests+1, nil), "status.rests: Too many: 201: must have at most 200 items"},
		{"a watched namespace more", watches(v1alpha1.MaxWatched+1, usual["TIME"]), "status.watched: Too many: 201: must have at most 200 items"},
		{"no time since when", watches(1, "yesterday"), "since in body must be of type date-time"},
		{"a namespace too long", one("NAMESPACE", long(64)), "from.namespace: Too long"},
		{"a workload too long", one("WORKLOAD", long(301)), "from.workload: Too long"},
		{"a pod too long", one("POD", long(254)), "to.pod: Too long"},
		{"an address too long", one("ADDRESS", long(65)), "to.address: Too long"},
		{"a protocol too long", one("PROTOCOL", long(17)), "protocol: Too long"},
		{"a policy too long", one("POLICY", long(513)), "policy: Too long"},
		{"no port", one("PORT", "65536"), "port in body should be less than or equal to 65535"},
		{"a port below all", one("PORT", "-1"), "port in body should be greater than or equal to 0"},
		{"another verdict", one("VERDICT", "Perhaps"), `verdict: Unsupported value: "Perhaps"`},
		{"another direction", one("DIRECTION", "Sideways"), `direction: Unsupported value: "Sideways"`},
		{"no time", one("TIME", "yesterday"), "lastTime in body must be of type date-time"},
		{"a number too large", one("PACKETS", "9223372036854775808"), "packets"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, apply(t.Context(), n1, seenBy("n1", tt.with), metav1.DryRunAll), tt.why)
		})
	}
}
