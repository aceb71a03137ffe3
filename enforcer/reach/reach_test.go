package reach_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/enforcer/reach"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/ladder"
)

// known is a snapshot with the pods alone that a node has to know.
func known(s compile.Snapshot, f *reach.Finder) compile.Snapshot {
	reached := f.Of(s)
	for p := range s.Remote.All() {
		if !slices.Contains(reached, p.Namespace) {
			s.Remote = s.Remote.Without(p.Namespace, p.Name)
		}
	}
	return s
}

// What a node enforces follows from its own pods and those that are reached, in random clusters. Only remarks about pods of other nodes may be missing.
func TestWhatIsReachedIsEnough(t *testing.T) {
	left, endpoints := 0, 0
	for seed := range uint64(1000) {
		c := gen.New(gen.Seed(seed), gen.Options{Tiers: seed%2 == 0, Invalid: seed%3 == 0, Closed: seed%5 == 0})
		for _, n := range c.Nodes {
			all := ladder.Uncontested(ladder.Snapshot(c.Cluster, n.Name))
			some := known(all, new(reach.Finder))
			want, _ := compile.Compile(all)
			got, _ := compile.Compile(some)
			left += all.Remote.Len() - some.Remote.Len()
			endpoints += len(want.Endpoints)
			if diff := cmp.Diff(enforced(want), enforced(got)); diff != "" {
				t.Fatalf("seed %d, node %s: with the pods of %v alone (-all +known):\n%s", seed, n.Name, reach.Of(all), diff)
			}
		}
	}
	t.Logf("%d pods were not known, %d endpoints policed", left, endpoints)
	if left < 1000 || endpoints < 2000 {
		t.Error("too little of the cluster was unknown, or policed, for this to mean anything")
	}
}

// enforced is the text of what a node enforces, and what it reports of its pods.
func enforced(n policy.Node) []string {
	return append(strings.Split(iptables.Render(n, ladder.Options).String(), "\n"), fmt.Sprint(n.Concerns.Objects, n.Concerns.Pods, n.Concerns.Addrs))
}

