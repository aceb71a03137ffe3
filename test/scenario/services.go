package scenario

// services is about virtual addresses: policy sees a packet after destination NAT and before masquerading.
var services = []Scenario{{
	Name: "without policies services reach their backends",
	Lines: []string{
		"client reaches service-web on tcp/8080 udp/8080 sctp/8080", "web reaches service-far on tcp/8080 udp/8080 sctp/8080",
		"far reaches service-web on tcp/8080", "web reaches service-web on tcp/8080 udp/8080 sctp/8080", "far reaches service-far on tcp/8080",
		"outside reaches service-web on tcp/8080",
	},
}, {
	Name:    "an isolated pod reaches itself through its service",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	Lines: []string{
		"web reaches service-web on tcp/8080 udp/8080 sctp/8080", "far reaches service-far on tcp/8080 udp/8080 sctp/8080",
		"web does not reach service-far on tcp/8080", "far does not reach service-web on tcp/8080", "client does not reach service-web on tcp/8080",
		"db does not reach service-web on tcp/8080",
	},
}, {
	Name:    "a pod isolated for one direction reaches itself through its service, ingress",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`,
	Lines:   []string{"web reaches service-web on tcp/8080", "db reaches service-web on tcp/8080", "client does not reach service-web on tcp/8080"},
}, {
	Name:    "a pod isolated for one direction reaches itself through its service, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}`,
	Lines:   []string{"far reaches service-far on tcp/8080", "web does not reach service-far on tcp/8080"},
}, {
	Name:    "ingress through a service is judged by the client's address and the target port",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 80}]}]}`,
	Lines: []string{
		"client reaches service-web on tcp/8080", "remote reaches service-web on tcp/8080", "client reaches service-far on tcp/8080",
		"bare does not reach service-web on tcp/8080", "client does not reach service-web on udp/8080", "outside does not reach service-web on tcp/8080",
	},
}, {
	Name:    "a port of the service is no port of the pod",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 8080}]}], egress: [{ports: [{port: 8080}]}]}`,
	Lines:   []string{"client does not reach service-web on tcp/8080", "web does not reach service-far on tcp/8080"},
}, {
	Name:    "egress through a service is judged by the backend",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: far}}}], ports: [{port: 80}]}]}`,
	Lines:   []string{"web reaches service-far on tcp/8080", "web does not reach service-far on udp/8080", "db does not reach service-web on tcp/8080"},
}, {
	Name:    "an ipBlock with the service's address allows nothing",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}`,
	Lines:   []string{"web does not reach service-far on tcp/8080", "db does not reach service-web on tcp/8080"},
}, {
	Name:    "an ipBlock with the backend's address allows the service",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.0.0/16}}]}]}`,
	Lines:   []string{"web reaches service-far on tcp/8080", "db reaches service-web on tcp/8080", "web does not reach outside on tcp/80"},
}, {
	Name:    "a client outside of the cluster is judged by its own address",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`,
	Lines:   []string{"203.0.113.7 reaches service-web on tcp/8080 udp/8080", "outside does not reach service-web on tcp/8080 udp/8080"},
}, {
	Name:    "a named port through a service is the backend's",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: http}]}], egress: [{ports: [{port: http}]}]}`,
	Lines: []string{
		"db reaches service-web on tcp/8080", "db does not reach service-web on udp/8080", "web does not reach service-far on tcp/8080",
		"client does not reach service-far on tcp/8080",
	},
}}
