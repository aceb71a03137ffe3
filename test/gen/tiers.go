package gen

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// The groups' versions that objects carry.
const (
	ownVersion = "policy.ringfence.io/v1alpha1"
	sigVersion = "policy.networking.k8s.io/v1beta1"
)

// addTiers draws all that tiers look at for a case that is complete without. It draws after everything else, so that a seed's
// pods, namespaces and policies are the same with tiers and without.
func addTiers(s *Source, c *Case, o Options) {
	c.Cluster.Nodes = nodeObjects(s, *c)
	for _, n := range c.Cluster.Namespaces {
		annotate(s, &n.ObjectMeta, 8)
	}
	for _, p := range c.Cluster.Policies {
		annotate(s, &p.ObjectMeta, 6)
	}
	c.Cluster.DNSServices = dnsServices(s, *c)
	c.Cluster.DNSAddresses = dnsAddresses(s, *c)
	c.Cluster.ClusterPolicies = ClusterPolicies(s, *c, o)
	c.Cluster.Isolations = Isolations(s, *c, o)
}

// annotate sets the mode of NetworkPolicies once in n draws: mostly to Audit, else to what enforces. The API server knows nothing
// of the annotation, so that any value gets in.
func annotate(s *Source, m *metav1.ObjectMeta, n int) {
	if s.oneIn(n) {
		m.Annotations = map[string]string{v1alpha1.ModeAnnotation: pick(s, []string{"Audit", "Audit", "Audit", "Enforce", "audit", ""})}
	}
}

// nodeObjects are the nodes as the API has them: with labels out of the pods' alphabet, and most of their addresses in the status. Some have
// an address there that none of the others knows of.
func nodeObjects(s *Source, c Case) []*corev1.Node {
	var out []*corev1.Node
	for _, node := range c.Nodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: labels(s)}}
		n.Labels[corev1.LabelHostname] = node.Name
		add := func(kind corev1.NodeAddressType, address string) {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: kind, Address: address})
		}
		for _, a := range node.Addrs {
			if !s.oneIn(8) {
				add(corev1.NodeInternalIP, a.String())
			}
		}
		add(corev1.NodeHostName, node.Name)
		if s.oneIn(3) {
			add(corev1.NodeExternalIP, pick(s, c.Others).String())
		}
		out = append(out, n)
	}
	return out
}

// dnsServices are up to two Services of the kind that a cluster's DNS has: for pods by selector, with a name or a number at their side.
func dnsServices(s *Source, c Case) []*corev1.Service {
	var out []*corev1.Service
	for i := range pick(s, []int{1, 0, 2, 1}) {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: pick(s, c.Cluster.Namespaces).Name, Name: fmt.Sprintf("dns-%d", i)}}
		svc.Spec.Selector = map[string]string{pick(s, labelKeys): pick(s, labelValues)}
		if len(c.Cluster.Pods) > 0 && !s.oneIn(4) {
			p := pick(s, c.Cluster.Pods)
			svc.Namespace, svc.Spec.Selector = p.Namespace, someOf(s, p.Labels)
		}
		if s.oneIn(10) {
			svc.Spec.Selector = nil
		}
		v4, v6 := fmt.Sprintf("10.96.0.%d", 10+i), fmt.Sprintf("fd00:10:96::%x", 10+i)
		svc.Spec.ClusterIPs = pick(s, [][]string{{v4, v6}, {v4}, {v6, v4}, {"None"}, nil})
		if s.oneIn(3) {
			svc.Spec.ClusterIPs = []string{pick(s, c.Others).String()}
		}
		if len(svc.Spec.ClusterIPs) > 0 {
			svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
			if s.oneIn(6) {
				svc.Spec.ClusterIPs = nil
			}
		}
		for j := range s.between(1, 3) {
			svc.Spec.Ports = append(svc.Spec.Ports, servicePort(s, fmt.Sprintf("p%d", j)))
		}
		out = append(out, svc)
	}
	return out
}

// someOf are one or two of the labels, or none where there are none.
func someOf(s *Source, labels map[string]string) map[string]string {
	out := map[string]string{}
	for range 2 {
		key := pick(s, labelKeys)
		if value, ok := labels[key]; ok {
			out[key] = value
		}
	}
	return out
}

func servicePort(s *Source, name string) corev1.ServicePort {
	p := corev1.ServicePort{Name: name, Protocol: pick(s, append(protocols, "", corev1.ProtocolUDP)), Port: pick(s, []int32{53, 53, 80, 65535})}
	switch s.intN(4) {
	case 0: // the Service's own
	case 1:
		p.TargetPort = intstr.FromInt32(pick(s, portNumbers))
	default:
		p.TargetPort = intstr.FromString(pick(s, portNames))
	}
	return p
}

// dnsAddresses are where node-local DNS would answer: addresses of their own, of nodes, or of anyone.
func dnsAddresses(s *Source, c Case) []netip.Addr {
	var out []netip.Addr
	for range pick(s, []int{1, 0, 2, 1}) {
		own := []netip.Addr{netip.MustParseAddr("169.254.20.10"), netip.MustParseAddr("fd00:169::10")}
		out = append(out, pick(s, pick(s, [][]netip.Addr{own, c.Nodes[0].Addrs, c.Others, c.addresses()})))
	}
	return out
}

