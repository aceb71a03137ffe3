package ladder

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// happening is what can happen, with how often it does.
type happening struct {
	name   string
	weight int
	do     func(*History)
}

var happenings = []happening{
	{"nothing", 1, func(*History) {}},
	{"a pod is relabelled", 5, onPod(func(h *History, p *corev1.Pod) { p.Labels = h.otherPod().Labels })},
	{"a pod has other ports", 3, onPod(func(h *History, p *corev1.Pod) { p.Spec.Containers = h.otherPod().Spec.Containers })},
	{"a pod has other addresses", 4, onPod(func(h *History, p *corev1.Pod) { p.Status.PodIP, p.Status.PodIPs = addressesOf(h.otherPod()) })},
	{"a pod claims the addresses of another", 4, onPod(func(h *History, p *corev1.Pod) {
		p.Status.PodIP, p.Status.PodIPs = addressesOf(pickFrom(h, h.c.Pods))
	})},
	{"a pod has an address more", 2, onPod(func(h *History, p *corev1.Pod) {
		p.Status.PodIPs = append(p.Status.PodIPs, pickFrom(h, h.c.Pods).Status.PodIPs...)
	})},
	{"a pod has an address of a node", 1, onPod(func(h *History, p *corev1.Pod) {
		a := pickFrom(h, pickFrom(h, h.nodes).Addrs).String()
		p.Status.PodIP, p.Status.PodIPs = a, []corev1.PodIP{{IP: a}}
	})},
	{"a pod is announced", 3, onPod(func(_ *History, p *corev1.Pod) { announce(p) })},
	{"a pod moves to another node", 2, onPod(func(h *History, p *corev1.Pod) { p.Spec.NodeName = pickFrom(h, h.nodes).Name })},
	{"a pod is in another namespace", 2, onPod(func(h *History, p *corev1.Pod) { p.Namespace = h.otherPod().Namespace })},
	{"a pod finishes or runs", 2, onPod(func(h *History, p *corev1.Pod) {
		p.Status.Phase = pickFrom(h, []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed, corev1.PodRunning})
	})},
	{"a pod is being deleted", 2, onPod(func(_ *History, p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1800000000, 0)} })},
	{"a pod is on the host network or off it", 1, onPod(func(_ *History, p *corev1.Pod) { p.Spec.HostNetwork = !p.Spec.HostNetwork })},
	{"a pod changes in what policy does not see", 1, onPod(func(*History, *corev1.Pod) {})},
	{"a pod comes", 5, func(h *History) {
		p := h.otherPod().DeepCopy()
		h.born++
		p.Name, p.UID = fmt.Sprint("come-", h.born), types.UID(fmt.Sprint("uid-come-", h.born))
		h.c.Pods = append(slices.Clone(h.c.Pods), p)
	}},
	{"a pod goes", 4, func(h *History) { h.c.Pods = less(h, h.c.Pods, 3) }},
	{"a pod is as it was", 4, func(h *History) { h.c.Pods = asItWas(h, h.c.Pods, h.before().Pods) }},
	{"many pods of another node come or go", 2, (*History).remote},
	{"all pods are others", 1, func(h *History) { h.c.Pods = h.other().Pods }},
	{"a namespace is relabelled", 4, onNamespace(func(h *History, n *corev1.Namespace) { n.Labels = pickFrom(h, h.other().Namespaces).Labels })},
	{"a namespace has another mode", 3, onNamespace(func(h *History, n *corev1.Namespace) {
		n.Annotations = map[string]string{v1alpha1.ModeAnnotation: pickFrom(h, []string{"Audit", "Enforce", "nonsense", ""})}
	})},
	{"a namespace asks for its denied connections, or does no more", 3, onNamespace(func(_ *History, n *corev1.Namespace) {
		n.Annotations = maps.Clone(n.Annotations)
		if n.Annotations[v1alpha1.ConnectionsAnnotation] != "" {
			delete(n.Annotations, v1alpha1.ConnectionsAnnotation)
		} else {
			metav1.SetMetaDataAnnotation(&n.ObjectMeta, v1alpha1.ConnectionsAnnotation, v1alpha1.ConnectionsDenied)
		}
	})},
	{"a namespace is as it was", 2, func(h *History) { h.c.Namespaces = asItWas(h, h.c.Namespaces, h.before().Namespaces) }},
	{"a namespace checks no sources", 1, onNamespace(func(_ *History, n *corev1.Namespace) {
		n.Annotations = map[string]string{v1alpha1.SourceCheckAnnotation: v1alpha1.SourceCheckOff}
	})},
	{"a namespace changes in what policy does not see", 1, onNamespace(func(*History, *corev1.Namespace) {})},
	{"a namespace is not known", 1, func(h *History) { h.c.Namespaces = less(h, h.c.Namespaces, 1) }},
	{"namespaces are known", 1, func(h *History) {
		for _, n := range h.other().Namespaces {
			if !slices.ContainsFunc(h.c.Namespaces, func(o *corev1.Namespace) bool { return o.Name == n.Name }) {
				h.c.Namespaces = append(slices.Clone(h.c.Namespaces), n)
			}
		}
	}},
	{"a node is relabelled", 2, onNode(func(h *History, n *corev1.Node) { n.Labels = h.otherPod().Labels })},
	{"a node has other addresses", 2, onNode(func(h *History, n *corev1.Node) {
		address := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: pickFrom(h, h.c.Pods).Status.PodIP}
		n.Status.Addresses = append(slices.Clone(n.Status.Addresses), address)
	})},
	{"a node has other ranges", 1, onNode(func(h *History, n *corev1.Node) {
		n.Spec.PodCIDRs = nil
		for _, r := range pickFrom(h, h.nodes).Pods {
			n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, r.String())
		}
	})},
	{"nodes are others", 1, func(h *History) { h.c.Nodes = h.other().Nodes }},
	{"a policy comes", 3, func(h *History) {
		h.born++
		h.c.Policies = append(slices.Clone(h.c.Policies), gen.Policy(h.source, h.caseOf(), h.options, fmt.Sprint("come-", h.born)))
	}},
	{"a policy goes", 3, func(h *History) { h.c.Policies = less(h, h.c.Policies, 0) }},
	{"a policy is as it was", 4, func(h *History) { h.c.Policies = asItWas(h, h.c.Policies, h.before().Policies) }},
	{"a policy has rules of another", 2, onPolicy(func(h *History, p *networkingv1.NetworkPolicy) {
		other := gen.Policy(h.source, h.caseOf(), h.options, "other")
		if h.random.IntN(2) == 0 {
			p.Spec.Ingress = other.Spec.Ingress
		} else {
			p.Spec.Egress = other.Spec.Egress
		}
	})},
	{"a policy has its rules in another order, or one less", 2, onPolicy(func(h *History, p *networkingv1.NetworkPolicy) {
		if h.random.IntN(2) == 0 {
			p.Spec.Ingress = turned(p.Spec.Ingress)
		} else {
			p.Spec.Egress = turned(p.Spec.Egress)
		}
	})},
	{"a policy has another mode", 2, onPolicy(func(h *History, p *networkingv1.NetworkPolicy) {
		p.Annotations = map[string]string{v1alpha1.ModeAnnotation: pickFrom(h, []string{"Audit", "Enforce"})}
	})},
	{"all policies are others", 1, func(h *History) { h.c.Policies = gen.Policies(h.source, h.caseOf(), h.options) }},
	{"cluster policies are others", 1, func(h *History) { h.c.ClusterPolicies = gen.ClusterPolicies(h.source, h.caseOf(), h.options) }},
	{"a cluster policy goes", 1, func(h *History) { h.c.ClusterPolicies = less(h, h.c.ClusterPolicies, 0) }},
	{"a cluster policy is as it was", 2, func(h *History) { h.c.ClusterPolicies = asItWas(h, h.c.ClusterPolicies, h.before().ClusterPolicies) }},
	{"a cluster policy has its rules in another order, or one less", 2, onClusterPolicy(func(h *History, p *v1alpha1.ClusterNetworkPolicy) {
		if h.random.IntN(2) == 0 {
			p.Spec.Ingress = turned(p.Spec.Ingress)
		} else {
			p.Spec.Egress = turned(p.Spec.Egress)
		}
	})},
	{"a cluster policy has another mode", 1, onClusterPolicy(func(h *History, p *v1alpha1.ClusterNetworkPolicy) {
		p.Spec.Mode = pickFrom(h, []v1alpha1.Mode{v1alpha1.Audit, v1alpha1.Enforce})
	})},
	{"rules of a cluster policy have other names", 1, onClusterPolicy(func(_ *History, p *v1alpha1.ClusterNetworkPolicy) {
		for i := range p.Spec.Ingress {
			p.Spec.Ingress[i].Name += "x"
		}
	})},
	{"rules of a cluster policy have other actions", 1, onClusterPolicy(func(h *History, p *v1alpha1.ClusterNetworkPolicy) {
		for i := range p.Spec.Ingress {
			r := &p.Spec.Ingress[i]
			r.Action = pickFrom(h, []v1alpha1.Action{v1alpha1.Accept, v1alpha1.Deny, v1alpha1.Pass})
			r.Log = isOurs(p) && h.random.IntN(2) == 0 // the SIG's kind has no log
		}
	})},
	{"many cluster policies are about one namespace, or no more", 1, (*History).fanOut},
	{"isolations are others", 1, func(h *History) { h.c.Isolations = gen.Isolations(h.source, h.caseOf(), h.options) }},
	{"an isolation goes", 1, func(h *History) { h.c.Isolations = less(h, h.c.Isolations, 0) }},
	{"the DNS is another", 1, func(h *History) { h.c.DNSServices, h.c.DNSAddresses = h.other().DNSServices, h.other().DNSAddresses }},
	{"a Service of the DNS goes", 1, func(h *History) { h.c.DNSServices = less(h, h.c.DNSServices, 0) }},
	{"another node is asked for", 1, func(h *History) { h.node = pickFrom(h, h.nodes).Name }},
	{"other ranges are closed", 1, func(h *History) { h.c.Closed = h.other().Closed }},
	{"links are others", 2, (*History).rewire},
	{"the pods of a namespace are not known", 3, func(h *History) {
		h.unknown = maps.Clone(h.unknown)
		if h.unknown == nil {
			h.unknown = map[string]bool{}
		}
		h.unknown[h.otherPod().Namespace] = true
	}},
	{"the pods of a namespace are known", 2, func(h *History) {
		if names := slices.Sorted(maps.Keys(h.unknown)); len(names) > 0 {
			h.unknown = maps.Clone(h.unknown)
			delete(h.unknown, pickFrom(h, names))
		}
	}},
	{"all pods are known", 1, func(h *History) { h.unknown, h.partial = nil, false }},
	{"not all pods are known", 1, func(h *History) { h.partial = true }},
	{"the node has other addresses", 1, func(h *History) {
		h.network.Own = nil
		for range h.random.IntN(3) {
			if a, err := netip.ParseAddr(pickFrom(h, h.c.Pods).Status.PodIP); err == nil {
				h.network.Own = append(h.network.Own, a)
			}
		}
	}},
}

