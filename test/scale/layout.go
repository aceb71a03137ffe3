package scale

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// Size is how large a cluster is. What is where follows from it, so that who is concerned by a policy is known without asking any of the
// code that is measured.
type Size struct {
	Nodes      int
	Namespaces int
	Apps       int // of each namespace
	Pods       int // of each namespace; its applications take turns
	Policies   int // of each namespace: the first selects all of its pods, the others one application each
}

// OfNodes is a cluster of n nodes, which must be a multiple of 50, with ten pods and two policies to a node: each namespace has ten policies, and
// 50 pods on 50 nodes.
func OfNodes(n int) Size {
	return Size{Nodes: n, Namespaces: n / 5, Apps: 10, Pods: 50, Policies: 10}
}

// AllPods is how many pods the cluster has.
func (s Size) AllPods() int { return s.Namespaces * s.Pods }

// AllPolicies is how many policies the cluster has, with the one for all pods.
func (s Size) AllPolicies() int { return s.Namespaces*s.Policies + 1 }

// String is what a table's title says of it.
func (s Size) String() string {
	return fmt.Sprintf("%d nodes, %d policies, %d pods", s.Nodes, s.AllPolicies(), s.AllPods())
}

func nodeName(i int) string      { return fmt.Sprintf("node-%04d", i) }
func namespaceName(i int) string { return fmt.Sprintf("team-%03d", i) }
func appName(i int) string       { return fmt.Sprintf("app-%d", i) }

// nodeOf is the node of a namespace's pod.
func (s Size) nodeOf(namespace, pod int) string { return nodeName((namespace*s.Pods + pod) % s.Nodes) }

// nodesOf are the nodes that run pods which choose holds of.
func (s Size) nodesOf(namespace int, choose func(pod int) bool) map[string]bool {
	nodes := map[string]bool{}
	for i := range s.Pods {
		if choose(i) {
			nodes[s.nodeOf(namespace, i)] = true
		}
	}
	return nodes
}

// nodesResource is the resource of nodes in etcd's keys, which are those of an API server that once called them minions.
const nodesResource = "minions"

// namespace is a namespace as the API server completes it.
func namespace(i int) *corev1.Namespace {
	return &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i), Labels: map[string]string{corev1.LabelMetadataName: namespaceName(i)}},
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
		Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}
}

// pod is a pod of a namespace, of the size that small pods have, with the status that its kubelet would write.
func (s Size) pod(namespace, i int) *corev1.Pod {
	n := namespace*s.Pods + i
	addr := netip.AddrFrom4([4]byte{10, byte(1 + n>>16), byte(n >> 8), byte(n)}).String()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceName(namespace), Name: fmt.Sprintf("%s-%05d", appName(i%s.Apps), i),
			Labels: map[string]string{
				"app": appName(i % s.Apps), "app.kubernetes.io/part-of": namespaceName(namespace), "pod-template-hash": fmt.Sprintf("%x", 0x5c9f7d64+i%s.Apps),
			},
		},
		Spec: corev1.PodSpec{NodeName: s.nodeOf(namespace, i), Containers: []corev1.Container{{
			Name: "main", Image: "registry.example.com/main:v1", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addr, PodIPs: []corev1.PodIP{{IP: addr}}},
	}
}

// selects is the selector of a namespace's policy.
func (s Size) selects(policy int) metav1.LabelSelector {
	if policy == 0 {
		return metav1.LabelSelector{}
	}
	return metav1.LabelSelector{MatchLabels: map[string]string{"app": appName(policy % s.Apps)}}
}

// concerned are the nodes that a namespace's policy is about.
func (s Size) concerned(namespace, policy int) map[string]bool {
	return s.nodesOf(namespace, func(pod int) bool { return policy == 0 || pod%s.Apps == policy%s.Apps })
}

// everywhere are the nodes with pods.
func (s Size) everywhere() map[string]bool {
	nodes := map[string]bool{}
	for i := range s.Namespaces {
		for node := range s.nodesOf(i, func(int) bool { return true }) {
			nodes[node] = true
		}
	}
	return nodes
}

// policy is a namespace's policy. Revisions differ in a port.
func (s Size) policy(namespace, i, revision int) *networkingv1.NetworkPolicy {
	return s.named(fmt.Sprintf("policy-%d", i), namespace, i, revision)
}

func (s Size) named(name string, namespace, i, revision int) *networkingv1.NetworkPolicy {
	port := intstr.FromInt(8080 + revision)
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(namespace), Name: name, Generation: 1},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: s.selects(i),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				Ports: []networkingv1.NetworkPolicyPort{{Port: &port}},
				From: []networkingv1.NetworkPolicyPeer{
					{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": appName((i + 1) % s.Apps)}}},
					{IPBlock: &networkingv1.IPBlock{CIDR: "203.0.113.0/24"}},
				},
			}},
		},
	}
}

// everyone is the name of the policy for all pods.
const everyone = "everyone"

// forEveryone is the policy for all pods. Revisions differ in a port.
func forEveryone(revision int) *v1alpha1.ClusterNetworkPolicy {
	return &v1alpha1.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: everyone},
		Spec: v1alpha1.ClusterNetworkPolicySpec{
			Tier: v1alpha1.AdminTier, Priority: 10,
			Subject: v1alpha1.Subject{Namespaces: &v1alpha1.LabelSelector{}},
			Ingress: []v1alpha1.IngressRule{{
				Name: "no-telnet", Action: v1alpha1.Deny,
				From:      []v1alpha1.Peer{{Namespaces: &v1alpha1.LabelSelector{}}},
				Protocols: []v1alpha1.Protocol{{TCP: &v1alpha1.PortMatch{DestinationPort: &v1alpha1.Port{Number: int32(23 + revision)}}}},
			}},
		},
	}
}
