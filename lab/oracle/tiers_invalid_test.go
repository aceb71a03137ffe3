package oracle

import "testing"

// TestFailingClosed: what is not understood of a ClusterNetworkPolicy makes an Accept match nothing, and a Deny or a Pass deny everything.
func TestFailingClosed(t *testing.T) {
	const one = `namespaces: {matchLabels: {team: b}}` // client is of team b
	for _, row := range []struct{ name, peers, protocols string }{
		{"no peers", `[]`, `[]`},
		{"a peer without fields", `[{` + one + `}, {}]`, `[]`},
		{"a peer with an empty list of networks", `[{` + one + `}, {networks: []}]`, `[]`},
		{"domain names", `[{` + one + `}, {domainNames: [example.com]}]`, `[]`},
		{"domain names beside a field", `[{` + one + `, domainNames: [example.com]}]`, `[]`},
		{"two fields in a peer", `[{` + one + `, networks: [10.0.0.0/8]}]`, `[]`},
		{"a selector of namespaces", `[{` + one + `}, {namespaces: {matchExpressions: [{key: team, operator: Like, values: [b]}]}}]`, `[]`},
		{"a selector of pods", `[{` + one + `}, {pods: {podSelector: {matchExpressions: [{key: team, operator: In}]}}}]`, `[]`},
		{"a selector of pods' namespaces", `[{` + one + `}, {pods: {podSelector: {}, namespaceSelector: {matchExpressions: [{key: "", operator: Exists}]}}}]`, `[]`},
		{"a selector of nodes", `[{` + one + `}, {nodes: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]`, `[]`},
		{"a CIDR", `[{` + one + `}, {networks: [10.0.0.0/8, 10.0.0.0/33]}]`, `[]`},
		{"an address", `[{` + one + `}, {networks: [10.0.0.1]}]`, `[]`},
		{"a protocol without fields", `[{` + one + `}]`, `[{tcp: {}}, {}]`},
		{"two fields in a protocol", `[{` + one + `}]`, `[{tcp: {}, udp: {}}]`},
		{"a named port beside a field", `[{` + one + `}]`, `[{tcp: {}, destinationNamedPort: http}]`},
		{"a port without fields", `[{` + one + `}]`, `[{tcp: {}}, {tcp: {destinationPort: {}}}]`},
		{"a port with both", `[{` + one + `}]`, `[{tcp: {destinationPort: {number: 80, range: {start: 80, end: 81}}}}]`},
		{"a negative port", `[{` + one + `}]`, `[{tcp: {}}, {udp: {destinationPort: {number: -1}}}]`},
		{"too great a port", `[{` + one + `}]`, `[{tcp: {}}, {sctp: {destinationPort: {number: 65536}}}]`},
		{"a range from 0", `[{` + one + `}]`, `[{tcp: {}}, {tcp: {destinationPort: {range: {start: 0, end: 80}}}}]`},
		{"a range that ends before it starts", `[{` + one + `}]`, `[{tcp: {}}, {tcp: {destinationPort: {range: {start: 81, end: 80}}}}]`},
		{"too long a range", `[{` + one + `}]`, `[{tcp: {}}, {tcp: {destinationPort: {range: {start: 80, end: 65536}}}}]`},
	} {
		rule := func(action, list string) string {
			return `{action: ` + action + `, ` + list + `: ` + row.peers + `, protocols: ` + row.protocols + `}`
		}
		policy := func(action string) string {
			return `admin: {a: {priority: 1, ingress: [` + rule(action, "from") + `]}}
baseline: {z: {priority: 1, ingress: [{action: Deny, from: [{` + one + `}]}]}}`
		}
		everything := []string{"denied: client -> web TCP/80", "denied: outside -> web ICMP/8", "denied: bare -> db UDP/9"}
		check(t, []tierRow{
			{name: row.name + " in an Accept rule", objects: policy("Accept"), want: []string{"denied: client -> web TCP/80", "allowed: outside -> web ICMP/8"}},
			{name: row.name + " in a Deny rule", objects: policy("Deny"), want: everything},
			{name: row.name + " in a Pass rule", objects: policy("Pass"), want: everything},
			{name: row.name + " in an egress rule", objects: `
admin: {a: {priority: 1, subject: {namespaces: {matchLabels: {team: b}}}, egress: [` + rule("Deny", "to") + `]}}`,
				want: []string{"denied: client -> outside GRE", "allowed: web -> outside TCP/80"}},
			{name: row.name + " in an isolation's allow", objects: `
iso: {x: {namespaceSelector: {}, directions: [Ingress], allow: {ingress: [{from: ` + row.peers + `, protocols: ` + row.protocols + `}]}}}`,
				want: []string{"denied: client -> web TCP/80", "allowed: db -> web TCP/80", "denied: outside -> web TCP/80"}},
		})
	}
}

