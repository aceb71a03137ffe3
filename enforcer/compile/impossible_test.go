package compile

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// lettingNodesIn denies all ingress but that of nodes.
func lettingNodesIn() []*v1alpha1.ClusterNetworkPolicy {
	return []*v1alpha1.ClusterNetworkPolicy{{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterNetworkPolicy"}, ObjectMeta: metav1.ObjectMeta{Name: "nodes"},
		Spec: v1alpha1.ClusterNetworkPolicySpec{Tier: v1alpha1.AdminTier, Subject: v1alpha1.Subject{Namespaces: &v1alpha1.LabelSelector{}}, Ingress: []v1alpha1.IngressRule{
			{Action: v1alpha1.Accept, From: []v1alpha1.Peer{{Nodes: &v1alpha1.LabelSelector{}}}},
			{Action: v1alpha1.Deny, From: []v1alpha1.Peer{{Networks: []v1alpha1.CIDR{"0.0.0.0/0", "::/0"}}}},
		}},
	}}
}

// neverHeld are addresses that no pod can have, as kubelets can write them into a status.
var neverHeld = []string{
	"0.0.0.0", "::", "::ffff:0.0.0.0", "127.0.0.1", "127.9.9.9", "::1", "224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1", "255.255.255.255", "::ffff:127.0.0.1",
}

// held are the addresses in a node's trees and sets.
func held(n policy.Node) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, e := range n.Endpoints {
		for _, a := range e.Addrs {
			all[a] = true
		}
	}
	for _, s := range n.Sets.All() {
		for m := range s.Members.All() {
			all[m.Addr.IP()] = true
		}
	}
	return all
}

// TestNoPodHoldsAnImpossibleAddress: a kubelet shows a pod with an address that none can have, on this node or on another, alone or beside a good one. It gets
// into no set and no tree, and the good one does.
func TestNoPodHoldsAnImpossibleAddress(t *testing.T) {
	for _, addr := range neverHeld {
		for _, node := range []string{"n1", "n2"} {
			alone, beside := shownPod("alone", node, 100, addr), shownPod("beside", node, 100, "10.244.1.7", addr)
			for _, p := range []*corev1.Pod{alone, beside} {
				p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}}}
			}
			s := shopAt("n1", "alone", shownPod("web", "n1", 100, "10.244.1.5"), alone, beside)
			from, _ := shopAt("n1", "beside").Policies.Get("shop", "isolated")
			from.Name = "other"
			s.Policies = s.Policies.With(from)
			compiled, _ := Compile(s)
			got := held(compiled)
			if got[netip.MustParseAddr(addr)] || got[netip.MustParseAddr(addr).Unmap()] || !got[netip.MustParseAddr("10.244.1.7")] {
				t.Errorf("with pods on %s that are shown with %s, these are held: %v", node, addr, got)
			}
		}
	}
}

// TestNoNodeHoldsAnImpossibleAddress: the status of a Node is checked by nobody. A link-local address means another host on each link.
func TestNoNodeHoldsAnImpossibleAddress(t *testing.T) {
	for _, addr := range append([]string{"fe80::1", "169.254.0.1", "fe80::1%eth0", "node.example.com", "10.0.0.1/24", ""}, neverHeld...) {
		s := shopAt("n1", "nobody", shownPod("web", "n1", 100, "10.244.1.5"))
		s.Nodes = []*Node{NewNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: addr}, {Type: corev1.NodeInternalIP, Address: "192.0.2.2"}, {Type: corev1.NodeHostName, Address: addr},
		}}})}
		s.ClusterPolicies = lettingNodesIn()
		compiled, _ := Compile(s)
		for a := range held(compiled) {
			if a != netip.MustParseAddr("192.0.2.2") && a != netip.MustParseAddr("10.244.1.5") {
				t.Errorf("with a node that says it has %q, %s is held", addr, a)
			}
		}
	}
}

// TestNoServiceHoldsAnImpossibleAddress: one of the cluster's DNS is named, and its other addresses are allowed.
func TestNoServiceHoldsAnImpossibleAddress(t *testing.T) {
	for _, addr := range neverHeld {
		s := shopAt("n1", "nobody", shownPod("web", "n1", 100, "10.244.1.5"))
		s.Policies = s.Policies.Without("shop", "isolated")
		s.Isolations = []*v1alpha1.NamespaceIsolation{{ObjectMeta: metav1.ObjectMeta{Name: "all"}}}
		s.DNS.Services = []*corev1.Service{{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "dns"}, Spec: corev1.ServiceSpec{
			ClusterIP: addr, ClusterIPs: []string{addr, "10.96.0.10"}, Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolUDP, Port: 53}},
		}}}
		node, problems := Compile(s)
		flow := tcp("10.244.1.5", "10.96.0.10")
		flow.Protocol, flow.DstPort = policy.UDP, 53
		if v := node.Allows(flow); !v.Allowed {
			t.Errorf("beside %s the Service's other address is denied: %s", addr, v.Reason)
		}
		for _, p := range node.Policies {
			for _, r := range p.Rules[policy.Egress] {
				for _, b := range r.Peer.Blocks {
					if b.Prefix.Contains(netip.MustParseAddr(addr).Unmap()) {
						t.Errorf("%s is allowed for DNS", b.Prefix)
					}
				}
			}
		}
		if len(problems) != 1 || problems[0].Ref.Kind != "Service" || problems[0].Ref.Name != "dns" {
			t.Errorf("of %s it is said: %v", addr, problems)
		}
	}
}

// TestALinkLocalAddressIsAPodsOnItsOwnNode: there it is policed; elsewhere it means somebody else.
func TestALinkLocalAddressIsAPodsOnItsOwnNode(t *testing.T) {
	for _, addr := range []string{"169.254.172.3", "fe80::172:3"} {
		for _, node := range []string{"n1", "n2"} {
			s := shopAt("n1", "web", shownPod("web", node, 100, addr), shownPod("twin", "n3", 50, addr))
			compiled, _ := Compile(s)
			if got := held(compiled)[netip.MustParseAddr(addr)]; got != (node == "n1") {
				t.Errorf("%s of a pod on %s is held on n1: %t", addr, node, got)
			}
		}
	}
}
