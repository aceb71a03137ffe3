package oracle

import "testing"

// TestClusterPolicies holds what is said of ClusterNetworkPolicies and the order of the stages, one statement per row.
func TestClusterPolicies(t *testing.T) {
	check(t, []tierRow{
		{name: "Admin comes before NetworkPolicies", objects: `
admin: {x: {priority: 1, ingress: [
  {action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
  {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 81}}}]}]}}
np: {a/p: {podSelector: {}, ingress: [{ports: [{port: 81}, {port: 82}]}]}}`, want: []string{
			"allowed: client -> web TCP/80", "denied: client -> web TCP/81", "allowed: client -> web TCP/82", "denied: client -> web TCP/83",
		}},
		{name: "Baseline comes behind NetworkPolicies, whichever they decide", objects: `
baseline: {x: {priority: 1, ingress: [
  {action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, {action: Deny, from: [{namespaces: {}}]}]}}
np: {a/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}}`, want: []string{
			"denied: client -> web TCP/80", "allowed: client -> web TCP/81", "allowed: client -> db TCP/80", "denied: client -> db TCP/81",
		}},
		{name: "a pod isolated for egress only meets Baseline for ingress", objects: `
baseline: {x: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{namespaces: {}}]}]}}
np: {a/p: {podSelector: {}, policyTypes: [Egress], egress: [{}]}}`,
			want: []string{"denied: client -> web TCP/80", "allowed: web -> outside TCP/80", "allowed: client -> outside TCP/80"}},
		{name: "lower numbers come first", objects: `
admin: {a: {priority: 2, ingress: [{action: Accept, from: [{namespaces: {}}]}]}, b: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`,
			want: []string{"denied: client -> web TCP/80"}},
		{name: "a priority does not cross tiers", objects: `
admin: {a: {priority: 9, ingress: [{action: Accept, from: [{namespaces: {}}]}]}}
baseline: {b: {priority: 0, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`, want: []string{"allowed: client -> web TCP/80"}},
		{name: "of equal priority the older comes first", objects: `
admin:
  a: {created: 20, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
  b: {created: 10, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`, want: []string{"denied: client -> web TCP/80"}},
		{name: "of equal age the lesser name comes first", objects: `
admin:
  b: {created: 10, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
  a: {created: 10, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`, want: []string{"denied: client -> web TCP/80"}},
		{name: "of equal name ours comes first", objects: `
admin:
  sig/a: {created: 10, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
  a: {created: 10, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`, want: []string{"denied: client -> web TCP/80"}},
		{name: "whose it is counts only after age and name", objects: `
admin:
  sig/a: {created: 10, priority: 1, ingress: [{action: Deny, from: [{pods: {podSelector: {}}}]}]}
  b: {created: 10, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}`, want: []string{"denied: client -> web TCP/80"}},
		{name: "the first rule that matches decides", objects: `
admin: {a: {priority: 1, ingress: [
  {action: Deny, from: [{pods: {podSelector: {matchLabels: {app: client}}}}]}, {action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{networks: [0.0.0.0/0]}]}]}}`,
			want: []string{"denied: client -> web TCP/80", "allowed: db -> web TCP/80", "denied: outside -> web TCP/80"}},
		{name: "a policy whose rules do not match leaves it to the next", objects: `
admin:
  a: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{udp: {}}]}]}
  b: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`, want: []string{"allowed: client -> web UDP/1", "denied: client -> web TCP/1"}},
		{name: "a policy affects only the directions that it has rules for, and both ends must allow", objects: `
admin: {a: {priority: 1, subject: {namespaces: {matchLabels: {team: a}}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}}`, want: []string{
			"allowed: client -> web TCP/80", "denied: web -> client TCP/80", "denied: web -> db TCP/80", "allowed: web -> outside TCP/80",
		}},
		{name: "Pass in Admin goes on with NetworkPolicies", objects: `
admin:
  a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: b}}}]}]}
  b: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
np: {a/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}}`, want: []string{
			"allowed: client -> web TCP/80", "denied: client -> web TCP/81", "denied: db -> web TCP/80", "allowed: client -> db TCP/81",
		}},
		{name: "Pass in Admin skips Admin isolation, but not Baseline's", objects: `
admin: {a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: b}}}]}]}}
iso:
  x: {tier: Admin, namespaceSelector: {matchLabels: {team: a}}, directions: [Ingress]}
  w: {namespaceSelector: {}, directions: [Ingress], allow: {ingress: [{from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}}`,
			want: []string{"allowed: client -> web TCP/80", "denied: client -> web TCP/81", "denied: bare -> web TCP/80"}},
		{name: "Accept in Admin skips all else", objects: `
admin: {a: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}]}}
baseline: {a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}
np: {a/p: {podSelector: {}}}
iso: {x: {tier: Admin, namespaceSelector: {}, directions: [Ingress]}, w: {namespaceSelector: {}, directions: [Ingress]}}`,
			want: []string{"allowed: client -> web TCP/80", "denied: bare -> web TCP/80"}},
		{name: "Accept is for its own direction only", objects: `
admin: {a: {priority: 1, egress: [{action: Accept, to: [{namespaces: {}}]}]}}
np: {a/p: {podSelector: {}}}`, want: []string{"denied: client -> web TCP/80"}},
		{name: "Pass in Baseline allows and skips Baseline isolation", objects: `
baseline:
  a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: b}}}]}]}
  b: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: b}}}]}]}
iso: {x: {namespaceSelector: {}, directions: [Ingress]}}`, want: []string{"allowed: client -> web TCP/80", "denied: bare -> web TCP/80"}},
		{name: "Accept in Baseline skips Baseline isolation", objects: `
baseline: {a: {priority: 1, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}]}}
iso: {x: {namespaceSelector: {}, directions: [Ingress]}}`, want: []string{"allowed: client -> web TCP/80", "denied: bare -> web TCP/80"}},
		{name: "a host-network pod and a completed one are no subjects", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{networks: [0.0.0.0/0]}]}], egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}}`, want: []string{
			"allowed: outside -> host TCP/80", "allowed: host -> outside TCP/80", "allowed: outside -> job TCP/80", "denied: outside -> web TCP/80",
		}},
		{name: "a pod is the subject by its own labels and its namespace's", objects: `
