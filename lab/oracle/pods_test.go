package oracle

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNamedPorts(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	for _, row := range []struct {
		name     string
		policies string
		want     []string
	}{
		{"ingress: the number is that of the pod that receives", `
a/p: {podSelector: {}, ingress: [{ports: [{port: http}]}]}`, []string{
			"allowed: client -> web TCP/80", "denied: client -> web TCP/8080", "allowed: client -> db TCP/8080", "denied: client -> db TCP/80",
		}},
		{"egress: the number differs from pod to pod", `
b/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}`, []string{
			"allowed: client -> web TCP/80", "denied: client -> web TCP/8080", "allowed: client -> db TCP/8080", "denied: client -> db TCP/80",
			"denied: client -> bare TCP/80", "denied: client -> outside TCP/80", "allowed: client6 -> db6 TCP/8080",
		}},
		{"egress: only on the pods of the peer", `
b/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}]}`, []string{
			"denied: client -> web TCP/80", "allowed: client -> db TCP/8080",
		}},
		{"egress to anywhere reaches the ports of pods only", `
b/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`, []string{
			"allowed: client -> web TCP/80", "denied: client -> outside TCP/80", "denied: client -> host TCP/80", "denied: client -> job TCP/80",
		}},
		{"egress to a block reaches the ports of pods in it", `
b/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.1.0.0/31}}], ports: [{port: http}]}]}`, []string{
			"allowed: client -> web TCP/80", "denied: client -> db TCP/8080",
		}},
		{"a name on two protocols has two numbers", `
a/p: {podSelector: {}, ingress: [{ports: [{port: dns, protocol: UDP}]}]}
a/q: {podSelector: {}, ingress: [{ports: [{port: dns, protocol: TCP}], from: [{podSelector: {}}]}]}`, []string{
			"allowed: client -> web UDP/53", "denied: client -> web TCP/53", "denied: client -> web UDP/5353", "allowed: db -> web TCP/5353", "denied: client -> web TCP/5353",
		}},
		{"the protocol of the policy must be that of the port", `
a/p: {podSelector: {}, ingress: [{ports: [{port: http, protocol: UDP}]}]}`, []string{"denied: client -> web UDP/80", "denied: client -> web TCP/80"}},
		{"init containers and sidecars count", `
a/p: {podSelector: {}, ingress: [{ports: [{port: warm}, {port: side}]}]}`, []string{
			"allowed: client -> web TCP/7000", "allowed: client -> web TCP/7001", "denied: client -> web TCP/7002",
		}},
		{"a name that matches nothing matches no traffic", `
a/p: {podSelector: {}, ingress: [{ports: [{port: nobody}]}]}`, []string{"denied: client -> web TCP/80", "denied: client -> web TCP/0", "denied: client -> web ICMP/8"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := standardCluster()
			ports(c.Pods[0], "http=TCP/80", "dns=UDP/53", "dns=TCP/5353")
			initPorts(c.Pods[0], nil, "warm=/7000")
			initPorts(c.Pods[0], &always, "side=TCP/7001")
			ports(c.Pods[1], "http=TCP/8080")
			ports(c.Pods[4], "http=TCP/80")
			ports(c.Pods[5], "http=TCP/80")
			c.Policies = policies(t, row.policies)
			expect(t, c, row.want)
		})
	}
}

