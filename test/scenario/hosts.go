package scenario

// hosts is about nodes and pods on the host network.
var hosts = []Scenario{{
	Name:    "a node always reaches its own pods, and those of other nodes as anybody else",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	Lines:   []string{"n1 reaches web", "n1 reaches db", "n2 reaches far", "n2 does not reach web", "n1 does not reach far"},
	Unsent:  []string{"172.18.0.1 does not reach web"}, // somebody else with the node's address
}, {
	Name:    "another node's traffic comes from that node's address",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.2/32}}]}]}`,
	Lines:   []string{"n2 reaches web", "n1 does not reach far", "far does not reach web", "outside does not reach web"},
}, {
	Name:    "a pod reaches its own node, and others, only if its egress allows it",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress]}`,
	Lines:   []string{"web does not reach n1", "web does not reach n2", "far does not reach n2", "far does not reach n1", "client reaches n1"},
}, {
	Name:    "a pod's own node is an address like others",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 172.18.0.1/32}}], ports: [{port: 80}]}]}`,
	Lines: []string{
		"web reaches n1 on tcp/80", "web does not reach n1 on tcp/81 udp/80 icmp", "web does not reach n2", "far reaches n1 on tcp/80",
		"far does not reach n2",
	},
}, {
	Name:    "selectors allow no node to a pod",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}`,
	Lines:   []string{"web does not reach n1", "web does not reach n2", "far does not reach n2", "web reaches far", "web does not reach outside"},
}, {
	Name:    "ingress isolation leaves a pod's way to its node open",
	Objects: `red/p: {podSelector: {}}`,
	Lines:   []string{"web reaches n1", "web reaches n2", "far reaches n2"},
}, {
	Name:    "a host-network pod is not subject to policies",
	Objects: `red/p: {podSelector: {matchLabels: {app: host}}, policyTypes: [Ingress, Egress]}`,
	Lines: []string{
		"remote reaches host", "client reaches host", "outside reaches host", "host reaches web", "host reaches outside", "host reaches far",
	},
}, {
	Name: "a host-network pod is no peer that a selector selects, ingress",
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: host}}},
  {podSelector: {}}, {namespaceSelector: {}}]}]}`,
	Lines: []string{"host does not reach web", "n2 does not reach web", "far reaches web", "client reaches web"},
}, {
	Name: "a host-network pod is no peer that a selector selects, egress",
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress],
  egress: [{to: [{podSelector: {matchLabels: {app: host}}}, {podSelector: {}}, {namespaceSelector: {}}]}]}`,
	Lines: []string{"web does not reach host", "web does not reach n2", "web reaches far", "web reaches client"},
}, {
	Name: "an ipBlock with a node's address admits that node's host-network pods",
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress],
  ingress: [{from: [{ipBlock: {cidr: 172.18.0.2/32}}]}], egress: [{to: [{ipBlock: {cidr: 172.18.0.2/32}}]}]}`,
	Lines: []string{"host reaches web", "web reaches host", "far does not reach web", "web does not reach far"},
}}
