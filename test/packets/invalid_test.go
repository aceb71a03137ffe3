package packets

// invalidScenarios are about objects that the API server's validation would have refused, as an old cluster or a broken
// webhook may hold them: they open nothing, they stop nobody else, and they are reported by kind, name and field.
var invalidScenarios = []scenario{{
	name:     "a peer without fields matches nothing, its neighbours go on",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{}, {podSelector: {matchLabels: {app: db}}}]}]}`,
	want:     []string{"client does not reach web", "db reaches web", "outside does not reach web"},
	problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0]:"},
}, {
	name:     "a peer without fields matches nothing, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{}]}]}`,
	want:     []string{"web does not reach client", "web does not reach outside"},
	problems: []string{"NetworkPolicy red/p: spec.egress[0].to[0]:"},
}, {
	name:     "a block together with a selector matches nothing",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}]}]}`,
	want:     []string{"db does not reach web", "outside does not reach web"},
	problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0]:"},
}, {
	name:     "a block that is none matches nothing, its neighbours go on",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: everything}}, {ipBlock: {cidr: 10.0.0.0/16}}, {ipBlock: {cidr: ""}}]}]}`,
	want:     []string{"outside does not reach web", "client does not reach web", "10.0.1.5 reaches web"},
	problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0].ipBlock.cidr:", "NetworkPolicy red/p: spec.ingress[0].from[2].ipBlock.cidr:"},
}, {
	name:     "an exception that is none closes its block, not the others",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [bad]}}, {ipBlock: {cidr: 203.0.113.0/24}}]}]}`,
	want:     []string{"web does not reach 10.0.1.5", "web does not reach client", "web reaches 203.0.113.7"},
	problems: []string{"NetworkPolicy red/p: spec.egress[0].to[0].ipBlock.except[0]:"},
}, {
	name:     "an exception outside of its block closes the block",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}`,
	want:     []string{"10.0.1.5 does not reach web"},
	problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0].ipBlock.except[0]:"},
}, {
	name:     "a peer's selector with an unknown operator matches nothing",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Like, values: [db]}]}}, {namespaceSelector: {matchExpressions: [{key: team, operator: NotIn}]}}]}]}`,
	want:     []string{"db does not reach web", "client does not reach web", "bare does not reach web"},
	problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0].podSelector:", "NetworkPolicy red/p: spec.ingress[0].from[1].namespaceSelector:"},
}, {
	name: "a subject that cannot be understood isolates its namespace and allows nothing; other policies still allow",
	policies: `
red/p: {podSelector: {matchExpressions: [{key: app, operator: Is, values: [web]}]}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
red/q: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`,
	want: []string{
		"client reaches web on tcp/80", "client does not reach web on tcp/81", "client does not reach db", "web does not reach client",
		"remote does not reach far", "bare reaches client",
	},
	problems: []string{"NetworkPolicy red/p: spec.podSelector:"},
}, {
	name:     "an unknown policy type isolates in both directions",
	policies: `red/p: {podSelector: {}, policyTypes: [Sideways]}`,
	want:     []string{"client does not reach web", "web does not reach client"},
	problems: []string{"NetworkPolicy red/p: spec.policyTypes[0]:"},
}, {
	name: "ports that are none match nothing, their neighbours go on",
	policies: `red/p: {podSelector: {}, ingress: [{ports: [
  {port: 0}, {port: 65536}, {protocol: ICMP}, {port: 90, endPort: 80}, {endPort: 90}, {port: http, endPort: 90}, {port: ""}, {port: 82}]}]}`,
	want: []string{"client reaches web on tcp/82", "client does not reach web on tcp/80 tcp/81 tcp/90 udp/80 icmp"},
	problems: []string{
		"NetworkPolicy red/p: spec.ingress[0].ports[0]:", "NetworkPolicy red/p: spec.ingress[0].ports[1]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[2].protocol:", "NetworkPolicy red/p: spec.ingress[0].ports[3]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[4].endPort:", "NetworkPolicy red/p: spec.ingress[0].ports[5].endPort:",
		"NetworkPolicy red/p: spec.ingress[0].ports[6].port:",
	},
}, {
	name:     "a rule whose only port is none matches nothing",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{protocol: GRE}]}]}`,
	want:     []string{"web does not reach client", "web does not reach outside"},
	problems: []string{"NetworkPolicy red/p: spec.egress[0].ports[0].protocol:"},
}}