admin: {a: {priority: 1, subject: {pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}]}}},
  ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`, want: []string{
			"denied: client -> web TCP/80", "allowed: client -> db TCP/80", "allowed: client -> bare TCP/80", "denied: client -> twin TCP/80",
		}},
		{name: "neighbour discovery and a node's own traffic to its own pods are never policed", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{networks: ["0.0.0.0/0", "::/0"]}]}]}}`, want: []string{
			"allowed: client6 -> web6 ICMPv6/135", "denied: client6 -> web6 ICMPv6/128", "allowed: node1 -> web TCP/80 from node1", "denied: node2 -> web TCP/80 from node2",
		}},
	})
}

func TestSelfTraffic(t *testing.T) {
	check(t, []tierRow{
		{name: "NetworkPolicies let a pod reach itself, and then Baseline is not asked", objects: `
np: {a/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}}
baseline: {a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`, want: []string{"allowed: web -> web TCP/80", "denied: db -> db TCP/80"}},
		{name: "in one direction it may be isolated, in the other Baseline decides", objects: `
np: {a/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}}
baseline: {a: {priority: 1, egress: [{action: Deny, to: [{namespaces: {}}]}]}}`, want: []string{"denied: web -> web TCP/80"}},
		{name: "Admin rules make no exception", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}
np: {a/p: {podSelector: {}, policyTypes: [Ingress, Egress]}}`, want: []string{"denied: web -> web TCP/80"}},
		{name: "Admin isolation makes no exception, but a pod is of its own tenant", objects: `
iso:
  x: {tier: Admin, namespaceSelector: {matchLabels: {team: a}}, allow: {sameTenant: false}}
  w: {tier: Admin, namespaceSelector: {matchLabels: {team: b}}}`, want: []string{"denied: web -> web TCP/80", "allowed: client -> client TCP/80"}},
		{name: "Baseline isolation makes no exception", objects: `
iso: {x: {namespaceSelector: {}, allow: {sameTenant: false}}}`, want: []string{"denied: web -> web TCP/80"}},
	})
}

func TestClusterPeersAndProtocols(t *testing.T) {
	check(t, []tierRow{
		{name: "namespaces and pods select live pods that are not on the host network", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{pods: {podSelector: {}}}]}]}}`, want: []string{
			"denied: client -> web TCP/80", "allowed: host -> web TCP/80", "allowed: job -> web TCP/80", "allowed: outside -> web TCP/80",
			"allowed: web -> host TCP/80", "allowed: web -> job TCP/80",
		}},
		{name: "nodes are all IP addresses in their status, in both directions", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{nodes: {matchLabels: {zone: east}}}]}],
  egress: [{action: Deny, to: [{nodes: {matchLabels: {zone: east}}}]}]}}`, want: []string{
			"denied: node2 -> web TCP/80 from node2", "denied: node2 -> web TCP/80", "denied: public2 -> web TCP/80", "denied: node2v6 -> web6 TCP/80",
			"allowed: node1 -> dns TCP/80 from node1", "denied: web -> node2 TCP/80", "denied: web6 -> node2v6 ICMPv6/128", "denied: web -> public2 TCP/80", "allowed: web -> node1 TCP/80",
			"allowed: node2 -> dns TCP/80 from node2", "allowed: db -> web TCP/80",
		}},
		{name: "empty nodes are all nodes", objects: `
