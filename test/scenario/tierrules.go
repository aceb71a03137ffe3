package scenario

import "github.com/ringfence-io/ringfence/lab/twin"

// tierRules is about the order of the tiers' stages, the rules in them, their peers and protocols, one statement each.
var tierRules = []Scenario{{
	Name: "Admin comes before NetworkPolicies",
	Objects: `
admin x: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
  {action: Deny, from: [{namespaces: {}}],
  protocols: [{tcp: {destinationPort: {number: 81}}}]}]}
red/p: {podSelector: {}, ingress: [{ports: [{port: 81}, {port: 82}]}]}`,
	Lines: []string{"client reaches web on tcp/80 tcp/82", "client does not reach web on tcp/81 tcp/83"},
}, {
	Name: "Baseline comes behind NetworkPolicies, whichever they decide",
	Objects: `
baseline x: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
  {action: Deny, from: [{namespaces: {}}]}]}
red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80", "client reaches web on tcp/81", "client reaches db on tcp/80", "client does not reach db on tcp/81",
	},
}, {
	Name: "a pod isolated for egress only meets Baseline for ingress",
	Objects: `
baseline x: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{namespaces: {}}]}]}
red/p: {podSelector: {}, policyTypes: [Egress], egress: [{}]}`,
	Lines: []string{"client does not reach web on tcp/80", "web reaches outside on tcp/80", "client reaches outside on tcp/80"},
}, {
	Name: "a priority does not cross tiers",
	Objects: `
admin a: {priority: 9, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
baseline b: {priority: 0, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines: []string{"client reaches web on tcp/80"},
}, {
	Name: "of equal priority the older comes first",
	Objects: `
admin a: {created: 20, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
admin b: {created: 10, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client does not reach web on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy a: spec.priority:"},
}, {
	Name: "of equal age the lesser name comes first",
	Objects: `
admin b: {created: 10, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
admin a: {created: 10, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client does not reach web on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy b: spec.priority:"},
}, {
	Name: "of equal name ours comes first",
	Objects: `
admin sig/a: {created: 10, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
admin a: {created: 10, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client does not reach web on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy.policy.networking.k8s.io a: spec.priority:"},
}, {
	Name: "whose it is counts only after age and name",
	Objects: `
admin sig/a: {created: 10, priority: 1, ingress: [{action: Deny, from: [{pods: {podSelector: {}}}]}]}
admin b: {created: 10, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client does not reach web on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy b: spec.priority:"},
}, {
	Name: "the first rule that matches decides",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: client}}}}]}, {action: Accept, from: [{namespaces: {}}]},
  {action: Deny, from: [{networks: [0.0.0.0/0]}]}]}`,
	Lines: []string{"client does not reach web on tcp/80", "db reaches web on tcp/80", "outside does not reach web on tcp/80"},
}, {
	Name: "a policy whose rules do not match leaves it to the next",
	Objects: `
