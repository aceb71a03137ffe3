package compile

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

func TestRulesThatNeverMatch(t *testing.T) {
	never := func(field, detail string) []Remark { return []Remark{{v1alpha1.NeverMatchesReason, field, detail}} }
	nothing := func(field, why string) []Remark {
		return never(field, "the rule matches nothing: "+why+"; mend it, or remove the rule")
	}
	from := func(peers string) Object {
		return networkPolicy(`{podSelector: {}, ingress: [{}, {from: [` + peers + `]}]}`)
	}
	app := func(requirements string) string { return `{podSelector: {matchExpressions: [` + requirements + `]}}` }
	for _, c := range []struct {
		name   string
		object Object
		want   []Remark
	}{
		{"a key that is there and is not", from(app(`{key: app, operator: Exists}, {key: app, operator: DoesNotExist}`)),
			nothing("spec.ingress[1].from", `no labels satisfy "!app,app"`)},
		{"a value, and no key", from(app(`{key: app, operator: In, values: [a]}, {key: app, operator: DoesNotExist}`)),
			nothing("spec.ingress[1].from", `no labels satisfy "!app,app in (a)"`)},
		{"two values", from(`{podSelector: {matchLabels: {app: a}, matchExpressions: [{key: app, operator: In, values: [b, c]}]}}`),
			nothing("spec.ingress[1].from", `no labels satisfy "app in (b,c),app=a"`)},
		{"all values excluded", from(app(`{key: app, operator: In, values: [a, b]}, {key: app, operator: NotIn, values: [b, a, c]}`)),
			nothing("spec.ingress[1].from", `no labels satisfy "app in (a,b),app notin (a,b,c)"`)},
		{"one value excluded", from(app(`{key: app, operator: In, values: [a, b]}, {key: app, operator: NotIn, values: [b]}`)), nil},
		{"no key, and not a value", from(app(`{key: app, operator: DoesNotExist}, {key: app, operator: NotIn, values: [b]}`)), nil},
		{"two keys", from(app(`{key: app, operator: DoesNotExist}, {key: tier, operator: Exists}`)), nil},
		{"in the namespaces", from(`{podSelector: {}, namespaceSelector: {matchExpressions: [{key: a, operator: Exists}, {key: a, operator: DoesNotExist}]}}`),
			nothing("spec.ingress[1].from", `no labels satisfy "!a,a"`)},
		{"beside a peer that can match", from(app(`{key: app, operator: Exists}, {key: app, operator: DoesNotExist}`) + `, {podSelector: {}}`), nil},
		{"a block that its exceptions share out", from(`{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9, 10.128.0.0/9, 10.1.0.0/16]}}`),
			nothing("spec.ingress[1].from", "the exceptions leave nothing of 10.0.0.0/8")},
		{"a block with one address left", from(`{ipBlock: {cidr: 'fd00::/126', except: ['fd00::/127', 'fd00::2/128']}}`), nil},
		{"a block that is a problem already", from(`{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}`), []Remark{
			{v1alpha1.NotUnderstoodReason, "spec.ingress[1].from[0].ipBlock.except[0]", "10.0.0.0/8 leaves nothing of 10.0.0.0/8: the peer matches nothing"}}},
		{"the nodes", clusterPolicy(`{subject: {namespaces: {}}, tier: Admin, priority: 5, egress: [{action: Deny,
			to: [{nodes: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: DoesNotExist}]}}]}]}`),
			nothing("spec.egress[0].to", `no labels satisfy "!a,a=b"`)},
		{"what an isolation allows", isolation(`{namespaceSelector: {}, allow: {egress: [{to: [{namespaces: {matchExpressions: [
			{key: a, operator: Exists}, {key: a, operator: DoesNotExist}]}}]}]}}`),
			nothing("spec.allow.egress[0].to", `no labels satisfy "!a,a"`)},

		{"no subject", networkPolicy(`{podSelector: {matchLabels: {app: a}, matchExpressions: [{key: app, operator: NotIn, values: [a]}]}}`),
			never("spec.podSelector", `no pod can be selected: no labels satisfy "app notin (a),app=a"; mend the selector`)},

		{"egress that is no type", networkPolicy(`{podSelector: {}, policyTypes: [Ingress], egress: [{}]}`), never("spec.egress",
			"Egress is not among policyTypes: these rules are never asked, and the policy leaves egress as it is; add it there, or remove the rules")},
		{"ingress that is no type", networkPolicy(`{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`), never("spec.ingress",
			"Ingress is not among policyTypes: these rules are never asked, and the policy leaves ingress as it is; add it there, or remove the rules")},
		{"egress without types", networkPolicy(`{podSelector: {}, egress: [{}]}`), nil},
		{"egress that is not isolated", isolation(`{namespaceSelector: {}, directions: [Ingress], allow: {egress: [{to: [{namespaces: {}}]}]}}`),
			never("spec.allow.egress",
				"Egress is not among directions: these rules are never asked, and the policy leaves egress as it is; add it there, or remove the rules")},
		{"DNS that is not needed", isolation(`{namespaceSelector: {}, directions: [Ingress], allow: {dns: true}}`), nil},

		{"rules that add up", networkPolicy(`{podSelector: {}, ingress: [{}, {from: [{podSelector: {}}]}]}`), nil},
		{"allowed twice", isolation(`{namespaceSelector: {}, allow: {ingress: [{from: [{namespaces: {}}]}, {from: [{namespaces: {}}]}]}}`), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Understand(c.object).Review(view())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRulesBehindOthers(t *testing.T) {
	const all = `namespaces: {}`
	in := func(labels string) string { return `namespaces: {matchLabels: {` + labels + `}}` }
	pods := func(labels string) string { return `pods: {podSelector: {matchLabels: {` + labels + `}}}` }
	env := func(requirement string) string {
		return `namespaces: {matchExpressions: [{key: env, ` + requirement + `}]}`
	}
	rule := func(peer, protocols string) string {
		r := `action: Accept, to: [{` + peer + `}]`
		if protocols != "" {
			r += `, protocols: [` + protocols + `]`
		}
		return r
	}
	tcp := func(first, last int) string {
		return fmt.Sprintf(`{tcp: {destinationPort: {range: {start: %d, end: %d}}}}`, first, last)
	}
	const named, everyPort = `{destinationNamedPort: web}`, `{tcp: {}}, {udp: {}}, {sctp: {}}`
	for _, c := range []struct {
		name          string
		first, second string
		never         bool
	}{
		{"any peer before pods", rule(`networks: [0.0.0.0/0, '::/0']`, ""), rule(pods("a: b"), ""), true},
		{"any peer before nodes", rule(`networks: [0.0.0.0/0, '::/0']`, ""), rule(`nodes: {}`, ""), true},
		{"one family before pods", rule(`networks: [0.0.0.0/0]`, ""), rule(pods("a: b"), ""), false},
		{"one family before a block of it", rule(`networks: [0.0.0.0/0]`, ""), rule(`networks: [10.0.0.0/8]`, ""), true},
		{"one family before a block of the other", rule(`networks: [0.0.0.0/0]`, ""), rule(`networks: ['fd00::/8']`, ""), false},
		{"a block before a part of it", rule(`networks: [10.0.0.0/8]`, ""), rule(`networks: [10.1.0.0/16, 10.0.0.0/8]`, ""), true},
		{"a part of a block before it", rule(`networks: [10.1.0.0/16]`, ""), rule(`networks: [10.0.0.0/8]`, ""), false},
		{"every pod before pods", rule(all, ""), rule(pods("a: b"), ""), true},
		{"every pod before a namespace", rule(all, ""), rule(in("a: b"), ""), true},
		{"every pod before a block", rule(all, ""), rule(`networks: [10.0.0.0/8]`, ""), false},
		{"every pod before nodes", rule(all, ""), rule(`nodes: {}`, ""), false},
		{"pods before the same", rule(pods("a: b"), ""), rule(pods("a: b"), ""), true},
		{"pods before fewer", rule(pods("a: b"), ""), rule(pods("a: b, c: d"), ""), true},
		{"pods before more", rule(pods("a: b, c: d"), ""), rule(pods("a: b"), ""), false},
		{"pods before their namespaces", rule(pods("a: b"), ""), rule(in("a: b"), ""), false},
		{"some values before one", rule(env("operator: In, values: [a, b]"), ""), rule(in("env: a"), ""), true},
		{"one value before some", rule(in("env: a"), ""), rule(env("operator: In, values: [a, b]"), ""), false},
		{"all but one value before another", rule(env("operator: NotIn, values: [a]"), ""), rule(in("env: b"), ""), true},
		{"all but one value before none", rule(env("operator: NotIn, values: [a]"), ""), rule(env("operator: DoesNotExist"), ""), true},
		{"a key before its value", rule(env("operator: Exists"), ""), rule(in("env: b"), ""), true},
		{"a key before all but one value", rule(env("operator: Exists"), ""), rule(env("operator: NotIn, values: [a]"), ""), false},
		{"all nodes before some", rule(`nodes: {}`, ""), rule(`nodes: {matchLabels: {a: b}}`, ""), true},
		{"some nodes before all", rule(`nodes: {matchLabels: {a: b}}`, ""), rule(`nodes: {}`, ""), false},

		{"all ports before one", rule(all, ""), rule(all, tcp(80, 81)), true},
		{"one port before all", rule(all, tcp(80, 81)), rule(all, ""), false},
		{"a range before a part", rule(all, tcp(80, 90)), rule(all, tcp(85, 90)), true},
		{"a range before what reaches beyond", rule(all, tcp(80, 90)), rule(all, tcp(85, 91)), false},
		{"two ranges before what both make", rule(all, tcp(80, 90)+", "+tcp(91, 99)), rule(all, tcp(85, 95)), true},
		{"a protocol before another", rule(all, `{tcp: {}}`), rule(all, `{udp: {}}`), false},
		{"every port before ICMP", rule(all, everyPort), rule(all, ""), false},
		{"every port before a name", rule(all, everyPort), rule(all, named), true},
		{"every port of a protocol before a name", rule(all, `{tcp: {}}`), rule(all, named), false},
		{"a name before it", rule(all, named), rule(pods("a: b"), named), true},
		{"a name before a port", rule(all, named), rule(all, tcp(80, 81)), false},

		{"what is not understood, before anything", `action: Maybe, to: [{namespaces: {}}]`, rule(all, ""), false},
		{"what is not understood, behind everything", rule(all, ""), `action: Deny, to: [{}]`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			object := clusterPolicy(`{subject: {namespaces: {}}, tier: Admin, priority: 5, egress: [{name: first, ` + c.first + `}, {` + c.second + `}]}`)
			var want, got []Remark
			if c.never {
				want = []Remark{{v1alpha1.NeverMatchesReason, "spec.egress[1]", "the rule is never asked: spec.egress[0] (first) stands before it, " +
					"and matches all that it would; move this one in front of it, or remove it"}}
			}
			for _, r := range Understand(object).Review(view()) {
				if r.Reason == v1alpha1.NeverMatchesReason {
					got = append(got, r)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