// less is a list without one of its items, if more than some are left.
func less[T any](h *History, list []T, left int) []T {
	if len(list) <= left {
		return list
	}
	i := h.random.IntN(len(list))
	return slices.Delete(slices.Clone(list), i, i+1)
}

// with is a list with one of its items changed.
func with[T any](h *History, list []T, change func(T) T) []T {
	if len(list) == 0 {
		return list
	}
	list = slices.Clone(list)
	i := h.random.IntN(len(list))
	list[i] = change(list[i])
	return list
}

// on changes one of some objects of the cluster.
func on[T interface{ DeepCopy() T }](of func(*oracle.Cluster) *[]T, change func(*History, T)) func(*History) {
	return func(h *History) {
		list := of(&h.c)
		*list = with(h, *list, func(o T) T {
			o = o.DeepCopy()
			change(h, o)
			return o
		})
	}
}

func onPod(change func(*History, *corev1.Pod)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*corev1.Pod { return &c.Pods }, change)
}

func onNamespace(change func(*History, *corev1.Namespace)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*corev1.Namespace { return &c.Namespaces }, change)
}

func onNode(change func(*History, *corev1.Node)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*corev1.Node { return &c.Nodes }, change)
}

func onPolicy(change func(*History, *networkingv1.NetworkPolicy)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*networkingv1.NetworkPolicy { return &c.Policies }, change)
}