func TestWhoHoldsAnAddress(t *testing.T) {
	old := func() *corev1.Pod { return createdAt(pod("a/old", "node2", []string{"10.1.0.9"}, "app=old"), 100) }
	young := func() *corev1.Pod {
		return createdAt(pod("a/young", "node2", []string{"10.1.0.9"}, "app=young"), 200)
	}
	onlyOld := `
a/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: old}}}]}]}`
	for _, row := range []struct {
		name string
		pods []*corev1.Pod
		want string
	}{
		{"the only one", []*corev1.Pod{old()}, "allowed: 10.1.0.9 -> web TCP/80"},
		{"the younger of two", []*corev1.Pod{old(), young()}, "denied: 10.1.0.9 -> web TCP/80"},
		{"not one that succeeded", []*corev1.Pod{old(), finished(young(), corev1.PodSucceeded)}, "allowed: 10.1.0.9 -> web TCP/80"},
		{"not one that failed", []*corev1.Pod{finished(old(), corev1.PodFailed), young()}, "denied: 10.1.0.9 -> web TCP/80"},
		{"the one that stays", []*corev1.Pod{old(), terminating(young())}, "allowed: 10.1.0.9 -> web TCP/80"},
		{"a terminating pod while it is alone", []*corev1.Pod{terminating(old())}, "allowed: 10.1.0.9 -> web TCP/80"},
		{"the greater UID of two of the same age", []*corev1.Pod{createdAt(old(), 200), young()}, "denied: 10.1.0.9 -> web TCP/80"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, order := range []string{"in order", "reversed"} {
				c := standardCluster()
				c.Policies = policies(t, onlyOld)
				if order == "reversed" && len(row.pods) == 2 {
					row.pods[0], row.pods[1] = row.pods[1], row.pods[0]
				}
				c.Pods = append(c.Pods, row.pods...)
				expect(t, c, []string{row.want})
			}
		})
	}
}

// TestWhoHoldsAContestedAddress: web is on node1, which judges; the pods that contest 10.1.0.9 are on that node, or on others. The policy allows one of them.
func TestWhoHoldsAContestedAddress(t *testing.T) {
	claimant := func(name, node string, created int64) *corev1.Pod {
		return createdAt(pod("a/"+name, node, []string{"10.1.0.9"}, "app="+name), created)
	}
	ranges := func(name, cidr string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}}}
	}
	for _, row := range []struct {
		name  string
		pods  []*corev1.Pod
		nodes []*corev1.Node
		want  string
	}{
		{"a pod of this node, though it is older", []*corev1.Pod{claimant("first", "node1", 100), claimant("other", "node2", 200)}, nil, "allowed"},
		{"a pod of this node, though it is younger", []*corev1.Pod{claimant("first", "node1", 200), claimant("other", "node2", 100)}, nil, "allowed"},
		{"a pod of this node, though it terminates", []*corev1.Pod{terminating(claimant("first", "node1", 100)), claimant("other", "node2", 200)}, nil, "allowed"},
		{"a pod of this node, though its node names other ranges", []*corev1.Pod{claimant("first", "node1", 100), claimant("other", "node2", 200)},
			[]*corev1.Node{ranges("node1", "10.3.0.0/24"), ranges("node2", "10.1.0.0/24")}, "allowed"},
		{"not one that ended here", []*corev1.Pod{finished(claimant("first", "node1", 100), corev1.PodFailed), claimant("other", "node2", 200)}, nil, "denied"},
		{"elsewhere the older", []*corev1.Pod{claimant("first", "node2", 100), claimant("other", "node3", 200)}, nil, "allowed"},
		{"elsewhere the older, though it terminates", []*corev1.Pod{terminating(claimant("first", "node2", 100)), claimant("other", "node3", 200)}, nil, "allowed"},
		{"elsewhere the smaller UID of two of an age", []*corev1.Pod{claimant("first", "node2", 100), claimant("other", "node3", 100)}, nil, "allowed"},
		{"not one whose node names other ranges", []*corev1.Pod{claimant("other", "node2", 100), claimant("first", "node3", 200)},
			[]*corev1.Node{ranges("node2", "10.2.0.0/24"), ranges("node3", "10.1.0.0/24")}, "allowed"},
		{"one of a node without ranges before one whose node names others", []*corev1.Pod{claimant("other", "node2", 100), claimant("first", "node3", 200)},
			[]*corev1.Node{ranges("node2", "10.2.0.0/24")}, "allowed"},
		{"the older where neither node names the range", []*corev1.Pod{claimant("first", "node2", 100), claimant("other", "node3", 200)},
			[]*corev1.Node{ranges("node2", "10.2.0.0/24"), ranges("node3", "10.3.0.0/24")}, "allowed"},
		{"ranges of the other family say nothing", []*corev1.Pod{claimant("first", "node2", 100), claimant("other", "node3", 200)},
			[]*corev1.Node{ranges("node2", "fd00:2::/64")}, "allowed"},
		{"the younger of the older node", []*corev1.Pod{claimant("other", "node2", 100), claimant("first", "node2", 150), claimant("other", "node3", 200)}, nil, "allowed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range row.pods { // whichever comes first
				c := standardCluster()
				c.Nodes = row.nodes
				c.Policies = policies(t, `
a/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: first}}}]}]}`)
				c.Pods = append(c.Pods, row.pods...)
				expect(t, c, []string{row.want + ": 10.1.0.9 -> web TCP/80"})
				row.pods = append(row.pods[1:], row.pods[0])
			}
		})
	}
}

