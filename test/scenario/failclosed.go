package scenario

import (
	"fmt"
	"strings"
)

// failClosed is about what is not understood of a ClusterNetworkPolicy or a NamespaceIsolation. An Accept, and what an isolation allows, matches
// nothing then. A Deny and a Pass deny everything.
func failClosed() []Scenario {
	const one = `namespaces: {matchLabels: {team: blue}}` // client is in it
	var all []Scenario
	for _, row := range []struct{ name, peers, protocols, problem string }{
		{"no peers", `[]`, `[]`, "PEERS"},
		{"a peer without fields", `[{` + one + `}, {}]`, `[]`, "PEERS[1]"},
		{"a peer with an empty list of networks", `[{` + one + `}, {networks: []}]`, `[]`, "PEERS[1]"},
		{"domain names", `[{` + one + `}, {domainNames: [example.com]}]`, `[]`, "PEERS[1]"},
		{"domain names beside a field", `[{` + one + `, domainNames: [example.com]}]`, `[]`, "PEERS[0]"},
		{"two fields in a peer", `[{` + one + `, networks: [10.0.0.0/8]}]`, `[]`, "PEERS[0]"},
		{"a selector of namespaces", `[{` + one + `}, {namespaces: {matchExpressions: [{key: team, operator: Like, values: [blue]}]}}]`, `[]`, "PEERS[1]"},
		{"a selector of pods", `[{` + one + `}, {pods: {podSelector: {matchExpressions: [{key: team, operator: In}]}}}]`, `[]`, "PEERS[1]"},
		{"a selector of pods' namespaces", `[{` + one + `}, {pods: {podSelector: {}, namespaceSelector: {matchExpressions: [{key: "", operator: Exists}]}}}]`,
			`[]`, "PEERS[1]"},
		{"a selector of nodes", `[{` + one + `}, {nodes: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]`, `[]`, "PEERS[1]"},
		{"a CIDR", `[{` + one + `}, {networks: [10.0.0.0/8, 10.0.0.0/33]}]`, `[]`, "PEERS[1]"},
		{"an address", `[{` + one + `}, {networks: [10.0.0.1]}]`, `[]`, "PEERS[1]"},
		{"a protocol without fields", `[{` + one + `}]`, `[{tcp: {}}, {}]`, "protocols[1]"},
		{"two fields in a protocol", `[{` + one + `}]`, `[{tcp: {}, udp: {}}]`, "protocols[0]"},
		{"a named port beside a field", `[{` + one + `}]`, `[{tcp: {}, destinationNamedPort: http}]`, "protocols[0]"},
		{"a port without fields", `[{` + one + `}]`, `[{tcp: {}}, {tcp: {destinationPort: {}}}]`, "protocols[1]"},
		{"a port with both", `[{` + one + `}]`, `[{tcp: {destinationPort: {number: 80, range: {start: 80, end: 81}}}}]`, "protocols[0]"},
		{"a negative port", `[{` + one + `}]`, `[{tcp: {}}, {udp: {destinationPort: {number: -1}}}]`, "protocols[1]"},
		{"too great a port", `[{` + one + `}]`, `[{tcp: {}}, {sctp: {destinationPort: {number: 65536}}}]`, "protocols[1]"},
		{"a range from 0", `[{` + one + `}]`, `[{tcp: {}}, {tcp: {destinationPort: {range: {start: 0, end: 80}}}}]`, "protocols[1]"},
		{"a range that ends before it starts", `[{` + one + `}]`, `[{tcp: {}}, {tcp: {destinationPort: {range: {start: 81, end: 80}}}}]`, "protocols[1]"},
		{"too long a range", `[{` + one + `}]`, `[{tcp: {}}, {tcp: {destinationPort: {range: {start: 80, end: 65536}}}}]`, "protocols[1]"},
	} {
		all = append(all, failClosedIn(row.name, one, row.peers, row.protocols, row.problem)...)
	}
	return append(all, failClosedElsewhere...)
}

// failClosedIn has peers and protocols that are not understood in every rule that there is. In the field that is
// reported, PEERS stands for the list of peers.
func failClosedIn(name, one, peers, protocols, field string) []Scenario {
	rule := func(action, list string) string {
		return fmt.Sprintf("{action: %s, %s: %s, protocols: %s}", action, list, peers, protocols)
	}
	problem := func(object, rules, list string) []string {
		return []string{fmt.Sprintf("%s: spec.%s[0].%s", object, rules, strings.ReplaceAll(field, "PEERS", list))}
	}
	policy := func(action string) string {
		return "admin a: {priority: 1, ingress: [" + rule(action, "from") + "]}\nbaseline z: {priority: 1, ingress: [{action: Deny, from: [{" + one + "}]}]}"
	}
	everything := []string{"client does not reach web on tcp/80", "outside does not reach web on icmp", "bare does not reach db on udp/9"}
	return []Scenario{
		{Name: name + " in an Accept rule", Objects: policy("Accept"), Problems: problem("ClusterNetworkPolicy a", "ingress", "from"),
			Lines: []string{"client does not reach web on tcp/80", "outside reaches web on icmp"}},
		{Name: name + " in a Deny rule", Objects: policy("Deny"), Problems: problem("ClusterNetworkPolicy a", "ingress", "from"), Lines: everything},
		{Name: name + " in a Pass rule", Objects: policy("Pass"), Problems: problem("ClusterNetworkPolicy a", "ingress", "from"), Lines: everything},
		{Name: name + " in an egress rule", Problems: problem("ClusterNetworkPolicy a", "egress", "to"),
			Objects: "admin a: {priority: 1, subject: {" + one + "}, egress: [" + rule("Deny", "to") + "]}",
			Lines:   []string{"client does not reach outside on other", "web reaches outside on tcp/80"},
			Unsent:  []string{"client does not reach outside on gre"}},
		{Name: name + " in an isolation's allow", Problems: problem("NamespaceIsolation x", "allow.ingress", "from"),
			Objects: "isolation x: {namespaceSelector: {}, directions: [Ingress], allow: {ingress: [{from: " + peers + ", protocols: " + protocols + "}]}}",
			Lines:   []string{"client does not reach web on tcp/80", "db reaches web on tcp/80", "outside does not reach web on tcp/80"}},
	}
}

