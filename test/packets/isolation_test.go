package packets

import (
	"testing"

	"github.com/ringfence-io/ringfence/test/kit"
)

// isolationScenarios are about whom a policy isolates, and in which direction.
var isolationScenarios = []scenario{{
	name: "without policies everybody reaches everybody",
	want: []string{
		"client reaches web", "web reaches client", "web reaches far", "far reaches web", "bare reaches remote", "web reaches n1",
		"web reaches n2", "n1 reaches web", "n2 reaches web", "outside reaches web", "web reaches outside", "host reaches web",
	},
}, {
	name:     "a policy isolates the pods that it selects for ingress, and nobody else",
	policies: `red/p: {podSelector: {matchLabels: {app: web}}}`,
	want: []string{
		"client does not reach web", "db does not reach web", "far does not reach web", "outside does not reach web",
		"web reaches client", "web reaches far", "web reaches outside", "web reaches n1", "client reaches db", "remote reaches far",
	},
}, {
	name:     "a policy isolates the pods that it selects for egress, and nobody else",
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}`,
	want: []string{
		"web does not reach client", "web does not reach db", "web does not reach far", "web does not reach outside",
		"db reaches client", "db reaches far", "db reaches outside",
	},
}, {
	name:     "a pod that is selected only for egress stays open for ingress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress]}`,
	want:     []string{"client reaches web", "remote reaches web", "outside reaches web", "n2 reaches web", "bare reaches far"},
}, {
	name:     "a pod that is selected only for ingress stays open for egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress]}`,
	want:     []string{"web reaches client", "web reaches remote", "web reaches outside", "web reaches n1", "web reaches n2", "far reaches bare"},
}, {
	name:     "ingress is decided on the destination's node, egress on the source's",
	policies: `red/p: {podSelector: {matchLabels: {app: far}}, policyTypes: [Ingress, Egress]}`,
	want: []string{
		"web does not reach far", "remote does not reach far", "far does not reach web", "far does not reach remote", "web reaches remote",
	},
}, {
	name:     "an empty podSelector selects every pod of the policy's namespace, and of no other",
	policies: `red/p: {podSelector: {}}`,
	want:     []string{"client does not reach web", "client does not reach db", "client does not reach far", "web reaches client", "web reaches bare"},
}, {
	name:     "an allow of one direction does not satisfy the other",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: []}`,
	want: []string{
		"web does not reach db", "db does not reach web", "far does not reach web", "web does not reach far", "web does not reach outside",
		"client does not reach web",
	},
}, {
	name: "both ends must allow",
	policies: `
red/in: {podSelector: {matchLabels: {app: far}}, ingress: [{from: [{podSelector: {}}]}]}
red/out: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`,
	want: []string{
		"web reaches far on tcp/80", "web does not reach far on tcp/81 udp/80 icmp", "db reaches far", "client does not reach far",
		"web reaches client on tcp/80", "web does not reach client on tcp/81",
	},
}, {
	name: "both ends of one node must allow",
	policies: `
