package scenario

import "github.com/ringfence-io/ringfence/api/v1alpha1"

// dryRun is about objects in dry run, whose mode is Audit. They change no verdict, and note what they would deny.
var dryRun = []Scenario{{
	Name:  "objects in dry run change nothing, of whatever kind and tier",
	Given: func(c *Cluster) { c.mode("blue", "Audit") },
	Objects: `
cnp admin: {mode: Audit, tier: Admin, priority: 1, subject: {namespaces: {}},
  ingress: [{action: Accept, from: [{pods: {podSelector: {matchLabels: {app: bare}}}}]},
  {action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}
cnp baseline: {mode: Audit, tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
isolation admin: {mode: Audit, tier: Admin, namespaceSelector: {}}
isolation baseline: {mode: Audit, namespaceSelector: {}}
blue/closed: {podSelector: {}, policyTypes: [Ingress, Egress]}
red/closed: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: far}}}]}]}`,
	Lines: []string{
		"client would not reach remote", "web would not reach client", "client would not reach db", "bare would not reach far",
		"outside would not reach db", "db would not reach outside", "far would not reach web noting egress cnp admin, ingress cnp admin",
		"client does not reach web noting egress blue/closed, egress cnp admin, egress isolation admin, egress isolation baseline, " +
			"ingress cnp admin, ingress isolation admin",
		"bare does not reach web noting egress cnp admin, egress isolation admin, egress isolation baseline, ingress cnp admin, ingress isolation admin",
	},
}, {
	Name: "objects in dry run and enforced ones side by side",
	Objects: `
cnp dry: {mode: Audit, tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}
cnp enforced: {tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}]}]}
isolation dry: {mode: Audit, namespaceSelector: {}, allow: {ingress: [{from: [{networks: [0.0.0.0/0]}]}]}}
isolation enforced: {namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress]}`,
	Lines: []string{
		"client does not reach web noting egress isolation dry", "far reaches web", "bare does not reach web noting egress isolation dry",
		"bare would not reach remote noting egress isolation dry", "outside does not reach db",
	},
}, {
	Name:    "from Audit to Enforce and back",
	Objects: `isolation fence: {mode: Audit, namespaceSelector: {matchLabels: {team: red}}}`,
	Lines:   []string{"client would not reach web noting ingress isolation fence", "web would not reach client noting egress isolation fence"},
	Then: []Step{
		{What: "Enforce", Objects: `isolation fence: {mode: Enforce, namespaceSelector: {matchLabels: {team: red}}}`,
			Lines: []string{"client does not reach web", "web does not reach client"}},
		{What: "Audit", Objects: `isolation fence: {mode: Audit, namespaceSelector: {matchLabels: {team: red}}}`,
			Lines: []string{"client would not reach web noting ingress isolation fence", "web would not reach client noting egress isolation fence"}},
	},
}, {
	Name: "without a dry run nothing is noted",
	Objects: `
admin x: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines: []string{"client does not reach web on tcp/80"},
}, {
	Name: "in dry run a Deny is noted, Accept and Pass are not, and the next policy is asked",
	Objects: `
admin x: {mode: Audit, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, {action: Pass,
  from: [{namespaces: {}}], protocols: [{tcp: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}
admin w: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80 tcp/81", "client would not reach web on udp/1 noting ingress cnp x", "outside reaches web on udp/1",
	},
}, {
	Name: "a note stays where an enforced policy denies behind it, and is not reached behind one that decides",
	Objects: `
admin a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
admin b: {priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
admin c: {mode: Audit, priority: 3, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
baseline z: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines: []string{"client does not reach web on tcp/80 noting ingress cnp a"},
}, {
	Name: "several are noted, Baseline's too",
	Objects: `
admin a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
admin b: {mode: Audit, priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
baseline z: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines: []string{"client would not reach web on tcp/80 noting ingress cnp a, ingress cnp b, ingress cnp z"},
}, {
	Name: "the SIG's policy of the same name is another",
	Objects: `
admin a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
admin sig/a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client would not reach web on tcp/80 noting ingress cnp a, ingress cnp sig/a"},
	Problems: []string{"ClusterNetworkPolicy.policy.networking.k8s.io a: spec.priority:"},
}, {
	Name: "what is not understood would have denied",
	Objects: `
admin a: {mode: Audit, priority: 1, ingress: [{action: Pass, from: [{}]}]}
cnp b: {mode: Audit, tier: Baseline, priority: 1, subject: {},
  ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}`,
	Lines:    []string{"client would not reach bare on tcp/80 noting ingress cnp a, ingress cnp b"},
	Problems: []string{"ClusterNetworkPolicy a: spec.ingress[0].from[0]:", "ClusterNetworkPolicy b: spec.subject:"},
}, {
	Name: "both directions of one policy, each where it is enforced",
	Objects: `
admin a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{namespaces: {}}]}]}`,
	Lines: []string{
		"client would not reach web on tcp/80 noting egress cnp a, ingress cnp a", "client would not reach far on tcp/80 noting egress cnp a, ingress cnp a",
	},
}, {
	Name: "where egress denies, the same node does not ask ingress",
	Objects: `
admin a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{namespaces: {}}]}]}
admin b: {priority: 2, egress: [{action: Deny, to: [{namespaces: {}}]}]}`,
	Lines: []string{"client does not reach web on tcp/80 noting egress cnp a", "client does not reach far on tcp/80 noting egress cnp a, ingress cnp a"},
}, {
	Name: "what is never policed notes nothing",
	Objects: `