admin a: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{udp: {}}]}]}
admin b: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines: []string{"client reaches web on udp/1", "client does not reach web on tcp/1"},
}, {
	Name: "a policy affects only the directions that it has rules for, and both ends must allow",
	Objects: `
admin a: {priority: 1, subject: {namespaces: {matchLabels: {team: red}}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}`,
	Lines: []string{
		"client reaches web on tcp/80", "web does not reach client on tcp/80", "web does not reach db on tcp/80", "web reaches outside on tcp/80",
	},
}, {
	Name: "Pass in Admin skips Admin isolation, but not Baseline's",
	Objects: `
admin a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
isolation x: {tier: Admin, namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress]}
isolation w: {namespaceSelector: {}, directions: [Ingress], allow: {ingress: [{from: [{namespaces: {}}],
  protocols: [{tcp: {destinationPort: {number: 80}}}]}]}}`,
	Lines: []string{"client reaches web on tcp/80", "client does not reach web on tcp/81", "bare does not reach web on tcp/80"},
}, {
	Name: "Accept in Admin skips all else",
	Objects: `
admin a: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
baseline b: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
red/p: {podSelector: {}}
isolation x: {tier: Admin, namespaceSelector: {}, directions: [Ingress]}
isolation w: {namespaceSelector: {}, directions: [Ingress]}`,
	Lines: []string{"client reaches web on tcp/80", "bare does not reach web on tcp/80"},
}, {
	Name: "Accept is for its own direction only",
	Objects: `
admin a: {priority: 1, egress: [{action: Accept, to: [{namespaces: {}}]}]}
red/p: {podSelector: {}}`,
	Lines: []string{"client does not reach web on tcp/80"},
}, {
	Name: "Pass in Baseline allows and skips Baseline isolation",
	Objects: `
baseline a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
baseline b: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
isolation x: {namespaceSelector: {}, directions: [Ingress]}`,
	Lines: []string{"client reaches web on tcp/80", "bare does not reach web on tcp/80"},
}, {
	Name: "Accept in Baseline skips Baseline isolation",
	Objects: `
baseline a: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
isolation x: {namespaceSelector: {}, directions: [Ingress]}`,
	Lines: []string{"client reaches web on tcp/80", "bare does not reach web on tcp/80"},
}, {
	Name: "a host-network pod and a completed one are no subjects",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{networks: [0.0.0.0/0]}]}], egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}`,
	Lines: []string{
		"outside reaches host on tcp/80", "host reaches outside on tcp/80", "outside reaches job on tcp/80", "outside does not reach web on tcp/80",
	},
}, {
	Name: "a pod is the subject by its own labels and its namespace's",
	Objects: `
admin a: {priority: 1, subject: {pods: {namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchExpressions: [{key: app, operator: NotIn,
  values: [db]}]}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80", "client reaches db on tcp/80", "client reaches bare on tcp/80", "client does not reach twin on tcp/80",
	},
}, {
	Name: "a node's own traffic to its own pods is never policed",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{networks: [0.0.0.0/0]}]}]}`,
	Lines: []string{"client does not reach web on icmp", "n1 reaches web on tcp/80", "n2 does not reach web on tcp/80"},
}, {
	Name: "NetworkPolicies let a pod reach itself, and then Baseline is not asked",
	Objects: `
red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}
baseline a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines: []string{"web reaches service-web on tcp/8080", "far does not reach service-far on tcp/8080"},
}, {
	Name: "a pod that reaches itself may be isolated in one direction, in the other Baseline decides",
	Objects: `
red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
baseline a: {priority: 1, egress: [{action: Deny, to: [{namespaces: {}}]}]}`,
	Lines: []string{"web does not reach service-web on tcp/8080"},
}, {
	Name: "Admin rules make no exception for a pod that reaches itself",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	Lines: []string{"web does not reach service-web on tcp/8080"},
}, {
	Name: "Admin isolation makes no exception for a pod that reaches itself, but a pod is of its own tenant",
	Objects: `
isolation x: {tier: Admin, namespaceSelector: {matchLabels: {team: red}}, allow: {sameTenant: false}}
isolation w: {tier: Admin, namespaceSelector: {matchLabels: {team: blue}}}`,
	Lines: []string{"web does not reach service-web on tcp/8080", "client reaches client on tcp/80"},
}, {
	Name: "Baseline isolation makes no exception for a pod that reaches itself",
	Objects: `
isolation x: {namespaceSelector: {}, allow: {sameTenant: false}}`,
	Lines: []string{"web does not reach service-web on tcp/8080"},
}, {
	Name: "namespaces and pods select live pods that are not on the host network",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{pods: {podSelector: {}}}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80", "host reaches web on tcp/80", "job reaches web on tcp/80", "outside reaches web on tcp/80",
		"web reaches host on tcp/80", "web reaches job on tcp/80",
	},
}, {
	Name:  "nodes are all IP addresses in their status, in both directions",
	Given: func(c *Cluster) { addAddresses(c.Node("n2"), "203.0.113.7", twin.Of(c.v4("203.0.113.7")).String()) },
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{nodes: {matchLabels: {zone: b}}}]}],
  egress: [{action: Deny, to: [{nodes: {matchLabels: {zone: b}}}]}]}`,
	Lines: []string{
		"n2 does not reach web on tcp/80", "203.0.113.7 does not reach web on tcp/80", "n1 reaches names on tcp/80", "web does not reach n2 on tcp/80",
		"web does not reach n2 on icmp", "web does not reach 203.0.113.7 on tcp/80", "web reaches n1 on tcp/80", "n2 reaches names on tcp/80",
		"db reaches web on tcp/80",
	},
	Unsent: []string{"172.18.0.2 does not reach web on tcp/80"},
}, {
	Name: "empty nodes are all nodes",
	Objects: `