func TestFailingClosedElsewhere(t *testing.T) {
	check(t, []tierRow{
		{name: "rules before and behind one that is not understood stay as they are", objects: `
admin: {a: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}, {action: Deny, from: [{}]}, {action: Accept, from: [{namespaces: {}}]}]}}`,
			want: []string{"allowed: client -> web TCP/80", "denied: bare -> web TCP/80"}},
		{name: "a range of one port is tolerated", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 80}}}}]}]}}`,
			want: []string{"denied: client -> web TCP/80", "allowed: client -> web TCP/81"}},
		{name: "an unknown action denies everything", objects: `
admin: {a: {priority: 1, ingress: [{action: Log, from: [{namespaces: {matchLabels: {team: b}}}], protocols: [{tcp: {}}]}]}}`,
			want: []string{"denied: client -> web TCP/80", "denied: outside -> web ICMP/8", "allowed: web -> outside TCP/80"}},
		{name: "a subject without fields is every pod, for Deny only", objects: `
cnp: {a: {tier: Admin, priority: 1, subject: {}, ingress: [
  {action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}, {action: Pass, from: [{namespaces: {matchLabels: {team: b}}}]},
  {action: Deny, from: [{namespaces: {matchLabels: {team: b}}}]}]}}`, want: []string{"denied: client -> web TCP/80", "denied: client -> bare TCP/80", "allowed: db -> web TCP/80"}},
		{name: "a subject with two fields", objects: `
cnp: {a: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: a}}, pods: {podSelector: {}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`,
			want: []string{"denied: client -> bare TCP/80"}},
		{name: "a subject whose selectors are not understood", objects: `
cnp:
  a: {tier: Admin, priority: 1, subject: {namespaces: {matchExpressions: [{key: team, operator: Is}]}}, ingress: [
    {action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}, {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}]}]}
  b: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchExpressions: [{key: team, operator: NotIn}]}}}, ingress: [
    {action: Pass, from: [{namespaces: {matchLabels: {team: b}}}]}, {action: Deny, from: [{namespaces: {}}], protocols: [{udp: {}}]}]}`,
			want: []string{"denied: client -> bare TCP/80", "denied: client -> web UDP/80", "allowed: client -> web SCTP/80"}},
		{name: "an unknown tier is Admin", objects: `
cnp: {a: {tier: Top, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}
np: {a/p: {podSelector: {}, ingress: [{}]}}`, want: []string{"denied: client -> web TCP/80"}},
		{name: "an isolation's unknown tier is Admin, none is Baseline", objects: `
iso: {x: {tier: Top, namespaceSelector: {matchLabels: {team: a}}, directions: [Ingress]}, w: {namespaceSelector: {}, directions: [Ingress]}}
np: {a/p: {podSelector: {}, ingress: [{}]}, c/p: {podSelector: {}, ingress: [{}]}}`, want: []string{"denied: client -> web TCP/80", "allowed: client -> bare TCP/80"}},
		{name: "an unknown mode enforces", objects: `
admin: {a: {mode: Shadow, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}]}]}}
iso: {x: {mode: Shadow, namespaceSelector: {matchLabels: {team: a}}}}
np: {c/p: {mode: audit, podSelector: {}}}`, want: []string{"denied: client -> web TCP/80", "denied: client -> web UDP/80", "denied: client -> bare UDP/80"}},
		{name: "an isolation whose selector is not understood isolates every namespace, for the directions that it names", objects: `
iso: {x: {namespaceSelector: {matchExpressions: [{key: team, operator: Is}]}, directions: [Ingress]}}`, want: []string{
			"denied: client -> web TCP/80", "denied: client -> bare TCP/80", "allowed: db -> web TCP/80", "allowed: web -> outside TCP/80",
		}},
		{name: "a direction that nobody knows is both", objects: `
iso: {x: {namespaceSelector: {matchLabels: {team: a}}, directions: [Sideways]}}`, want: []string{"denied: client -> web TCP/80", "denied: web -> client TCP/80"}},
	})
}
