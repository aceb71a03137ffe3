package scenario

// invalid is about objects that the API server's validation would have refused, as an old cluster or a broken
// webhook may hold them: they open nothing, they stop nobody else, and they are reported by kind, name and field.
var invalid = []Scenario{{
	Name:     "a peer without fields matches nothing, its neighbours go on",
	Objects:  `red/p: {podSelector: {}, ingress: [{from: [{}, {podSelector: {matchLabels: {app: db}}}]}]}`,
	Lines:    []string{"client does not reach web", "db reaches web", "outside does not reach web"},
	Problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0]:"},
}, {
	Name:     "a peer without fields matches nothing, egress",
	Objects:  `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{}]}]}`,
	Lines:    []string{"web does not reach client", "web does not reach outside"},
	Problems: []string{"NetworkPolicy red/p: spec.egress[0].to[0]:"},
}, {
	Name: "a block together with a selector matches nothing",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [
  {ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}, namespaceSelector: {}}]}]}`,
	Lines:    []string{"db does not reach web", "outside does not reach web"},
	Problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0]:", "NetworkPolicy red/p: spec.ingress[0].from[1]:"},
}, {
	Name:     "a block that is none matches nothing, its neighbours go on",
	Objects:  `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: everything}}, {ipBlock: {cidr: 10.0.0.0/16}}, {ipBlock: {cidr: ""}}]}]}`,
	Lines:    []string{"outside does not reach web", "client does not reach web", "10.0.1.5 reaches web"},
	Problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0].ipBlock.cidr:", "NetworkPolicy red/p: spec.ingress[0].from[2].ipBlock.cidr:"},
}, {
	Name: "an exception that is none closes its block, not the others",
	Objects: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [bad]}},
  {ipBlock: {cidr: 203.0.113.0/24}}]}]}`,
	Lines:    []string{"web does not reach 10.0.1.5", "web does not reach client", "web reaches 203.0.113.7"},
	Problems: []string{"NetworkPolicy red/p: spec.egress[0].to[0].ipBlock.except[0]:"},
}, {
	Name:     "an exception outside of its block closes the block",
	Objects:  `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}`,
	Lines:    []string{"10.0.1.5 does not reach web"},
	Problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0].ipBlock.except[0]:"},
}, {
	Name: "a peer's selector with an unknown operator matches nothing",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Like, values: [db]}]}},
  {namespaceSelector: {matchExpressions: [{key: team, operator: NotIn}]}}]}]}`,
	Lines:    []string{"db does not reach web", "client does not reach web", "bare does not reach web"},
	Problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0].podSelector:", "NetworkPolicy red/p: spec.ingress[0].from[1].namespaceSelector:"},
}, {
	Name: "a subject that cannot be understood isolates its namespace and allows nothing; other policies still allow",
	Objects: `
