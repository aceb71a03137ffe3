package packets

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
)

// close has both nodes drop what no known pod of theirs holds.
func (c *cluster) close() {
	c.closed = map[string][]netip.Prefix{}
	for node, text := range map[string]string{"n1": "10.244.1.0/24", "n2": "10.244.2.0/24"} {
		p := netip.MustParsePrefix(text)
		c.closed[node] = []netip.Prefix{p, topology.TwinPrefix(p)}
	}
}

// closedScenarios are about addresses of a node's pods that no pod is known to hold. The pod db is there in all of them, and answers; where it is removed, the
// API does not show it.
var closedScenarios = []scenario{{
	name:  "with unknown pods closed, a known one is known whether a policy selects it or not",
	given: (*cluster).close,
	want: []string{
		"client reaches bare", "bare reaches client", "client reaches web", "web reaches db", "outside reaches client", "client reaches outside",
		"n1 reaches client", "n2 reaches client", "client reaches n1", "client reaches n2", "web reaches service-web on tcp/8080 udp/8080",
		"outside reaches service-web on tcp/8080", "bare reaches service-web on tcp/8080",
	},
}, {
	name:     "policy decides about known pods as ever",
	given:    (*cluster).close,
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`,
	want:     []string{"db reaches web", "client does not reach web", "web does not reach db", "web does not reach n1", "n1 reaches web", "client reaches db"},
}, {
	name:  "an address that no known pod holds gets nothing through, in either direction; its own node may speak to it",
	given: func(c *cluster) { c.close(); c.remove("db") },
	want: []string{
		"db does not reach client", "db does not reach far", "db does not reach outside", "db does not reach n1", "db does not reach n2",
		"db does not reach service-web on tcp/8080", "client does not reach db", "far does not reach db", "outside does not reach db", "n2 does not reach db",
		"n1 reaches db", "client reaches web", "web reaches client",
	},
	then: []step{{
		what:  "the API shows it",
		given: func(c *cluster) { c.add(pod("red/db", "n1", "app=db")) },
		want:  []string{"db reaches client", "client reaches db", "db reaches n1", "outside reaches db", "n1 reaches db"},
	}, {
		what:     "a policy comes with it",
		given:    func(c *cluster) { c.pod("db").Labels["isolated"] = "yes" },
		policies: `red/p: {podSelector: {matchLabels: {isolated: "yes"}}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 80}]}]}`,
		want:     []string{"db reaches client on tcp/80", "db does not reach client on tcp/81", "client does not reach db", "n1 reaches db"},
	}, {
		what:  "it has finished",
		given: func(c *cluster) { c.pod("db").Status.Phase = corev1.PodSucceeded },
		want:  []string{"db does not reach client on tcp/80", "client does not reach db", "db does not reach n1 on tcp/80", "n1 reaches db"},
	}, {
		what:  "it is gone",
		given: func(c *cluster) { c.remove("db") },
		want:  []string{"db does not reach client", "client does not reach db"},
	}, {
		what:  "nothing is closed any more",
		given: func(c *cluster) { c.closed = nil },
		want:  []string{"db reaches client", "client reaches db", "db reaches n1"},
	}},
}, {
	name:  "a pod of another node, or on the host network, does not make an address known",
	given: func(c *cluster) { c.close(); c.pod("db").Spec.NodeName = "n2"; c.pod("client").Spec.HostNetwork = true },
	want:  []string{"db does not reach web", "web does not reach db", "client does not reach web", "web does not reach client", "web reaches bare"},
}, {
	name: "a pod whose address lies in no range is not concerned",
	given: func(c *cluster) {
		c.close()
		c.closed["n1"] = []netip.Prefix{netip.MustParsePrefix("10.244.1.128/25")}
		c.remove("db")
	},
	want: []string{"db reaches client", "client reaches db"},
}, {
	name:   "the node's own address in the range, as a bridge has one, is no pod's",
	given:  (*cluster).close,
	before: addGateway,
	want:   []string{"client reaches gateway", "gateway reaches client", "bare reaches gateway", "gateway reaches bare", "outside reaches gateway"},
}}

// addGateway gives the node n1 an address in the range of its pods, where it has none yet.
func addGateway(t *testing.T, w *world) {
	t.Helper()
	n := w.top.Nodes[0]
	gateway := n.Pods.Addr().Next()
	if w.kind == topology.Routed {
		kit.Must(t, n.Address("lo", netip.PrefixFrom(gateway, 32)))
		kit.Must(t, n.Address("lo", netip.PrefixFrom(topology.Twin(gateway), 128)))
	}
	w.places["gateway"] = place{host: n.Host, addr: gateway}
	t.Cleanup(func() { delete(w.places, "gateway") })
	listen(t, n.Host, w.places["gateway"].in(w.family))
}