admin a: {priority: 1, egress: [{action: Deny, to: [{nodes: {}}]}]}`,
	Lines: []string{"web does not reach n1 on tcp/80", "web does not reach n2 on tcp/80", "web reaches outside on tcp/80"},
}, {
	Name: "networks hold whoever has the address, in both directions",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{networks: [10.244.1.4/31, 203.0.113.0/24]}]}],
  egress: [{action: Deny, to: [{networks: [10.9.0.0/16]}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80", "203.0.113.7 does not reach web on tcp/80", "bare reaches web on tcp/80",
		"db reaches web on tcp/80", "web does not reach 10.9.0.1 on tcp/80", "web reaches client on tcp/80",
	},
}, {
	Name: "any peer of a list matches",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{networks: [10.244.2.4/32]},
  {pods: {namespaceSelector: {matchLabels: {team: blue}}, podSelector: {}}}]}]}`,
	Lines: []string{"client does not reach web on tcp/80", "bare does not reach web on tcp/80", "db reaches web on tcp/80"},
}, {
	Name: "without protocols all are meant",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: []}]}`,
	Lines:  []string{"client does not reach web on icmp sctp/1"},
	Unsent: []string{"client does not reach web on gre"},
}, {
	Name: "protocols, numbers and ranges",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}, {udp: {destinationPort: {number: 53}}},
  {sctp: {destinationPort: {range: {start: 10, end: 12}}}}, {sctp: {destinationPort: {range: {start: 65535, end: 65535}}}}]}]}`,
	Lines: []string{"client does not reach web on tcp/1 udp/53 sctp/10 sctp/12 sctp/65535", "client reaches web on udp/54 sctp/9 sctp/13 icmp"},
}, {
	Name: "a named port is of any protocol, on the destination pod",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: dual}]}], egress: [
  {action: Deny, to: [{networks: [0.0.0.0/0]}], protocols: [{destinationNamedPort: query}, {destinationNamedPort: nobody}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/81 udp/82", "client reaches web on tcp/82 sctp/81 icmp", "client reaches db on tcp/81",
		"client does not reach names on udp/81 tcp/82", "client reaches names on tcp/81", "client reaches outside on udp/81",
		"outside reaches web on tcp/81",
	},
}, {
	Name: "networks match ICMP and protocols without ports too",
	Objects: `
admin a: {priority: 1, egress: [{action: Deny, to: [{networks: [203.0.113.0/24]}]}], ingress: [{action: Deny, from: [{networks: [10.9.0.0/16]}]}]}`,
	Lines: []string{
		"web does not reach 203.0.113.7 on icmp other tcp/80", "10.9.0.1 does not reach web on icmp other udp/80", "web reaches 10.9.0.1 on icmp",
		"203.0.113.7 reaches web on icmp other", "web reaches client on icmp",
	},
}, {
	Name: "networks accept ICMP too",
	Objects: `
admin a: {priority: 1, ingress: [{action: Accept, from: [{networks: [203.0.113.0/24]}]}, {action: Deny, from: [{networks: [0.0.0.0/0]}]}]}`,
	Lines: []string{"203.0.113.7 reaches web on icmp tcp/80", "10.9.0.1 does not reach web on icmp tcp/80", "client does not reach web on icmp"},
}, {
	Name: "networks with protocols match none but these",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{networks: [0.0.0.0/0]}], protocols: [{tcp: {}}]}]}`,
	Lines: []string{"outside does not reach web on tcp/80", "outside reaches web on icmp udp/80 other"},
}}
