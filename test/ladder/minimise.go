package ladder

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// Minimise removes whatever can go from a case while fails still holds for it: policies, rules, peers, ports, exceptions,
// requirements, pods and their ports. It works on copies.
func Minimise(c gen.Case, fails func(gen.Case) bool) gen.Case {
	for shrunk := true; shrunk; {
		shrunk = false
		for _, smaller := range smallerCases(c) {
			if fails(smaller) {
				c, shrunk = smaller, true
				break
			}
		}
	}
	return c
}

// smallerCases are copies of the case, each with one thing less.
func smallerCases(c gen.Case) []gen.Case {
	var out []gen.Case
	with := func(change func(*oracle.Cluster)) {
		smaller := gen.Case{Nodes: c.Nodes, Others: c.Others, Cluster: c.Cluster}
		change(&smaller.Cluster)
		out = append(out, smaller)
	}
	was := c.Cluster
	for _, policies := range without(was.Policies) {
		with(func(c *oracle.Cluster) { c.Policies = policies })
	}
	for _, policies := range without(was.ClusterPolicies) {
		with(func(c *oracle.Cluster) { c.ClusterPolicies = policies })
	}
	for _, isolations := range without(was.Isolations) {
		with(func(c *oracle.Cluster) { c.Isolations = isolations })
	}
	for _, services := range without(was.DNSServices) {
		with(func(c *oracle.Cluster) { c.DNSServices = services })
	}
	for _, pods := range without(was.Pods) {
		with(func(c *oracle.Cluster) { c.Pods = pods })
	}
	for node := range was.Closed {
		with(func(c *oracle.Cluster) {
			c.Closed = maps.Clone(was.Closed)
			delete(c.Closed, node)
		})
	}
	for i, p := range was.Policies {
		for _, spec := range smallerSpecs(p.Spec) {
			q := p.DeepCopy()
			q.Spec = spec
			with(func(c *oracle.Cluster) { c.Policies = replaced(was.Policies, i, q) })
		}
	}
	for i, p := range was.ClusterPolicies {
		for _, q := range smallerClusterPolicies(p) {
			with(func(c *oracle.Cluster) { c.ClusterPolicies = replaced(was.ClusterPolicies, i, q) })
		}
	}
	for i, n := range was.Isolations {
		for _, q := range smallerIsolations(n) {
			with(func(c *oracle.Cluster) { c.Isolations = replaced(was.Isolations, i, q) })
		}
	}
	for i, p := range was.Pods {
		for _, q := range smallerPods(p) {
			with(func(c *oracle.Cluster) { c.Pods = replaced(was.Pods, i, q) })
		}
	}
	return out
}

func smallerClusterPolicies(p *v1alpha1.ClusterNetworkPolicy) []*v1alpha1.ClusterNetworkPolicy {
	var out []*v1alpha1.ClusterNetworkPolicy
	add := func(change func(*v1alpha1.ClusterNetworkPolicySpec)) {
		q := p.DeepCopy()
		change(&q.Spec)
		out = append(out, q)
	}
	for _, rules := range without(p.Spec.Ingress) {
		add(func(s *v1alpha1.ClusterNetworkPolicySpec) { s.Ingress = rules })
	}
	for _, rules := range without(p.Spec.Egress) {
		add(func(s *v1alpha1.ClusterNetworkPolicySpec) { s.Egress = rules })
	}
	for i, r := range p.Spec.Ingress {
		for _, peers := range without(r.From) {
			add(func(s *v1alpha1.ClusterNetworkPolicySpec) { s.Ingress[i].From = peers })
		}
		for _, protocols := range without(r.Protocols) {
			add(func(s *v1alpha1.ClusterNetworkPolicySpec) { s.Ingress[i].Protocols = protocols })
		}
	}
	for i, r := range p.Spec.Egress {
		for _, peers := range without(r.To) {
			add(func(s *v1alpha1.ClusterNetworkPolicySpec) { s.Egress[i].To = peers })
		}
		for _, protocols := range without(r.Protocols) {
			add(func(s *v1alpha1.ClusterNetworkPolicySpec) { s.Egress[i].Protocols = protocols })
		}
	}
	return out
}

func smallerIsolations(n *v1alpha1.NamespaceIsolation) []*v1alpha1.NamespaceIsolation {
	var out []*v1alpha1.NamespaceIsolation
	add := func(change func(*v1alpha1.NamespaceIsolationSpec)) {
		q := n.DeepCopy()
		change(&q.Spec)
		out = append(out, q)
	}
	for _, rules := range without(n.Spec.Allow.Ingress) {
		add(func(s *v1alpha1.NamespaceIsolationSpec) { s.Allow.Ingress = rules })
	}
	for _, rules := range without(n.Spec.Allow.Egress) {
		add(func(s *v1alpha1.NamespaceIsolationSpec) { s.Allow.Egress = rules })
	}
	return out
}