var failClosedElsewhere = []Scenario{{
	Name: "rules before and behind one that is not understood stay as they are",
	Objects: `
admin a: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}]}, {action: Deny, from: [{}]}, {action: Accept,
  from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client reaches web on tcp/80", "bare does not reach web on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy a: spec.ingress[1].from[0]:"},
}, {
	Name: "a range of one port is tolerated",
	Objects: `
admin a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 80}}}}]}]}`,
	Lines: []string{"client does not reach web on tcp/80", "client reaches web on tcp/81"},
}, {
	Name: "an unknown action denies everything",
	Objects: `
admin a: {priority: 1, ingress: [{action: Log, from: [{namespaces: {matchLabels: {team: blue}}}], protocols: [{tcp: {}}]}]}`,
	Lines:    []string{"client does not reach web on tcp/80", "outside does not reach web on icmp", "web reaches outside on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy a: spec.ingress[0].action:"},
}, {
	Name: "a subject without fields is every pod, for Deny only",
	Objects: `
cnp a: {tier: Admin, priority: 1, subject: {}, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}]},
  {action: Pass, from: [{namespaces: {matchLabels: {team: blue}}}]}, {action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}]}]}`,
	Lines:    []string{"client does not reach web on tcp/80", "client does not reach bare on tcp/80", "db reaches web on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy a: spec.subject:"},
}, {
	Name: "a subject with two fields",
	Objects: `
cnp a: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: red}}, pods: {podSelector: {}}},
  ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client does not reach bare on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy a: spec.subject:"},
}, {
	Name: "a subject whose selectors are not understood",
	Objects: `
cnp a: {tier: Admin, priority: 1, subject: {namespaces: {matchExpressions: [{key: team, operator: Is}]}}, ingress: [
  {action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}]}, {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}]}]}
cnp b: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchExpressions: [{key: team, operator: NotIn}]}}}, ingress: [
  {action: Pass, from: [{namespaces: {matchLabels: {team: blue}}}]}, {action: Deny, from: [{namespaces: {}}], protocols: [{udp: {}}]}]}`,
	Lines:    []string{"client does not reach bare on tcp/80", "client does not reach web on udp/80", "client reaches web on sctp/80"},
	Problems: []string{"ClusterNetworkPolicy a: spec.subject:", "ClusterNetworkPolicy b: spec.priority:", "ClusterNetworkPolicy b: spec.subject:"},
}, {
	Name: "an unknown tier is Admin",
	Objects: `
cnp a: {tier: Top, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
red/p: {podSelector: {}, ingress: [{}]}`,
	Lines:    []string{"client does not reach web on tcp/80"},
	Problems: []string{"ClusterNetworkPolicy a: spec.tier:"},
}, {
	Name: "an isolation's unknown tier is Admin, none is Baseline",
	Objects: `
isolation x: {tier: Top, namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress]}
isolation w: {namespaceSelector: {}, directions: [Ingress]}
red/p: {podSelector: {}, ingress: [{}]}
plain/p: {podSelector: {}, ingress: [{}]}`,
	Lines:    []string{"client does not reach web on tcp/80", "client reaches bare on tcp/80"},
	Problems: []string{"NamespaceIsolation x: spec.tier:"},
}, {
	Name: "an unknown mode enforces",
	Objects: `
admin a: {mode: Shadow, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}]}]}
isolation x: {mode: Shadow, namespaceSelector: {matchLabels: {team: red}}}
plain/p: {mode: audit, podSelector: {}}`,
	Lines: []string{"client does not reach web on tcp/80 udp/80", "client does not reach bare on udp/80"},
	Problems: []string{
		"ClusterNetworkPolicy a: spec.mode:",
		"NamespaceIsolation x: spec.mode:",
		"NetworkPolicy plain/p: metadata.annotations[policy.ringfence.io/mode]:",
	},
}, {
	Name: "an isolation whose selector is not understood isolates every namespace, for the directions that it names",
	Objects: `
isolation x: {namespaceSelector: {matchExpressions: [{key: team, operator: Is}]}, directions: [Ingress]}`,
	Lines: []string{
		"client does not reach web on tcp/80", "client does not reach bare on tcp/80", "db reaches web on tcp/80", "web reaches outside on tcp/80",
	},
	Problems: []string{"NamespaceIsolation x: spec.namespaceSelector:"},
}, {
	Name: "a direction that nobody knows is both",
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: red}}, directions: [Sideways]}`,
	Lines:    []string{"client does not reach web on tcp/80", "web does not reach client on tcp/80"},
	Problems: []string{"NamespaceIsolation x: spec.directions[0]:"},
}}
