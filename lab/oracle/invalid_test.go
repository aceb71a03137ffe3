package oracle

import "testing"

// TestInvalid holds objects that the API server would refuse: each invalid part matches nothing.
func TestInvalid(t *testing.T) {
	for _, row := range []struct {
		name     string
		policies string
		want     []string
	}{
		{"a peer without fields matches nothing, its neighbours go on", `
a/p: {podSelector: {}, ingress: [{from: [{}, {podSelector: {}}]}]}`, []string{"denied: client -> web TCP/80", "allowed: db -> web TCP/80"}},
		{"a rule whose only peer is invalid matches nothing", `
a/p: {podSelector: {}, ingress: [{from: [{}]}]}`, []string{"denied: client -> web TCP/80", "denied: db -> web TCP/80"}},
		{"ipBlock together with a selector", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}, namespaceSelector: {}}]}]}`,
			[]string{"denied: db -> web TCP/80", "denied: outside -> web TCP/80"}},
		{"CIDRs that are none", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}, {ipBlock: {cidr: 10.0.0.0/33}}, {ipBlock: {cidr: ""}}, {ipBlock: {cidr: 10.0.0/8}}, {ipBlock: {cidr: "10.0.0.0/-1"}}, {ipBlock: {cidr: "fe80::1%eth0/64"}}]}]}`,
			[]string{"denied: db -> web TCP/80", "denied: outside -> web TCP/80"}},
		{"an invalid exception closes its whole peer, not the others", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16, bad]}}, {ipBlock: {cidr: 203.0.113.0/24}}]}]}`,
			[]string{"denied: db -> web TCP/80", "allowed: outside -> web TCP/80"}},
		{"an exception outside of the block closes its peer", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}, {ipBlock: {cidr: 203.0.113.0/24, except: ["fd00::/8"]}}]}]}`,
			[]string{"denied: db -> web TCP/80", "denied: outside -> web TCP/80"}},
		{"an exception as large as the block closes its peer", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}, {ipBlock: {cidr: 203.0.113.0/24, except: [203.0.0.0/16]}}]}]}`,
			[]string{"denied: db -> web TCP/80", "denied: outside -> web TCP/80"}},
		{"invalid selectors of a peer", `
a/p: {podSelector: {}, ingress: [{from: [
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
			[]string{"denied: db -> web TCP/80", "denied: client -> web TCP/80", "denied: bare -> web TCP/80"}},
		{"an invalid podSelector isolates the namespace and allows nothing", `
a/p: {podSelector: {matchExpressions: [{key: app, operator: Is, values: [web]}]}, ingress: [{}], egress: [{}]}
a/q: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`, []string{
			"allowed: client -> web TCP/80", "denied: client -> web TCP/81", "denied: client -> db TCP/80", "denied: web -> client TCP/80", "allowed: bare -> client TCP/1",
		}},
		{"an unknown type isolates in both directions", `
a/p: {podSelector: {}, policyTypes: [Sideways]}`, []string{"denied: client -> web TCP/80", "denied: web -> client TCP/80"}},
		{"rules count only for the types that are named as the API names them", `
a/p: {podSelector: {}, policyTypes: [Ingress, egress], ingress: [{ports: [{port: 80}]}], egress: [{}]}`, []string{
			"allowed: client -> web TCP/80", "denied: client -> web TCP/81", "denied: web -> client TCP/80",
		}},
		{"invalid ports match nothing, their neighbours go on", `
a/p: {podSelector: {}, ingress: [{ports: [
  {port: 0}, {port: -1}, {port: 65536}, {port: 70000, protocol: UDP}, {protocol: ICMP}, {protocol: tcp}, {protocol: ""},
  {port: 90, endPort: 89}, {port: 100, endPort: 65536}, {endPort: 200}, {port: http, endPort: 300}, {port: ""}, {port: 0, endPort: 10}, {port: 7}]}]}`, []string{
			"allowed: client -> web TCP/7", "denied: client -> web TCP/0", "denied: client -> web TCP/65535", "denied: client -> web UDP/4464",
			"denied: client -> web TCP/90", "denied: client -> web TCP/89", "denied: client -> web TCP/100", "denied: client -> web TCP/200",
			"denied: client -> web TCP/80", "denied: client -> web TCP/5", "denied: client -> web ICMP/8",
		}},
		{"a rule whose only port is invalid matches nothing", `
a/p: {podSelector: {}, ingress: [{ports: [{protocol: GRE}]}]}`, []string{"denied: client -> web TCP/80", "denied: client -> web GRE", "denied: client -> web ICMP/8"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := standardCluster()
			ports(c.Pods[0], "http=TCP/80", "=TCP/5")
			c.Policies = policies(t, row.policies)
			expect(t, c, row.want)
		})
	}
}
