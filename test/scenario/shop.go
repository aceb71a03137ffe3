package scenario

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Shop is the cluster of the samples. All pods are on the node n1, and those with a port have it under the name metrics.
//
//	shop         tenant=shop             web       app=web, exposed=true  tcp/8443
//	                                     database  app=database           tcp/9187
//	logistics    tenant=shop             parcel
//	bank         tenant=bank             till
//	plain                                bare
//	closed       isolation=default-deny  vault, safe
//	lab          egress=restricted       miner, helper
//	kube-system                          dns       k8s-app=kube-dns       tcp/9153
//	                                     metrics-server
//	monitoring                           prometheus app=prometheus
//
// The node n2 has the label ingress-ready=true.
func Shop(f Family) *Cluster {
	c := &Cluster{Name: "shop", Family: f, Actors: shopActors}
	c.Namespaces = []*corev1.Namespace{
		newNamespace("shop", "tenant=shop"), newNamespace("logistics", "tenant=shop"), newNamespace("bank", "tenant=bank"), newNamespace("plain"),
		newNamespace("closed", "isolation=default-deny"), newNamespace("lab", "egress=restricted"), newNamespace("kube-system"), newNamespace("monitoring"),
	}
	for _, name := range c.NodeNames() {
		a, _ := c.Actor(name)
		c.Nodes = append(c.Nodes, newNode(name, a.V4))
	}
	c.Node("n2").Labels["ingress-ready"] = "true"
	AddPorts(&c.Add(NewPod("shop/web", "n1", "app=web", "exposed=true")).Spec.Containers, "metrics=TCP/8443")
	AddPorts(&c.Add(NewPod("shop/database", "n1", "app=database")).Spec.Containers, "metrics=TCP/9187")
	for _, path := range []string{
		"logistics/parcel", "bank/till", "plain/bare", "closed/vault", "closed/safe", "lab/miner", "lab/helper", "kube-system/metrics-server",
	} {
		c.Add(NewPod(path, "n1"))
	}
	AddPorts(&c.Add(NewPod("kube-system/dns", "n1", "k8s-app=kube-dns")).Spec.Containers, "metrics=TCP/9153")
	c.Add(NewPod("monitoring/prometheus", "n1", "app=prometheus"))
	c.DNSServices = []*corev1.Service{c.service("kube-system/kube-dns", "dns-service", "k8s-app=kube-dns",
		corev1.ServicePort{Protocol: corev1.ProtocolUDP, Port: 53}, corev1.ServicePort{Protocol: corev1.ProtocolTCP, Port: 53})}
	local, _ := c.Actor("dns-local")
	c.DNSAddresses = []netip.Addr{local.V4, local.V6}
	return c
}

// shopActors are those of the samples' cluster. Nobody translates the address of the DNS Service before policy sees it.
var shopActors = []Actor{
	both("n1", Node, "172.18.0.1", "n1"), both("n2", Node, "172.18.0.2", "n2"), both("n3", Node, "172.18.0.3", "n3"),
	both("web", Pod, "10.244.1.2", "n1"), both("database", Pod, "10.244.1.3", "n1"), both("parcel", Pod, "10.244.1.4", "n1"),
	both("till", Pod, "10.244.1.5", "n1"),
	both("bare", Pod, "10.244.1.6", "n1"), both("vault", Pod, "10.244.1.7", "n1"), both("safe", Pod, "10.244.1.8", "n1"),
	both("miner", Pod, "10.244.1.9", "n1"),
	both("helper", Pod, "10.244.1.10", "n1"), both("dns", Pod, "10.244.1.11", "n1"), both("metrics-server", Pod, "10.244.1.12", "n1"),
	both("prometheus", Pod, "10.244.1.13", "n1"),
	both("outside", Outside, "172.18.0.250", ""), both("partner", Outside, "203.0.113.7", ""),
	{Name: "metadata", Role: Outside, V4: netip.MustParseAddr("169.254.169.254"), V6: netip.MustParseAddr("fd00:ec2::254")},
	both("dns-service", Outside, "10.96.0.10", ""), both("dns-local", Outside, "169.254.20.10", ""),
}

// service is a Service at the address of an actor.
func (c *Cluster) service(path, actor, selector string, ports ...corev1.ServicePort) *corev1.Service {
	a, _ := c.Actor(actor)
	named := NewPod(path, "")
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: named.Namespace, Name: named.Name}}
	s.Spec = corev1.ServiceSpec{Selector: labelMap([]string{selector}), Ports: ports}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = a.V4.String(), []string{a.V4.String(), a.V6.String()}
	return s
}