admin a: {mode: Audit, priority: 1, ingress: [{action: Deny, from: [{networks: [0.0.0.0/0]}]}]}`,
	Lines: []string{"n1 reaches web on tcp/80", "outside reaches host on tcp/80", "n2 would not reach web on tcp/80 noting ingress cnp a"},
}, {
	Name: "NetworkPolicies in dry run do not isolate: Baseline is asked",
	Objects: `
red/p: {mode: Audit, podSelector: {}, ingress: [{ports: [{port: 80}]}]}
baseline z: {priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{udp: {}}, {tcp: {destinationPort: {number: 80}}}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80", "client would not reach web on tcp/81 noting ingress red/p",
		"client does not reach web on udp/1 noting ingress red/p",
	},
}, {
	Name: "NetworkPolicies in dry run add up, and each that applies is noted",
	Objects: `
red/p: {mode: Audit, podSelector: {}, ingress: [{ports: [{port: 80}]}]}
red/q: {mode: Audit, podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}
red/r: {mode: Audit, podSelector: {}, policyTypes: [Egress]}`,
	Lines: []string{
		"client reaches web on tcp/80 tcp/81", "client would not reach web on tcp/82 noting ingress red/p, ingress red/q",
		"client would not reach db on tcp/81 noting ingress red/p", "web would not reach outside on tcp/80 noting egress red/r",
	},
}, {
	Name: "NetworkPolicies in dry run do not count where one is enforced for the pod and the direction",
	Objects: `
red/p: {mode: Audit, podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}]}]}
red/q: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}`,
	Lines: []string{
		"client does not reach web on tcp/80 tcp/82", "client reaches web on tcp/81", "client would not reach db on tcp/82 noting ingress red/p",
		"web would not reach outside on tcp/1 noting egress red/p",
	},
}, {
	Name: "NetworkPolicies in dry run would let a pod reach itself",
	Objects: `
red/p: {mode: Audit, podSelector: {}, policyTypes: [Ingress, Egress]}`,
	Lines: []string{"web reaches service-web on tcp/8080", "web would not reach db on tcp/80 noting egress red/p, ingress red/p"},
}, {
	Name:  "a namespace's annotation is for its policies that have none",
	Given: func(c *Cluster) { c.mode("red", "Audit"); c.mode("blue", "Enforce"); c.mode("plain", "audit") },
	Objects: `
red/p: {podSelector: {matchLabels: {app: web}}}
red/q: {mode: Enforce, podSelector: {matchLabels: {app: db}}}
blue/p: {mode: Audit, podSelector: {}}
plain/p: {podSelector: {}}`,
	Lines: []string{
		"client would not reach web on tcp/80 noting ingress red/p", "client does not reach db on tcp/80",
		"web would not reach client on tcp/80 noting ingress blue/p", "client does not reach bare on tcp/80",
	},
	Problems: []string{"NetworkPolicy plain/p: metadata.annotations[policy.ringfence.io/mode] of the namespace:"},
}, {
	Name:  "a policy's own annotation counts whatever it says",
	Given: func(c *Cluster) { c.mode("red", "Audit") },
	Objects: `
red/p: {mode: Observe, podSelector: {matchLabels: {app: web}}}
red/q: {mode: "", podSelector: {matchLabels: {app: db}}}`,
	Lines:    []string{"client does not reach web on tcp/80", "client does not reach db on tcp/80"},
	Problems: []string{"NetworkPolicy red/p: metadata.annotations[policy.ringfence.io/mode]:"},
}, {
	Name:  "isolations in dry run, in both tiers: each that applies is noted",
	Given: serveDNS,
	Objects: `
isolation x: {mode: Audit, tier: Admin, namespaceSelector: {matchLabels: {team: red}}}
isolation w: {mode: Audit, namespaceSelector: {}}
isolation z: {mode: Audit, namespaceSelector: {}, allow: {ingress: [{from: [{namespaces: {}}], protocols: [{udp: {}}]}]}}`,
	Lines: []string{
		"outside would not reach web on tcp/80 noting ingress isolation w, ingress isolation x, ingress isolation z",
		"web would not reach outside on tcp/80 noting egress isolation w, egress isolation x, egress isolation z",
		"twin would not reach web on udp/1 noting egress isolation w, egress isolation x, egress isolation z, ingress isolation x",
		"db reaches web on tcp/80", "web reaches 10.0.1.5 on udp/53",
	},
}, {
	Name: "isolations in dry run do not count where one of the tier is enforced for the pod and the direction",
	Objects: `
isolation x: {mode: Audit, namespaceSelector: {}}
isolation w: {namespaceSelector: {matchLabels: {team: red}}, directions: [Ingress], allow: {ingress: [{from: [{namespaces: {}}]}]}}
isolation z: {mode: Audit, tier: Admin, namespaceSelector: {matchLabels: {team: red}}}`,
	Lines: []string{
		"client would not reach web on tcp/80 noting egress isolation x, ingress isolation z",
		"outside does not reach web on tcp/80 noting ingress isolation z",
		"bare would not reach web on tcp/80 noting egress isolation x, ingress isolation z",
		"web would not reach outside on tcp/80 noting egress isolation x, egress isolation z",
		"outside would not reach bare on tcp/80 noting ingress isolation x",
	},
}, {
	Name: "stages that a Pass skips, or that a verdict leaves behind, note nothing",
	Objects: `
admin a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {}}]}, {action: Accept, from: [{namespaces: {}}],
  protocols: [{udp: {}}]}]}
isolation x: {mode: Audit, tier: Admin, namespaceSelector: {}, directions: [Ingress]}
isolation w: {mode: Audit, namespaceSelector: {}, directions: [Ingress]}`,
	Lines: []string{
		"client would not reach web on tcp/80 noting ingress isolation w", "client reaches web on udp/80",
		"client would not reach web on sctp/80 noting ingress isolation w, ingress isolation x",
	},
}, {
	Name: "Pass in Baseline skips Baseline isolation in dry run",
	Objects: `
baseline a: {priority: 1, ingress: [{action: Pass, from: [{namespaces: {}}]}]}
isolation w: {mode: Audit, namespaceSelector: {}, directions: [Ingress]}`,
	Lines: []string{"client reaches web on tcp/80", "outside would not reach web on tcp/80 noting ingress isolation w"},
}}

// mode sets the annotation of a namespace.
func (c *Cluster) mode(namespace, mode string) {
	c.Namespace(namespace).Annotations = map[string]string{v1alpha1.ModeAnnotation: mode}
}
