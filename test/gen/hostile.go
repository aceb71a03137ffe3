package gen

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// HostileNamespace is that of a tenant who tries to slow or stop enforcement for others. Its pods have the labels "app: hostile" and "n: <number>".
const HostileNamespace = "hostile"

// Attack is what a tenant may write into its namespace.
type Attack struct {
	Name     string
	Policies []*networkingv1.NetworkPolicy
}

// Attacks are objects whose cost might be a product, or more than their size. The API server takes each of them.
func Attacks() []Attack {
	const cluster = true
	return []Attack{
		{"182 peers x 182 named ports", one(egress(selectorPeers(182, !cluster), namedPorts(182)))},
		{"1,000 peers x 1,000 named ports", one(egress(selectorPeers(1000, !cluster), namedPorts(1000)))},
		{"4,000 peers x 4,000 ports", one(ingress(selectorPeers(4000, !cluster), numberedPorts(4000, 1)))},
		{"1,000 policies x 20 peers, each pod its own group", eachPodItsGroup(1000, func(i int) networkingv1.NetworkPolicySpec {
			return rulesOfOnePeer(20, i*20, !cluster)
		})},
		{"200 peers in all namespaces", one(ingress(selectorPeers(200, cluster), nil))},
		{"60,000 named ports, selecting nobody", named("a", nobody(ingress(nil, namedPorts(60_000))))},
		{"a policy of 128 KB, a peer to a rule", one(rulesOfOnePeer(2000, 0, !cluster))},

		{"700 rules, a peer in all namespaces each", one(rulesOfOnePeer(700, 0, cluster))},
		{"20,000 blocks with exceptions within each other", one(ingress(nestedBlocks(20_000), nil))},
		{"4 peers x 32,000 ports with gaps", one(ingress(selectorPeers(4, cluster), numberedPorts(32_000, 2)))},
		{"1,000 policies x 4 peers in all namespaces", each(1000, func(i int) networkingv1.NetworkPolicySpec {
			return ingress(somePeers(4, 4*i, cluster), nil)
		})},
		{"a peer of 50,000 values in all namespaces", one(ingress([]networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{}, PodSelector: pointer(manyValues(50_000))}}, nil))},
		{"a subject of 50,000 values", named("a", networkingv1.NetworkPolicySpec{PodSelector: manyValues(50_000)})},
		{"200 policies x 500 named ports", each(200, func(i int) networkingv1.NetworkPolicySpec {
			return egress(nil, namedPorts(500+i))
		})},
		{"20,000 fields that cannot be understood", one(ingress(nil, numberedPorts(20_000, 100)))},
		{"10,000 policies", each(10_000, func(i int) networkingv1.NetworkPolicySpec { return ingress(nil, numberedPorts(1, i)) })},
		{"500 policies x 8 peers, each pod has half of them", halfOfThem(500)},
		{"1,000 rules of 500 overlapping ranges", one(overlappingRanges(1000))},
		{"1,000 audited policies, each pod its own group", audited(eachPodItsGroup(1000, func(i int) networkingv1.NetworkPolicySpec {
			return rulesOfOnePeer(4, i*4, !cluster)
		}))},
	}
}

func named(name string, spec networkingv1.NetworkPolicySpec) []*networkingv1.NetworkPolicy {
	return []*networkingv1.NetworkPolicy{{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: HostileNamespace, Name: name, UID: types.UID(name), CreationTimestamp: metav1.Unix(1_800_000_000, 0)},
		Spec: spec,
	}}
}

func one(spec networkingv1.NetworkPolicySpec) []*networkingv1.NetworkPolicy { return named("a", spec) }

func each(n int, spec func(i int) networkingv1.NetworkPolicySpec) []*networkingv1.NetworkPolicy {
	var all []*networkingv1.NetworkPolicy
	for i := range n {
		all = append(all, named(fmt.Sprintf("p-%05d", i), spec(i))...)
	}
	return all
}

// eachPodItsGroup has all but one in a hundred of the policies for each pod.
func eachPodItsGroup(n int, spec func(i int) networkingv1.NetworkPolicySpec) []*networkingv1.NetworkPolicy {
	return each(n, func(i int) networkingv1.NetworkPolicySpec {
		s := spec(i)
		s.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{
			{Key: "n", Operator: metav1.LabelSelectorOpNotIn, Values: []string{fmt.Sprint(i % 100)}}}
		return s
	})
}

// halfOfThem has for each pod another half of the policies.
func halfOfThem(n int) []*networkingv1.NetworkPolicy {
	return each(n, func(i int) networkingv1.NetworkPolicySpec {
		s := rulesOfOnePeer(8, 8*i, false)
		var values []string
		for pod := range 100 {
			if (pod*7919+i*104_729)>>3%2 == 0 {
				values = append(values, fmt.Sprint(pod))
			}
		}
		s.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "n", Operator: metav1.LabelSelectorOpIn, Values: append(values, "x")}}
		return s
	})
}

func audited(all []*networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy {
	for _, p := range all {
		p.Annotations = map[string]string{v1alpha1.ModeAnnotation: string(v1alpha1.Audit)}
	}
	return all
}

func nobody(s networkingv1.NetworkPolicySpec) networkingv1.NetworkPolicySpec {
	s.PodSelector.MatchLabels = map[string]string{"app": "nobody"}
	return s
}

func ingress(from []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: from, Ports: ports}}}
}

