package oracle

import "testing"

// TestAudit: audited objects change no verdict, and note what they would have denied.
func TestAudit(t *testing.T) {
	check(t, []tierRow{
		{name: "nothing audited, nothing noted", objects: `
admin: {x: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`,
			want: []string{"denied: client -> web TCP/80"}, notes: map[string]string{"node1: client -> web TCP/80": ""}},
		{name: "an audited rule's Deny is noted, its Accept and Pass are not, and the walk goes on", objects: `
admin:
  x: {mode: Audit, priority: 1, ingress: [
    {action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, {action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {}}]},
    {action: Deny, from: [{namespaces: {}}]}]}
  w: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}]}]}`,
			want: []string{"denied: client -> web TCP/80", "denied: client -> web TCP/81", "allowed: client -> web UDP/1"}, notes: map[string]string{
				"node1: client -> web TCP/80": "", "node1: client -> web TCP/81": "", "node1: client -> web UDP/1": "ingress ClusterNetworkPolicy x", "node1: outside -> web UDP/1": "",
			}},
		{name: "a note stays where an enforced policy denies behind it, and is not reached behind one that decides", objects: `
admin:
  a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
  b: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
  c: {mode: Audit, priority: 3, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
baseline: {z: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`,
			want: []string{"denied: client -> web TCP/80"}, notes: map[string]string{"node1: client -> web TCP/80": "ingress ClusterNetworkPolicy a"}},
		{name: "several are noted, Baseline's too", objects: `
admin: {a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}, b: {mode: Audit, priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}
baseline: {z: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`,
			want: []string{"allowed: client -> web TCP/80"}, notes: map[string]string{
				"node1: client -> web TCP/80": "ingress ClusterNetworkPolicy a; ingress ClusterNetworkPolicy b; ingress ClusterNetworkPolicy z"}},
		{name: "the SIG's policy of the same name is another", objects: `
admin: {a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}, sig/a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`,
			notes: map[string]string{"node1: client -> web TCP/80": "ingress ClusterNetworkPolicy a; ingress ClusterNetworkPolicy.policy.networking.k8s.io a"}},
		{name: "what is not understood would have denied", objects: `
admin: {a: {mode: Audit, priority: 1, ingress: [{action: Pass, from: [{}]}]}}
cnp: {b: {mode: Audit, tier: Baseline, priority: 1, subject: {}, ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}}`,
			want: []string{"allowed: client -> bare TCP/80"}, notes: map[string]string{"node2: client -> bare TCP/80": "ingress ClusterNetworkPolicy a; ingress ClusterNetworkPolicy b"}},
		{name: "both directions of one policy, each where it is enforced", objects: `
admin: {a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{namespaces: {}}]}]}}`, notes: map[string]string{
			"node1: client -> web TCP/80": "egress ClusterNetworkPolicy a; ingress ClusterNetworkPolicy a",
			"node1: client -> db TCP/80":  "egress ClusterNetworkPolicy a",
			"node2: client -> db TCP/80":  "ingress ClusterNetworkPolicy a",
			"node3: client -> db TCP/80":  "",
		}},
		{name: "where egress denies, ingress is not asked", objects: `
admin:
  a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{namespaces: {}}]}]}
  b: {priority: 2, egress: [{action: Deny, to: [{namespaces: {}}]}]}`, notes: map[string]string{
			"node1: client -> web TCP/80": "egress ClusterNetworkPolicy a",
			"node2: client -> db TCP/80":  "ingress ClusterNetworkPolicy a",
		}},
		{name: "what is never policed notes nothing", objects: `
admin: {a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{networks: ["0.0.0.0/0", "::/0"]}]}]}}`, notes: map[string]string{
			"node1: node1 -> web TCP/80 from node1": "", "node1: client6 -> web6 ICMPv6/135": "", "node1: outside -> host TCP/80": "",
			"node1: node2 -> web TCP/80 from node2": "ingress ClusterNetworkPolicy a",
		}},
		{name: "audited NetworkPolicies do not isolate: Baseline is asked", objects: `
np: {a/p: {mode: Audit, podSelector: {}, ingress: [{ports: [{port: 80}]}]}}
baseline: {z: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{udp: {}}, {tcp: {destinationPort: {number: 80}}}]}]}}`,
			want: []string{"denied: client -> web TCP/80", "allowed: client -> web TCP/81", "denied: client -> web UDP/1"}, notes: map[string]string{
				"node1: client -> web TCP/80": "", "node1: client -> web TCP/81": "ingress NetworkPolicy a/p", "node1: client -> web UDP/1": "ingress NetworkPolicy a/p",
			}},
		{name: "audited NetworkPolicies add up, and each that applies is noted", objects: `
np:
  a/p: {mode: Audit, podSelector: {}, ingress: [{ports: [{port: 80}]}]}
  a/q: {mode: Audit, podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}
  a/r: {mode: Audit, podSelector: {}, policyTypes: [Egress]}`, notes: map[string]string{
			"node1: client -> web TCP/80": "", "node1: client -> web TCP/81": "", "node1: client -> web TCP/82": "ingress NetworkPolicy a/p; ingress NetworkPolicy a/q",
			"node2: client -> db TCP/81": "ingress NetworkPolicy a/p", "node1: web -> outside TCP/80": "egress NetworkPolicy a/r",
		}},
		{name: "audited NetworkPolicies do not count where one is enforced for the pod and the direction", objects: `
np:
  a/p: {mode: Audit, podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}]}]}
  a/q: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}`,
			want: []string{"denied: client -> web TCP/80", "allowed: client -> web TCP/81", "allowed: client -> db TCP/82", "allowed: web -> outside TCP/1"}, notes: map[string]string{
				"node1: client -> web TCP/80": "", "node1: client -> web TCP/81": "", "node1: client -> web TCP/82": "", "node2: client -> db TCP/82": "ingress NetworkPolicy a/p",
				"node1: web -> outside TCP/1": "egress NetworkPolicy a/p",
			}},
		{name: "a pod that reaches itself would have been allowed by audited NetworkPolicies", objects: `
np: {a/p: {mode: Audit, podSelector: {}, policyTypes: [Ingress, Egress]}}`, notes: map[string]string{"node1: web -> web TCP/80": "", "node1: web -> db TCP/80": "egress NetworkPolicy a/p"}},
		{name: "a namespace's annotation is for its policies that have none", objects: `
modes: {a: Audit, b: Enforce, c: audit}
np: {a/p: {podSelector: {matchLabels: {app: web}}}, a/q: {mode: Enforce, podSelector: {matchLabels: {app: db}}}, b/p: {mode: Audit, podSelector: {}}, c/p: {podSelector: {}}}`,
			want: []string{"allowed: client -> web TCP/80", "denied: client -> db TCP/80", "allowed: web -> client TCP/80", "denied: client -> bare TCP/80"}, notes: map[string]string{
				"node1: client -> web TCP/80": "ingress NetworkPolicy a/p", "node2: client -> db TCP/80": "", "node1: web -> client TCP/80": "ingress NetworkPolicy b/p"}},
		{name: "a policy's own annotation counts whatever it says", objects: `
modes: {a: Audit}
np: {a/p: {mode: Observe, podSelector: {matchLabels: {app: web}}}, a/q: {mode: "", podSelector: {matchLabels: {app: db}}}}`,
			want: []string{"denied: client -> web TCP/80", "denied: client -> db TCP/80"}},
		{name: "audited isolations, in both tiers, each that applies", objects: `
iso:
  x: {mode: Audit, tier: Admin, namespaceSelector: {matchLabels: {team: a}}}
  w: {mode: Audit, namespaceSelector: {}}
  z: {mode: Audit, namespaceSelector: {}, allow: {ingress: [{from: [{namespaces: {}}], protocols: [{udp: {}}]}]}}`,
			want: []string{"allowed: outside -> web TCP/80", "allowed: web -> outside TCP/80"}, notes: map[string]string{
				"node1: outside -> web TCP/80": "ingress NamespaceIsolation w; ingress NamespaceIsolation x; ingress NamespaceIsolation z",
				"node1: web -> outside TCP/80": "egress NamespaceIsolation w; egress NamespaceIsolation x; egress NamespaceIsolation z",
				"node1: twin -> web UDP/1":     "ingress NamespaceIsolation x", "node1: db -> web TCP/80": "", "node1: web -> local UDP/53": "",
			}},
		{name: "audited isolations do not count where one of the tier is enforced for the pod and the direction", objects: `
iso:
  x: {mode: Audit, namespaceSelector: {}}
  w: {namespaceSelector: {matchLabels: {team: a}}, directions: [Ingress], allow: {ingress: [{from: [{namespaces: {}}]}]}}
  z: {mode: Audit, tier: Admin, namespaceSelector: {matchLabels: {team: a}}}`,
			want: []string{"allowed: client -> web TCP/80", "denied: outside -> web TCP/80"}, notes: map[string]string{
				"node1: bare -> web TCP/80": "ingress NamespaceIsolation z", "node1: outside -> web TCP/80": "ingress NamespaceIsolation z",
				"node1: web -> outside TCP/80": "egress NamespaceIsolation x; egress NamespaceIsolation z", "node2: outside -> bare TCP/80": "ingress NamespaceIsolation x",
			}},
		{name: "stages that a Pass skips, or that a verdict leaves behind, note nothing", objects: `
admin: {a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {}}]}, {action: Accept, from: [{namespaces: {}}], protocols: [{udp: {}}]}]}}
iso: {x: {mode: Audit, tier: Admin, namespaceSelector: {}, directions: [Ingress]}, w: {mode: Audit, namespaceSelector: {}, directions: [Ingress]}}`, notes: map[string]string{
			"node1: client -> web TCP/80": "ingress NamespaceIsolation w", "node1: client -> web UDP/80": "",
			"node1: client -> web SCTP/80": "ingress NamespaceIsolation w; ingress NamespaceIsolation x",
		}},
		{name: "Pass in Baseline skips audited Baseline isolation", objects: `
baseline: {a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {}}]}]}}
iso: {w: {mode: Audit, namespaceSelector: {}, directions: [Ingress]}}`, notes: map[string]string{"node1: client -> web TCP/80": "", "node1: outside -> web TCP/80": "ingress NamespaceIsolation w"}},
	})
}
