// Package bench measures what enforcement costs. Figures are compared within one run, or by benchstat between commits: machines
// differ, ratios do not.
package bench

import (
	"fmt"
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// cluster is a snapshot of pods in namespaces of 100, each with ten applications of ten pods, of which the first pod in each
// hundred runs here; every application may be reached by the next one, and the namespace by its neighbour.
func cluster(pods, policies int) compile.Snapshot {
	s := compile.Snapshot{Node: "here"}
	var shared compile.Interner
	var all []*compile.Pod
	for i := range pods {
		ns, app := fmt.Sprintf("team-%d", i/100), fmt.Sprintf("app-%d", i/10%10)
		if i%100 == 0 {
			s.Namespaces = s.Namespaces.With(&compile.Namespace{Name: ns, Labels: compile.NewLabels(map[string]string{
				"kubernetes.io/metadata.name": ns, "team": fmt.Sprint(i / 100)})})
		}
		node := "elsewhere"
		if i < 110 {
			node = "here"
		}
		all = append(all, &compile.Pod{
			Namespace: ns, Name: fmt.Sprintf("%s-%d", app, i), UID: fmt.Sprint(i), Node: node,
			Labels: shared.Labels(compile.NewLabels(map[string]string{"app": app, "pod-template-hash": fmt.Sprint(i / 10), "tier": "web"})),
			Addrs:  []netip.Addr{netip.AddrFrom4([4]byte{10, 200 + byte(i>>16), byte(i >> 8), byte(i)})},
			Ports:  []compile.NamedPort{{Name: "http", Protocol: policy.TCP, Port: 8080}},
		})
	}
	for i := range policies {
		ns := fmt.Sprintf("team-%d", i/10%max(1, min(pods/100, 2)))
		s.Policies = s.Policies.With(networkPolicy(ns, fmt.Sprintf("p-%d", i), i))
	}
	return s.WithPods(all...)
}

func networkPolicy(ns, name string, i int) *networkingv1.NetworkPolicy {
	port := intstr.FromInt32(int32(8000 + i))
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", i%10)}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{
					{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", (i+1)%10)}}},
					{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprint(i % 50)}}},
				},
				Ports: []networkingv1.NetworkPolicyPort{{Port: &port}},
			}},
		},
	}
}

func BenchmarkCompileRenderDiff(b *testing.B) {
	for _, size := range []struct{ pods, policies int }{{1000, 100}, {10000, 100}, {10000, 1000}, {15000, 1000}} {
		b.Run(fmt.Sprintf("pods=%d/policies=%d", size.pods, size.policies), func(b *testing.B) {
			s := cluster(size.pods, size.policies)
			o := iptables.Options{Families: []iptables.Family{iptables.IPv4, iptables.IPv6}, Table: "security", SelfMatch: true}
			node, _ := compile.Compile(s)
			have := iptables.Render(node, o)
			b.ReportAllocs()
			for b.Loop() {
				node, _ := compile.Compile(s)
				if !iptables.Diff(iptables.Render(node, o), have).Empty() {
					b.Fatal("equal snapshots made different rulesets")
				}
			}
		})
	}
}
