package scenario

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/lab/twin"
)

// large is about names and numbers that come near to the kernel's limits.
var large = []Scenario{{
	Name: "names of 63 and 253 characters",
	Given: func(c *Cluster) {
		n := newNamespace(longNamespace, "team=long")
		c.Namespaces = append(c.Namespaces, n)
		c.Pod("web").Namespace, c.Pod("far").Namespace = longNamespace, longNamespace
	},
	Objects: longNamespace + "/" + longName + "a: {podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: http}]}]}\n" +
		longNamespace + "/" + longName + "b: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 81}]}]}",
	Lines: []string{"far reaches web on tcp/80 tcp/81", "web reaches far on tcp/80 tcp/82", "web does not reach far on tcp/81", "client does not reach web"},
}, {
	Large:   true,
	Name:    "thousands of policies that select nothing",
	Given:   func(c *Cluster) { c.Policies = idlePolicies(3000) },
	Objects: "red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}",
	Lines:   []string{"db reaches web", "client does not reach web", "client reaches db"},
}, {
	Name:    "a hundred policies that select one pod",
	Objects: policiesForWeb(100),
	Lines:   []string{"client reaches web on tcp/80 tcp/81", "client does not reach web on tcp/82 udp/80 icmp"},
}, {
	Large: true,
	Name:  "a policy with 10,000 blocks",
	Given: func(c *Cluster) { c.Policies = []*networkingv1.NetworkPolicy{blockPolicy(c, 10000)} },
	Lines: []string{"10.0.1.5 reaches web", "10.0.2.5 does not reach web", "client does not reach web"},
}, {
	Large:   true,
	Name:    "a set of more than 65,536 addresses",
	Given:   func(c *Cluster) { c.Pods = append(c.Pods, manyPods(c.Family, 66000)...) },
	Objects: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}`,
	Lines:   []string{"db reaches web", "client does not reach web"},
}, {
	Name: "two hundred isolated pods on a node",
	Given: func(c *Cluster) {
		for i := range 200 {
			p := NewPod(fmt.Sprintf("red/more%d", i), "n1", fmt.Sprintf("app=more%d", i%7))
			c.Pods = append(c.Pods, At(p, netip.AddrFrom4([4]byte{10, 244, 1, byte(50 + i)})))
		}
	},
	Objects: `
red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}],
  egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]}
red/q: {podSelector: {matchLabels: {app: more1}}, ingress: [{}]}
red/r: {podSelector: {matchLabels: {app: more2}}, policyTypes: [Egress], egress: [{}]}`,
	Lines: []string{"db reaches web", "web does not reach db", "client does not reach web", "far does not reach web", "client reaches remote"},
}}

var (
	longNamespace = strings.Repeat("n", 63)
	longName      = strings.Repeat("p", 252)
)

func idlePolicies(n int) []*networkingv1.NetworkPolicy {
	all := make([]*networkingv1.NetworkPolicy, n)
	for i := range all {
		all[i] = &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: fmt.Sprintf("idle%d", i)},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("none%d", i)}},
				Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
					PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("peer%d", i)}},
				}}}},
			},
		}
	}
	return all
}

func policiesForWeb(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `red/p%d: {podSelector: {matchLabels: {app: web}}, ingress: [
  {from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: not%d, operator: DoesNotExist}]}}], ports: [{port: %d}]}]}
`, i, i, 80+i%2)
	}
	return b.String()
}

// blockPolicy admits n blocks and 10.0.1.5 to web.
func blockPolicy(c *Cluster, n int) *networkingv1.NetworkPolicy {
	cidrs := []string{"10.0.1.5/32"}
	for i := range n {
		cidrs = append(cidrs, fmt.Sprintf("11.%d.%d.0/24", i/256, i%256))
	}
	np := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "blocks"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Ingress:     make([]networkingv1.NetworkPolicyIngressRule, 1),
		},
	}
	for _, cidr := range cidrs {
		peer := networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: c.translateBlock(cidr)}}
		np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, peer)
	}
	return np
}

// manyPods are pods of another node with the label app=db, and with an address of one family each.
func manyPods(f Family, n int) []*corev1.Pod {
	all := make([]*corev1.Pod, n)
	for i := range all {
		a := netip.AddrFrom4([4]byte{100, byte(64 + i>>16), byte(i >> 8), byte(i)})
		if f == IPv6 {
			a = twin.Of(a)
		}
		all[i] = NewPod(fmt.Sprintf("plain/pod%d", i), "n3", "app=db")
		all[i].Status.PodIP = a.String()
	}
	return all
}
