package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// with is a snapshot with one more policy.
func (s Snapshot) with(o Object) Snapshot {
	switch {
	case o.NetworkPolicy != nil:
		s.Policies = s.Policies.With(o.NetworkPolicy)
	case o.ClusterNetworkPolicy != nil:
		s.ClusterPolicies = append(slices.Clone(s.ClusterPolicies), o.ClusterNetworkPolicy)
	default:
		s.Isolations = append(slices.Clone(s.Isolations), o.NamespaceIsolation)
	}
	return s
}

// teams are a node with a pod of team-a, and pods elsewhere of team-a and team-b. Those of team-c are not known.
func teams() Snapshot {
	pod := func(namespace, name, node, addr string) *Pod {
		return &Pod{Namespace: namespace, Name: name, UID: name, Node: node, Addrs: list(addr), Ports: []NamedPort{{"http", policy.TCP, 8080}}}
	}
	named := func(name string) *Namespace {
		return &Namespace{Name: name, Labels: NewLabels(map[string]string{"name": name, "tenant": "all"})}
	}
	s := Snapshot{Node: "here", Namespaces: ObjectsOf(named("team-a"), named("team-b"), named("team-c"))}.WithPods(
		pod("team-a", "web", "here", "10.0.0.1"), pod("team-a", "far", "there", "10.0.1.1"), pod("team-b", "other", "there", "10.0.1.2"),
	)
	s.Elsewhere = Elsewhere{Partial: true, Unknown: []string{"team-c"}}
	return s
}

// ruleTexts are the rules of all policies, as "Deny any tcp/22 in doubt".
func ruleTexts(n policy.Node) (all []string) {
	for _, p := range n.Policies {
		for _, d := range policy.Directions {
			for _, r := range p.Rules[d] {
				text := fmt.Sprintf("%s %s", r.Action, [...]string{policy.AnyPeer: "any", policy.InSet: "pods", policy.InBlocks: "blocks"}[r.Peer.Kind])
				for _, ports := range r.Ports.Ranges {
					text += fmt.Sprintf(" %s/%d", ports.Protocol, ports.First)
				}
				if r.Ports.Kind == policy.InPorts {
					text += " named"
				}
				if r.InDoubt {
					text += " in doubt"
				}
				all = append(all, text)
			}
		}
	}
	return all
}

