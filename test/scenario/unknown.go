package scenario

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// unknownPods is about addresses of a node's pods that no pod is known to hold. The pod db is there in all of them, and answers; where it is removed, the
// API does not show it.
var unknownPods = []Scenario{{
	Name:  "with unknown pods closed, a known one is known whether a policy selects it or not",
	Given: (*Cluster).CloseUnknown,
	Lines: []string{
		"client reaches bare", "bare reaches client", "client reaches web", "web reaches db", "outside reaches client", "client reaches outside",
		"n1 reaches client", "n2 reaches client", "client reaches n1", "client reaches n2", "web reaches service-web on tcp/8080 udp/8080",
		"outside reaches service-web on tcp/8080", "bare reaches service-web on tcp/8080",
	},
}, {
	Name:    "policy decides about known pods as ever",
	Given:   (*Cluster).CloseUnknown,
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`,
	Lines:   []string{"db reaches web", "client does not reach web", "web does not reach db", "web does not reach n1", "n1 reaches web", "client reaches db"},
}, {
	Name:  "an address that no known pod holds gets nothing through, in either direction; its own node may speak to it",
	Given: func(c *Cluster) { c.CloseUnknown(); c.Remove("db") },
	Lines: []string{
		"db does not reach client", "db does not reach far", "db does not reach outside", "db does not reach n1", "db does not reach n2",
		"db does not reach service-web on tcp/8080", "client does not reach db", "far does not reach db", "outside does not reach db", "n2 does not reach db",
		"n1 reaches db", "client reaches web", "web reaches client",
	},
	Then: []Step{{
		What:  "the API shows it",
		Given: func(c *Cluster) { c.Add(NewPod("red/db", "n1", "app=db")) },
		Lines: []string{"db reaches client", "client reaches db", "db reaches n1", "outside reaches db", "n1 reaches db"},
	}, {
		What:    "a policy comes with it",
		Given:   func(c *Cluster) { c.Pod("db").Labels["isolated"] = "yes" },
		Objects: `red/p: {podSelector: {matchLabels: {isolated: "yes"}}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 80}]}]}`,
		Lines:   []string{"db reaches client on tcp/80", "db does not reach client on tcp/81", "client does not reach db", "n1 reaches db"},
	}, {
		What:  "it has finished",
		Given: func(c *Cluster) { c.Pod("db").Status.Phase = corev1.PodSucceeded },
		Lines: []string{"db does not reach client on tcp/80", "client does not reach db", "db does not reach n1 on tcp/80", "n1 reaches db"},
	}, {
		What:  "it is gone",
		Given: func(c *Cluster) { c.Remove("db") },
		Lines: []string{"db does not reach client", "client does not reach db"},
	}, {
		What:  "nothing is closed any more",
		Given: func(c *Cluster) { c.Closed = nil },
		Lines: []string{"db reaches client", "client reaches db", "db reaches n1"},
	}},
}, {
	Name: "a pod of another node, or on the host network, does not make an address known",
	Given: func(c *Cluster) {
		c.CloseUnknown()
		c.Pod("db").Spec.NodeName = "n2"
		c.Pod("client").Spec.HostNetwork = true
	},
	Lines: []string{"db does not reach web", "web does not reach db", "client does not reach web", "web does not reach client", "web reaches bare"},
}, {
	Name: "a pod whose address lies in no range is not concerned",
	Given: func(c *Cluster) {
		c.CloseUnknown()
		c.Closed["n1"] = []netip.Prefix{netip.MustParsePrefix("10.244.1.128/25")}
		c.Remove("db")
	},
	Lines: []string{"db reaches client", "client reaches db"},
}, {
	Name:  "the node's own address in the range, as a bridge has one, is no pod's",
	Given: (*Cluster).CloseUnknown,
	Lines: []string{"client reaches gateway", "gateway reaches client", "bare reaches gateway", "gateway reaches bare", "outside reaches gateway"},
}}
