package packets

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// peerRows say whom a list of peers selects, for a policy in red. Each becomes two scenarios, one per direction, about the
// pod web: those who match reach it, or are reached by it, and the others don't.
var peerRows = []struct {
	name    string
	given   func(*cluster)
	peers   string
	match   string
	nomatch string
}{
	{name: "an empty podSelector is every pod of the policy's namespace",
		peers: `[{podSelector: {}}]`, match: "db far", nomatch: "client remote bare outside n2"},
	{name: "a podSelector selects in the policy's namespace only",
		peers: `[{podSelector: {matchLabels: {role: x}}}]`, match: "far", nomatch: "client db remote bare outside n2"},
	{name: "an empty namespaceSelector is every pod of every namespace",
		peers: `[{namespaceSelector: {}}]`, match: "db far client remote bare", nomatch: "outside n2"},
	{name: "a namespaceSelector selects all pods of the namespaces that match",
		peers: `[{namespaceSelector: {matchLabels: {team: blue}}}]`, match: "client remote", nomatch: "db far bare outside n2"},
	{name: "a namespace is selected by the label with its name",
		peers: `[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: plain}}}]`, match: "bare", nomatch: "db far client remote"},
	{name: "both selectors in one peer must match",
		peers: `[{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: client}}}]`,
		match: "client", nomatch: "remote db far bare"},
	{name: "both selectors in one peer must match, and nobody does",
		peers: `[{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: db}}}]`, nomatch: "client remote db far bare"},
	{name: "one of two peers must match",
		peers: `[{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: db}}}]`,
		match: "client remote db", nomatch: "far bare outside"},
	{name: "selectors and blocks stand side by side",
		peers: `[{podSelector: {matchLabels: {app: db}}}, {ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: 172.18.0.250/32}}]`,
		match: "db 203.0.113.7 outside", nomatch: "far client 10.0.1.5 n2"},
	{name: "all requirements of a selector must match",
		peers: `[{namespaceSelector: {}, podSelector: {matchLabels: {role: x}, matchExpressions: [{key: app, operator: NotIn, values: [far]}]}}]`,
		match: "client", nomatch: "far db remote bare"},
	{name: "several labels must all match",
		peers: `[{namespaceSelector: {}, podSelector: {matchLabels: {role: x, app: far}}}]`, match: "far", nomatch: "client db remote bare"},
	{name: "In on pods",
		peers: `[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [db, remote]}]}}]`,
		match: "db remote", nomatch: "far client bare"},
	{name: "NotIn on pods matches those that lack the key",
		peers: `[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db, remote]}]}}]`,
		match: "far client bare", nomatch: "db remote outside"},
	{name: "Exists on pods",
		peers: `[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: role, operator: Exists}]}}]`,
		match: "far client", nomatch: "db remote bare"},
	{name: "DoesNotExist on pods",
		peers: `[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}}]`,
		match: "db remote bare", nomatch: "far client outside n2"},
	{name: "In on namespaces",
		peers: `[{namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [red, green]}]}}]`,
		match: "db far", nomatch: "client remote bare"},
	{name: "NotIn on namespaces matches those that lack the key",
		peers: `[{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red, green]}]}}]`,
		match: "client remote bare", nomatch: "db far outside"},
	{name: "Exists on namespaces",
		peers: `[{namespaceSelector: {matchExpressions: [{key: env, operator: Exists}]}}]`, match: "client remote", nomatch: "db far bare"},
	{name: "DoesNotExist on namespaces",
		peers: `[{namespaceSelector: {matchExpressions: [{key: env, operator: DoesNotExist}]}}]`, match: "db far bare", nomatch: "client remote outside"},
	{name: "a label with an empty value must be there and be empty",
		given: func(c *cluster) { c.pod("far").Labels["tier"], c.pod("client").Labels["tier"] = "", "front" },
		peers: `[{namespaceSelector: {}, podSelector: {matchLabels: {tier: ""}}}]`, match: "far", nomatch: "client db remote bare"},
	{name: "In with an empty value",
		given: func(c *cluster) { c.pod("remote").Labels["tier"] = "" },
		peers: `[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: tier, operator: In, values: [""]}]}}]`,
		match: "remote", nomatch: "db far client bare"},
	{name: "NotIn with an empty value matches those that lack the key",
		given: func(c *cluster) { c.pod("remote").Labels["tier"] = "" },
		peers: `[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [""]}]}}]`,
		match: "db far client bare", nomatch: "remote"},
	{name: "a selector that nobody matches matches nothing",
		peers: `[{podSelector: {matchLabels: {app: nobody}}}]`, nomatch: "db far client outside n2"},
	{name: "a namespace without pods matches nothing",
		given: func(c *cluster) { c.namespaces = append(c.namespaces, namespace("empty", "team=empty")) },
		peers: `[{namespaceSelector: {matchLabels: {team: empty}}}]`, nomatch: "db far client bare"},
	{name: "labels that only differ at the boundary of key and value are different",
		given: func(c *cluster) {
			c.pod("client").Labels, c.pod("remote").Labels = map[string]string{"team": "ab"}, map[string]string{"teama": "b"}
		},
		peers: `[{namespaceSelector: {}, podSelector: {matchLabels: {teama: b}}}]`, match: "remote", nomatch: "client db far"},
}