func onClusterPolicy(change func(*History, *v1alpha1.ClusterNetworkPolicy)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*v1alpha1.ClusterNetworkPolicy { return &c.ClusterPolicies }, change)
}

// isOurs reports whether a policy is of our kind, which may be written without a version, and not of the SIG's.
func isOurs(p *v1alpha1.ClusterNetworkPolicy) bool {
	return p.APIVersion == "" || p.APIVersion == v1alpha1.GroupVersion.String()
}

// before is the cluster as it was at some time.
func (h *History) before() oracle.Cluster { return pickFrom(h, h.past) }

// asItWas is a list with one of its objects as it was in another, or with one more that was in the other alone.
func asItWas[T metav1.Object](h *History, list, before []T) []T {
	if len(before) == 0 {
		return list
	}
	o := pickFrom(h, before)
	list = slices.DeleteFunc(slices.Clone(list), func(p T) bool { return p.GetName() == o.GetName() && p.GetNamespace() == o.GetNamespace() })
	return append(list, o)
}

// turned is a list without its first element, or with that at its end.
func turned[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	if len(list)%2 == 0 {
		return list[1:]
	}
	return append(slices.Clone(list[1:]), list[0])
}

// crowded is a namespace with one pod, about which there are many cluster policies now and then: other namespaces have other rates of samples
// then.
const crowded = "crowded"

