package scenario

import (
	"fmt"
	"slices"
	"strings"
)

// longLists is about lists of rules that are long enough to be cut down: what stands in them decides as in a short one, wherever it stands.
var longLists = []Scenario{{
	Name: "a long list for single ports",
	Objects: longList("admin x", "ingress", ofOtherPorts, 45, map[int]string{
		20: `{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: client}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
		25: `{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
		30: `{action: Pass, from: [{pods: {podSelector: {matchLabels: {app: db}}}}]}`,
		40: `{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 81, end: 2010}}}}]}`,
	}) + `
red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}, {protocol: UDP}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80 tcp/81 tcp/82", "client reaches web on udp/80", "remote reaches web on tcp/80",
		"remote does not reach web on tcp/81", "db reaches web on tcp/80 tcp/81", "db does not reach web on tcp/82", "far does not reach web on tcp/81 icmp",
		"outside reaches web on tcp/81",
	},
}, {
	Name: "a long list with another peer in each rule",
	Objects: longList("admin x", "ingress", ofOtherPeers, 45, map[int]string{
		20: `{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: client}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
		21: `{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
		30: `{action: Pass, from: [{pods: {podSelector: {matchLabels: {app: db}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
		44: `{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
	}) + `
red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80", "client reaches web on tcp/81", "remote reaches web on tcp/80", "db does not reach web on tcp/80",
		"far does not reach web on tcp/80", "db reaches far on tcp/80", "bare does not reach far on tcp/80", "bare reaches far on tcp/81",
	},
	Then: []Step{{
		What:  "far comes to be a peer of a rule in front, which accepts",
		Given: func(c *Cluster) { c.Pod("far").Labels["app"] = "nobody3" },
		Lines: []string{"far reaches web on tcp/80", "client does not reach web on tcp/80"},
	}, {
		What:  "far comes to be one of the next, which denies, and client of the first",
		Given: func(c *Cluster) { c.Pod("far").Labels["app"], c.Pod("client").Labels["app"] = "nobody4", "nobody3" },
		Lines: []string{"far does not reach web on tcp/80", "client reaches web on tcp/80"},
	}, {
		What:  "far comes to be one of a rule behind, which passes",
		Given: func(c *Cluster) { c.Pod("far").Labels["app"] = "nobody35" },
		Lines: []string{"far does not reach web on tcp/80", "far reaches db on tcp/80"},
	}, {
		What: "a rule in the middle goes",
		Objects: longList("admin x", "ingress", ofOtherPeers, 45, map[int]string{
			20: `{action: Accept, from: [{pods: {podSelector: {matchLabels: {app: remote}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
			44: `{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
		}),
		Lines: []string{"remote reaches web on tcp/80", "db does not reach far on tcp/80", "client reaches web on tcp/80"},
	}},
}, {
	Name: "a long list for some ports, with another peer in each rule, in either direction and tier",
	Objects: longList("admin x", "egress", ofPortsAndPeers, 70, map[int]string{
		30: `{action: Deny, to: [{pods: {podSelector: {matchLabels: {app: web}}}}], protocols: [{tcp: {destinationPort: {number: 81}}}]}`,
		31: `{action: Accept, to: [{networks: ["203.0.113.0/24"]}], protocols: [{tcp: {destinationPort: {number: 81}}}]}`,
		50: `{action: Deny, to: [{networks: ["0.0.0.0/0"]}], protocols: [{tcp: {destinationPort: {number: 81}}}]}`,
	}) + "\n" + longList("baseline y", "ingress", ofPortsAndPeers, 70, map[int]string{
		40: `{action: Accept, from: [{pods: {podSelector: {matchLabels: {app: client}}}}], protocols: [{tcp: {destinationPort: {number: 82}}}]}`,
		60: `{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 82}}}]}`,
	}) + `
isolation z: {namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress], allow: {ingress: [{from: [{namespaces: {}}],
  protocols: [{tcp: {destinationPort: {number: 80}}}]}]}}`,
	Lines: []string{
		"client does not reach web on tcp/81", "client reaches web on tcp/80 tcp/82", "bare does not reach web on tcp/82", "bare reaches web on tcp/80",
		"client reaches 203.0.113.7 on tcp/81", "client does not reach outside on tcp/81", "client reaches outside on tcp/82 udp/81",
		"client does not reach web on udp/80",
	},
}, {
	Name: "a long list in the dry run",
	Objects: longList("admin x", "ingress", ofOtherPeers, 45, map[int]string{
		-1: "mode: Audit",
		20: `{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: client}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
		30: `{action: Accept, from: [{namespaces: {}}]}`,
		44: `{action: Deny, from: [{networks: ["0.0.0.0/0"]}]}`,
	}),
	Lines: []string{
		"client would not reach web on tcp/80 noting ingress cnp x", "client reaches web on tcp/81", "remote reaches web on tcp/80",
		"outside would not reach web on tcp/80 noting ingress cnp x",
	},
}}

// The rules between those that a line is about. None of them matches a packet of a line: their peers are nobody, and their actions come in turns.

func ofOtherPorts(i int, peer string) string {
	return fmt.Sprintf("%s: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: %d}}}]", peer, 20000+i)
}

func ofOtherPeers(i int, peer string) string {
	return fmt.Sprintf("%s: [{pods: {podSelector: {matchLabels: {app: nobody%d}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]", peer, i)
}

func ofPortsAndPeers(i int, peer string) string {
	return fmt.Sprintf("%s: [{pods: {podSelector: {matchLabels: {app: nobody%d}}}}], protocols: [{tcp: {destinationPort: {number: %d}}}]", peer, i, 80+i%3)
}

// longList is a policy with n rules. Some are given by their place; what is given for -1 is a field of the policy.
func longList(name, direction string, others func(i int, peer string) string, n int, some map[int]string) string {
	peer := map[string]string{"ingress": "from", "egress": "to"}[direction]
	var rules []string
	for i := range n {
		rule, ok := some[i]
		if !ok {
			rule = fmt.Sprintf("{action: %s, %s}", []string{"Accept", "Deny", "Pass"}[i%3], others(i, peer))
		}
		rules = append(rules, rule)
	}
	fields := slices.DeleteFunc([]string{some[-1], "priority: 1"}, func(s string) bool { return s == "" })
	return fmt.Sprintf("%s: {%s, %s: [%s]}", name, strings.Join(fields, ", "), direction, strings.Join(rules, ",\n  "))
}