func TestOf(t *testing.T) {
	labels := func(pairs ...string) compile.Labels {
		var l compile.Labels
		for i := 0; i < len(pairs); i += 2 {
			l = append(l, compile.Label{Key: pairs[i], Value: pairs[i+1]})
		}
		return l
	}
	selector := func(key, value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	ours := func(key, value string) *v1alpha1.LabelSelector {
		return &v1alpha1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	anyPod := &metav1.LabelSelector{}
	cluster := compile.Snapshot{
		Node: "here",
		Namespaces: compile.ObjectsOf(
			&compile.Namespace{Name: "bank", Labels: labels("tenant", "b")}, &compile.Namespace{Name: "dns"}, &compile.Namespace{Name: "host"},
			&compile.Namespace{Name: "shop", Labels: labels("tenant", "a", "kind", "web")},
			&compile.Namespace{Name: "shop-test", Labels: labels("tenant", "a")},
		),
		DNS: compile.DNS{Services: []*corev1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "dns"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "dns"}},
		}}},
	}.WithPods(
		&compile.Pod{Namespace: "shop", Node: "here"}, &compile.Pod{Namespace: "host", Node: "here", HostNetwork: true},
		&compile.Pod{Namespace: "bank", Node: "there"},
	)
	everywhere := []string{"bank", "dns", "host", "shop", "shop-test"}
	from := func(namespace string, peers ...networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace},
			Spec:       networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: peers}}},
		}
	}
	to := func(port intstr.IntOrString, peers ...networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop"},
			Spec: networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{
				To: peers, Ports: []networkingv1.NetworkPolicyPort{{Port: &port}},
			}}},
		}
	}
	block := networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24"}}
	wide := func(subject v1alpha1.Subject, peers ...v1alpha1.Peer) *v1alpha1.ClusterNetworkPolicy {
		return &v1alpha1.ClusterNetworkPolicy{Spec: v1alpha1.ClusterNetworkPolicySpec{
			Tier: v1alpha1.AdminTier, Subject: subject, Egress: []v1alpha1.EgressRule{{Action: v1alpha1.Deny, To: peers}},
		}}
	}
	for _, row := range []struct {
		name      string
		policy    *networkingv1.NetworkPolicy
		wide      *v1alpha1.ClusterNetworkPolicy
		isolation *v1alpha1.NamespaceIsolation
		want      []string
	}{
		{name: "no policy"},
		{name: "pods of the policy's own namespace", policy: from("shop", networkingv1.NetworkPolicyPeer{PodSelector: anyPod}), want: []string{"shop"}},
		{name: "a policy of a namespace without pods here", policy: from("bank", networkingv1.NetworkPolicyPeer{PodSelector: anyPod})},
		{name: "a policy of a namespace whose pods here are on the host network", policy: from("host", networkingv1.NetworkPolicyPeer{PodSelector: anyPod})},
		{name: "blocks", policy: from("shop", block)},
		{name: "namespaces by their labels", policy: from("shop", networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("tenant", "a")}), want: []string{"shop", "shop-test"}},
		{name: "all namespaces", policy: from("shop", networkingv1.NetworkPolicyPeer{NamespaceSelector: anyPod, PodSelector: anyPod}), want: everywhere},
		{name: "a number of a port in blocks", policy: to(intstr.FromInt32(80), block)},
		{name: "a name of a port in blocks", policy: to(intstr.FromString("http"), block), want: everywhere},
		{name: "a name of a port anywhere", policy: to(intstr.FromString("http")), want: everywhere},
		{name: "a name of a port of pods", policy: to(intstr.FromString("http"), networkingv1.NetworkPolicyPeer{PodSelector: anyPod}), want: []string{"shop"}},
		{name: "a cluster's policy about pods here", wide: wide(v1alpha1.Subject{Namespaces: ours("kind", "web")}, v1alpha1.Peer{Namespaces: ours("tenant", "b")}), want: []string{"bank"}},
		{name: "a cluster's policy about pods elsewhere", wide: wide(v1alpha1.Subject{Namespaces: ours("tenant", "b")}, v1alpha1.Peer{Namespaces: ours("tenant", "b")})},
		{name: "a cluster's policy whose subject cannot be understood", wide: wide(v1alpha1.Subject{}, v1alpha1.Peer{Namespaces: ours("tenant", "b")}), want: []string{"bank"}},
		{name: "an isolation by tenants", isolation: &v1alpha1.NamespaceIsolation{Spec: v1alpha1.NamespaceIsolationSpec{TenantLabel: "tenant"}}, want: []string{"dns", "shop", "shop-test"}},
		{name: "an isolation of others", isolation: &v1alpha1.NamespaceIsolation{Spec: v1alpha1.NamespaceIsolationSpec{NamespaceSelector: *ours("tenant", "b")}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := cluster
			if row.policy != nil {
				s.Policies = s.Policies.With(row.policy)
			}
			if row.wide != nil {
				s.ClusterPolicies = append(s.ClusterPolicies, row.wide)
			}
			if row.isolation != nil {
				s.Isolations = append(s.Isolations, row.isolation)
			}
			if diff := cmp.Diff(row.want, reach.Of(s)); diff != "" {
				t.Errorf("namespaces (-want +got):\n%s", diff)
			}
		})
	}
}

// A finder that has seen other snapshots finds what a new one does.
func TestWhatWasFoundBeforeDoesNotCount(t *testing.T) {
	var f reach.Finder
	for seed := range uint64(100) {
		options := gen.Options{Tiers: true}
		a, b := gen.New(gen.Seed(seed), options), gen.New(gen.Seed(seed+1000), options)
		s, other := ladder.Snapshot(a.Cluster, a.Nodes[0].Name), ladder.Snapshot(b.Cluster, a.Nodes[0].Name)
		for _, change := range []func(){
			func() {},
			func() { s.Remote = other.Remote },
			func() { s.Local = nil },
			func() { s.Local = other.Local },
			func() { s.Namespaces = other.Namespaces },
			func() { s.Policies = other.Policies },
			func() { s.ClusterPolicies = other.ClusterPolicies },
			func() { s.Isolations = other.Isolations },
			func() { s.DNS.Services = other.DNS.Services },
		} {
			change()
			if diff := cmp.Diff(reach.Of(s), f.Of(s)); diff != "" {
				t.Fatalf("seed %d: (-new finder +old finder):\n%s", seed, diff)
			}
		}
	}
}
