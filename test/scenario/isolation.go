package scenario

// isolation is about whom a policy isolates, and in which direction.
var isolation = []Scenario{{
	Name: "without policies everybody reaches everybody",
	Lines: []string{
		"client reaches web", "web reaches client", "web reaches far", "far reaches web", "bare reaches remote", "web reaches n1",
		"10.0.1.5 reaches outside", "web reaches n2", "n1 reaches web", "n2 reaches web", "outside reaches web", "web reaches outside", "host reaches web",
	},
}, {
	Name:    "a policy isolates the pods that it selects for ingress, and nobody else",
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}}`,
	Lines: []string{
		"client does not reach web", "db does not reach web", "far does not reach web", "outside does not reach web",
		"web reaches client", "web reaches far", "web reaches outside", "web reaches n1", "client reaches db", "remote reaches far",
	},
}, {
	Name:    "a policy isolates the pods that it selects for egress, and nobody else",
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}`,
	Lines: []string{
		"web does not reach client", "web does not reach db", "web does not reach far", "web does not reach outside",
		"db reaches client", "db reaches far", "db reaches outside",
	},
}, {
	Name:    "a pod that is selected only for egress stays open for ingress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress]}`,
	Lines:   []string{"client reaches web", "remote reaches web", "outside reaches web", "n2 reaches web", "bare reaches far"},
}, {
	Name:    "a pod that is selected only for ingress stays open for egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress]}`,
	Lines:   []string{"web reaches client", "web reaches remote", "web reaches outside", "web reaches n1", "web reaches n2", "far reaches bare"},
}, {
	Name:    "ingress is decided on the destination's node, egress on the source's",
	Objects: `red/p: {podSelector: {matchLabels: {app: far}}, policyTypes: [Ingress, Egress]}`,
	Lines: []string{
		"web does not reach far", "remote does not reach far", "far does not reach web", "far does not reach remote", "web reaches remote",
	},
}, {
	Name:    "an empty podSelector selects every pod of the policy's namespace, and of no other",
	Objects: `red/p: {podSelector: {}}`,
	Lines:   []string{"client does not reach web", "client does not reach db", "client does not reach far", "web reaches client", "web reaches bare"},
}, {
	Name:    "an allow of one direction does not satisfy the other",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: []}`,
	Lines: []string{
		"web does not reach db", "db does not reach web", "far does not reach web", "web does not reach far", "web does not reach outside",
		"client does not reach web",
	},
}, {
	Name: "both ends must allow",
	Objects: `
red/in: {podSelector: {matchLabels: {app: far}}, ingress: [{from: [{podSelector: {}}]}]}
red/out: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`,
	Lines: []string{
		"web reaches far on tcp/80", "web does not reach far on tcp/81 udp/80 icmp", "db reaches far", "client does not reach far",
		"web reaches client on tcp/80", "web does not reach client on tcp/81",
	},
}, {
	Name: "both ends of one node must allow",
	Objects: `
red/in: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 81}]}]}
red/out: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 82}]}]}`,
	Lines: []string{"web reaches db on tcp/80", "web does not reach db on tcp/81 tcp/82 udp/80 icmp", "client does not reach db on tcp/80"},
}, {
	Name:    "without policyTypes a policy isolates for ingress",
	Objects: `red/p: {podSelector: {}}`,
	Lines:   []string{"client does not reach web", "web reaches client"},
}, {
	Name:    "without policyTypes a policy with egress rules isolates in both directions",
	Objects: `red/p: {podSelector: {}, egress: [{ports: [{port: 81, protocol: UDP}]}]}`,
	Lines:   []string{"client does not reach web", "web does not reach client", "web reaches client on udp/81"},
}, {
	Name:    "an empty egress list without policyTypes isolates for ingress only",
	Objects: `red/p: {podSelector: {}, ingress: [{}], egress: []}`,
	Lines:   []string{"client reaches web", "web reaches client"},
}, {
	Name:    "an empty policyTypes list is an absent one",
	Objects: `red/p: {podSelector: {}, policyTypes: [], egress: [{ports: [{port: 80}]}]}`,
	Lines:   []string{"client does not reach web", "web reaches client on tcp/80", "web does not reach client on udp/80"},
}, {
	Name:    "the rules of a direction that policyTypes leaves out do not count",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 81}]}]}`,
	Lines:   []string{"web reaches client", "client reaches web on tcp/80", "client does not reach web on tcp/81"},
}, {
	Name: "an egress rule of an ingress policy does not open another policy's isolation",
	Objects: `
red/in: {podSelector: {}, policyTypes: [Ingress], egress: [{}]}
red/out: {podSelector: {}, policyTypes: [Egress], ingress: [{}]}`,
	Lines: []string{"web does not reach client", "client does not reach web"},
}, {
	Name:    "a rule without peers and ports allows everything, ingress",
	Objects: `red/p: {podSelector: {}, ingress: [{}]}`,
	Lines:   []string{"client reaches web", "far reaches web", "outside reaches web", "n2 reaches web"},
	Unsent:  []string{"outside reaches web on gre"},
}, {
	Name:    "a rule without peers and ports allows everything, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{}]}`,
	Lines:   []string{"web reaches client", "web reaches far", "web reaches outside", "web reaches n1", "web reaches n2"},
}, {
	Name:    "empty lists of peers and ports are absent ones",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [], ports: []}], egress: [{to: [], ports: []}]}`,
	Lines:   []string{"client reaches web", "web reaches client", "outside reaches far", "far reaches outside"},
}, {
	Name: "policies add up",
	Objects: `
