package scenario

// tiers is about ClusterNetworkPolicies, among themselves and beside NetworkPolicies.
var tiers = []Scenario{{
	Name: "an Admin deny drops, and no NetworkPolicy opens it",
	Objects: `
cnp p: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: red}}},
  ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
red/open: {podSelector: {}, ingress: [{}]}`,
	Lines: []string{
		"client does not reach web", "remote does not reach far", "client does not reach db", "far reaches web", "bare reaches web",
		"outside reaches web", "web reaches client", "n1 reaches web",
	},
}, {
	Name: "an Admin accept opens what NetworkPolicies close, and only that",
	Objects: `
cnp p: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}},
  ingress: [{action: Accept, from: [{pods: {namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: client}}}}],
             protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 81, end: 82}}}}]}]}
red/closed: {podSelector: {}}`,
	Lines: []string{
		"client reaches web on tcp/80 udp/81 udp/82", "client does not reach web on tcp/81 udp/80 icmp", "remote does not reach web on tcp/80",
		"client does not reach db on tcp/80", "web reaches client",
	},
}, {
	Name: "Pass leaves the tier, and NetworkPolicies decide",
	Objects: `
cnp a: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
cnp b: {tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
red/some: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`,
	Lines: []string{
		"client reaches web on tcp/80", "client does not reach web on tcp/81", "client reaches db", "far does not reach web on tcp/80",
		"bare does not reach far", "outside reaches db", "outside does not reach web on tcp/81",
	},
}, {
	Name: "the lower number is asked first, and the first rule that matches decides",
	Objects: `
cnp last: {tier: Admin, priority: 30, subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}
cnp first: {tier: Admin, priority: 10, subject: {pods: {podSelector: {matchLabels: {app: web}}}},
  egress: [{action: Deny, to: [{namespaces: {matchLabels: {team: red}}}], protocols: [{tcp: {destinationPort: {number: 81}}}]},
           {action: Accept, to: [{namespaces: {matchLabels: {team: red}}}], protocols: [{tcp: {}}]}]}`,
	Lines: []string{
		"web reaches db on tcp/80 tcp/82", "web does not reach db on tcp/81 udp/80 icmp", "web does not reach client", "web reaches outside",
		"web reaches n1",
		"client does not reach web", "far does not reach remote",
	},
}, {
	Name: "a Baseline deny closes what no NetworkPolicy speaks about",
	Objects: `
cnp p: {tier: Baseline, priority: 0, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
red/open: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}
red/out: {podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{}]}`,
	Lines: []string{
		"client reaches web", "far does not reach web", "client does not reach db", "client does not reach far", "web does not reach client",
		"outside reaches db", "outside does not reach web", "n1 reaches db",
	},
}, {
	Name: "Baseline rules accept and pass before they deny",
	Objects: `cnp p: {tier: Baseline, priority: 0, subject: {namespaces: {matchLabels: {team: red}}},
  ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: red}}}]},
            {action: Pass, from: [{pods: {podSelector: {matchLabels: {app: client}}}}]},
            {action: Deny, from: [{networks: [0.0.0.0/0]}]}]}`,
	Lines: []string{
		"far reaches web", "client reaches web", "remote does not reach web", "outside does not reach web", "n1 reaches web", "web reaches remote",
	},
}, {
	Name: "nodes and networks are peers in both directions",
	Objects: `
cnp in: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}},
  ingress: [{action: Accept, from: [{nodes: {matchLabels: {zone: b}}}]}, {action: Accept, from: [{networks: [10.0.1.0/24, 10.9.0.0/16]}]},
            {action: Deny, from: [{networks: [0.0.0.0/0]}]}]}
cnp out: {tier: Admin, priority: 2, subject: {pods: {podSelector: {matchLabels: {app: client}}}},
  egress: [{action: Deny, to: [{nodes: {matchExpressions: [{key: zone, operator: In, values: [b]}]}}, {networks: [203.0.113.0/24]}]}]}`,
	Lines: []string{
		"n2 reaches web", "10.0.1.5 reaches web", "10.9.0.1 reaches web", "10.0.2.5 does not reach web", "db does not reach web", "far does not reach web",
		"n1 reaches web", "client does not reach n2", "client reaches n1", "client does not reach 203.0.113.7", "client reaches 10.0.1.5",
		"client reaches far",
	},
}, {
	Name: "a named port is of any protocol",
	Objects: `
cnp in: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: red}}},
  ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: dual}]}]}
cnp out: {tier: Admin, priority: 2, subject: {namespaces: {}},
  egress: [{action: Deny, to: [{namespaces: {matchLabels: {team: red}}}], protocols: [{destinationNamedPort: http}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/81 udp/82", "client reaches web on tcp/82 udp/81 tcp/90 icmp", "client reaches db on tcp/80 udp/81",
		"client does not reach db on tcp/81", "web does not reach far on tcp/82", "web reaches far on tcp/80 tcp/81", "client reaches remote on tcp/80",
	},
}, {
	Name: "a pod that reaches itself through its Service is subject to Admin and Baseline, not to NetworkPolicies",
	Objects: `
cnp p: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}},
  ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{udp: {}}]}]}
red/closed: {podSelector: {}}`,
	Lines: []string{"web reaches service-web on tcp/8080", "web does not reach service-web on udp/8080"},
}, {
	Name: "what is not understood fails closed",
	Objects: `
cnp accept: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}}, ingress: [{action: Accept, from: [{namespaces: {}}, {}]}]}
cnp deny: {tier: Admin, priority: 2, subject: {pods: {podSelector: {matchLabels: {app: db}}}}, ingress: [{action: Deny, from: [{}]}]}
cnp pass: {tier: Admin, priority: 3, subject: {pods: {podSelector: {matchLabels: {app: far}}}},
  ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{}]}]}
cnp names: {tier: Admin, priority: 4, subject: {pods: {podSelector: {matchLabels: {app: client}}}},
  egress: [{action: Accept, to: [{domainNames: [example.com]}]}]}
red/closed: {podSelector: {matchLabels: {app: web}}}
blue/closed: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}`,
	Lines: []string{
		"client does not reach web", "db does not reach web", "client does not reach db", "outside does not reach db", "web does not reach far",
		"client does not reach remote", "web reaches remote", "n1 reaches db",
	},
	Problems: []string{
		"ClusterNetworkPolicy accept: spec.ingress[0].from[1]: ", "ClusterNetworkPolicy deny: spec.ingress[0].from[0]: ",
		"ClusterNetworkPolicy pass: spec.ingress[0].protocols[0]: ", "ClusterNetworkPolicy names: spec.egress[0].to[0]: ",
	},
}, {
	Name: "policies of equal priority are asked by name, and that is said",
	Objects: `
cnp a: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
cnp b: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client reaches web", "far does not reach web"},
	Problems: []string{"ClusterNetworkPolicy b: spec.priority: "},
}, {
	Name:    "a policy that changes, and one that goes",
	Objects: `cnp p: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines:   []string{"client does not reach web", "far does not reach web"},
	Then: []Step{
		{What: "the tier becomes Baseline", Objects: `
cnp p: {tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
red/open: {podSelector: {matchLabels: {app: web}}, ingress: [{}]}`, Lines: []string{"client reaches web", "client does not reach db"}},
		{What: "the subject shrinks", Objects: `
cnp p: {tier: Baseline, priority: 1, subject: {namespaces: {matchLabels: {team: blue}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
			Lines: []string{"client reaches db", "web does not reach remote"}},
		{What: "it goes", Objects: `cnp p: null`, Lines: []string{"client reaches db", "web reaches remote"}},
	},
}}
