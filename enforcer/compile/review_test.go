package compile

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func networkPolicy(spec string) Object {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "web"}}
	parseSpec(spec, &np.Spec)
	return Object{NetworkPolicy: np}
}

func clusterPolicy(spec string) Object { return clusterPolicyOf("web", 50, spec) }

func clusterPolicyOf(name string, created int64, spec string) Object {
	cnp := &v1alpha1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(created, 0)}}
	parseSpec(spec, &cnp.Spec)
	return Object{ClusterNetworkPolicy: cnp}
}

func sigPolicy(name string, created int64, spec string) Object {
	o := clusterPolicyOf(name, created, spec)
	o.ClusterNetworkPolicy.APIVersion = "policy.networking.k8s.io/v1beta1"
	return o
}

func isolation(spec string) Object {
	ni := &v1alpha1.NamespaceIsolation{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}}
	parseSpec(spec, &ni.Spec)
	return Object{NamespaceIsolation: ni}
}

func parseSpec(text string, spec any) {
	if err := yaml.UnmarshalStrict([]byte(text), spec); err != nil {
		panic(err)
	}
}

// view is a cluster of two teams, beside some ClusterNetworkPolicies.
func view(clusterPolicies ...Object) View {
	pod := func(ns, name, addr string, change func(*Pod)) *Pod {
		p := &Pod{Namespace: ns, Name: name, Labels: NewLabels(map[string]string{"app": name}), Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
		change(p)
		return p
	}
	pods := []*Pod{
		pod("team-a", "web", "10.0.0.1", func(p *Pod) { p.Ports = []NamedPort{{"http", policy.TCP, 8080}} }),
		pod("team-a", "db", "10.0.0.2", func(p *Pod) { p.Ports = []NamedPort{{"sql", policy.TCP, 5432}} }),
		pod("team-b", "api", "10.0.1.1", func(p *Pod) { p.Ports = []NamedPort{{"https", policy.TCP, 443}, {"dns", policy.UDP, 53}} }),
		pod("team-b", "agent", "192.168.0.1", func(p *Pod) { p.HostNetwork, p.Ports = true, []NamedPort{{"metrics", policy.TCP, 9100}} }),
		pod("team-b", "job", "10.0.1.2", func(p *Pod) { p.Finished = true }),
	}
	v := View{Namespaces: map[string]*Namespace{
		"team-a": {Name: "team-a", Labels: NewLabels(map[string]string{"team": "a"})},
		"team-b": {Name: "team-b", Labels: NewLabels(map[string]string{"team": "b"}), Mode: "Adit"},
		"empty":  {Name: "empty", Labels: NewLabels(map[string]string{"team": "c"})},
	}}
	v.Pods = func(namespace string) []*Pod {
		var of []*Pod
		for _, p := range pods {
			if p.Namespace == namespace {
				of = append(of, p)
			}
		}
		return of
	}
	for _, o := range clusterPolicies {
		v.ClusterPolicies = append(v.ClusterPolicies, Understand(o))
	}
	return v
}

func TestReview(t *testing.T) {
	inTeamB := networkPolicy(`{podSelector: {}}`)
	inTeamB.NetworkPolicy.Namespace = "team-b"
	asked := networkPolicy(`{podSelector: {}}`)
	asked.NetworkPolicy.Namespace = "team-b"
	asked.NetworkPolicy.Annotations = map[string]string{v1alpha1.ModeAnnotation: "Audit"}
	for _, c := range []struct {
		name   string
		object Object
		want   []Remark
	}{
		{"nothing to say", networkPolicy(`{podSelector: {}, ingress: [{ports: [{port: http}]}]}`), nil},

		{"what is not understood has the words of the problem", networkPolicy(`{podSelector: {}, policyTypes: [Both]}`), []Remark{
			{v1alpha1.NotUnderstoodReason, "spec.policyTypes[0]", `"Both" is not known: the policy isolates in both directions; write Ingress or Egress`}}},
		{"a mode of the namespace that is not known", inTeamB, []Remark{
			{v1alpha1.NotUnderstoodReason, "metadata.annotations[policy.ringfence.io/mode] of the namespace",
				`"Adit" is not known: the policy is enforced; write Enforce or Audit`}}},
		{"and one that the policy overrides", asked, nil},

		{"no pod matches", networkPolicy(`{podSelector: {matchLabels: {app: none}}}`), []Remark{
			{v1alpha1.SelectsNothingReason, "spec.podSelector",
				"no pod that runs in the namespace matches: nothing is enforced until one does; if there should be one, compare its labels"}}},
		{"no pod is there", clusterPolicy(`{subject: {namespaces: {matchLabels: {team: c}}}, tier: Admin, priority: 5}`), []Remark{
			{v1alpha1.SelectsNothingReason, "spec.subject",
				"no pod that runs matches: nothing is enforced until one does; if there should be one, compare its labels"}}},
		{"no namespace matches", isolation(`{namespaceSelector: {matchLabels: {team: z}}}`), []Remark{
			{v1alpha1.SelectsNothingReason, "spec.namespaceSelector",
				"no namespace matches: nothing is enforced until one does; if there should be one, compare its labels"}}},
		{"a pod that is on the host network", clusterPolicy(`{subject: {pods: {podSelector: {matchLabels: {app: agent}}}}, tier: Admin, priority: 5}`), []Remark{
			{v1alpha1.SelectsNothingReason, "spec.subject",
				"the pods that match are on the host network, where no policy holds: nothing is enforced"}}},
		{"a pod that is finished", clusterPolicy(`{subject: {pods: {podSelector: {matchLabels: {app: job}}}}, tier: Admin, priority: 5}`), []Remark{
			{v1alpha1.SelectsNothingReason, "spec.subject",
				"no pod that runs matches: nothing is enforced until one does; if there should be one, compare its labels"}}},

		{"several, the worst first", networkPolicy(`{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], egress: [{}],
			ingress: [{ports: [{port: sql}]}, {from: [{}]}]}`), []Remark{
			{v1alpha1.NotUnderstoodReason, "spec.ingress[1].from[0]",
				"the peer is empty and matches nothing; write podSelector, namespaceSelector or ipBlock"},
			{v1alpha1.NeverMatchesReason, "spec.egress",
				"Egress is not among policyTypes: these rules are never asked, and the policy leaves egress as it is; add it there, or remove the rules"},
			{v1alpha1.UnknownPortReason, "spec.ingress[0].ports[0].port",
				`no pod that is selected has a TCP port of the name "sql": the name matches nothing; write the name of one of their container ports, or its number`}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Understand(c.object).Review(view(c.object))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReviewNamesPortsThatNobodyHas(t *testing.T) {
	const other = "write the name of one of their container ports, or its number"
	ingress := func(ports string) Object {
		return networkPolicy(`{podSelector: {}, ingress: [{ports: [` + ports + `]}]}`)
	}
	egress := func(to, port string) Object {
		return networkPolicy(`{podSelector: {}, egress: [{to: [` + to + `], ports: [{port: ` + port + `}]}]}`)
	}
	at := func(field, detail string) []Remark { return []Remark{{v1alpha1.UnknownPortReason, field, detail}} }
	for _, c := range []struct {
		name   string
		object Object
		want   []Remark
	}{
		{"to the selected pods, where another pod has it", ingress(`{port: 80}, {port: https}, {port: https}`), at("spec.ingress[0].ports[1].port",
			`no pod that is selected has a TCP port of the name "https": the name matches nothing; `+other)},
		{"to the selected pods, of which one has it", ingress(`{port: sql}`), nil},
		{"of another protocol", ingress(`{port: http, protocol: UDP}`), at("spec.ingress[0].ports[0].port",
			`no pod that is selected has a UDP port of the name "http": the name matches nothing; they have it for TCP: write that protocol`)},
		{"nobody is selected", networkPolicy(`{podSelector: {matchLabels: {app: none}}, ingress: [{ports: [{port: htp}]}]}`), []Remark{
			{v1alpha1.SelectsNothingReason, "spec.podSelector",
				"no pod that runs in the namespace matches: nothing is enforced until one does; if there should be one, compare its labels"}}},
		{"from them to selected peers", egress(`{podSelector: {}}`, "https"), at("spec.egress[0].ports[0].port",
			`no pod that the rule leads to has a TCP port of the name "https": the name matches nothing; `+other)},
		{"from them to selected peers, of which one has it", egress(`{podSelector: {}}, {namespaceSelector: {}}`, "https"), nil},
		{"from them to selected peers that do not exist", egress(`{podSelector: {matchLabels: {app: none}}}`, "https"), nil},
		{"from them to a block", egress(`{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.1.0/24]}}`, "https"), at("spec.egress[0].ports[0].port",
			`no pod that the rule leads to has a TCP port of the name "https": the name matches nothing; `+other)},
		{"from them to a block in which a pod has it", egress(`{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.0.0/24]}}`, "https"), nil},
		{"from them to a block without pods", egress(`{ipBlock: {cidr: 172.16.0.0/12}}`, "https"), nil},
		{"from them to anywhere", egress("", "https"), nil},
		{"from them to anywhere, where only the host network has it", egress("", "metrics"), at("spec.egress[0].ports[0].port",
			`no pod that the rule leads to has a TCP port of the name "metrics": the name matches nothing; `+other)},
		{"of any protocol", clusterPolicy(`{subject: {namespaces: {}}, tier: Admin, priority: 5,
			ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: dns}, {destinationNamedPort: metrics}]}]}`),
			at("spec.ingress[0].protocols[1].destinationNamedPort", `no pod that is selected has a port of the name "metrics": the name matches nothing; `+other)},
		{"of an isolation", isolation(`{namespaceSelector: {}, allow: {ingress: [{from: [{nodes: {}}], protocols: [{destinationNamedPort: metrics}]}]}}`),
			at("spec.allow.ingress[0].protocols[0].destinationNamedPort",
				`no pod that is selected has a port of the name "metrics": the name matches nothing; `+other)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Understand(c.object).Review(view())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReviewNamesConflicts(t *testing.T) {
	const onEveryPod = `{subject: {namespaces: {}}, tier: Admin, priority: 5, ingress: [{action: Accept, from: [{namespaces: {}}]}]}`
	web := clusterPolicy(onEveryPod)
	with := func(details ...string) []Remark {
		var remarks []Remark
		for _, detail := range details {
			remarks = append(remarks, Remark{v1alpha1.ConflictingReason, "spec.priority", detail})
		}
		return remarks
	}
	text := func(who, pod, first string) string {
		return who + " has the same tier and priority, and both select the pod " + pod + ": " + first + "; give them different priorities"
	}
	for _, c := range []struct {
		name   string
		beside []Object
		want   []Remark
	}{
		{"itself", nil, nil},
		{"an older one", []Object{clusterPolicyOf("z", 10, onEveryPod)}, with(
			text("ClusterNetworkPolicy z", "team-a/db", "it is asked first, as it is older"))},
		{"a newer one", []Object{clusterPolicyOf("a", 60, onEveryPod)}, with(
			text("ClusterNetworkPolicy a", "team-a/db", "this one is asked first, as it is older"))},
		{"one of the same age", []Object{clusterPolicyOf("a", 50, onEveryPod)}, with(
			text("ClusterNetworkPolicy a", "team-a/db", "it is asked first, by its name"))},
		{"the SIG's of the same age and name", []Object{sigPolicy("web", 50, onEveryPod)}, with(
			text("ClusterNetworkPolicy.policy.networking.k8s.io web", "team-a/db", "this one is asked first, as it is of our kind"))},
		{"one for some of the pods", []Object{clusterPolicyOf("z", 10, `{subject: {namespaces: {matchLabels: {team: b}}}, tier: Admin, priority: 5,
			ingress: [{action: Deny, from: [{namespaces: {}}]}]}`)}, with(
			text("ClusterNetworkPolicy z", "team-b/api", "it is asked first, as it is older"))},
		{"one for a pod that policy does not see", []Object{clusterPolicyOf("z", 10, `{subject: {pods: {podSelector: {matchLabels: {app: agent}}}},
			tier: Admin, priority: 5, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`)}, nil},
		{"another priority", []Object{clusterPolicyOf("z", 10, `{subject: {namespaces: {}}, tier: Admin, priority: 6,
			ingress: [{action: Accept, from: [{namespaces: {}}]}]}`)}, nil},
		{"another tier", []Object{clusterPolicyOf("z", 10, `{subject: {namespaces: {}}, tier: Baseline, priority: 5,
			ingress: [{action: Accept, from: [{namespaces: {}}]}]}`)}, nil},
		{"the other direction", []Object{clusterPolicyOf("z", 10, `{subject: {namespaces: {}}, tier: Admin, priority: 5,
			egress: [{action: Accept, to: [{namespaces: {}}]}]}`)}, nil},
		{"more than a message has room for", []Object{clusterPolicyOf("e", 60, onEveryPod), clusterPolicyOf("d", 60, onEveryPod),
			clusterPolicyOf("c", 60, onEveryPod), clusterPolicyOf("b", 20, onEveryPod), clusterPolicyOf("a", 50, onEveryPod)}, with(
			text("ClusterNetworkPolicy b", "team-a/db", "it is asked first, as it is older"),
			text("ClusterNetworkPolicy a", "team-a/db", "it is asked first, by its name"),
			text("ClusterNetworkPolicy c", "team-a/db", "this one is asked first, as it is older"),
			"so it is with 2 more; give them different priorities")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Understand(web).Review(view(append(c.beside, web)...))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
