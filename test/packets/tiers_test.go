package packets

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/lab/topology"
)

// everyPod are the subject and the peer that are all pods.
const everyPod = `{namespaces: {}}`

// tierScenarios are about ClusterNetworkPolicies, among themselves and beside NetworkPolicies.
var tierScenarios = []scenario{{
	name: "an Admin deny drops, and no NetworkPolicy opens it",
	wide: `cnp p: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: red}}},
  ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}]}]}`,
	policies: `red/open: {podSelector: {}, ingress: [{}]}`,
	want: []string{
		"client does not reach web", "remote does not reach far", "client does not reach db", "far reaches web", "bare reaches web",
		"outside reaches web", "web reaches client", "n1 reaches web",
	},
}, {
	name: "an Admin accept opens what NetworkPolicies close, and only that",
	wide: `cnp p: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}},
  ingress: [{action: Accept, from: [{pods: {namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: client}}}}],
             protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 81, end: 82}}}}]}]}`,
	policies: `red/closed: {podSelector: {}}`,
	want: []string{
		"client reaches web on tcp/80 udp/81 udp/82", "client does not reach web on tcp/81 udp/80 icmp", "remote does not reach web on tcp/80",
		"client does not reach db on tcp/80", "web reaches client",
	},
}, {
	name: "Pass leaves the tier, and NetworkPolicies decide",
	wide: `
cnp a: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
cnp b: {tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	policies: `red/some: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`,
	want: []string{
		"client reaches web on tcp/80", "client does not reach web on tcp/81", "client reaches db", "far does not reach web on tcp/80",
		"bare does not reach far", "outside reaches db", "outside does not reach web on tcp/81",
	},
}, {
	name: "the lower number is asked first, and the first rule that matches decides",
	wide: `
cnp last: {tier: Admin, priority: 30, subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}
cnp first: {tier: Admin, priority: 10, subject: {pods: {podSelector: {matchLabels: {app: web}}}},
  egress: [{action: Deny, to: [{namespaces: {matchLabels: {team: red}}}], protocols: [{tcp: {destinationPort: {number: 81}}}]},
           {action: Accept, to: [{namespaces: {matchLabels: {team: red}}}], protocols: [{tcp: {}}]}]}`,
	want: []string{
		"web reaches db on tcp/80 tcp/82", "web does not reach db on tcp/81 udp/80 icmp", "web does not reach client", "web reaches outside", "web reaches n1",
		"client does not reach web", "far does not reach remote",
	},
}, {
	name: "a Baseline deny closes what no NetworkPolicy speaks about",
	wide: `cnp p: {tier: Baseline, priority: 0, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	policies: `
red/open: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}
red/out: {podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{}]}`,
	want: []string{
		"client reaches web", "far does not reach web", "client does not reach db", "client does not reach far", "web does not reach client",
		"outside reaches db", "outside does not reach web", "n1 reaches db",
	},
}, {
	name: "Baseline rules accept and pass before they deny",
	wide: `cnp p: {tier: Baseline, priority: 0, subject: {namespaces: {matchLabels: {team: red}}},
  ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: red}}}]},
            {action: Pass, from: [{pods: {podSelector: {matchLabels: {app: client}}}}]},
            {action: Deny, from: [{networks: [0.0.0.0/0]}]}]}`,
	want: []string{"far reaches web", "client reaches web", "remote does not reach web", "outside does not reach web", "n1 reaches web", "web reaches remote"},
}, {
	name: "nodes and networks are peers in both directions",
	wide: `
cnp in: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}},
  ingress: [{action: Accept, from: [{nodes: {matchLabels: {zone: b}}}]}, {action: Accept, from: [{networks: [10.0.1.0/24, 10.9.0.0/16]}]},
            {action: Deny, from: [{networks: [0.0.0.0/0]}]}]}
cnp out: {tier: Admin, priority: 2, subject: {pods: {podSelector: {matchLabels: {app: client}}}},
  egress: [{action: Deny, to: [{nodes: {matchExpressions: [{key: zone, operator: In, values: [b]}]}}, {networks: [203.0.113.0/24]}]}]}`,
	want: []string{
		"n2 reaches web", "10.0.1.5 reaches web", "10.9.0.1 reaches web", "10.0.2.5 does not reach web", "db does not reach web", "far does not reach web",
		"n1 reaches web", "client does not reach n2", "client reaches n1", "client does not reach 203.0.113.7", "client reaches 10.0.1.5", "client reaches far",
	},
}, {
	name: "a named port is of any protocol",
	wide: `
cnp in: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: red}}},
  ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: dual}]}]}
cnp out: {tier: Admin, priority: 2, subject: {namespaces: {}},
  egress: [{action: Deny, to: [{namespaces: {matchLabels: {team: red}}}], protocols: [{destinationNamedPort: http}]}]}`,
	want: []string{
		"client does not reach web on tcp/81 udp/82", "client reaches web on tcp/82 udp/81 tcp/90 icmp", "client reaches db on tcp/80 udp/81",
		"client does not reach db on tcp/81", "web does not reach far on tcp/82", "web reaches far on tcp/80 tcp/81", "client reaches remote on tcp/80",
	},
}, {
	name: "a pod that reaches itself through its Service is subject to Admin and Baseline, not to NetworkPolicies",
	wide: `cnp p: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}},
  ingress: [{action: Deny, from: [` + everyPod + `], protocols: [{udp: {}}]}]}`,
	policies: `red/closed: {podSelector: {}}`,
	want:     []string{"web reaches service-web on tcp/8080", "web does not reach service-web on udp/8080"},
}, {
	name: "what is not understood fails closed",
	wide: `
cnp accept: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}}, ingress: [{action: Accept, from: [{namespaces: {}}, {}]}]}
cnp deny: {tier: Admin, priority: 2, subject: {pods: {podSelector: {matchLabels: {app: db}}}}, ingress: [{action: Deny, from: [{}]}]}
cnp pass: {tier: Admin, priority: 3, subject: {pods: {podSelector: {matchLabels: {app: far}}}},
  ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{}]}]}
cnp names: {tier: Admin, priority: 4, subject: {pods: {podSelector: {matchLabels: {app: client}}}}, egress: [{action: Accept, to: [{domainNames: [example.com]}]}]}`,
	policies: "red/closed: {podSelector: {matchLabels: {app: web}}}\nblue/closed: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}",
	want: []string{
		"client does not reach web", "db does not reach web", "client does not reach db", "outside does not reach db", "web does not reach far",
		"client does not reach remote", "web reaches remote", "n1 reaches db",
	},
	problems: []string{
		"ClusterNetworkPolicy accept: spec.ingress[0].from[1]: ", "ClusterNetworkPolicy deny: spec.ingress[0].from[0]: ",
		"ClusterNetworkPolicy pass: spec.ingress[0].protocols[0]: ", "ClusterNetworkPolicy names: spec.egress[0].to[0]: ",
	},
}, {
	name: "policies of equal priority are asked by name, and that is said",
	wide: `
cnp a: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
cnp b: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	want:     []string{"client reaches web", "far does not reach web"},
	problems: []string{"ClusterNetworkPolicy b: spec.priority: "},
}, {
	name: "a policy that changes, and one that goes",
	wide: `cnp p: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	want: []string{"client does not reach web", "far does not reach web"},
	then: []step{
		{what: "the tier becomes Baseline", wide: `cnp p: {tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
			policies: `red/open: {podSelector: {matchLabels: {app: web}}, ingress: [{}]}`, want: []string{"client reaches web", "client does not reach db"}},
		{what: "the subject shrinks", wide: `cnp p: {tier: Baseline, priority: 1, subject: {namespaces: {matchLabels: {team: blue}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
			want: []string{"client reaches db", "web does not reach remote"}},
		{what: "it goes", given: func(c *cluster) { c.wide = wide{} }, want: []string{"client reaches db", "web reaches remote"}},
	},
}}

// namespaceIsolationScenarios are about NamespaceIsolation.
var namespaceIsolationScenarios = []scenario{{
	name: "isolated namespaces are tenants of their own",
	wide: `isolation fence: {namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}}`,
	want: []string{
		"far reaches web", "web reaches db", "client reaches remote", "client does not reach web", "web does not reach client", "bare does not reach web",
		"web does not reach bare", "outside does not reach web", "web does not reach outside", "bare reaches outside", "n1 reaches web", "web does not reach n1",
	},
}, {
	name:  "namespaces that share the tenant label's value are one tenant, selected or not",
	given: func(c *cluster) { c.namespaces[1].Labels["tenant"], c.namespaces[0].Labels["tenant"] = "x", "x" },
	wide:  `isolation fence: {namespaceSelector: {matchLabels: {team: red}}, tenantLabel: tenant}`,
	want: []string{
		"client reaches web", "web reaches client", "far reaches web", "bare does not reach web", "web does not reach bare", "bare reaches client",
	},
}, {
	name: "a namespace without the tenant label is a tenant of its own",
	wide: `isolation fence: {namespaceSelector: {}, tenantLabel: env}`,
	want: []string{"far reaches web", "client reaches remote", "client does not reach web", "bare does not reach web", "bare does not reach client"},
}, {
	name: "a Baseline isolation is what a NetworkPolicy may open",
	wide: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}}`,
	policies: `
red/open: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}`,
	want: []string{"client reaches web", "bare does not reach web", "far does not reach web", "client does not reach db", "web does not reach client"},
}, {
	name: "what an Admin isolation denies nothing opens, and what it allows NetworkPolicies may deny",
	wide: `isolation fence: {tier: Admin, namespaceSelector: {matchLabels: {team: red}}}`,
	policies: `
red/open: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}
red/wide: {podSelector: {matchLabels: {app: db}}, ingress: [{}]}`,
	want: []string{"client does not reach web", "far does not reach web", "client does not reach db", "far reaches db", "web reaches far"},
}, {
	name: "Admin rules come before Admin isolation: Accept and Pass are exceptions to it",
	wide: `
isolation fence: {tier: Admin, namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress]}
cnp monitoring: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{pods: {podSelector: {matchLabels: {app: client}}}}]}]}
cnp pass: {tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{pods: {podSelector: {matchLabels: {app: remote}}}}]}]}`,
	policies: `red/closed: {podSelector: {matchLabels: {app: web}}}`,
	want: []string{
		"client reaches web", "client reaches db", "remote does not reach web", "remote reaches db", "bare does not reach db", "web reaches remote",
	},
}, {
	name: "only the directions that are given are isolated",
	wide: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}, directions: [Egress]}`,
	want: []string{"client reaches web", "outside reaches web", "web does not reach client", "web reaches far", "web does not reach outside"},
}, {
	name: "sameTenant can be refused, and allow lists are exact",
	wide: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}, allow: {sameTenant: false,
  ingress: [{from: [{pods: {podSelector: {matchLabels: {app: client}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, {from: [{nodes: {matchLabels: {zone: b}}}]}],
  egress: [{to: [{networks: [10.9.0.0/16]}]}]}}`,
	want: []string{
		"far does not reach web", "client reaches web on tcp/80", "client does not reach web on tcp/81 icmp", "n2 reaches web", "web reaches 10.9.0.1",
		"web does not reach 10.0.1.5", "web does not reach far",
	},
}, {
	name:  "DNS is allowed at its pods, at its Service's address and at the node-local address",
	given: func(c *cluster) { c.dns = dns("blue", "app=remote", "10.9.0.1", "10.0.1.5") },
	wide:  `isolation fence: {namespaceSelector: {matchLabels: {team: red}}}`,
	want: []string{
		"web reaches remote on udp/81 tcp/82", "web does not reach remote on tcp/81 udp/82 icmp", "web reaches 10.9.0.1 on udp/80 tcp/82",
		"web does not reach 10.9.0.1 on tcp/80 udp/81", "web is refused by 10.0.1.5 on tcp/53 udp/53", "web does not reach 10.0.1.5 on udp/80 icmp",
		"web does not reach client on udp/81",
	},
	then: []step{{what: "it can be refused", wide: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}, allow: {dns: false}}`,
		want: []string{"web does not reach remote on udp/81", "web does not reach 10.9.0.1 on udp/80"}}},
}, {
	name: "two isolations of a namespace add up",
	wide: `
isolation a: {namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress],
  allow: {sameTenant: false, ingress: [{from: [{pods: {podSelector: {matchLabels: {app: client}}}}]}]}}
isolation b: {namespaceSelector: {}, directions: [Ingress], allow: {ingress: [{from: [{pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: plain}}, podSelector: {}}}]}]}}`,
	want: []string{
		"client reaches web", "bare reaches web", "far reaches web", "remote does not reach web", "outside does not reach web", "bare reaches client",
	},
}, {
	name: "a namespace that gets the label is isolated, and free when it loses it",
	wide: `isolation fence: {namespaceSelector: {matchLabels: {fenced: "yes"}}, directions: [Ingress]}`,
	want: []string{"client reaches web"},
	then: []step{
		{what: "labelled", given: func(c *cluster) { c.namespaces[0].Labels["fenced"] = "yes" }, want: []string{"client does not reach web", "far reaches web"}},
		{what: "moved to another value", given: func(c *cluster) { c.namespaces[0].Labels["fenced"] = "no" }, want: []string{"client reaches web"}},
		{what: "labelled again", given: func(c *cluster) { c.namespaces[0].Labels["fenced"] = "yes" }, want: []string{"client does not reach web"}},
		{what: "unlabelled", given: func(c *cluster) { delete(c.namespaces[0].Labels, "fenced") }, want: []string{"client reaches web"}},
	},
}}

