package query

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// pod is a pod with a label, as a workload's if owner names one: "ReplicaSet/web-5d".
func pod(namespace, name, app, addr, owner string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		}}},
		Status: corev1.PodStatus{PodIP: addr},
	}
	if kind, of, ok := strings.Cut(owner, "/"); ok {
		controller := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: of, Controller: &controller}}
		if _, hash, ok := strings.Cut(of, "-"); ok && kind == "ReplicaSet" {
			p.Labels["pod-template-hash"] = hash
		}
	}
	return p
}

// shop is a cluster of three workloads. Only web may connect to db, at 5432.
func shop() Objects {
	tcp, port := corev1.ProtocolTCP, intstr.FromInt32(5432)
	return Objects{
		Pods: []*corev1.Pod{
			pod("shop", "web-5d-a", "web", "10.244.0.1", "ReplicaSet/web-5d"), pod("shop", "web-5d-b", "web", "10.244.0.2", "ReplicaSet/web-5d"),
			pod("shop", "db-0", "db", "10.244.0.3", "StatefulSet/db"), pod("other", "tool", "tool", "10.244.0.4", ""),
			pod("shop", "report-29000000-x", "report", "10.244.0.5", "Job/report-29000000"),
		},
		Nodes: []*corev1.Node{{
			ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "192.168.0.1"}}},
		}},
		Services: []*corev1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front"},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "web", Port: 80, TargetPort: intstr.FromString("http")}},
			},
		}},
		Policies: []*networkingv1.NetworkPolicy{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
				Ingress: []networkingv1.NetworkPolicyIngressRule{{
					From:  []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}},
					Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port}},
				}},
			},
		}},
	}.Complete()
}