red/one: {podSelector: {}}
red/two: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}
red/three: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 81}]}]}`,
	Lines: []string{
		"db reaches web on tcp/80", "client reaches web on tcp/81", "db does not reach web on tcp/81", "client does not reach web on tcp/80",
		"web does not reach db on tcp/80", "client reaches db on tcp/81", "remote reaches far on tcp/81",
	},
}, {
	Name: "policies add up, egress",
	Objects: `
red/one: {podSelector: {}, policyTypes: [Egress]}
red/two: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}
red/three: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 81}]}]}`,
	Lines: []string{
		"web reaches db on tcp/80", "web reaches client on tcp/81", "web does not reach db on tcp/81", "web does not reach client on tcp/80",
		"db does not reach web on tcp/80", "db reaches client on tcp/81", "far reaches remote on tcp/81",
	},
}, {
	Name:    "replies pass an isolation of the other direction",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}]}`,
	Lines:   []string{"client reaches web", "outside reaches web", "remote reaches far", "web does not reach client"},
}, {
	Name:    "replies reach a client that nobody may reach",
	Objects: `blue/p: {podSelector: {}}`,
	Lines:   []string{"client reaches web", "client reaches far", "client reaches outside", "web does not reach client"},
}, {
	Name: "refusals and related ICMP errors pass an isolation of both ends",
	Objects: `
red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 99}, {port: 99, protocol: UDP}]}]}
blue/p: {podSelector: {}}`,
	Lines: []string{
		"client is refused by web on tcp/99 udp/99", "remote is refused by web on tcp/99 udp/99", "client is refused by far on tcp/99 udp/99",
		"web does not reach client on tcp/99 udp/99",
	},
}, {
	Name:    "a denied connection times out, whether somebody listens or not",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	Lines: []string{
		"client does not reach web on tcp/80 tcp/99 udp/80 udp/99", "web does not reach client on tcp/80 tcp/99 udp/80 udp/99",
		"web does not reach n1 on tcp/80 tcp/99 udp/80 udp/99",
	},
}, {
	Name:                "ARP and neighbour discovery are never dropped",
	Objects:             `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 80}]}]}`,
	NeighboursForgotten: true,
	Lines: []string{
		"client reaches web on tcp/80", "web reaches db on tcp/80", "db reaches far on tcp/80", "far reaches web on tcp/80",
		"web does not reach db on icmp", "client does not reach web on icmp",
	},
}, {
	Name: "peers and ports of a rule must both match",
	Objects: `
red/p: {podSelector: {}, ingress: [
  {from: [{podSelector: {}}], ports: [{port: 80}]}, {from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 81}]}]}`,
	Lines: []string{"db reaches web on tcp/80", "db does not reach web on tcp/81", "client does not reach web on tcp/80", "client reaches web on tcp/81"},
}, {
	Name:    "of ICMPv6, the five messages of neighbour discovery are never dropped, and no other",
	Only:    IPv6,
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	Unsent: []string{
		"client reaches web on icmp/133 icmp/134 icmp/135 icmp/136 icmp/137", "web reaches db on icmp/135 icmp/137",
		"client does not reach web on icmp/128 icmp/132 icmp/138",
	},
}, {
	Name: "neighbour discovery is never policed in the tiers, nor noted",
	Only: IPv6,
	Objects: `
admin a: {priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}}, ingress: [{action: Deny, from: [{networks: ["::/0"]}]}]}
admin b: {mode: Audit, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: db}}}}, ingress: [{action: Deny, from: [{networks: ["::/0"]}]}]}`,
	Lines:  []string{"client does not reach web on icmp", "client would not reach db on icmp noting ingress cnp b"},
	Unsent: []string{"client reaches web on icmp/135", "client reaches db on icmp/135"},
}, {
	Name:    "a pod reaches itself without the network",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	Lines:   []string{"web reaches web", "far reaches far"},
}}
