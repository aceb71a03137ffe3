package scenario

import (
	"fmt"
	"strings"
)

// peerRows say whom a list of peers selects, for a policy in red. Each becomes two scenarios, one per direction, about the
// pod web: those who match reach it, or are reached by it, and the others don't.
var peerRows = []struct {
	name    string
	given   func(*Cluster)
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
		given: func(c *Cluster) { c.Pod("far").Labels["tier"], c.Pod("client").Labels["tier"] = "", "front" },
		peers: `[{namespaceSelector: {}, podSelector: {matchLabels: {tier: ""}}}]`, match: "far", nomatch: "client db remote bare"},
	{name: "In with an empty value",
		given: func(c *Cluster) { c.Pod("remote").Labels["tier"] = "" },
		peers: `[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: tier, operator: In, values: [""]}]}}]`,
		match: "remote", nomatch: "db far client bare"},
	{name: "NotIn with an empty value matches those that lack the key",
		given: func(c *Cluster) { c.Pod("remote").Labels["tier"] = "" },
		peers: `[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [""]}]}}]`,
		match: "db far client bare", nomatch: "remote"},
	{name: "a selector that nobody matches matches nothing",
		peers: `[{podSelector: {matchLabels: {app: nobody}}}]`, nomatch: "db far client outside n2"},
	{name: "a namespace without pods matches nothing",
		given: func(c *Cluster) { c.Namespaces = append(c.Namespaces, newNamespace("empty", "team=empty")) },
		peers: `[{namespaceSelector: {matchLabels: {team: empty}}}]`, nomatch: "db far client bare"},
	{name: "labels that only differ at the boundary of key and value are different",
		given: func(c *Cluster) {
			c.Pod("client").Labels, c.Pod("remote").Labels = map[string]string{"team": "ab"}, map[string]string{"teama": "b"}
		},
		peers: `[{namespaceSelector: {}, podSelector: {matchLabels: {teama: b}}}]`, match: "remote", nomatch: "client db far"},
}

// peers is about whom a list of peers selects.
func peers() []Scenario {
	var all []Scenario
	for _, r := range peerRows {
		all = append(all,
			Scenario{
				Name: r.name + ", ingress", Given: r.given, Lines: lines(r.match, r.nomatch, "%s %s web"),
				Objects: "red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: " + r.peers + "}]}",
			},
			Scenario{
				Name: r.name + ", egress", Given: r.given, Lines: lines(r.match, r.nomatch, "web %[2]s %[1]s"),
				Objects: "red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: " + r.peers + "}]}",
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
