package scenario

import corev1 "k8s.io/api/core/v1"

// blocks is about ipBlock.
var blocks = []Scenario{{
	Name:    "a block admits what it contains, pods or not, ingress",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/14}}, {ipBlock: {cidr: 10.244.2.0/24}}]}]}`,
	Lines: []string{
		"10.0.1.5 reaches web", "10.0.2.5 reaches web", "far reaches web", "remote reaches web", "10.9.0.1 does not reach web",
		"client does not reach web", "outside does not reach web", "n2 does not reach web",
	},
}, {
	Name:    "a block admits what it contains, pods or not, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/14}}, {ipBlock: {cidr: 10.244.2.0/24}}]}]}`,
	Lines: []string{
		"web reaches 10.0.1.5", "web reaches 10.0.2.5", "web reaches far", "web reaches remote", "web does not reach 10.9.0.1",
		"web does not reach client", "web does not reach outside", "web does not reach n2", "web does not reach n1",
	},
}, {
	Name: "a block of one address",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 10.0.1.5/32}}]}],
  egress: [{to: [{ipBlock: {cidr: 10.0.2.5/32}}]}]}`,
	Lines: []string{
		"10.0.1.5 reaches web", "10.0.2.5 does not reach web", "web reaches 10.0.2.5", "web does not reach 10.0.1.5",
	},
}, {
	Name:    "an exception is not admitted, ingress",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24, 10.244.0.0/16]}}]}]}`,
	Lines: []string{
		"10.0.2.5 reaches web", "10.9.0.1 reaches web", "10.0.1.5 does not reach web", "far does not reach web", "client does not reach web",
		"203.0.113.7 does not reach web",
	},
	Unsent: []string{"10.255.255.255 reaches web on tcp/80"},
}, {
	Name:    "an exception is not admitted, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24, 10.244.0.0/16]}}]}]}`,
	Lines: []string{
		"web reaches 10.0.2.5", "web reaches 10.9.0.1", "web does not reach 10.0.1.5", "web does not reach far", "web does not reach client",
		"web does not reach 203.0.113.7",
	},
}, {
	Name:    "an exception concerns its own peer only, ingress",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}, {ipBlock: {cidr: 10.0.0.0/16}}]}]}`,
	Lines:   []string{"10.0.1.5 reaches web", "10.0.2.5 reaches web", "10.9.0.1 reaches web", "203.0.113.7 does not reach web"},
}, {
	Name: "an exception concerns its own peer only, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}},
  {ipBlock: {cidr: 10.0.0.0/16}}]}]}`,
	Lines: []string{"web reaches 10.0.1.5", "web reaches 10.0.2.5", "web reaches 10.9.0.1", "web does not reach 203.0.113.7"},
}, {
	Name: "an exception concerns its own rule and policy only",
	Objects: `
red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}]}, {from: [{ipBlock: {cidr: 10.0.1.0/24}}],
  ports: [{port: 80}]}]}
red/q: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.5/32}}], ports: [{port: 81}]}]}`,
	Lines: []string{"10.0.1.5 reaches web on tcp/80 tcp/81", "10.0.1.5 does not reach web on tcp/82 udp/80 icmp", "10.0.2.5 reaches web"},
}, {
	Name:    "a block inside of an exception is admitted by its own peer",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/14]}}, {ipBlock: {cidr: 10.0.1.0/24}}]}]}`,
	Lines:   []string{"10.0.1.5 reaches web", "10.0.2.5 does not reach web", "10.9.0.1 reaches web"},
}, {
	Name:    "an excepted pod is admitted by a selector",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.0.0/16]}}, {podSelector: {matchLabels: {app: db}}}]}]}`,
	Lines:   []string{"db reaches web", "far does not reach web", "10.0.1.5 reaches web"},
}, {
	Name:    "a block of everything is exact, ingress",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 80}]}]}`,
	Lines: []string{
		"lower half reaches web on tcp/80", "upper half reaches web on tcp/80", "client reaches web on tcp/80", "n2 reaches web on tcp/80",
		"lower half does not reach web on tcp/81",
	},
	Unsent: []string{"0.0.0.1 reaches web on tcp/80", "255.255.255.254 reaches web on tcp/80"},
}, {
	Name:    "a block of everything is exact, egress",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`,
	Lines:   []string{"web reaches lower half", "web reaches upper half", "web reaches client", "web reaches n1", "web reaches n2"},
}, {
	Name: "a block of everything with an exception",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress],
  ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16, 203.0.113.7/32]}}]}],
  egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.1.0/24]}}]}]}`,
	Lines: []string{
		"lower half reaches web", "upper half does not reach web", "far does not reach web", "outside reaches web",
		"web reaches lower half", "web reaches upper half", "web does not reach 10.0.1.5", "web reaches client",
	},
}, {
	Name:    "a block of everything with half of it excepted",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [128.0.0.0/1]}}]}]}`,
	Lines:   []string{"lower half reaches web", "203.0.113.7 does not reach web", "outside does not reach web"},
}, {
	Name: "a block of the other family's everything opens nothing",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: "other 0.0.0.0/0"}}]}],
  egress: [{to: [{ipBlock: {cidr: "other 0.0.0.0/0"}}]}]}`,
	Lines: []string{"client does not reach web", "outside does not reach web", "web does not reach client", "web does not reach outside"},
}, {
	Name: "a policy isolates in the family that none of its blocks has",
	Objects: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: "other 10.0.0.0/8"}}]}],
  egress: [{to: [{ipBlock: {cidr: "other 10.0.0.0/8"}}]}]}`,
	Lines: []string{"client does not reach web", "10.0.1.5 does not reach web", "web does not reach client", "web does not reach 10.0.1.5"},
}, {
	Name:    "an exception ends where its prefix ends",
	Objects: `red/p: {podSelector: {matchLabels: {app: far}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.1.2/31]}}]}]}`,
	Lines:   []string{"web does not reach far", "db does not reach far", "client reaches far"},
}, {
	Name:    "bits behind the prefix length do not count",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.1.77/24, except: [10.244.1.129/25]}}]}]}`,
	Lines:   []string{"db reaches web", "bare does not reach web"},
	Unsent:  []string{"10.244.1.200 does not reach web on tcp/80", "10.244.1.127 reaches web on tcp/80"},
}, {
	Name:    "CIDRs of the time before strict parsing",
	Only:    IPv4,
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 010.244.001.003/032}}, {ipBlock: {cidr: "::ffff:10.244.1.4/128"}}]}]}`,
	Lines:   []string{"db reaches web", "client reaches web", "bare does not reach web"},
}, {
	Name: "the order of a pod's addresses does not matter",
	Given: func(c *Cluster) {
		p := c.Pod("web")
		keep := p.Status.PodIPs
		p.Status.PodIPs = []corev1.PodIP{keep[1], keep[0]}
		p.Status.PodIP = keep[1].IP
	},
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`,
	Lines:   []string{"db reaches web", "client does not reach web"},
}}
