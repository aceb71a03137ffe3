package scenario

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// namespaceIsolation is about NamespaceIsolations.
var namespaceIsolation = []Scenario{{
	Name:    "isolated namespaces are tenants of their own",
	Objects: `isolation fence: {namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}}`,
	Lines: []string{
		"far reaches web", "web reaches db", "client reaches remote", "client does not reach web", "web does not reach client", "bare does not reach web",
		"web does not reach bare", "outside does not reach web", "web does not reach outside", "bare reaches outside", "n1 reaches web",
		"web does not reach n1",
	},
}, {
	Name:    "namespaces that share the tenant label's value are one tenant, selected or not",
	Given:   func(c *Cluster) { c.Namespace("blue").Labels["tenant"], c.Namespace("red").Labels["tenant"] = "x", "x" },
	Objects: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}, tenantLabel: tenant}`,
	Lines: []string{
		"client reaches web", "web reaches client", "far reaches web", "bare does not reach web", "web does not reach bare", "bare reaches client",
	},
}, {
	Name:    "a namespace without the tenant label is a tenant of its own",
	Objects: `isolation fence: {namespaceSelector: {}, tenantLabel: env}`,
	Lines:   []string{"far reaches web", "client reaches remote", "client does not reach web", "bare does not reach web", "bare does not reach client"},
}, {
	Name: "a Baseline isolation is what a NetworkPolicy may open",
	Objects: `
isolation fence: {namespaceSelector: {matchLabels: {team: red}}}
red/open: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}`,
	Lines: []string{"client reaches web", "bare does not reach web", "far does not reach web", "client does not reach db", "web does not reach client"},
}, {
	Name: "what an Admin isolation denies nothing opens, and what it allows NetworkPolicies may deny",
	Objects: `
isolation fence: {tier: Admin, namespaceSelector: {matchLabels: {team: red}}}
red/open: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}
red/wide: {podSelector: {matchLabels: {app: db}}, ingress: [{}]}`,
	Lines: []string{"client does not reach web", "far does not reach web", "client does not reach db", "far reaches db", "web reaches far"},
}, {
	Name: "Admin rules come before Admin isolation: Accept and Pass are exceptions to it",
	Objects: `
isolation fence: {tier: Admin, namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress]}
cnp monitoring: {tier: Admin, priority: 1, subject: {namespaces: {}},
  ingress: [{action: Accept, from: [{pods: {podSelector: {matchLabels: {app: client}}}}]}]}