func egress(to []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{To: to, Ports: ports}}}
}

func rulesOfOnePeer(n, first int, cluster bool) (s networkingv1.NetworkPolicySpec) {
	for i := range n {
		s.Ingress = append(s.Ingress, networkingv1.NetworkPolicyIngressRule{From: somePeers(1, first+i, cluster)})
	}
	return s
}

func overlappingRanges(n int) (s networkingv1.NetworkPolicySpec) {
	for i := range n {
		port := networkingv1.NetworkPolicyPort{Port: pointer(intstr.FromInt32(int32(1 + i))), EndPort: pointer(int32(60_000 + i))}
		s.Ingress = append(s.Ingress, networkingv1.NetworkPolicyIngressRule{
			From: somePeers(1, i%500, true), Ports: []networkingv1.NetworkPolicyPort{port}})
	}
	return s
}

func selectorPeers(n int, cluster bool) []networkingv1.NetworkPolicyPeer {
	return somePeers(n, 0, cluster)
}

// somePeers are selectors that all pods satisfy, but for those that they name.
func somePeers(n, first int, cluster bool) []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for i := range n {
		p := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: fmt.Sprintf("k%d", first+i), Operator: metav1.LabelSelectorOpDoesNotExist}}}}
		if cluster {
			p.NamespaceSelector = &metav1.LabelSelector{}
		}
		peers = append(peers, p)
	}
	return peers
}

func namedPorts(n int) []networkingv1.NetworkPolicyPort {
	var ports []networkingv1.NetworkPolicyPort
	for i := range n {
		ports = append(ports, networkingv1.NetworkPolicyPort{Port: pointer(intstr.FromString(fmt.Sprintf("p%d", i)))})
	}
	return ports
}

// numberedPorts may be more than there are ports: the API server does not take those, but an older one's store may have them.
func numberedPorts(n, step int) []networkingv1.NetworkPolicyPort {
	var ports []networkingv1.NetworkPolicyPort
	for i := range n {
		ports = append(ports, networkingv1.NetworkPolicyPort{Port: pointer(intstr.FromInt32(int32(1 + i*step)))})
	}
	return ports
}

// nestedBlocks are blocks of all lengths, each with an exception in which the next one lies.
func nestedBlocks(n int) []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for i := range n {
		length := 8 + 2*(i%11)
		a := fmt.Sprintf("%d.%d.%d.0", 10+i/20_000, i/11%256, i/2816%256)
		if length < 24 {
			a = fmt.Sprintf("%d.0.0.0", 10+i%90)
		}
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{
			CIDR: fmt.Sprintf("%s/%d", a, length), Except: []string{fmt.Sprintf("%s/%d", a, length+1)}}})
	}
	return peers
}

func manyValues(n int) metav1.LabelSelector {
	var values []string
	for i := range n {
		values = append(values, fmt.Sprintf("v%d", i))
	}
	return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: values}}}
}

// maxObject is what etcd takes of one object, in bytes.
const maxObject = 1_500_000

// Hostile draws an object of up to maxObject bytes that asks for as much as its size allows: each of its parts is repeated as often as the source says.
func Hostile(s *Source) *networkingv1.NetworkPolicy {
	np := named(fmt.Sprintf("h-%d", s.intN(64)), networkingv1.NetworkPolicySpec{})[0]
	room := maxObject
	many := func(bytes int) int { // how often something is repeated that takes so many bytes
		n := min(1<<s.intN(17)+s.intN(256), room/bytes)
		room -= n * bytes
		return n
	}
	for range 1 + s.intN(4) {
		var from []networkingv1.NetworkPolicyPeer
		var ports []networkingv1.NetworkPolicyPort
		before := room
		switch s.intN(5) {
		case 0:
			from = selectorPeers(many(90), s.oneIn(2))
		case 1:
			from = nestedBlocks(many(60))
		case 2:
			from = []networkingv1.NetworkPolicyPeer{{PodSelector: pointer(manyValues(many(8))), NamespaceSelector: &metav1.LabelSelector{}}}
		case 3:
			from = append(selectorPeers(many(90), true), nestedBlocks(many(60))...)
		}
		switch s.intN(4) {
		case 0:
			ports = namedPorts(many(18))
		case 1:
			ports = numberedPorts(many(14), 1+s.intN(4))
		case 2:
			ports = append(namedPorts(many(18)), numberedPorts(many(14), 2)...)
		}
		bytes := 20 + before - room
		for i := range 1 + many(bytes) {
			if i%2 == 0 {
				np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: from, Ports: ports})
			} else {
				np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: from, Ports: ports})
			}
		}
	}
	if s.oneIn(8) {
		np.Spec.PodSelector = manyValues(many(8))
	}
	if s.oneIn(8) {
		np.Annotations = map[string]string{v1alpha1.ModeAnnotation: strings.Repeat("x", s.intN(64))}
	}
	return np
}

// HostilePorts are container ports for a pod of the tenant: names that its policies have.
func HostilePorts(n int) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	for i := range n {
		ports = append(ports, corev1.ContainerPort{Name: fmt.Sprintf("p%d", i), ContainerPort: int32(1000 + i)})
	}
	return ports
}