// fanOut has the policies of the crowded namespace come or go. The namespace is there from the first time on, unless it is lost.
func (h *History) fanOut() {
	label := map[string]string{crowded: ""}
	if !slices.ContainsFunc(h.c.Namespaces, func(n *corev1.Namespace) bool { return n.Name == crowded }) {
		h.c.Namespaces = append(slices.Clone(h.c.Namespaces), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: crowded, Labels: label}})
		h.c.Pods = append(slices.Clone(h.c.Pods), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: crowded, Name: "pod", UID: "crowded"},
			Spec:       corev1.PodSpec{NodeName: h.node},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.9.9.9"}, {IP: "fd00:9::9"}}},
		})
	}
	there := len(h.c.ClusterPolicies)
	h.c.ClusterPolicies = slices.DeleteFunc(slices.Clone(h.c.ClusterPolicies), func(p *v1alpha1.ClusterNetworkPolicy) bool {
		_, about := p.Labels[crowded]
		return about
	})
	if len(h.c.ClusterPolicies) < there {
		return
	}
	for i := range 18 {
		h.c.ClusterPolicies = append(h.c.ClusterPolicies, &v1alpha1.ClusterNetworkPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String()},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(crowded, i), Labels: label},
			Spec: v1alpha1.ClusterNetworkPolicySpec{
				Tier: v1alpha1.AdminTier, Mode: v1alpha1.Audit, Priority: 1000,
				Subject: v1alpha1.Subject{Namespaces: &v1alpha1.LabelSelector{MatchLabels: label}},
				Ingress: []v1alpha1.IngressRule{{Action: v1alpha1.Deny, From: []v1alpha1.Peer{{Networks: []v1alpha1.CIDR{"10.8.0.0/16"}}}}},
			},
		})
	}
}

// remote has some of many pods of another node come or go: sets are long.
func (h *History) remote() {
	pods := slices.Clone(h.c.Pods)
	for range 1 + h.random.IntN(100) {
		i := h.random.IntN(150)
		name := fmt.Sprint("remote", i)
		before := len(pods)
		pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return p.Name == name })
		if len(pods) < before && h.random.IntN(3) == 0 {
			continue
		}
		pods = append(pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: h.c.Namespaces[0].Name, Name: name, UID: types.UID(name),
				Labels: map[string]string{"app": []string{"a", "b"}[i%2], "tier": "a"}},
			Spec:   corev1.PodSpec{NodeName: "node2"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.8.0.%d", i)}, {IP: fmt.Sprintf("fd00:8::%x", i)}}},
		})
	}
	h.c.Pods = pods
}

func addressesOf(p *corev1.Pod) (string, []corev1.PodIP) {
	return p.Status.PodIP, slices.Clone(p.Status.PodIPs)
}

// announce has the pod's enforcer say which addresses it has, and nobody else.
func announce(p *corev1.Pod) {
	a, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil {
		return
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
		{Type: v1alpha1.AddressesCondition, Status: corev1.ConditionTrue, Message: compile.Announcement([]netip.Addr{a.Unmap()})}}}
}

// rewire draws links, of which some are said to be a pod's, and to give it an address more.
func (h *History) rewire() {
	h.network.SourceCheck = pickFrom(h, []compile.SourceCheck{compile.SourceCheckOff, compile.SourceCheckAudit, compile.SourceCheckEnforce})
	h.network.Links = nil
	for i, p := range h.c.Pods {
		a, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil || h.random.IntN(2) == 0 {
			continue
		}
		l := compile.Link{Name: fmt.Sprint("veth", i), Index: i, Bridged: h.random.IntN(2) == 0, Guarded: h.random.IntN(3) == 0, Held: []netip.Addr{a}}
		if h.random.IntN(2) == 0 {
			more := netip.AddrFrom4([4]byte{10, 245, 0, byte(h.random.IntN(4))})
			l.Given = &compile.Given{UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, Addrs: []netip.Addr{a, more}}
		}
		h.network.Links = append(h.network.Links, l)
	}
}
