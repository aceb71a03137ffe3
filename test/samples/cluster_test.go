package samples

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/lab/oracle"
)

// here is the node that judges, on which all pods are.
const here = "n1"

// namespaces are those of the cluster, with their labels.
var namespaces = []struct{ name, labels string }{
	{"shop", "tenant=shop"}, {"logistics", "tenant=shop"}, {"bank", "tenant=bank"}, {"plain", ""}, {"closed", "isolation=default-deny"},
	{"lab", "egress=restricted"}, {"kube-system", ""}, {"monitoring", ""},
}

// pods are those of the cluster: namespace, name, labels, and the number of their port named metrics.
var pods = []struct {
	namespace, name, labels string
	metrics                 int32
}{
	{"shop", "web", "app=web exposed=true", 8443}, {"shop", "database", "app=database", 9187}, {"logistics", "parcel", "", 0}, {"bank", "till", "", 0},
	{"plain", "bare", "", 0}, {"closed", "vault", "", 0}, {"closed", "safe", "", 0}, {"lab", "miner", "", 0}, {"lab", "helper", "", 0},
	{"kube-system", "dns", "k8s-app=kube-dns", 9153}, {"kube-system", "metrics-server", "", 0}, {"monitoring", "prometheus", "app=prometheus", 0},
}

// nodes are those of the cluster, with their labels.
var nodes = []struct{ name, labels string }{{"n1", ""}, {"n2", "ingress-ready=true"}, {"n3", ""}}

// places are the ends of lines. Pods and nodes are added to those that are no objects.
var places = map[string]netip.Addr{
	"outside":     netip.MustParseAddr("198.51.100.9"),
	"partner":     netip.MustParseAddr("203.0.113.7"),
	"metadata":    netip.MustParseAddr("169.254.169.254"),
	"metadata-v6": netip.MustParseAddr("fd00:ec2::254"),
	"dns-service": netip.MustParseAddr("10.96.0.10"),
	"dns-local":   netip.MustParseAddr("169.254.20.10"),
}

func init() {
	for i, p := range pods {
		places[p.name] = netip.AddrFrom4([4]byte{10, 244, 1, byte(10 + i)})
	}
	for i, n := range nodes {
		places[n.name] = netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})
	}
}

// twin is the IPv6 address of a place that has both.
func twin(a netip.Addr) netip.Addr {
	b := a.As4()
	return netip.MustParseAddr(fmt.Sprintf("fd00:10::%x", b[2:]))
}

// cluster is one without policies.
func cluster() oracle.Cluster {
	c := oracle.Cluster{DNSAddresses: []netip.Addr{places["dns-local"]}}
	for _, n := range namespaces {
		labels := labelMap(n.labels)
		labels[corev1.LabelMetadataName] = n.name
		c.Namespaces = append(c.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: labels}})
	}
	for _, n := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: labelMap(n.labels)}}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: places[n.name].String()}}
		c.Nodes = append(c.Nodes, node)
	}
	for _, p := range pods {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name, Labels: labelMap(p.labels)}}
		pod.Spec.NodeName = here
		if p.metrics != 0 {
			pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{
				{Name: "metrics", ContainerPort: p.metrics, Protocol: corev1.ProtocolTCP},
			}}}
		}
		a := places[p.name]
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: a.String(), PodIPs: []corev1.PodIP{{IP: a.String()}, {IP: twin(a).String()}}}
		c.Pods = append(c.Pods, pod)
	}
	dns := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"}}
	dns.Spec = corev1.ServiceSpec{
		Selector: map[string]string{"k8s-app": "kube-dns"}, ClusterIP: places["dns-service"].String(),
		Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolUDP, Port: 53}, {Protocol: corev1.ProtocolTCP, Port: 53}},
	}
	c.DNSServices = []*corev1.Service{dns}
	return c
}

// labelMap reads "key=value key=value".
func labelMap(text string) map[string]string {
	labels := map[string]string{}
	for _, label := range strings.Fields(text) {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	return labels
}