// What a rule becomes while the pods of team-c are not known, and what is said of it.
func TestARuleAboutPodsThatAreNotKnownFailsClosed(t *testing.T) {
	const closed = "the pods of namespace team-c are not known on this node yet: "
	const none, all, ports = closed + "it matches none of them until the API server has shown them",
		closed + "it denies everything until the API server has shown them", closed + "it denies whatever goes to its ports until the API server has shown them"
	web := `subject: {pods: {namespaceSelector: {matchLabels: {name: team-a}}, podSelector: {}}}`
	c, b := `{namespaces: {matchLabels: {name: team-c}}}`, `{namespaces: {matchLabels: {name: team-b}}}`
	for _, tt := range []struct {
		name    string
		object  Object
		rules   []string
		problem string // field, and what is said
	}{
		{"accepts pods of a namespace that is known", networkPolicy(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {name: team-b}}}]}]}`),
			[]string{"Accept pods"}, ""},
		{"accepts pods of its own namespace", networkPolicy(`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`), []string{"Accept pods"}, ""},
		{"accepts blocks", networkPolicy(`{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}], policyTypes: [Egress]}`), []string{"Accept blocks"}, ""},
		{"accepts pods of all namespaces", networkPolicy(`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {from: [{namespaceSelector: {}}]}]}`),
			[]string{"Accept pods", "Accept pods in doubt"}, "spec.ingress[1].from: " + none},
		{"accepts a port by its name, anywhere", networkPolicy(`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`),
			[]string{"Accept any named in doubt"}, "spec.egress[0]: " + none},
		{"accepts a port by its name, of pods that are known", networkPolicy(`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}`),
			[]string{"Accept any named"}, ""},
		{"accepts at a port of its own pods by its name", networkPolicy(`{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}]}]}`),
			[]string{"Accept pods named"}, ""},
		{"is about no pod of the node", networkPolicy(`{podSelector: {matchLabels: {no: pod}}, ingress: [{from: [{namespaceSelector: {}}]}]}`), nil, ""},

		{"denies pods", clusterPolicy(`{tier: Admin, ` + web + `, ingress: [{action: Deny, from: [` + c + `]}]}`),
			[]string{"Deny pods", "Deny any in doubt"}, "spec.ingress[0].from: " + all},
		{"denies pods that are known", clusterPolicy(`{tier: Admin, ` + web + `, ingress: [{action: Deny, from: [` + b + `]}]}`), []string{"Deny pods"}, ""},
		{"denies pods and blocks a port", clusterPolicy(`{tier: Admin, ` + web + `, egress: [{action: Deny, to: [` + c + `, {networks: [10.9.0.0/16]}], protocols: [{tcp: {destinationPort: {number: 22}}}]}]}`),
			[]string{"Deny blocks tcp/22", "Deny pods tcp/22", "Deny any tcp/22 in doubt"}, "spec.egress[0].to: " + ports},
		{"denies pods a port by its name", clusterPolicy(`{tier: Admin, ` + web + `, egress: [{action: Deny, to: [` + c + `], protocols: [{destinationNamedPort: http}]}]}`),
			[]string{"Deny any named", "Deny any in doubt"}, "spec.egress[0].to: " + all},
		{"passes pods, and denies others", clusterPolicy(`{tier: Baseline, ` + web + `, ingress: [{action: Pass, from: [` + c + `]}, {action: Deny, from: [` + b + `]}]}`),
			[]string{"Pass pods in doubt", "Deny any in doubt", "Deny pods"}, "spec.ingress[0].from: " + all},
		{"accepts pods, and denies others", clusterPolicy(`{tier: Admin, ` + web + `, ingress: [{action: Accept, from: [` + c + `]}, {action: Deny, from: [` + b + `]}]}`),
			[]string{"Accept pods in doubt", "Deny pods"}, "spec.ingress[0].from: " + none},
		{"denies nodes", clusterPolicy(`{tier: Admin, ` + web + `, ingress: [{action: Deny, from: [{nodes: {}}]}]}`), []string{"Deny pods"}, ""},

		{"isolates tenants", isolation(`{namespaceSelector: {}, tenantLabel: tenant, directions: [Ingress], allow: {dns: false}}`),
			[]string{"Accept pods in doubt"}, "spec.allow.sameTenant: " + none},
		{"isolates namespaces", isolation(`{namespaceSelector: {}, directions: [Ingress], allow: {dns: false}}`), []string{"Accept pods"}, ""},
		{"is in the dry run", clusterPolicy(`{tier: Admin, mode: Audit, ` + web + `, ingress: [{action: Deny, from: [` + c + `]}]}`),
			[]string{"Deny pods", "Deny any in doubt"}, "spec.ingress[0].from: " + all},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node, problems := Compile(teams().with(tt.object))
			if diff := cmp.Diff(tt.rules, ruleTexts(node)); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
			var want, got []string
			if tt.problem != "" {
				want = append(want, Understand(tt.object).Ref().String()+": "+tt.problem)
			}
			for _, p := range problems {
				if got = append(got, p.String()); !p.Unknown || !p.Here || p.TooLarge {
					t.Errorf("a problem of another kind: %+v", p)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			inDoubt := tt.problem != "" && !strings.Contains(tt.name, "dry run")
			if (len(node.Concerns.InDoubt) > 0) != inDoubt || (node.Held.Len() > 0) != (tt.problem != "") {
				t.Errorf("in doubt are %v, and held %d addresses", node.Concerns.InDoubt, node.Held.Len())
			}
		})
	}
}

// What was in doubt is as ever once its pods are known, by the same compiler, and what is not in doubt stays what it was.
func TestDoubtsEnd(t *testing.T) {
	s := teams().with(networkPolicy(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`))
	before := s
	before.Elsewhere = Elsewhere{}
	var k Compiler
	sure, _ := k.Compile(before)
	doubtful, problems := k.Compile(s)
	again, _ := k.Compile(s)
	if len(problems) != 1 || !doubtful.IsInDoubt() {
		t.Fatalf("not what this test is about: %v", problems)
	}
	if !policy.IsOneSlice(doubtful.Policies, again.Policies) || !doubtful.Held.IsOne(again.Held) {
		t.Error("what is in doubt is made again, though nothing has changed")
	}
	s.Elsewhere.Unknown = []string{"team-c", "team-d"} // of which nobody knows a label
	if other, problems := k.Compile(s); len(problems) != 1 || !policy.IsOneSlice(doubtful.Policies[0].Rules[0], other.Policies[0].Rules[0]) {
		t.Errorf("another namespace that is not known changes rules that it says nothing about: %v", problems)
	}
	s.Elsewhere = Elsewhere{Partial: true}
	known, problems := k.Compile(s)
	if diff := cmp.Diff(ruleTexts(sure), ruleTexts(known)); diff != "" || len(problems) > 0 || known.IsInDoubt() || len(known.Concerns.InDoubt) > 0 {
		t.Errorf("once all is known there are %v, and rules (-before +after):\n%s", problems, diff)
	}
}

// A policy with very many rules that are in doubt has some of them named.
func TestManyDoubtsAreCounted(t *testing.T) {
	text := `{podSelector: {}, ingress: [` + strings.Repeat(`{from: [{namespaceSelector: {}}]},`, 500) + `]}`
	_, problems := Compile(teams().with(networkPolicy(text)))
	if last := problems[len(problems)-1]; len(problems) != maxProblems+1 || last.Detail != "so it is with 468 more rules" {
		t.Errorf("%d problems, the last is %s", len(problems), last)
	}
	s := teams()
	s.Elsewhere.Unknown = []string{"team-b", "team-c"}
	_, problems = Compile(s.with(networkPolicy(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`)))
	if len(problems) != 1 || !strings.HasPrefix(problems[0].Detail, "the pods of namespace team-b and of 1 more are not known") {
		t.Errorf("problems of two namespaces: %v", problems)
	}
}
