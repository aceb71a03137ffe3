package ladder

import (
	"encoding/json"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/lab/oracle"
)

// The kinds of objects, as FuzzObjects numbers them.
const (
	aNetworkPolicy = iota
	aClusterPolicy
	anIsolation
	kindsOfObjects
)

// arbitrary adds an object to a cluster whose spec is whatever JSON says, whether the API server would take it or not. It reports whether it can be one that
// opens something: whether it has rules that allow.
func arbitrary(kind byte, spec []byte, c *oracle.Cluster) (mayOpen bool, err error) {
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "arbitrary", UID: "arbitrary"}
	switch kind % kindsOfObjects {
	case aNetworkPolicy:
		p := &networkingv1.NetworkPolicy{ObjectMeta: meta}
		err = json.Unmarshal(spec, &p.Spec)
		c.Policies = append(slices.Clone(c.Policies), p)
		return len(p.Spec.Ingress)+len(p.Spec.Egress) > 0, err
	case aClusterPolicy:
		meta.Namespace = ""
		p := &v1alpha1.ClusterNetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterNetworkPolicy"}, ObjectMeta: meta}
		err = json.Unmarshal(spec, &p.Spec)
		c.ClusterPolicies = append(slices.Clone(c.ClusterPolicies), p)
		return slices.ContainsFunc(p.Spec.Ingress, func(r v1alpha1.IngressRule) bool { return r.Action == v1alpha1.Accept }) ||
			slices.ContainsFunc(p.Spec.Egress, func(r v1alpha1.EgressRule) bool { return r.Action == v1alpha1.Accept }), err
	}
	meta.Namespace = ""
	p := &v1alpha1.NamespaceIsolation{ObjectMeta: meta}
	err = json.Unmarshal(spec, &p.Spec)
	c.Isolations = append(slices.Clone(c.Isolations), p)
	return false, err // what it allows it does not deny itself, and no more
}

// FuzzObjects: an object of any text, beside good ones. Compiling it ends, twice with the same result; the judges agree about what is left of it; and an object
// without a rule that allows opens nothing, understood or not.
func FuzzObjects(f *testing.F) {
	for _, seed := range []struct {
		kind byte
		yaml string
	}{
		{aNetworkPolicy, `{podSelector: {}, policyTypes: [Sideways], ingress: [{}], egress: [{}]}`},
		{aNetworkPolicy, `{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}, policyTypes: [Ingress]}`},
		{aNetworkPolicy, `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.2/32, x]}}], ports: [{port: http}]}]}`},
		{aNetworkPolicy, `{podSelector: {}, egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}], ports: [{port: 80, endPort: 81, protocol: SCTP}]}]}`},
		{aClusterPolicy, `{tier: Admin, priority: 10, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{pods: {}}]}]}`},
		{aClusterPolicy, `{tier: Baseline, priority: 0, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}, egress: [{action: Pass, to: [{networks: ["0.0.0.0/0", "::/0"]}]}]}`},
		{aClusterPolicy, `{tier: Royal, priority: -1, subject: {}, ingress: [{action: Shrug, from: [{}]}], mode: Loud}`},
		{aClusterPolicy, `{tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.1]}], protocols: [{tcp: {destinationPort: {number: 443}}}, {}]}]}`},
		{anIsolation, `{namespaceSelector: {}, tier: Admin, allow: {sameTenant: true, dns: true}}`},
		{anIsolation, `{namespaceSelector: {matchLabels: {team: shop}}, tenantLabel: team, tier: Baseline, directions: [Ingress], allow: {ingress: [{from: [{networks: [10.0.0.0/8]}]}]}}`},
		{anIsolation, `{namespaceSelector: {matchExpressions: [{key: team, operator: Is}]}, tier: Nowhere, mode: Quiet, directions: [Sideways]}`},
	} {
		text, err := yaml.YAMLToJSON([]byte(seed.yaml))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed.kind, text)
	}
	f.Fuzz(func(t *testing.T, kind byte, spec []byte) {
		clean, all := smallShop()
		var flows []oracle.Flow
		for i := int(kind) % 11; i < len(all); i += 11 { // 19 flows between two addresses: each pair has some, and each kind of flow comes up
			flows = append(flows, all[i])
		}
		soiled := clean
		mayOpen, err := arbitrary(kind, spec, &soiled.Cluster)
		if err != nil {
			return // no API server sends what is not of the type
		}
		for _, node := range clean.Nodes {
			before, _ := compile.Compile(Snapshot(clean.Cluster, node.Name))
			after, problems := compile.Compile(Snapshot(soiled.Cluster, node.Name))
			if _, again := compile.Compile(Snapshot(soiled.Cluster, node.Name)); !slices.Equal(problems, again) {
				t.Errorf("problems are %v, and the second time %v", problems, again)
			}
			once, twice := Rendered(soiled.Cluster, node.Name).String(), Rendered(soiled.Cluster, node.Name).String()
			if once != twice {
				t.Error("what is rendered differs from time to time")
			}
			for _, flow := range flows {
				was, is := before.Allows(PolicyFlow(flow, node.Name)), after.Allows(PolicyFlow(flow, node.Name))
				if !mayOpen && !was.Allowed && is.Allowed {
					t.Fatalf("%s at %s was denied (%s), and is allowed now: %s", flow, node.Name, was.Reason, is.Reason)
				}
			}
		}
		if _, err := compareJudges(soiled, flows); err != nil {
			t.Fatal(err)
		}
	})
}