admin: {a: {priority: 1, egress: [{action: Deny, to: [{nodes: {}}]}]}}`,
			want: []string{"denied: web -> node1 TCP/80", "denied: web -> node2 TCP/80", "allowed: web -> outside TCP/80"}},
		{name: "networks hold whoever has the address, in both directions", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{networks: [10.1.0.2/31, 203.0.113.0/24]}]}], egress: [{action: Deny, to: [{networks: ["fd00::/8"]}]}]}}`, want: []string{
			"denied: client -> web TCP/80", "denied: outside -> web TCP/80", "allowed: bare -> web TCP/80", "denied: web6 -> client6 TCP/80",
		}},
		{name: "networks match ICMP too, each family its own", objects: `
admin: {a: {priority: 1, egress: [{action: Deny, to: [{networks: [203.0.113.0/24, "fd00::/8"]}]}], ingress: [{action: Deny, from: [{networks: ["::/0"]}]}]}}`, want: []string{
			"denied: web -> outside ICMP/8", "denied: web -> outside GRE", "denied: web6 -> client6 ICMPv6/128", "allowed: web -> client ICMP/8", "allowed: client -> web ICMP/8",
		}},
		{name: "networks accept ICMP too", objects: `
admin: {a: {priority: 1, ingress: [{action: Accept, from: [{networks: [203.0.113.0/24]}]}, {action: Deny, from: [{networks: [0.0.0.0/0]}]}]}}`, want: []string{
			"allowed: outside -> web ICMP/8", "allowed: outside -> web TCP/80", "denied: client -> web ICMP/8",
		}},
		{name: "networks with protocols match none but these", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{networks: [0.0.0.0/0]}], protocols: [{tcp: {}}]}]}}`, want: []string{
			"denied: outside -> web TCP/80", "allowed: outside -> web ICMP/8",
		}},
		{name: "any peer of a list matches", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{networks: [10.1.0.4/32]}, {pods: {namespaceSelector: {matchLabels: {team: b}}, podSelector: {}}}]}]}}`, want: []string{
			"denied: client -> web TCP/80", "denied: bare -> web TCP/80", "allowed: db -> web TCP/80",
		}},
		{name: "without protocols all are meant", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: []}]}}`,
			want: []string{"denied: client -> web ICMP/8", "denied: client -> web GRE", "denied: client -> web SCTP/1"}},
		{name: "protocols, numbers and ranges", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [
  {tcp: {}}, {udp: {destinationPort: {number: 53}}}, {sctp: {destinationPort: {range: {start: 10, end: 12}}}}, {sctp: {destinationPort: {range: {start: 65535, end: 65535}}}}]}]}}`,
			want: []string{
				"denied: client -> web TCP/1", "denied: client -> web UDP/53", "allowed: client -> web UDP/54", "allowed: client -> web SCTP/9",
				"denied: client -> web SCTP/10", "denied: client -> web SCTP/12", "allowed: client -> web SCTP/13", "denied: client -> web SCTP/65535", "allowed: client -> web ICMP/8",
			}},
		{name: "a named port is of any protocol, on the destination pod", objects: `
admin: {a: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}], egress: [
  {action: Deny, to: [{networks: [0.0.0.0/0]}], protocols: [{destinationNamedPort: query}, {destinationNamedPort: nobody}]}]}}`, want: []string{
			"denied: client -> web TCP/80", "denied: client -> web UDP/81", "allowed: client -> web TCP/81", "allowed: client -> web SCTP/80", "allowed: client -> db TCP/80",
			"denied: client -> dns UDP/5353", "denied: client -> dns TCP/5354", "allowed: client -> dns TCP/5353", "allowed: client -> outside UDP/5353",
			"allowed: outside -> web TCP/80", "allowed: client -> web ICMP/8",
		}},
	})
}