// dns is one whose Service is at udp/80 and tcp/82 of its address, and at udp/81 and tcp/82 of the pods with a label in a namespace; and nodes
// have a local address for it.
func dns(namespace, label, service, local string) compile.DNS {
	both := func(text string) []netip.Addr {
		a := netip.MustParseAddr(text)
		return []netip.Addr{a, topology.Twin(a)}
	}
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "dns"}}
	s.Spec.Selector = labelMap([]string{label})
	for _, a := range both(service) {
		s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, a.String())
	}
	s.Spec.Ports = []corev1.ServicePort{
		{Protocol: corev1.ProtocolUDP, Port: 80, TargetPort: intstr.FromInt32(81)}, {Protocol: corev1.ProtocolTCP, Port: 82},
	}
	return compile.DNS{Services: []*corev1.Service{s}, Addresses: both(local)}
}

// auditScenarios are about what changes no verdict.
var auditScenarios = []scenario{{
	name: "audited objects of every kind and tier change nothing",
	given: func(c *cluster) {
		c.namespaces[1].Annotations = map[string]string{v1alpha1.ModeAnnotation: string(v1alpha1.Audit)}
	},
	wide: `
cnp admin: {mode: Audit, tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{pods: {podSelector: {matchLabels: {app: bare}}}}]},
  {action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}
cnp baseline: {mode: Audit, tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
isolation admin: {mode: Audit, tier: Admin, namespaceSelector: {}}
isolation baseline: {mode: Audit, namespaceSelector: {}}`,
	policies: `
blue/closed: {podSelector: {}, policyTypes: [Ingress, Egress]}
red/closed: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: far}}}]}]}`,
	want: []string{
		"client reaches remote", "web reaches client", "client reaches db", "bare reaches far", "outside reaches db", "db reaches outside",
		"client does not reach web", "far reaches web", "bare does not reach web",
	},
}, {
	name: "audited and enforced side by side",
	wide: `
cnp audited: {mode: Audit, tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
cnp enforced: {tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
isolation audited: {mode: Audit, namespaceSelector: {}, allow: {ingress: [{from: [{networks: [0.0.0.0/0]}]}]}}
isolation enforced: {namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress]}`,
	want: []string{"client does not reach web", "far reaches web", "bare does not reach web", "bare reaches remote", "outside does not reach db"},
}, {
	name: "from Audit to Enforce and back",
	wide: `isolation fence: {mode: Audit, namespaceSelector: {matchLabels: {team: red}}}`,
	want: []string{"client reaches web", "web reaches client"},
	then: []step{
		{what: "Enforce", wide: `isolation fence: {mode: Enforce, namespaceSelector: {matchLabels: {team: red}}}`, want: []string{"client does not reach web", "web does not reach client"}},
		{what: "Audit", wide: `isolation fence: {mode: Audit, namespaceSelector: {matchLabels: {team: red}}}`, want: []string{"client reaches web", "web reaches client"}},
	},
}}
