package compile

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWhatNodesSendFrom: a policy lets nodes in, and what they send from gets in, whatever their status has of it.
func TestWhatNodesSendFrom(t *testing.T) {
	node := func(name, addr string, ranges ...string) *Node {
		return NewNode(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: ranges},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}, {Type: corev1.NodeHostName, Address: name}}},
		})
	}
	s := shopAt("n1", "nobody", shownPod("web", "n1", 100, "10.244.1.5"), shownPod("first", "n1", 100, "10.244.1.1"), shownPod("far", "n2", 100, "10.244.3.0"),
		shownPod("liar", "n2", 100, "172.17.0.1"))
	s.Policies, s.ClusterPolicies = s.Policies.Without("shop", "isolated"), lettingNodesIn()
	s.Nodes = []*Node{
		node("n1", "192.0.2.1", "10.244.1.0/24", "fd00:1::/64"), node("n2", "192.0.2.2", "10.244.2.0/24", "fd00:2::/64"), node("n3", "192.0.2.3", "10.244.3.0/24"),
		node("n4", "192.0.2.4", "10.244.4.7/32"),
		node("n5", "192.0.2.5", "0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.254/31", "::/64", "fe80::/64", "ff00::/8"),
	}
	s.Own = list("172.17.0.1", "10.244.1.9", "10.244.1.5")
	compiled, _ := Compile(s)
	for _, set := range compiled.Sets.All() {
		for m := range set.Members.All() {
			if a := m.Addr.IP(); !isPossibleOfNode(a) { // the kernel would refuse the set
				t.Errorf("%s is in a set", a)
			}
		}
	}
	for addr, want := range map[string]bool{
		"192.0.2.1": true, "192.0.2.2": true, // of status
		"10.244.2.0": true, "10.244.2.1": true, // of a tunnel, and of the pods' bridge
		"10.244.2.2": false, "10.244.4.7": false, "10.244.4.8": false,
		"10.244.1.0": true, "10.244.1.1": false, // a pod's
		"10.244.3.0": false, "10.244.3.1": true,
		"10.244.1.9": true, "172.17.0.1": true, // the node's own: what another node says of its pods does not count
	} {
		if v := compiled.Allows(tcp(addr, "10.244.1.5")); v.Allowed != want {
			t.Errorf("%s gets in where nodes may: %t, want %t: %s", addr, v.Allowed, want, v.Reason)
		}
	}
	s = s.WithPods(NewPod(shownPod("six", "n1", 100, "fd00:1::5")))
	compiled, _ = Compile(s)
	for addr, want := range map[string]bool{"fd00:2::": true, "fd00:2::1": true, "fd00:2::2": false, "fd00:1::1": true} {
		if v := compiled.Allows(tcp(addr, "fd00:1::5")); v.Allowed != want {
			t.Errorf("%s gets in where nodes may: %t, want %t: %s", addr, v.Allowed, want, v.Reason)
		}
	}
	s.Local[0].Node = "n2"
	there := Snapshot{Node: "n2", Namespaces: s.Namespaces, ClusterPolicies: s.ClusterPolicies, Nodes: s.Nodes} // where the first one's own addresses are not known
	s = there.WithPods(slices.Collect(s.Pods())...)
	compiled, _ = Compile(s)
	for addr, want := range map[string]bool{"10.244.1.9": false, "10.244.1.0": true, "192.0.2.1": true} {
		if v := compiled.Allows(tcp(addr, "10.244.1.5")); v.Allowed != want {
			t.Errorf("on another node %s gets in where nodes may: %t, want %t: %s", addr, v.Allowed, want, v.Reason)
		}
	}
}
