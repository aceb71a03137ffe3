package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// shownPod is a pod as its kubelet shows it: with its name for the label app.
func shownPod(name, node string, created int64, addrs ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": name}, CreationTimestamp: metav1.NewTime(time.Unix(created, 0)),
		},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	p.Status.PodIP = p.Status.PodIPs[0].IP
	return p
}

func terminatingPod(p *corev1.Pod) *corev1.Pod {
	p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1000, 0)}
	return p
}

// shopAt is what a node sees: these pods, each isolated for ingress, and what is labelled from let in by all.
func shopAt(node, from string, pods ...*corev1.Pod) Snapshot {
	app := func(name string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	}
	only := app(from)
	s := Snapshot{Node: node, Namespaces: ObjectsOf(&Namespace{Name: "shop"}), Policies: ObjectsOf(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "isolated"},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{
			{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &only}}},
		}},
	})}
	for _, p := range pods {
		s = s.WithPods(NewPod(p))
	}
	return s
}

// tcp is the first packet of a connection between two addresses.
func tcp(src, dst string) policy.Flow {
	return policy.Flow{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: policy.TCP, DstPort: 80}
}

// TestAPodOfThisNodeKeepsItsAddress: whatever kubelets of other nodes show, a node enforces policy on its own pods, and says that it does of just these.
func TestAPodOfThisNodeKeepsItsAddress(t *testing.T) {
	const addr = "10.244.1.5"
	for _, tt := range []struct {
		name           string
		victim, others []*corev1.Pod
	}{
		{"a newer pod elsewhere is shown with it", []*corev1.Pod{shownPod("victim", "n1", 100, addr)}, []*corev1.Pod{shownPod("thief", "n2", 200, addr)}},
		{"an older one", []*corev1.Pod{shownPod("victim", "n1", 200, addr)}, []*corev1.Pod{shownPod("thief", "n2", 100, addr)}},
		{"while it terminates", []*corev1.Pod{terminatingPod(shownPod("victim", "n1", 100, addr))}, []*corev1.Pod{shownPod("thief", "n2", 200, addr)}},
		{"by several nodes", []*corev1.Pod{shownPod("victim", "n1", 100, addr)},
			[]*corev1.Pod{shownPod("thief", "n2", 200, addr), shownPod("gang", "n3", 300, addr, "10.244.3.9")}},
		{"one of its two addresses", []*corev1.Pod{shownPod("victim", "n1", 100, addr, "fd00::5")}, []*corev1.Pod{shownPod("thief", "n2", 200, "fd00::5")}},
		{"written as IPv4 in IPv6", []*corev1.Pod{shownPod("victim", "n1", 100, addr)}, []*corev1.Pod{shownPod("thief", "n2", 200, "::ffff:"+addr)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pods := slices.Concat(tt.victim, tt.others)
			for range pods { // whichever comes first
				node, _ := Compile(shopAt("n1", "friend", pods...))
				for _, ip := range tt.victim[0].Status.PodIPs {
					from := "10.244.9.9"
					if strings.Contains(ip.IP, ":") {
						from = "fd00::99"
					}
					if v := node.Allows(tcp(from, ip.IP)); v.Allowed {
						t.Errorf("%s is open on the node of its pod: %s", ip.IP, v.Reason)
					}
				}
				victim := NewPod(tt.victim[0])
				if got, want := node.Concerns.Pods, []uint64{victim.Digest(&Namespace{Name: "shop"})}; !slices.Equal(got, want) {
					t.Errorf("the node says that it enforces policy on %x, want %x", got, want)
				}
				pods = append(pods[1:], pods[0])
			}
		})
	}
}

// TestNodesWithOneRangeEnforceTheirOwn: where all nodes give their pods addresses of one range, as with a bridge of the runtime's own on each, many pods have
// the same address. Each node enforces policy on its own, and says so in little space.
func TestNodesWithOneRangeEnforceTheirOwn(t *testing.T) {
	var pods []*corev1.Pod
	for n := range 20 {
		for i := range 50 {
			pods = append(pods, shownPod(fmt.Sprintf("pod-%d-%d", n, i), fmt.Sprintf("n%d", n), int64(1000+(n*7+i*3)%50), fmt.Sprintf("10.85.0.%d", i+2)))
		}
	}
	for n := range 20 {
		name := fmt.Sprintf("n%d", n)
		node, _ := Compile(shopAt(name, "nobody", pods...))
		if len(node.Endpoints) != 50 || len(node.Concerns.Pods) != 50 {
			t.Fatalf("%s has %d endpoints and reports %d pods, want its 50", name, len(node.Endpoints), len(node.Concerns.Pods))
		}
		for _, e := range node.Endpoints {
			if !strings.HasPrefix(e.Name, fmt.Sprintf("pod-%d-", n)) || len(e.Addrs) != 1 {
				t.Errorf("%s has the endpoint %s with %s", name, e.Name, e.Addrs)
			}
			if v := node.Allows(tcp("10.85.0.200", e.Addrs[0].String())); v.Allowed {
				t.Errorf("%s is open on %s: %s", e.Addrs[0], name, v.Reason)
			}
		}
	}
}