func TestEnds(t *testing.T) {
	c := New(shop())
	for _, tt := range []struct {
		text string
		want string
	}{
		{"shop/web-5d-a", "shop/web-5d-a"},
		{"web-5d-a", "shop/web-5d-a"},
		{"shop/web", "shop/web-5d-a shop/web-5d-b"},
		{"web", "shop/web-5d-a shop/web-5d-b"},
		{"shop/deploy/web", "shop/web-5d-a shop/web-5d-b"},
		{"shop/rs/web-5d", "shop/web-5d-a shop/web-5d-b"},
		{"shop/statefulset/db", "shop/db-0"},
		{"shop/cj/report", "shop/report-29000000-x"},
		{"shop/svc/front", "shop/web-5d-a shop/web-5d-b"},
		{"other/pod/tool", "other/tool"},
		{"10.244.0.3", "shop/db-0"},
		{"192.168.0.1", "node n1"},
		{"node/n1", "node n1"},
		{"[2001:db8::1]", "2001:db8::1"},
		{"8.8.8.8", "8.8.8.8"},
		{"outside", "outside"},
		{"nobody", "error: no pod that runs is shop/nobody"},
		{"nowhere/web", "error: there is no namespace nowhere"},
		{"shop/deploy/db", "error: no pod that runs is shop/deploy/db"},
		{"shop/svc/db", "error: there is no Service shop/db"},
		{"shop/secret/db", "error: \"secret\" is no kind that pods are known by"},
		{"node/n2", "error: there is no node n2"},
		{"shop//db", "error: \"shop//db\" names neither a pod nor an address"},
	} {
		ends, err := c.Ends(tt.text, "shop")
		var names []string
		for _, e := range ends {
			names = append(names, e.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want && !(err != nil && strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestPortsOfTargets(t *testing.T) {
	c := New(shop())
	for _, tt := range []struct{ to, port, want string }{
		{"shop/svc/front", "80", "tcp/8080"},
		{"shop/svc/front", "web", "tcp/8080"},
		{"shop/db-0", "5432", "tcp/5432"},
		{"shop/db-0", "http", "tcp/8080"},
		{"shop/svc/front", "81", "the Service shop/front has no port 81 of tcp"},
		{"shop/db-0", "smtp", "shop/db-0 has no port of tcp named smtp"},
	} {
		targets, err := c.Targets(tt.to, "shop", tt.port, policy.TCP)
		got := fmt.Sprint(err)
		if err == nil {
			got = targets[0].Port.String()
		}
		if got != tt.want {
			t.Errorf("%s:%s is %q, want %q", tt.to, tt.port, got, tt.want)
		}
	}
}

func mustEnd(t *testing.T, c *Cluster, text string) End {
	t.Helper()
	ends, err := c.Ends(text, "shop")
	if err != nil {
		t.Fatal(err)
	}
	return ends[0]
}

// The change opens one pair of workloads at one port, and isolates no pod that was not.
func TestTheChangeOpensOneConnectionAndClosesNone(t *testing.T) {
	o := shop()
	c := New(o)
	a := c.Why(mustEnd(t, c, "other/tool"), mustEnd(t, c, "shop/db-0"), Port{policy.TCP, 5432})
	if a.Allowed {
		t.Fatal("db lets tool in")
	}
	change, err := c.Allowing(a)
	if err != nil {
		t.Fatal(err)
	}
	want := []Difference{{
		From: "other/tool", To: "shop/sts/db", Opened: []PortsVerdict{{"tcp", 5432, 5432, true}},
		By: []string{"NetworkPolicy shop/allow-db-from-other-tool-tcp-5432 ingress[0]"},
	}}
	if diff := cmp.Diff(want, Diff(c, New(o.With(change.Objects...)))); diff != "" {
		t.Errorf("it changes (-want +got):\n%s", diff)
	}
	if len(o.Policies) != 1 {
		t.Error("the objects that were asked about have changed")
	}
}

func TestAssertions(t *testing.T) {
	c := New(shop())
	for _, tt := range []struct {
		text string
		want string // in what it differs, or "" if it holds
	}{
		{"web reaches db on tcp/5432", ""},
		{"shop/web  reaches\n shop/db on TCP/5432", ""},
		{"web reaches db", ""},
		{"web reaches db on tcp/5432, tcp/5433", "shop/web-5d-a to shop/db-0 on tcp/5433: shop/db-0 is isolated"},
		{"web does not reach db on tcp/80, icmp", ""},
		{"web does not reach db", "shop/web-5d-a reaches shop/db-0 at tcp 5432"},
		{"other/tool does not reach db", ""},
		{"other/tool reaches db", "other/tool reaches shop/db-0 at no port"},
		{"nothing outside shop reaches db", ""},
		{"nothing reaches db", "shop/deploy/web reaches shop/sts/db at tcp 5432"},
		{"nothing reaches db on tcp/5433", ""},
		{"nothing but web reaches db", ""},
		{"nothing in other reaches db", ""},
		{"nothing in shop but web reaches db", ""},
		{"nothing outside shop reaches web", "0.0.0.0/0 reaches shop/deploy/web at all"},
		{"db reaches nothing in other", "shop/sts/db reaches other/tool at all"},
		{"db reaches nothing in other but other/tool", ""},
		{"outside reaches web on tcp/8080", ""},
		{"nowhere/x reaches db", "error: there is no namespace nowhere"},
		{"nothing in nowhere reaches db", "error: there is no namespace nowhere"},
		{"nothing reaches 8.8.8.8", "error: 8.8.8.8 is no pod"},
	} {
		a, err := ParseAssertion(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		differs, err := c.Check(a, "shop")
		got := strings.Join(differs, "; ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestSentencesThatAreNoAssertions(t *testing.T) {
	for text, want := range map[string]string{
		"web":                             "is no assertion",
		"web likes db":                    "is no assertion",
		"nothing reaches nothing":         "nothing on both sides",
		"nothing does not reach db":       "says no twice",
		"web does not reach nothing":      "says no twice",
		"web reaches db on 80":            `"80" is no port`,
		"web reaches db on tcp":           `"tcp" is no port`,
		"web reaches db on tcp/0":         `port "0" is none`,
		"web reaches db on icmp/8":        `"icmp/8" is no port`,
		"web reaches db on tcp/80 udp/53": `is none`,
	} {
		if a, err := ParseAssertion(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want an error that has %q", text, a, err, want)
		}
	}
}

// Of rules that do the same, one is redundant, not both.
func TestRedundantRules(t *testing.T) {
	rule := func(index int, peer policy.Peer, action policy.Action, ranges ...policy.PortRange) policy.Rule {
		ports := policy.Ports{Kind: policy.InRanges, Ranges: ranges}
		if len(ranges) == 0 {
			ports = policy.Ports{Kind: policy.AnyPort}
		}
		return policy.Rule{Index: index, Action: action, Peer: peer, Ports: ports}
	}
	everybody, web, db := policy.Peer{Kind: policy.AnyPeer}, policy.Peer{Kind: policy.InSet, Set: "web"}, policy.Peer{Kind: policy.InSet, Set: "db"}
	tcp80, all := policy.PortRange{Protocol: policy.TCP, First: 80, Last: 80}, policy.AllPorts(policy.TCP)
	for name, tt := range map[string]struct {
		rules    []policy.Rule
		isolates bool
		want     [][2]int
	}{
		"different peers":         {[]policy.Rule{rule(0, web, policy.Accept), rule(1, db, policy.Accept)}, true, nil},
		"the same twice":          {[]policy.Rule{rule(0, web, policy.Accept), rule(1, web, policy.Accept)}, true, [][2]int{{1, 0}}},
		"any peer behind it":      {[]policy.Rule{rule(0, web, policy.Accept, tcp80), rule(1, everybody, policy.Accept, all)}, true, [][2]int{{0, 1}}},
		"any peer behind, a list": {[]policy.Rule{rule(0, web, policy.Accept), rule(1, everybody, policy.Accept)}, false, nil},
		"any peer before, a list": {[]policy.Rule{rule(0, everybody, policy.Accept), rule(1, web, policy.Accept)}, false, [][2]int{{1, 0}}},
		"another action":          {[]policy.Rule{rule(0, everybody, policy.Deny), rule(1, web, policy.Accept)}, false, nil},
		"a part is covered":       {[]policy.Rule{rule(0, web, policy.Accept), rule(0, db, policy.Accept), rule(1, web, policy.Accept)}, true, [][2]int{{1, 0}}},
	} {
		if got := redundantIn(tt.rules, tt.isolates); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestLess(t *testing.T) {
	of := func(ranges ...uint16) (some []PortsVerdict) {
		for i := 0; i < len(ranges); i += 2 {
			some = append(some, PortsVerdict{"tcp", ranges[i], ranges[i+1], true})
		}
		return some
	}
	for _, tt := range []struct{ ports, without, want []PortsVerdict }{
		{of(1, 10), nil, of(1, 10)},
		{nil, of(1, 10), nil},
		{of(1, 10), of(1, 10), nil},
		{of(1, 10), of(3, 4), of(1, 2, 5, 10)},
		{of(1, 10), of(1, 4, 8, 65535), of(5, 7)},
		{of(1, 65535), of(65535, 65535), of(1, 65534)},
		{of(1, 4, 6, 9), of(3, 7), of(1, 2, 8, 9)},
		{[]PortsVerdict{{"icmp", 0, 0, true}}, of(1, 65535), []PortsVerdict{{"icmp", 0, 0, true}}},
		{[]PortsVerdict{{"icmp", 0, 0, true}}, []PortsVerdict{{"icmp", 0, 0, true}}, nil},
	} {
		if got := less(tt.ports, tt.without); !slices.Equal(got, tt.want) {
			t.Errorf("%v without %v is %v, want %v", tt.ports, tt.without, got, tt.want)
		}
	}
}

// Two nodes may take an address for that of different pods, each for its own pod's. Then the pods of a workload do not all reach the same, and its edge says so.
func TestEdgesWhereNodesDiffer(t *testing.T) {
	named := func(name string) func(namespace, workload string) bool {
		return func(_, workload string) bool { return workload == name }
	}
	for addr, wantPartly := range map[string]bool{"10.244.0.3": true, "10.244.0.9": false} {
		o := shop()
		o.Pods[1].Spec.NodeName = "n2" // web-5d-b
		other := pod("other", "claims", "claims", addr, "")
		other.Spec.NodeName = "n2"
		o.Pods = append(o.Pods, other)
		o.Policies = append(o.Policies, &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
				Egress: []networkingv1.NetworkPolicyEgressRule{{
					To: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}},
				}},
			},
		})
		edges := New(o).Edges(Selection{From: named("shop/deploy/web"), To: named("shop/sts/db")})
		if len(edges) != 1 || edges[0].Partly != wantPartly || PortsText(edges[0].Ports) != "tcp 5432" {
			t.Errorf("where another node has a pod with %s: %+v, want tcp 5432, partly: %t", addr, edges, wantPartly)
		}
	}
}