// TestNobodyHasAnAddressThatNobodyCanHave, and a link-local one is a pod's on its own node.
func TestNobodyHasAnAddressThatNobodyCanHave(t *testing.T) {
	for _, row := range []struct{ addr, here, elsewhere string }{
		{"0.0.0.0", "allowed", "denied"}, {"::", "allowed", "denied"}, {"127.0.0.1", "allowed", "denied"}, {"ff02::1", "allowed", "denied"},
		{"255.255.255.255", "allowed", "denied"}, {"169.254.1.9", "denied", "denied"}, {"fe80::9", "denied", "denied"}, {"10.1.0.9", "denied", "allowed"},
	} {
		c := standardCluster()
		c.Policies = policies(t, `
a/in: {podSelector: {matchLabels: {app: strange}}}
a/from: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: strange}}}]}]}`)
		c.Pods = append(c.Pods, pod("a/strange", "node2", []string{row.addr}, "app=strange"))
		dst := "web"
		if strings.Contains(row.addr, ":") {
			dst = "web6"
		}
		expect(t, c, []string{row.here + ": outside -> " + row.addr + " TCP/80", row.elsewhere + ": " + row.addr + " -> " + dst + " TCP/80"})
	}
}

func TestTerminatingPodIsStillIsolated(t *testing.T) {
	c := standardCluster()
	terminating(c.Pods[0])
	c.Policies = policies(t, `a/p: {podSelector: {matchLabels: {app: web}}}`)
	expect(t, c, []string{"denied: client -> web TCP/80"})
}

func TestPodOfAnUnknownNamespaceIsInNoNamespaceSelector(t *testing.T) {
	c := standardCluster()
	c.Pods = append(c.Pods, pod("ghost/pod", "node1", []string{"10.1.0.8"}))
	c.Policies = policies(t, `a/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`)
	expect(t, c, []string{"denied: 10.1.0.8 -> web TCP/80"})
}

// TestAllowedAt: each node judges its own ends only.
func TestAllowedAt(t *testing.T) {
	c := standardCluster()
	c.Policies = policies(t, `
a/in: {podSelector: {matchLabels: {app: db}}}
b/out: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`)
	for _, row := range []struct {
		node, flow string
		want       bool
	}{
		{"node1", "client -> db TCP/80", true},  // egress allows; db is not here
		{"node1", "client -> db TCP/81", false}, // egress denies
		{"node2", "client -> db TCP/81", false}, // ingress denies
		{"node1", "web -> db TCP/80", true},     // web is not isolated
		{"node2", "web -> db TCP/80", false},
		{"node2", "node2 -> db TCP/80 from node2", true},
		{"node2", "node1 -> db TCP/80 from node1", false},
		{"node1", "db -> db TCP/80", true},
		{"node2", "db -> db TCP/80", true},
		{"node1", "client -> client TCP/81", true},
	} {
		if got, reason := c.AllowedAt(row.node, flow(t, row.flow)); got != row.want {
			t.Errorf("%s at %s: got %v, because %s; want %v", row.flow, row.node, got, reason, row.want)
		}
	}
}
