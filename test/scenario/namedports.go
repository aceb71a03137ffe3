package scenario

import corev1 "k8s.io/api/core/v1"

// namedPorts is about ports by name, which each pod resolves for itself.
var namedPorts = []Scenario{{
	Name:    "a named port differs from pod to pod, ingress",
	Objects: `red/p: {podSelector: {}, ingress: [{ports: [{port: http}]}]}`,
	Lines: []string{
		"client reaches web on tcp/80", "client reaches db on tcp/81", "client reaches far on tcp/82", "outside reaches web on tcp/80",
		"client does not reach web on tcp/81 tcp/82 udp/80 sctp/80 icmp", "client does not reach db on tcp/80 tcp/82",
		"client does not reach far on tcp/80 tcp/81",
	},
}, {
	Name:    "a named port with peers, ingress",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/16}}], ports: [{port: http}]}]}`,
	Lines: []string{
		"db reaches web on tcp/80", "far reaches web on tcp/80", "web reaches far on tcp/82", "10.0.1.5 reaches db on tcp/81",
		"client does not reach web on tcp/80", "db does not reach web on tcp/81", "10.0.1.5 does not reach db on tcp/80",
		"outside does not reach db on tcp/81",
	},
}, {
	Name:    "a named port differs from pod to pod, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	Lines: []string{
		"web reaches db on tcp/81", "web reaches far on tcp/82", "web reaches remote on tcp/80", "far reaches web on tcp/80",
		"web does not reach db on tcp/80", "web does not reach far on tcp/80", "web does not reach remote on tcp/81 udp/80 icmp",
	},
}, {
	Name:    "a named port is nothing where no pod has it: other pods, nodes, other hosts",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	Lines:   []string{"web does not reach client", "web does not reach bare", "web does not reach outside", "web does not reach n1", "web does not reach n2"},
}, {
	Name: "a named port with a podSelector, egress",
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress],
  egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}]}`,
	Lines: []string{
		"web reaches db on tcp/81", "web does not reach db on tcp/80", "web does not reach far on tcp/82", "web does not reach remote on tcp/80",
	},
}, {
	Name:    "a named port with a namespaceSelector, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: http}]}]}`,
	Lines: []string{
		"web reaches remote on tcp/80", "web does not reach db on tcp/81", "web does not reach client on tcp/80", "far reaches remote on tcp/80",
	},
}, {
	Name:    "a named port with a block, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.2.0/24}}], ports: [{port: http}]}]}`,
	Lines:   []string{"web reaches far on tcp/82", "web reaches remote on tcp/80", "web does not reach db on tcp/81", "web does not reach far on tcp/80"},
}, {
	Name: "names and numbers in one list add up",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: http}, {port: 90}]}],
  egress: [{ports: [{port: http}, {port: 90}]}]}`,
	Lines: []string{
		"client reaches db on tcp/81 tcp/90", "client does not reach db on tcp/80 tcp/82", "web reaches far on tcp/82 tcp/90",
		"web does not reach far on tcp/80", "web reaches outside on tcp/90",
	},
}, {
	Name:    "a name on TCP and UDP is told apart by the protocol, TCP",
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: dual}]}]}`,
	Lines:   []string{"client reaches web on tcp/81", "client does not reach web on udp/82 tcp/82 udp/81"},
}, {
	Name:    "a name on TCP and UDP is told apart by the protocol, UDP",
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: dual, protocol: UDP}]}]}`,
	Lines:   []string{"client reaches web on udp/82", "client does not reach web on tcp/81 udp/81 tcp/82"},
}, {
	Name:    "a name on TCP and UDP is told apart by the protocol, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: dual, protocol: UDP}]}]}`,
	Lines:   []string{"db reaches web on udp/82", "db does not reach web on tcp/81 udp/81", "far reaches web on udp/82"},
}, {
	Name: "a name with a protocol that no pod uses it for matches nothing",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: http, protocol: SCTP}]}],
  egress: [{ports: [{port: http, protocol: SCTP}]}]}`,
	Lines: []string{"client does not reach web on tcp/80 sctp/80", "web does not reach remote on tcp/80 sctp/80"},
}, {
	Name:    "a name that no pod has matches nothing",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: nope}]}], egress: [{ports: [{port: nope}]}]}`,
	Lines:   []string{"client does not reach web", "web does not reach client"},
	Unsent:  []string{"client does not reach web on tcp/0"},
}, {
	Name: "the ports of init and sidecar containers count",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: side}, {port: init, protocol: UDP}]}],
  egress: [{ports: [{port: side}, {port: init, protocol: UDP}]}]}`,
	Lines: []string{
		"client reaches web on tcp/90 udp/90", "db reaches web on tcp/90 udp/90", "far reaches web on tcp/90",
		"client does not reach web on tcp/80 udp/80",
	},
}, {
	Name:    "a container's port without a protocol is TCP's",
	Given:   func(c *Cluster) { AddPorts(&c.Pod("far").Spec.InitContainers, "warm=/90") },
	Objects: `red/p: {podSelector: {matchLabels: {app: far}}, ingress: [{ports: [{port: warm}]}]}`,
	Lines:   []string{"client reaches far on tcp/90", "client does not reach far on udp/90 tcp/82"},
}, {
	Name:  "a named SCTP port",
	Given: func(c *Cluster) { AddPorts(&c.Pod("far").Spec.Containers, "signal=SCTP/82") },
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: signal, protocol: SCTP}]}],
  egress: [{ports: [{port: signal, protocol: SCTP}]}]}`,
	Lines: []string{
		"web reaches far on sctp/82", "client reaches far on sctp/82", "web does not reach far on sctp/80 tcp/82", "client does not reach far on tcp/82",
	},
}, {
	Name:    "a completed pod's named ports match nothing",
	Given:   func(c *Cluster) { c.Pod("db").Status.Phase = corev1.PodSucceeded },
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	Lines:   []string{"web does not reach db on tcp/81", "web reaches far on tcp/82"},
}, {
	Name:    "a host-network pod's named ports match nothing",
	Given:   func(c *Cluster) { AddPorts(&c.Pod("host").Spec.Containers, "http=TCP/80") },
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	Lines:   []string{"web does not reach host on tcp/80", "web does not reach n2 on tcp/80", "web reaches remote on tcp/80"},
}, {
	Name: "a pod may have several ports of one name",
	Given: func(c *Cluster) {
		AddPorts(&c.Pod("web").Spec.Containers, "http=TCP/82")
	},
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}`,
	Lines:   []string{"client reaches web on tcp/80 tcp/82", "client does not reach web on tcp/81"},
}}
