package oracle

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// The cluster of most rows: two nodes, three namespaces, dual-stack pods. Names stand for IPv4 addresses in the
// flows of the rows, names with the suffix 6 for IPv6 addresses.
var places = map[string]string{
	"web":     "10.1.0.1",
	"db":      "10.1.0.2",
	"client":  "10.1.0.3",
	"bare":    "10.1.0.4",
	"job":     "10.1.0.5",
	"web6":    "fd00:1::1",
	"db6":     "fd00:1::2",
	"client6": "fd00:1::3",
	"host":    "192.168.0.2",
	"node1":   "192.168.0.1",
	"node2":   "192.168.0.2",
	"outside": "203.0.113.9",
	// Of the cluster of the tiers only:
	"twin":    "10.1.0.7",
	"twin6":   "fd00:1::7",
	"alone":   "10.1.0.8",
	"dns":     "10.1.0.6",
	"dns6":    "fd00:1::6",
	"cluster": "10.96.0.10",
	"local":   "169.254.20.10",
	"public2": "198.51.100.2",
	"node2v6": "fd00:168::2",
}

func standardCluster() Cluster {
	return Cluster{
		Namespaces: []*corev1.Namespace{
			namespace("a", "team=a"),
			namespace("b", "team=b", "env=prod"),
			namespace("c"),
		},
		Pods: []*corev1.Pod{
			pod("a/web", "node1", []string{"10.1.0.1", "fd00:1::1"}, "app=web", "tier="),
			pod("a/db", "node2", []string{"10.1.0.2", "fd00:1::2"}, "app=db"),
			pod("b/client", "node1", []string{"10.1.0.3", "fd00:1::3"}, "app=client", "role=x"),
			pod("c/bare", "node2", []string{"10.1.0.4"}),
			hostPod("a/host", "node2", "192.168.0.2", "app=web"),
			finished(pod("a/job", "node2", []string{"10.1.0.5"}, "app=db"), corev1.PodSucceeded),
		},
	}
}

func namespace(name string, labels ...string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelMap(labels)}}
}

func pod(name, node string, addrs []string, labels ...string) *corev1.Pod {
	ns, n, _ := strings.Cut(name, "/")
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: n, UID: types.UID("uid-" + n), Labels: labelMap(labels)},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addrs[0]},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return p
}

func hostPod(name, node, addr string, labels ...string) *corev1.Pod {
	p := pod(name, node, []string{addr}, labels...)
	p.Spec.HostNetwork = true
	return p
}

func finished(p *corev1.Pod, phase corev1.PodPhase) *corev1.Pod {
	p.Status.Phase = phase
	return p
}

func terminating(p *corev1.Pod) *corev1.Pod {
	p.DeletionTimestamp = &metav1.Time{Time: time.Unix(2000, 0)}
	return p
}

func createdAt(p *corev1.Pod, seconds int64) *corev1.Pod {
	p.CreationTimestamp = metav1.Time{Time: time.Unix(seconds, 0)}
	return p
}

// ports gives a pod container ports, written "name=TCP/80".
func ports(p *corev1.Pod, list ...string) *corev1.Pod {
	p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, containerPorts(list)...)
	return p
}

func initPorts(p *corev1.Pod, restart *corev1.ContainerRestartPolicy, list ...string) *corev1.Pod {
	p.Spec.InitContainers = append(p.Spec.InitContainers,
		corev1.Container{Name: fmt.Sprint("init", len(p.Spec.InitContainers)), RestartPolicy: restart, Ports: containerPorts(list)})
	return p
}

func containerPorts(list []string) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, text := range list {
		name, rest, _ := strings.Cut(text, "=")
		protocol, number, _ := strings.Cut(rest, "/")
		n, err := strconv.Atoi(number)
		if err != nil {
			panic(err)
		}
		out = append(out, corev1.ContainerPort{Name: name, Protocol: corev1.Protocol(protocol), ContainerPort: int32(n)})
	}
	return out
}

func labelMap(list []string) map[string]string {
	m := map[string]string{}
	for _, text := range list {
		k, v, _ := strings.Cut(text, "=")
		m[k] = v
	}
	return m
}

// policies reads policies from YAML: each is "namespace/name: spec".
func policies(t *testing.T, text string) []*networkingv1.NetworkPolicy {
	t.Helper()
	var specs map[string]networkingv1.NetworkPolicySpec
	if err := yaml.UnmarshalStrict([]byte(text), &specs); err != nil {
		t.Fatalf("reading policies: %v\n%s", err, text)
	}
	var out []*networkingv1.NetworkPolicy
	for name, spec := range specs {
		ns, n, _ := strings.Cut(name, "/")
		out = append(out, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: n}, Spec: spec})
	}
	return out
}

// flow reads "web -> db TCP/80", "web -> db ICMP", "web6 -> db6 ICMPv6/135" or "node1 -> web TCP/80 from node1".
func flow(t *testing.T, text string) Flow {
	t.Helper()
	words := strings.Fields(text)
	if len(words) != 4 && len(words) != 6 || words[1] != "->" {
		t.Fatalf("no flow: %q", text)
	}
	f := Flow{Src: place(t, words[0]), Dst: place(t, words[2])}
	protocol, number, _ := strings.Cut(words[3], "/")
	n := 0
	if number != "" {
		var err error
		if n, err = strconv.Atoi(number); err != nil {
			t.Fatalf("no flow: %q: %v", text, err)
		}
	}
	switch protocol {
	case "TCP":
		f.Protocol, f.DstPort = TCP, uint16(n)
	case "UDP":
		f.Protocol, f.DstPort = UDP, uint16(n)
	case "SCTP":
		f.Protocol, f.DstPort = SCTP, uint16(n)
	case "ICMP":
		f.Protocol, f.ICMPType = ICMP, uint8(n)
	case "ICMPv6":
		f.Protocol, f.ICMPType = ICMPv6, uint8(n)
	case "GRE":
		f.Protocol = 47
	default:
		t.Fatalf("no flow: %q", text)
	}
	if len(words) == 6 {
		f.FromNode = words[5]
	}
	return f
}

func place(t *testing.T, name string) netip.Addr {
	t.Helper()
	if text, ok := places[name]; ok {
		name = text
	}
	a, err := netip.ParseAddr(name)
	if err != nil {
		t.Fatalf("no place: %v", err)
	}
	return a
}

// expect checks lines of the form "allowed: flow" and "denied: flow" against the whole cluster.
func expect(t *testing.T, c Cluster, lines []string) {
	t.Helper()
	for _, line := range lines {
		want, text, _ := strings.Cut(line, ": ")
		if want != "allowed" && want != "denied" {
			t.Fatalf("no expectation: %q", line)
		}
		allowed, reason := c.Allowed(flow(t, text))
		if allowed != (want == "allowed") {
			t.Errorf("%s: got allowed=%v, because %s", line, allowed, reason)
		}
	}
}