cnp pass: {tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{pods: {podSelector: {matchLabels: {app: remote}}}}]}]}
red/closed: {podSelector: {matchLabels: {app: web}}}`,
	Lines: []string{
		"client reaches web", "client reaches db", "remote does not reach web", "remote reaches db", "bare does not reach db", "web reaches remote",
	},
}, {
	Name:    "only the directions that are given are isolated",
	Objects: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}, directions: [Egress]}`,
	Lines:   []string{"client reaches web", "outside reaches web", "web does not reach client", "web reaches far", "web does not reach outside"},
}, {
	Name: "sameTenant can be refused, and allow lists are exact",
	Objects: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}, allow: {sameTenant: false,
  ingress: [{from: [{pods: {podSelector: {matchLabels: {app: client}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
  {from: [{nodes: {matchLabels: {zone: b}}}]}],
  egress: [{to: [{networks: [10.9.0.0/16]}]}]}}`,
	Lines: []string{
		"far does not reach web", "client reaches web on tcp/80", "client does not reach web on tcp/81 icmp", "n2 reaches web", "web reaches 10.9.0.1",
		"web does not reach 10.0.1.5", "web does not reach far",
	},
}, {
	Name: "DNS is allowed at its pods, at its Service's address and at the node-local address",
	Given: func(c *Cluster) {
		c.DNSServices = []*corev1.Service{c.service("blue/dns", "10.9.0.1", "app=remote",
			corev1.ServicePort{Protocol: corev1.ProtocolUDP, Port: 80, TargetPort: intstr.FromInt32(81)},
			corev1.ServicePort{Protocol: corev1.ProtocolTCP, Port: 82})}
		c.localDNS("10.0.1.5")
	},
	Objects: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}}`,
	Lines: []string{
		"web reaches remote on udp/81 tcp/82", "web does not reach remote on tcp/81 udp/82 icmp", "web reaches 10.9.0.1 on udp/80 tcp/82",
		"web does not reach 10.9.0.1 on tcp/80 udp/81", "web reaches 10.0.1.5 on tcp/53 udp/53", "web does not reach 10.0.1.5 on udp/80 icmp",
		"web does not reach client on udp/81",
	},
	Then: []Step{{What: "it can be refused", Objects: `isolation fence: {namespaceSelector: {matchLabels: {team: red}}, allow: {dns: false}}`,
		Lines: []string{"web does not reach remote on udp/81", "web does not reach 10.9.0.1 on udp/80"}}},
}, {
	Name: "two isolations of a namespace add up",
	Objects: `
isolation a: {namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress],
  allow: {sameTenant: false, ingress: [{from: [{pods: {podSelector: {matchLabels: {app: client}}}}]}]}}
isolation b: {namespaceSelector: {}, directions: [Ingress],
  allow: {ingress: [{from: [{pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: plain}}, podSelector: {}}}]}]}}`,
	Lines: []string{
		"client reaches web", "bare reaches web", "far reaches web", "remote does not reach web", "outside does not reach web", "bare reaches client",
	},
}, {
	Name:    "a namespace that gets the label is isolated, and free when it loses it",
	Objects: `isolation fence: {namespaceSelector: {matchLabels: {fenced: "yes"}}, directions: [Ingress]}`,
	Lines:   []string{"client reaches web"},
	Then: []Step{
		{What: "labelled", Given: func(c *Cluster) { c.Namespace("red").Labels["fenced"] = "yes" },
			Lines: []string{"client does not reach web", "far reaches web"}},
		{What: "moved to another value", Given: func(c *Cluster) { c.Namespace("red").Labels["fenced"] = "no" }, Lines: []string{"client reaches web"}},
		{What: "labelled again", Given: func(c *Cluster) { c.Namespace("red").Labels["fenced"] = "yes" }, Lines: []string{"client does not reach web"}},
		{What: "unlabelled", Given: func(c *Cluster) { delete(c.Namespace("red").Labels, "fenced") }, Lines: []string{"client reaches web"}},
	},
}, {
	Name: "selected namespaces that share the tenant label's value are one tenant",
	Objects: `
isolation x: {tenantLabel: team, namespaceSelector: {matchLabels: {team: red}}}`,
	Lines: []string{
		"twin reaches web on tcp/80", "twin reaches web on udp/1", "client does not reach web on tcp/80", "bare does not reach web on tcp/80",
	},
	Unsent: []string{"web reaches twin on gre"},
}, {
	Name: "namespaces of the tenant that are not selected are of it all the same, and free",
	Objects: `
isolation x: {tenantLabel: team, namespaceSelector: {matchLabels: {team: red}, matchExpressions: [{key: env, operator: DoesNotExist}]}}`,
	Lines: []string{
		"twin reaches web on tcp/80", "web reaches twin on tcp/80", "client does not reach web on tcp/80", "client reaches twin on tcp/80",
		"twin reaches outside on tcp/80",
	},
}, {
	Name: "two namespaces without the tenant label are tenants of their own",
	Objects: `
isolation x: {tenantLabel: team, namespaceSelector: {}}`,
	Lines: []string{"bare does not reach alone on tcp/80", "bare reaches bare on tcp/80", "alone does not reach web on tcp/80"},
}, {
	Name: "sameTenant may be off",
	Objects: `
isolation x: {tenantLabel: team, namespaceSelector: {}, directions: [Ingress], allow: {sameTenant: false}}`,
	Lines: []string{"db does not reach web on tcp/80", "twin does not reach web on tcp/80"},
}, {
	Name: "pods on the host network and completed ones are of no tenant",
	Objects: `
isolation x: {tenantLabel: team, namespaceSelector: {}}`,
	Lines: []string{"host does not reach web on tcp/80", "job does not reach web on tcp/80", "host reaches outside on tcp/80"},
}, {
	Name: "each isolation has its own directions",
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: blue}}, directions: [Egress]}
isolation w: {namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress]}`,
	Lines: []string{
		"outside reaches client on tcp/80", "client does not reach outside on tcp/80", "web reaches outside on tcp/80",
		"outside does not reach web on tcp/80",
	},
}, {
	Name: "no directions are both",
	Objects: `
isolation x: {namespaceSelector: {}, directions: []}`,
	Lines: []string{"outside does not reach web on tcp/80", "web does not reach outside on tcp/80"},
}, {
	Name: "allow.ingress and allow.egress",
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: red}}, allow: {ingress: [{from: [{namespaces: {matchLabels: {team: blue}}}],
  protocols: [{destinationNamedPort: dual}]},
  {from: [{networks: [203.0.113.0/24]}]}], egress: [{to: [{nodes: {matchLabels: {zone: b}}}, {pods: {podSelector: {matchLabels: {app: client}}}}],
  protocols: [{tcp: {destinationPort: {number: 443}}}]}]}}`,
	Lines: []string{
		"client reaches web on tcp/81 udp/82", "client does not reach web on tcp/82", "203.0.113.7 reaches web on icmp", "bare does not reach web on tcp/80",
		"web reaches n2 on tcp/443", "web does not reach n1 on tcp/443", "web reaches client on tcp/443", "web does not reach client on tcp/80",
		"web does not reach 203.0.113.7 on tcp/443",
	},
}, {
	Name: "isolations add up",
	Objects: `
isolation x: {namespaceSelector: {}, directions: [Ingress]}
isolation w: {namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress], allow: {ingress: [{from: [{namespaces: {matchLabels: {team: blue}}}]}]}}`,
	Lines: []string{"client reaches web on tcp/80", "client does not reach bare on tcp/80", "bare does not reach web on tcp/80"},
}, {
	Name: "what Admin isolation allows still needs the consent of NetworkPolicies",
	Objects: `
isolation x: {tier: Admin, namespaceSelector: {matchLabels: {team: red}}}
red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}`,
	Lines: []string{"db reaches web on tcp/80", "db does not reach web on tcp/81", "client does not reach web on tcp/80", "web reaches db on tcp/81"},
}, {
	Name: "an isolation comes after the ClusterNetworkPolicies of its tier",
	Objects: `
admin a: {priority: 1000, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
isolation x: {tier: Admin, namespaceSelector: {}, directions: [Ingress]}`,
	Lines: []string{"client reaches web on tcp/80", "bare does not reach web on tcp/80"},
}}