red/in: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 81}]}]}
red/out: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 82}]}]}`,
	want: []string{"web reaches db on tcp/80", "web does not reach db on tcp/81 tcp/82 udp/80 icmp", "client does not reach db on tcp/80"},
}, {
	name:     "without policyTypes a policy isolates for ingress",
	policies: `red/p: {podSelector: {}}`,
	want:     []string{"client does not reach web", "web reaches client"},
}, {
	name:     "without policyTypes a policy with egress rules isolates in both directions",
	policies: `red/p: {podSelector: {}, egress: [{ports: [{port: 81, protocol: UDP}]}]}`,
	want:     []string{"client does not reach web", "web does not reach client", "web reaches client on udp/81"},
}, {
	name:     "an empty egress list without policyTypes isolates for ingress only",
	policies: `red/p: {podSelector: {}, ingress: [{}], egress: []}`,
	want:     []string{"client reaches web", "web reaches client"},
}, {
	name:     "an empty policyTypes list is an absent one",
	policies: `red/p: {podSelector: {}, policyTypes: [], egress: [{ports: [{port: 80}]}]}`,
	want:     []string{"client does not reach web", "web reaches client on tcp/80", "web does not reach client on udp/80"},
}, {
	name:     "the rules of a direction that policyTypes leaves out do not count",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 81}]}]}`,
	want:     []string{"web reaches client", "client reaches web on tcp/80", "client does not reach web on tcp/81"},
}, {
	name: "an egress rule of an ingress policy does not open another policy's isolation",
	policies: `
red/in: {podSelector: {}, policyTypes: [Ingress], egress: [{}]}
red/out: {podSelector: {}, policyTypes: [Egress], ingress: [{}]}`,
	want: []string{"web does not reach client", "client does not reach web"},
}, {
	name:     "a rule without peers and ports allows everything, ingress",
	policies: `red/p: {podSelector: {}, ingress: [{}]}`,
	want:     []string{"client reaches web", "far reaches web", "outside reaches web", "n2 reaches web"},
}, {
	name:     "a rule without peers and ports allows everything, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{}]}`,
	want:     []string{"web reaches client", "web reaches far", "web reaches outside", "web reaches n1", "web reaches n2"},
}, {
	name:     "empty lists of peers and ports are absent ones",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [], ports: []}], egress: [{to: [], ports: []}]}`,
	want:     []string{"client reaches web", "web reaches client", "outside reaches far", "far reaches outside"},
}, {
	name: "policies add up",
	policies: `
red/one: {podSelector: {}}
red/two: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}
red/three: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 81}]}]}`,
	want: []string{
		"db reaches web on tcp/80", "client reaches web on tcp/81", "db does not reach web on tcp/81", "client does not reach web on tcp/80",
		"web does not reach db on tcp/80", "client reaches db on tcp/81", "remote reaches far on tcp/81",
	},
}, {
	name: "policies add up, egress",
	policies: `
red/one: {podSelector: {}, policyTypes: [Egress]}
red/two: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}
red/three: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 81}]}]}`,
	want: []string{
		"web reaches db on tcp/80", "web reaches client on tcp/81", "web does not reach db on tcp/81", "web does not reach client on tcp/80",
		"db does not reach web on tcp/80", "db reaches client on tcp/81", "far reaches remote on tcp/81",
	},
}, {
	name:     "replies pass an isolation of the other direction",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}]}`,
	want:     []string{"client reaches web", "outside reaches web", "remote reaches far", "web does not reach client"},
}, {
	name:     "replies reach a client that nobody may reach",
	policies: `blue/p: {podSelector: {}}`,
	want:     []string{"client reaches web", "client reaches far", "client reaches outside", "web does not reach client"},
}, {
	name: "refusals and related ICMP errors pass an isolation of both ends",
	policies: `
red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 99}, {port: 99, protocol: UDP}]}]}
blue/p: {podSelector: {}}`,
	want: []string{
		"client is refused by web on tcp/99 udp/99", "remote is refused by web on tcp/99 udp/99", "client is refused by far on tcp/99 udp/99",
		"web does not reach client on tcp/99 udp/99",
	},
}, {
	name:     "a denied connection times out, whether somebody listens or not",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	want: []string{
		"client does not reach web on tcp/80 tcp/99 udp/80 udp/99", "web does not reach client on tcp/80 tcp/99 udp/80 udp/99",
		"web does not reach n1 on tcp/80 tcp/99 udp/80 udp/99",
	},
}, {
	name:     "ARP and neighbour discovery are never dropped",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 80}]}]}`,
	before: func(t *testing.T, w *world) {
		for _, p := range w.pods {
			kit.Must(t, p.ForgetNeighbours())
		}
	},
	want: []string{
		"client reaches web on tcp/80", "web reaches db on tcp/80", "db reaches far on tcp/80", "far reaches web on tcp/80",
		"web does not reach db on icmp", "client does not reach web on icmp",
	},
}, {
	name:     "a pod reaches itself without the network",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
	want:     []string{"web reaches web", "far reaches far"},
}}
