package oracle

import "testing"

// TestPolicies holds what the API texts say, one behaviour per row.
func TestPolicies(t *testing.T) {
	for _, row := range []struct {
		name     string
		policies string
		want     []string
	}{
		{"without policies everything passes", `{}`, []string{
			"allowed: client -> web TCP/80", "allowed: web -> outside UDP/53", "allowed: outside -> web ICMP/8",
			"allowed: client6 -> web6 SCTP/1", "allowed: outside -> outside TCP/1",
		}},
		{"a policy isolates only the pods that it selects, in its namespace and direction", `
a/p: {podSelector: {matchLabels: {app: web}}}`, []string{
			"denied: client -> web TCP/80", "denied: client6 -> web6 TCP/80", "denied: outside -> web ICMP/8",
			"allowed: web -> client TCP/80", "allowed: client -> db TCP/80", "allowed: client -> bare TCP/80",
		}},
		{"an empty podSelector selects all pods of the namespace", `
a/p: {podSelector: {}}`, []string{
			"denied: client -> web TCP/80", "denied: client -> db TCP/80", "allowed: web -> bare TCP/80",
		}},
		{"policies are combined additively", `
a/one: {podSelector: {}}
a/two: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}
a/three: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}], ports: [{port: 81}]}]}`, []string{
			"allowed: db -> web TCP/80", "allowed: client -> web TCP/81", "denied: db -> web TCP/81", "denied: client -> web TCP/80",
			"denied: web -> db TCP/80", "allowed: client -> db TCP/81",
		}},
		{"both ends must allow", `
a/in: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}
a/out: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`, []string{
			"allowed: web -> db TCP/80", "denied: web -> db TCP/81", "denied: client -> db TCP/80", "allowed: web -> client TCP/80",
		}},
		{"an allow of one direction does not satisfy the other", `
a/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: []}`, []string{
			"denied: web -> db TCP/80", "denied: db -> web TCP/80", "denied: web -> outside TCP/80", "denied: client -> web TCP/80",
		}},
		{"policyTypes default to Ingress", `
a/p: {podSelector: {}}`, []string{"denied: client -> web TCP/80", "allowed: web -> client TCP/80"}},
		{"policyTypes default to both where there are egress rules", `
a/p: {podSelector: {}, egress: [{ports: [{port: 53, protocol: UDP}]}]}`, []string{
			"denied: client -> web TCP/80", "denied: web -> client TCP/80", "allowed: web -> client UDP/53",
		}},
		{"an empty egress list is no egress section", `
a/p: {podSelector: {}, ingress: [{}], egress: []}`, []string{"allowed: web -> client TCP/80", "allowed: client -> web TCP/80"}},
		{"an empty policyTypes list is an absent one", `
a/p: {podSelector: {}, policyTypes: [], egress: [{}]}`, []string{"denied: client -> web TCP/80", "allowed: web -> client TCP/80"}},
		{"rules of a direction that policyTypes leaves out do not count", `
a/p: {podSelector: {}, policyTypes: [Ingress], egress: [{ports: [{port: 53}]}]}
a/q: {podSelector: {}, policyTypes: [Egress]}`, []string{"denied: web -> client TCP/53", "denied: client -> web TCP/53"}},
		{"a rule without from and ports allows everything", `
a/p: {podSelector: {}, ingress: [{}]}`, []string{
			"allowed: client -> web TCP/80", "allowed: outside -> web ICMP/8", "allowed: outside -> web GRE", "allowed: client6 -> web6 ICMPv6/128",
		}},
		{"empty from and ports lists are absent ones", `
a/p: {podSelector: {}, ingress: [{from: [], ports: []}]}`, []string{"allowed: outside -> web ICMP/8", "allowed: client -> web TCP/80"}},
		{"an empty podSelector as peer is every pod of the policy's namespace, and no other address", `
a/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, []string{
			"allowed: db -> web TCP/80", "denied: client -> web TCP/80", "denied: outside -> web TCP/80",
		}},
		{"an empty namespaceSelector is every pod of every namespace", `
a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, []string{
			"allowed: db -> web TCP/80", "allowed: client -> web TCP/80", "allowed: bare -> web TCP/80", "denied: outside -> web TCP/80",
		}},
		{"both selectors in one peer are ANDed", `
a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: db}}}]}]}`, []string{
			"denied: db -> web TCP/80", "denied: client -> web TCP/80",
		}},
		{"two peers are ORed", `
a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}, {podSelector: {matchLabels: {app: db}}}]}]}`, []string{
			"allowed: db -> web TCP/80", "allowed: client -> web TCP/80", "denied: bare -> web TCP/80",
		}},
		{"In", `
c/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [db, client]}]}}]}]}`,
			[]string{"allowed: db -> bare TCP/80", "allowed: client -> bare TCP/80", "denied: web -> bare TCP/80"}},
		{"NotIn matches pods without the key", `
a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db, client]}]}}]}]}`,
			[]string{"denied: db -> web TCP/80", "denied: client -> web TCP/80", "allowed: bare -> web TCP/80", "allowed: web -> db TCP/80"}},
		{"NotIn matches namespaces without the key", `
a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [a, x]}]}}]}]}`,
			[]string{"denied: db -> web TCP/80", "allowed: client -> web TCP/80", "allowed: bare -> web TCP/80"}},
		{"Exists and DoesNotExist on pods", `
a/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: role, operator: Exists}]}}]}]}
a/q: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}}]}]}`,
			[]string{"allowed: client -> web TCP/80", "denied: bare -> web TCP/80", "denied: client -> db TCP/80", "allowed: bare -> db TCP/80"}},
		{"DoesNotExist on namespaces that lack the key", `
a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: env, operator: DoesNotExist}]}}]}]}`,
			[]string{"denied: client -> web TCP/80", "allowed: bare -> web TCP/80", "allowed: db -> web TCP/80"}},
		{"matchLabels with an empty value wants the key there and empty", `
a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {tier: ""}}}]}]}`,
			[]string{"allowed: web -> db TCP/80", "denied: client -> web TCP/80", "denied: bare -> db TCP/80"}},
		{"requirements are ANDed", `
a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: client}, matchExpressions: [{key: role, operator: NotIn, values: [x]}]}}]}]}`,
			[]string{"denied: client -> web TCP/80"}},
		{"a host-network pod is no selectable peer and its node's address is in no set", `
a/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, []string{"denied: host -> web TCP/80"}},
		{"a host-network pod is not subject to policy", `
a/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`, []string{"allowed: outside -> host TCP/80", "allowed: host -> outside TCP/80"}},
		{"an ipBlock may contain a node", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.2/32}}]}]}`, []string{"allowed: host -> web TCP/80", "denied: node1 -> web TCP/80"}},
		{"a completed pod is no peer and no subject", `
a/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`, []string{
			"denied: job -> web TCP/80", "allowed: outside -> job TCP/80", "allowed: job -> outside TCP/80",
		}},
		{"ipBlock contains pods and others alike", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.0.2/31}}]}]}`, []string{
			"allowed: db -> web TCP/80", "allowed: client -> web TCP/80", "denied: bare -> web TCP/80", "denied: client6 -> web6 TCP/80",
		}},
		{"ipBlock except", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/16, 10.1.0.3/32]}}]}]}`, []string{
			"allowed: db -> web TCP/80", "denied: client -> web TCP/80", "denied: 10.0.1.1 -> web TCP/80", "allowed: 10.255.255.255 -> web TCP/80",
		}},
		{"an exception belongs to its own peer only", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}, {ipBlock: {cidr: 10.0.0.0/16}}]}]}`, []string{
			"allowed: 10.0.1.5 -> web TCP/80", "allowed: 10.9.0.1 -> web TCP/80", "denied: outside -> web TCP/80",
		}},
		{"0.0.0.0/0 is all of IPv4 and nothing of IPv6", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`, []string{
			"allowed: outside -> web TCP/80", "allowed: 0.0.0.1 -> web TCP/1", "allowed: 255.255.255.254 -> web ICMP/8", "denied: client6 -> web6 TCP/80",
		}},
		{"::/0 with an exception", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "::/0", except: ["fd00:1::2/127"]}}]}]}`, []string{
			"denied: db6 -> web6 TCP/80", "denied: client6 -> web6 TCP/80", "allowed: fd00:1::4 -> web6 TCP/80", "denied: db -> web TCP/80",
		}},
		{"bits behind the prefix length do not count", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.0.77/24, except: [10.1.0.129/25]}}]}]}`, []string{
			"allowed: db -> web TCP/80", "denied: 10.1.0.200 -> web TCP/80", "allowed: 10.1.0.127 -> web TCP/80",
		}},
		{"CIDRs of the time before strict parsing", `
a/p: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 010.001.000.002/032}}, {ipBlock: {cidr: "::ffff:10.1.0.3/128"}}]}]}`, []string{
			"allowed: db -> web TCP/80", "allowed: client -> web TCP/80", "denied: bare -> web TCP/80",
		}},
		{"a port without protocol is TCP", `
a/p: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}`, []string{
			"allowed: client -> web TCP/80", "denied: client -> web UDP/80", "denied: client -> web SCTP/80", "denied: client -> web TCP/81",
		}},
		{"a protocol without port is all its ports", `
a/p: {podSelector: {}, ingress: [{ports: [{protocol: SCTP}]}]}`, []string{
			"allowed: client -> web SCTP/1", "allowed: client -> web SCTP/65535", "denied: client -> web TCP/1",
		}},
		{"an item with neither is all of TCP", `
a/p: {podSelector: {}, ingress: [{ports: [{}]}]}`, []string{"allowed: client -> web TCP/9", "denied: client -> web UDP/9", "denied: client -> web ICMP/8"}},
		{"with ports, ICMP and other protocols are denied", `
a/p: {podSelector: {}, ingress: [{ports: [{port: 80}, {protocol: UDP}, {protocol: SCTP}]}]}`, []string{
			"denied: client -> web ICMP/8", "denied: client6 -> web6 ICMPv6/128", "denied: client -> web GRE", "allowed: client -> web UDP/7",
		}},
		{"endPort is inclusive", `
a/p: {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 82}, {port: 65535, endPort: 65535}, {port: 1, endPort: 2, protocol: UDP}]}]}`, []string{
			"denied: client -> web TCP/79", "allowed: client -> web TCP/80", "allowed: client -> web TCP/81", "allowed: client -> web TCP/82",
			"denied: client -> web TCP/83", "allowed: client -> web TCP/65535", "allowed: client -> web UDP/1", "denied: client -> web UDP/3",
		}},
		{"peers and ports of a rule must both match", `
a/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}, {from: [{namespaceSelector: {matchLabels: {team: b}}}], ports: [{port: 81}]}]}`,
			[]string{"allowed: db -> web TCP/80", "denied: db -> web TCP/81", "denied: client -> web TCP/80", "allowed: client -> web TCP/81"}},
		{"a pod reaches itself", `
a/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`, []string{"allowed: web -> web TCP/80", "allowed: web6 -> web6 UDP/1", "denied: web -> db TCP/80"}},
		{"a node reaches its own pods, and no others", `
a/p: {podSelector: {}}`, []string{
			"allowed: node1 -> web TCP/80 from node1", "denied: node2 -> web TCP/80 from node2", "denied: node1 -> web TCP/80",
		}},
		{"a pod to its own node is egress", `
a/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.0.1/32}}], ports: [{port: 443}]}]}`, []string{
			"allowed: web -> node1 TCP/443", "denied: web -> node1 TCP/22", "denied: db -> node2 TCP/443",
		}},
		{"IPv6 neighbour discovery is never dropped, other ICMPv6 is", `
a/p: {podSelector: {}, policyTypes: [Ingress, Egress]}`, []string{
			"allowed: client6 -> web6 ICMPv6/133", "allowed: web6 -> db6 ICMPv6/135", "allowed: web6 -> db6 ICMPv6/137",
			"denied: client6 -> web6 ICMPv6/128", "denied: client6 -> web6 ICMPv6/132", "denied: client6 -> web6 ICMPv6/138",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := standardCluster()
			c.Policies = policies(t, row.policies)
			expect(t, c, row.want)
		})
	}
}
