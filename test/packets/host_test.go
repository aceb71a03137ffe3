package packets

// hostScenarios are about nodes and pods on the host network.
var hostScenarios = []scenario{{
	name:     "a node always reaches its own pods, and those of other nodes as anybody else",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	want:     []string{"n1 reaches web", "n1 reaches db", "n2 reaches far", "n2 does not reach web", "n1 does not reach far"},
}, {
	name:     "another node's traffic comes from that node's address",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.2/32}}]}]}`,
	want:     []string{"n2 reaches web", "n1 does not reach far", "far does not reach web", "outside does not reach web"},
}, {
	name:     "a pod reaches its own node, and others, only if its egress allows it",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress]}`,
	want:     []string{"web does not reach n1", "web does not reach n2", "far does not reach n2", "far does not reach n1", "client reaches n1"},
}, {
	name:     "a pod's own node is an address like others",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 172.18.0.1/32}}], ports: [{port: 80}]}]}`,
	want: []string{
		"web reaches n1 on tcp/80", "web does not reach n1 on tcp/81 udp/80 icmp", "web does not reach n2", "far reaches n1 on tcp/80",
		"far does not reach n2",
	},
}, {
	name:     "selectors allow no node to a pod",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}`,
	want:     []string{"web does not reach n1", "web does not reach n2", "far does not reach n2", "web reaches far", "web does not reach outside"},
}, {
	name:     "ingress isolation leaves a pod's way to its node open",
	policies: `red/p: {podSelector: {}}`,
	want:     []string{"web reaches n1", "web reaches n2", "far reaches n2"},
}, {
	name:     "a host-network pod is not subject to policies",
	policies: `red/p: {podSelector: {matchLabels: {app: host}}, policyTypes: [Ingress, Egress]}`,
	want: []string{
		"remote reaches host", "client reaches host", "outside reaches host", "host reaches web", "host reaches outside", "host reaches far",
	},
}, {
	name:     "a host-network pod is no peer that a selector selects, ingress",
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: host}}}, {podSelector: {}}, {namespaceSelector: {}}]}]}`,
	want:     []string{"host does not reach web", "n2 does not reach web", "far reaches web", "client reaches web"},
}, {
	name:     "a host-network pod is no peer that a selector selects, egress",
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: host}}}, {podSelector: {}}, {namespaceSelector: {}}]}]}`,
	want:     []string{"web does not reach host", "web does not reach n2", "web reaches far", "web reaches client"},
}, {
	name:     "an ipBlock with a node's address admits that node's host-network pods",
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 172.18.0.2/32}}]}], egress: [{to: [{ipBlock: {cidr: 172.18.0.2/32}}]}]}`,
	want:     []string{"host reaches web", "web reaches host", "far does not reach web", "web does not reach far"},
}}

// serviceScenarios are about virtual addresses: policy sees a packet after destination NAT and before masquerading.
var serviceScenarios = []scenario{{
	name: "without policies services reach their backends",
	want: []string{
		"client reaches service-web on tcp/8080 udp/8080 sctp/8080", "web reaches service-far on tcp/8080 udp/8080 sctp/8080",
		"far reaches service-web on tcp/8080", "web reaches service-web on tcp/8080 udp/8080 sctp/8080", "far reaches service-far on tcp/8080",
		"outside reaches service-web on tcp/8080",
	},
}, {
	name:     "an isolated pod reaches itself through its service",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	want: []string{
		"web reaches service-web on tcp/8080 udp/8080 sctp/8080", "far reaches service-far on tcp/8080 udp/8080 sctp/8080",
		"web does not reach service-far on tcp/8080", "far does not reach service-web on tcp/8080", "client does not reach service-web on tcp/8080",
		"db does not reach service-web on tcp/8080",
	},
}, {
	name:     "a pod isolated for one direction reaches itself through its service, ingress",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`,
	want:     []string{"web reaches service-web on tcp/8080", "db reaches service-web on tcp/8080", "client does not reach service-web on tcp/8080"},
}, {
	name:     "a pod isolated for one direction reaches itself through its service, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}`,
	want:     []string{"far reaches service-far on tcp/8080", "web does not reach service-far on tcp/8080"},
}, {
	name:     "ingress through a service is judged by the client's address and the target port",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 80}]}]}`,
	want: []string{
		"client reaches service-web on tcp/8080", "remote reaches service-web on tcp/8080", "client reaches service-far on tcp/8080",
		"bare does not reach service-web on tcp/8080", "client does not reach service-web on udp/8080", "outside does not reach service-web on tcp/8080",
	},
}, {
	name:     "a port of the service is no port of the pod",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 8080}]}], egress: [{ports: [{port: 8080}]}]}`,
	want:     []string{"client does not reach service-web on tcp/8080", "web does not reach service-far on tcp/8080"},
}, {
	name:     "egress through a service is judged by the backend",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: far}}}], ports: [{port: 80}]}]}`,
	want:     []string{"web reaches service-far on tcp/8080", "web does not reach service-far on udp/8080", "db does not reach service-web on tcp/8080"},
}, {
	name:     "an ipBlock with the service's address allows nothing",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}`,
	want:     []string{"web does not reach service-far on tcp/8080", "db does not reach service-web on tcp/8080"},
}, {
	name:     "an ipBlock with the backend's address allows the service",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.0.0/16}}]}]}`,
	want:     []string{"web reaches service-far on tcp/8080", "db reaches service-web on tcp/8080", "web does not reach outside on tcp/80"},
}, {
	name:     "a client outside of the cluster is judged by its own address",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`,
	want:     []string{"203.0.113.7 reaches service-web on tcp/8080 udp/8080", "outside does not reach service-web on tcp/8080 udp/8080"},
}, {
	name:     "a named port through a service is the backend's",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: http}]}], egress: [{ports: [{port: http}]}]}`,
	want: []string{
		"db reaches service-web on tcp/8080", "db does not reach service-web on udp/8080", "web does not reach service-far on tcp/8080",
		"client does not reach service-far on tcp/8080",
	},
}}