// TestAnAddressContestedElsewhereOpensNothing: on a node with neither of the pods, who holds the address gets in as the pod whose claim is the better one.
func TestAnAddressContestedElsewhereOpensNothing(t *testing.T) {
	const addr = "10.244.1.5"
	ranges := func(node, cidr string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}}}
	}
	announcing := func(p *corev1.Pod) *corev1.Pod {
		p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: "policy.ringfence.io/AddressesAssigned", Status: corev1.ConditionTrue, Message: p.Status.PodIP},
		}}
		return p
	}
	for _, tt := range []struct {
		name   string
		claims []*corev1.Pod
		nodes  []*corev1.Node
		holder string
	}{
		{"the older", []*corev1.Pod{shownPod("old", "n1", 100, addr), shownPod("new", "n2", 200, addr)}, nil, "old"},
		{"the older, though it terminates", []*corev1.Pod{terminatingPod(shownPod("old", "n1", 100, addr)), shownPod("new", "n2", 200, addr)}, nil, "old"},
		{"not one whose node names other ranges", []*corev1.Pod{shownPod("old", "n2", 100, addr), shownPod("new", "n1", 200, addr)},
			[]*corev1.Node{ranges("n1", "10.244.1.0/24"), ranges("n2", "10.244.2.0/24")}, "new"},
		{"not one of a node that names the range itself where the other's names none", []*corev1.Pod{shownPod("old", "n1", 100, addr), shownPod("new", "n2", 200, addr)},
			[]*corev1.Node{ranges("n2", "10.244.1.5/32")}, "old"},
		{"the older, where both nodes name the range", []*corev1.Pod{shownPod("old", "n1", 100, addr), shownPod("new", "n2", 200, addr)},
			[]*corev1.Node{ranges("n1", "10.244.0.0/16"), ranges("n2", "10.244.0.0/16")}, "old"},
		{"of one node the newer, as that node sees it", []*corev1.Pod{shownPod("old", "n1", 100, addr), shownPod("new", "n1", 200, addr)}, nil, "new"},
		{"of one node the newer, though a third is in between", []*corev1.Pod{
			shownPod("old", "n1", 100, addr), shownPod("new", "n1", 150, addr), shownPod("third", "n2", 120, addr),
		}, nil, "third"},
		{"none that is announced, where one is shown", []*corev1.Pod{announcing(shownPod("old", "n1", 100, addr)), shownPod("new", "n2", 200, addr)}, nil, "new"},
		{"nobody, where two nodes announce it", []*corev1.Pod{announcing(shownPod("old", "n1", 100, addr)), announcing(shownPod("new", "n2", 200, addr))}, nil, ""},
		{"nobody, where one node announces it of two", []*corev1.Pod{
			announcing(shownPod("old", "n1", 100, addr)), announcing(shownPod("new", "n1", 200, addr)), announcing(shownPod("third", "n2", 200, addr)),
		}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range tt.claims {
				for _, p := range tt.claims {
					s := shopAt("n9", p.Name, append([]*corev1.Pod{shownPod("web", "n9", 50, "10.244.9.1")}, tt.claims...)...)
					for _, n := range tt.nodes {
						s.Nodes = append(s.Nodes, NewNode(n))
					}
					node, _ := Compile(s)
					if v := node.Allows(tcp(addr, "10.244.9.1")); v.Allowed != (p.Name == tt.holder) {
						t.Errorf("%s gets in as %s: %t, want it to be that of %q: %s", addr, p.Name, v.Allowed, tt.holder, v.Reason)
					}
				}
				tt.claims = append(tt.claims[1:], tt.claims[0])
			}
		})
	}
}

// TestANodeDoesNotClaimAPodsAddress: a Node's status names an address of a pod of this node, and a policy lets nodes in.
func TestANodeDoesNotClaimAPodsAddress(t *testing.T) {
	s := shopAt("n1", "nobody", shownPod("web", "n1", 100, "10.244.1.5"), shownPod("db", "n1", 100, "10.244.1.6"))
	s.Nodes = []*Node{NewNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "192.0.2.2"}, {Type: corev1.NodeInternalIP, Address: "10.244.1.5"},
	}}})}
	s.Policies = s.Policies.Without("shop", "isolated")
	s.ClusterPolicies = lettingNodesIn()
	node, _ := Compile(s)
	for addr, want := range map[string]bool{"192.0.2.2": true, "10.244.1.5": false, "10.244.1.7": false} {
		if v := node.Allows(tcp(addr, "10.244.1.6")); v.Allowed != want {
			t.Errorf("%s gets in where nodes may: %t, want %t: %s", addr, v.Allowed, want, v.Reason)
		}
	}
}