// ClusterPolicies draws cluster policies of both tiers, ours and the SIG's. A policy of the SIG now and then has name, tier, priority and age of
// ours before it, so that only their groups tell them apart.
func ClusterPolicies(s *Source, c Case, o Options) []*v1alpha1.ClusterNetworkPolicy {
	var out []*v1alpha1.ClusterNetworkPolicy
	for i := range s.between(0, 6) {
		// Names are not in the order of their drawing.
		p := ClusterPolicy(s, c, o, fmt.Sprintf("%s-%d", pick(s, []string{"m", "a", "z"}), i))
		if p.APIVersion == sigVersion && i > 0 && out[i-1].APIVersion != sigVersion && !s.oneIn(3) {
			last := out[i-1]
			p.Name, p.CreationTimestamp = last.Name, last.CreationTimestamp
			p.Spec.Tier, p.Spec.Priority = last.Spec.Tier, last.Spec.Priority
		}
		out = append(out, p)
	}
	return out
}

// ClusterPolicy draws one cluster policy. The SIG's has neither mode nor log, and knows pods alone as sources.
func ClusterPolicy(s *Source, c Case, o Options, name string) *v1alpha1.ClusterNetworkPolicy {
	d := tierDrawer{drawer: drawer{s, c, o.forOneObject(s)}}
	p := &v1alpha1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Name: name, CreationTimestamp: metav1.Time{Time: time.Unix(1700000000+int64(s.intN(3)), 0).UTC()},
	}}
	p.Spec = v1alpha1.ClusterNetworkPolicySpec{Tier: d.tier(), Priority: pick(s, []int32{1, 0, 1, 1000}), Subject: d.subject()}
	d.sig = s.oneIn(4)
	switch {
	case d.sig:
		p.APIVersion, p.Kind = sigVersion, "ClusterNetworkPolicy"
	default:
		p.Spec.Mode = d.mode()
		if s.oneIn(2) { // as a reader of the API fills it in; caches leave it out
			p.APIVersion, p.Kind = ownVersion, "ClusterNetworkPolicy"
		}
	}
	for range d.length() {
		r := v1alpha1.IngressRule{Name: pick(s, []string{"", "rule"}), Action: d.action(), From: d.clusterPeers(d.sig), Protocols: d.protocols()}
		r.Log = !d.sig && r.Action == v1alpha1.Deny && s.oneIn(4)
		p.Spec.Ingress = append(p.Spec.Ingress, r)
	}
	for range d.length() {
		r := v1alpha1.EgressRule{Name: pick(s, []string{"", "rule"}), Action: d.action(), To: d.clusterPeers(false), Protocols: d.protocols()}
		r.Log = !d.sig && r.Action == v1alpha1.Deny && s.oneIn(4)
		p.Spec.Egress = append(p.Spec.Egress, r)
	}
	return p
}

// forOneObject lets invalid parts into every third object only: one that denies everything because it is not understood hides the others.
func (o Options) forOneObject(s *Source) Options {
	if o.Invalid && !s.oneIn(3) {
		o.Invalid = false
	}
	return o
}

// Isolations draws some isolations, less often than not.
func Isolations(s *Source, c Case, o Options) []*v1alpha1.NamespaceIsolation {
	var out []*v1alpha1.NamespaceIsolation
	for i := range pick(s, []int{0, 1, 0, 2, 3}) {
		out = append(out, Isolation(s, c, o, fmt.Sprintf("isolation-%d", i)))
	}
	return out
}

// Isolation draws one isolation.
func Isolation(s *Source, c Case, o Options, name string) *v1alpha1.NamespaceIsolation {
	d := tierDrawer{drawer: drawer{s, c, o.forOneObject(s)}}
	iso := &v1alpha1.NamespaceIsolation{ObjectMeta: metav1.ObjectMeta{Name: name}}
	iso.Spec = v1alpha1.NamespaceIsolationSpec{
		Mode: d.mode(), Tier: d.tier(), NamespaceSelector: ownSelector(d.namespaceSelector()),
		TenantLabel: pick(s, append(slices.Clone(labelKeys), "", "nobody")),
		Directions: pick(s, [][]v1alpha1.Direction{
			{v1alpha1.Ingress, v1alpha1.Egress}, {v1alpha1.Ingress}, {v1alpha1.Egress}, nil, {}, {v1alpha1.Egress, v1alpha1.Ingress}}),
	}
	iso.Spec.Allow.SameTenant = pick(s, []*bool{nil, pointer(true), pointer(true), pointer(false)})
	iso.Spec.Allow.DNS = pick(s, []*bool{nil, pointer(true), pointer(false)})
	for range d.intN(3) {
		iso.Spec.Allow.Ingress = append(iso.Spec.Allow.Ingress, v1alpha1.IsolationIngress{From: d.clusterPeers(false), Protocols: d.protocols()})
	}
	for range d.intN(3) {
		iso.Spec.Allow.Egress = append(iso.Spec.Allow.Egress, v1alpha1.IsolationEgress{To: d.clusterPeers(false), Protocols: d.protocols()})
	}
	return iso
}