func peerScenarios() []scenario {
	var all []scenario
	for _, r := range peerRows {
		all = append(all,
			scenario{
				name: r.name + ", ingress", given: r.given, want: lines(r.match, r.nomatch, "%s %s web"),
				policies: "red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: " + r.peers + "}]}",
			},
			scenario{
				name: r.name + ", egress", given: r.given, want: lines(r.match, r.nomatch, "web %[2]s %[1]s"),
				policies: "red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: " + r.peers + "}]}",
			})
	}
	return all
}

// lines are one for each name that matches and for each that doesn't.
func lines(match, nomatch, format string) []string {
	var all []string
	for _, m := range strings.Fields(match) {
		all = append(all, fmt.Sprintf(format, m, "reaches"))
	}
	for _, m := range strings.Fields(nomatch) {
		all = append(all, fmt.Sprintf(format, m, "does not reach"))
	}
	return all
}

// blockScenarios are about ipBlock.
var blockScenarios = []scenario{{
	name:     "a block admits what it contains, pods or not, ingress",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/14}}, {ipBlock: {cidr: 10.244.2.0/24}}]}]}`,
	want: []string{
		"10.0.1.5 reaches web", "10.0.2.5 reaches web", "far reaches web", "remote reaches web", "10.9.0.1 does not reach web",
		"client does not reach web", "outside does not reach web", "n2 does not reach web",
	},
}, {
	name:     "a block admits what it contains, pods or not, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/14}}, {ipBlock: {cidr: 10.244.2.0/24}}]}]}`,
	want: []string{
		"web reaches 10.0.1.5", "web reaches 10.0.2.5", "web reaches far", "web reaches remote", "web does not reach 10.9.0.1",
		"web does not reach client", "web does not reach outside", "web does not reach n2", "web does not reach n1",
	},
}, {
	name:     "a block of one address",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 10.0.1.5/32}}]}], egress: [{to: [{ipBlock: {cidr: 10.0.2.5/32}}]}]}`,
	want: []string{
		"10.0.1.5 reaches web", "10.0.2.5 does not reach web", "web reaches 10.0.2.5", "web does not reach 10.0.1.5",
	},
}, {
	name:     "an exception is not admitted, ingress",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24, 10.244.0.0/16]}}]}]}`,
	want: []string{
		"10.0.2.5 reaches web", "10.9.0.1 reaches web", "10.0.1.5 does not reach web", "far does not reach web", "client does not reach web",
		"203.0.113.7 does not reach web",
	},
}, {
	name:     "an exception is not admitted, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24, 10.244.0.0/16]}}]}]}`,
	want: []string{
		"web reaches 10.0.2.5", "web reaches 10.9.0.1", "web does not reach 10.0.1.5", "web does not reach far", "web does not reach client",
		"web does not reach 203.0.113.7",
	},
}, {
	name:     "an exception concerns its own peer only, ingress",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}, {ipBlock: {cidr: 10.0.0.0/16}}]}]}`,
	want:     []string{"10.0.1.5 reaches web", "10.0.2.5 reaches web", "10.9.0.1 reaches web", "203.0.113.7 does not reach web"},
}, {
	name:     "an exception concerns its own peer only, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}, {ipBlock: {cidr: 10.0.0.0/16}}]}]}`,
	want:     []string{"web reaches 10.0.1.5", "web reaches 10.0.2.5", "web reaches 10.9.0.1", "web does not reach 203.0.113.7"},
}, {
	name: "an exception concerns its own rule and policy only",
	policies: `
red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}]}, {from: [{ipBlock: {cidr: 10.0.1.0/24}}], ports: [{port: 80}]}]}
red/q: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.5/32}}], ports: [{port: 81}]}]}`,
	want: []string{"10.0.1.5 reaches web on tcp/80 tcp/81", "10.0.1.5 does not reach web on tcp/82 udp/80 icmp", "10.0.2.5 reaches web"},
}, {
	name:     "a block inside of an exception is admitted by its own peer",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/14]}}, {ipBlock: {cidr: 10.0.1.0/24}}]}]}`,
	want:     []string{"10.0.1.5 reaches web", "10.0.2.5 does not reach web", "10.9.0.1 reaches web"},
}, {
	name:     "an excepted pod is admitted by a selector",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.0.0/16]}}, {podSelector: {matchLabels: {app: db}}}]}]}`,
	want:     []string{"db reaches web", "far does not reach web", "10.0.1.5 reaches web"},
}, {
	name:     "a block of everything is exact, ingress",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 80}]}]}`,
	want: []string{
		"lower half reaches web on tcp/80", "upper half reaches web on tcp/80", "client reaches web on tcp/80", "n2 reaches web on tcp/80",
		"lower half does not reach web on tcp/81",
	},
}, {
	name:     "a block of everything is exact, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`,
	want:     []string{"web reaches lower half", "web reaches upper half", "web reaches client", "web reaches n1", "web reaches n2"},
}, {
	name:     "a block of everything with an exception",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16, 203.0.113.7/32]}}]}], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.1.0/24]}}]}]}`,
	want: []string{
		"lower half reaches web", "upper half does not reach web", "far does not reach web", "outside reaches web",
		"web reaches lower half", "web reaches upper half", "web does not reach 10.0.1.5", "web reaches client",
	},
}, {
	name:     "a block of everything with half of it excepted",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [128.0.0.0/1]}}]}]}`,
	want:     []string{"lower half reaches web", "203.0.113.7 does not reach web", "outside does not reach web"},
}, {
	name:     "a block of the other family's everything opens nothing",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: "other 0.0.0.0/0"}}]}], egress: [{to: [{ipBlock: {cidr: "other 0.0.0.0/0"}}]}]}`,
	want:     []string{"client does not reach web", "outside does not reach web", "web does not reach client", "web does not reach outside"},
}, {
	name:     "a policy isolates in the family that none of its blocks has",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: "other 10.0.0.0/8"}}]}], egress: [{to: [{ipBlock: {cidr: "other 10.0.0.0/8"}}]}]}`,
	want:     []string{"client does not reach web", "10.0.1.5 does not reach web", "web does not reach client", "web does not reach 10.0.1.5"},
}, {
	name: "the order of a pod's addresses does not matter",
	given: func(c *cluster) {
		p := c.pod("web")
		keep := p.Status.PodIPs
		p.Status.PodIPs = []corev1.PodIP{keep[1], keep[0]}
		p.Status.PodIP = keep[1].IP
	},
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`,
	want:     []string{"db reaches web", "client does not reach web"},
}}