red/p: {podSelector: {matchExpressions: [{key: app, operator: Is, values: [web]}]}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
red/q: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`,
	Lines: []string{
		"client reaches web on tcp/80", "client does not reach web on tcp/81", "client does not reach db", "web does not reach client",
		"remote does not reach far", "bare reaches client",
	},
	Problems: []string{"NetworkPolicy red/p: spec.podSelector:"},
}, {
	Name:     "an unknown policy type isolates in both directions",
	Objects:  `red/p: {podSelector: {}, policyTypes: [Sideways]}`,
	Lines:    []string{"client does not reach web", "web does not reach client"},
	Problems: []string{"NetworkPolicy red/p: spec.policyTypes[0]:"},
}, {
	Name: "ports that are none match nothing, their neighbours go on",
	Objects: `red/p: {podSelector: {}, ingress: [{ports: [
  {port: 0}, {port: 65536}, {protocol: ICMP}, {port: 90, endPort: 80}, {endPort: 90}, {port: http, endPort: 90}, {port: ""}, {port: 82}]}]}`,
	Lines: []string{"client reaches web on tcp/82", "client does not reach web on tcp/80 tcp/81 tcp/90 udp/80 icmp"},
	Problems: []string{
		"NetworkPolicy red/p: spec.ingress[0].ports[0]:", "NetworkPolicy red/p: spec.ingress[0].ports[1]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[2].protocol:", "NetworkPolicy red/p: spec.ingress[0].ports[3]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[4].endPort:", "NetworkPolicy red/p: spec.ingress[0].ports[5].endPort:",
		"NetworkPolicy red/p: spec.ingress[0].ports[6].port:",
	},
}, {
	Name:     "a rule whose only port is none matches nothing",
	Objects:  `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{protocol: GRE}]}]}`,
	Lines:    []string{"web does not reach client", "web does not reach outside"},
	Unsent:   []string{"web does not reach client on gre"},
	Problems: []string{"NetworkPolicy red/p: spec.egress[0].ports[0].protocol:"},
}, {
	Name: "all that is no CIDR matches nothing",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}, {ipBlock: {cidr: 10.0.0.0/33}}, {ipBlock: {cidr: ""}},
  {ipBlock: {cidr: 10.0.0/8}}, {ipBlock: {cidr: "10.0.0.0/-1"}}, {ipBlock: {cidr: "fe80::1%eth0/64"}}]}]}`,
	Lines: []string{"db does not reach web", "outside does not reach web"},
	Problems: []string{
		"NetworkPolicy red/p: spec.ingress[0].from[0].ipBlock.cidr:",
		"NetworkPolicy red/p: spec.ingress[0].from[1].ipBlock.cidr:",
		"NetworkPolicy red/p: spec.ingress[0].from[2].ipBlock.cidr:",
		"NetworkPolicy red/p: spec.ingress[0].from[3].ipBlock.cidr:",
		"NetworkPolicy red/p: spec.ingress[0].from[4].ipBlock.cidr:",
		"NetworkPolicy red/p: spec.ingress[0].from[5].ipBlock.cidr:",
	},
}, {
	Name: "an exception of the other family closes its block",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24, except: ["other 10.0.0.0/8"]}},
  {ipBlock: {cidr: 10.0.1.0/24}}]}]}`,
	Lines:    []string{"203.0.113.7 does not reach web", "10.0.1.5 reaches web"},
	Problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0].ipBlock.except[0]:"},
}, {
	Name: "an exception as large as its block closes it, and a larger one",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [
  {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}, {ipBlock: {cidr: 203.0.113.0/24, except: [203.0.0.0/16]}}]}]}`,
	Lines:    []string{"db does not reach web", "203.0.113.7 does not reach web"},
	Problems: []string{"NetworkPolicy red/p: spec.ingress[0].from[0].ipBlock.except[0]:", "NetworkPolicy red/p: spec.ingress[0].from[1].ipBlock.except[0]:"},
}, {
	Name: "selectors of peers that are none match nothing, whatever is wrong with them",
	Objects: `
red/p: {podSelector: {}, ingress: [{from: [
  {podSelector: {matchExpressions: [{key: app, operator: In}]}},
  {podSelector: {matchExpressions: [{key: app, operator: NotIn, values: []}]}},
  {podSelector: {matchExpressions: [{key: app, operator: Exists, values: [db]}]}},
  {podSelector: {matchExpressions: [{key: nope, operator: DoesNotExist, values: [db]}]}},
  {podSelector: {matchExpressions: [{key: app, operator: Like, values: [db]}]}},
  {podSelector: {matchExpressions: [{key: "", operator: DoesNotExist}]}},
  {podSelector: {matchExpressions: [{key: "a b", operator: DoesNotExist}]}},
  {podSelector: {matchExpressions: [{key: x, operator: NotIn, values: ["not a value"]}]}},
  {namespaceSelector: {matchExpressions: [{key: team, operator: Nope}]}},
  {podSelector: {}, namespaceSelector: {matchExpressions: [{key: team, operator: NotIn}]}}]}]}`,
	Lines: []string{"db does not reach web", "client does not reach web", "bare does not reach web"},
	Problems: []string{
		"NetworkPolicy red/p: spec.ingress[0].from[0].podSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[1].podSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[2].podSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[3].podSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[4].podSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[5].podSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[6].podSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[7].podSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[8].namespaceSelector:",
		"NetworkPolicy red/p: spec.ingress[0].from[9].namespaceSelector:",
	},
}, {
	Name:     "a subject that cannot be understood isolates in the directions that policyTypes default to",
	Objects:  `red/p: {podSelector: {matchExpressions: [{key: app, operator: Is, values: [web]}]}, ingress: [{}], egress: [{}]}`,
	Lines:    []string{"client does not reach db", "web does not reach client"},
	Problems: []string{"NetworkPolicy red/p: spec.podSelector:"},
}, {
	Name:     "rules count only for the policy types that are named as the API names them",
	Objects:  `red/p: {podSelector: {}, policyTypes: [Ingress, egress], ingress: [{ports: [{port: 80}]}], egress: [{}]}`,
	Lines:    []string{"client reaches web on tcp/80", "client does not reach web on tcp/81", "web does not reach client on tcp/80"},
	Problems: []string{"NetworkPolicy red/p: spec.policyTypes[1]:"},
}, {
	Name:  "all that is no port matches nothing",
	Given: func(c *Cluster) { AddPorts(&c.Pod("web").Spec.Containers, "=TCP/5") },
	Objects: `
red/p: {podSelector: {}, ingress: [{ports: [
  {port: 0}, {port: -1}, {port: 65536}, {port: 70000, protocol: UDP}, {protocol: ICMP}, {protocol: tcp}, {protocol: ""},
  {port: 90, endPort: 89}, {port: 100, endPort: 65536}, {endPort: 200}, {port: http, endPort: 300}, {port: ""}, {port: 0, endPort: 10}, {port: 7}]}]}`,
	Lines: []string{
		"client reaches web on tcp/7",
		"client does not reach web on tcp/65535 udp/4464 tcp/90 tcp/89 tcp/100 tcp/200 tcp/80 tcp/5 icmp",
	},
	Unsent: []string{"client does not reach web on tcp/0"},
	Problems: []string{
		"NetworkPolicy red/p: spec.ingress[0].ports[0]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[10].endPort:",
		"NetworkPolicy red/p: spec.ingress[0].ports[11].port:",
		"NetworkPolicy red/p: spec.ingress[0].ports[12]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[1]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[2]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[3]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[4].protocol:",
		"NetworkPolicy red/p: spec.ingress[0].ports[5].protocol:",
		"NetworkPolicy red/p: spec.ingress[0].ports[6].protocol:",
		"NetworkPolicy red/p: spec.ingress[0].ports[7]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[8]:",
		"NetworkPolicy red/p: spec.ingress[0].ports[9].endPort:",
	},
}}