func smallerSpecs(s networkingv1.NetworkPolicySpec) []networkingv1.NetworkPolicySpec {
	var out []networkingv1.NetworkPolicySpec
	add := func(change func(*networkingv1.NetworkPolicySpec)) {
		t := *s.DeepCopy()
		change(&t)
		out = append(out, t)
	}
	for _, selector := range smallerSelectors(s.PodSelector) {
		add(func(t *networkingv1.NetworkPolicySpec) { t.PodSelector = selector })
	}
	for _, rules := range without(s.Ingress) {
		add(func(t *networkingv1.NetworkPolicySpec) { t.Ingress = rules })
	}
	for _, rules := range without(s.Egress) {
		add(func(t *networkingv1.NetworkPolicySpec) { t.Egress = rules })
	}
	for i, r := range s.Ingress {
		for _, peers := range smallerPeers(r.From) {
			add(func(t *networkingv1.NetworkPolicySpec) { t.Ingress[i].From = peers })
		}
		for _, ports := range without(r.Ports) {
			add(func(t *networkingv1.NetworkPolicySpec) { t.Ingress[i].Ports = ports })
		}
	}
	for i, r := range s.Egress {
		for _, peers := range smallerPeers(r.To) {
			add(func(t *networkingv1.NetworkPolicySpec) { t.Egress[i].To = peers })
		}
		for _, ports := range without(r.Ports) {
			add(func(t *networkingv1.NetworkPolicySpec) { t.Egress[i].Ports = ports })
		}
	}
	return out
}

func smallerPeers(peers []networkingv1.NetworkPolicyPeer) [][]networkingv1.NetworkPolicyPeer {
	out := without(peers)
	for i, p := range peers {
		if p.IPBlock == nil {
			continue
		}
		for _, except := range without(p.IPBlock.Except) {
			q := *p.DeepCopy()
			q.IPBlock.Except = except
			out = append(out, replaced(peers, i, q))
		}
	}
	return out
}

func smallerSelectors(s metav1.LabelSelector) []metav1.LabelSelector {
	var out []metav1.LabelSelector
	for _, expressions := range without(s.MatchExpressions) {
		out = append(out, metav1.LabelSelector{MatchLabels: s.MatchLabels, MatchExpressions: expressions})
	}
	if len(s.MatchLabels) > 0 {
		out = append(out, metav1.LabelSelector{MatchExpressions: s.MatchExpressions})
	}
	return out
}

func smallerPods(p *corev1.Pod) []*corev1.Pod {
	var out []*corev1.Pod
	if len(p.Spec.InitContainers) > 0 {
		q := p.DeepCopy()
		q.Spec.InitContainers = nil
		out = append(out, q)
	}
	for i := range p.Spec.Containers {
		for _, ports := range without(p.Spec.Containers[i].Ports) {
			q := p.DeepCopy()
			q.Spec.Containers[i].Ports = ports
			out = append(out, q)
		}
	}
	return out
}

// without are copies of the list, each lacking one element.
func without[T any](list []T) [][]T {
	var out [][]T
	for i := range list {
		out = append(out, slices.Delete(slices.Clone(list), i, i+1))
	}
	return out
}

func replaced[T any](list []T, i int, v T) []T {
	out := slices.Clone(list)
	out[i] = v
	return out
}

// Describe is the cluster as YAML, for a person who reads a difference.
func Describe(c oracle.Cluster) string {
	var b strings.Builder
	write := func(kind string, object any) {
		text, err := yaml.Marshal(object)
		if err != nil { // an object that JSON cannot express
			text = fmt.Appendf(nil, "%+v\n", object)
		}
		b.WriteString("--- # " + kind + "\n")
		b.Write(text)
	}
	for _, n := range c.Namespaces {
		write("Namespace", map[string]any{"name": n.Name, "labels": n.Labels, "annotations": n.Annotations})
	}
	for _, p := range c.Pods {
		write("Pod", map[string]any{
			"name": p.Namespace + "/" + p.Name, "uid": p.UID, "created": p.CreationTimestamp.Unix(), "labels": p.Labels, "node": p.Spec.NodeName,
			"hostNetwork": p.Spec.HostNetwork, "phase": p.Status.Phase, "terminating": p.DeletionTimestamp != nil,
			"podIPs": p.Status.PodIPs, "containers": p.Spec.Containers, "initContainers": p.Spec.InitContainers,
		})
	}
	for _, n := range c.Nodes {
		write("Node", map[string]any{"name": n.Name, "labels": n.Labels, "addresses": n.Status.Addresses})
	}
	for _, p := range c.Policies {
		write("NetworkPolicy", map[string]any{"name": p.Namespace + "/" + p.Name, "annotations": p.Annotations, "spec": p.Spec})
	}
	for _, p := range c.ClusterPolicies {
		write("ClusterNetworkPolicy", map[string]any{"name": p.Name, "apiVersion": p.APIVersion, "created": p.CreationTimestamp.Unix(), "spec": p.Spec})
	}
	for _, n := range c.Isolations {
		write("NamespaceIsolation", map[string]any{"name": n.Name, "spec": n.Spec})
	}
	for _, node := range slices.Sorted(maps.Keys(c.Closed)) {
		write("closed", map[string]any{"node": node, "ranges": c.Closed[node]})
	}
	for _, s := range c.DNSServices {
		write("Service", map[string]any{"name": s.Namespace + "/" + s.Name, "spec": s.Spec})
	}
	return b.String()
}
