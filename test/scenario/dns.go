package scenario

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// dns is about what a NamespaceIsolation understands by the cluster's DNS.
var dns = slices.Concat([]Scenario{{
	Name:  "DNS: the pods of the Service, at the container's side of its ports",
	Given: serveDNS,
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: red}}}`,
	Lines: []string{"web reaches names on udp/81 tcp/5400 tcp/55", "web does not reach names on tcp/82 udp/53 udp/5400 tcp/54 udp/55 icmp"},
}, {
	Name:  "DNS: the addresses of the Service, at its ports",
	Given: serveDNS,
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: red}}}`,
	Lines: []string{
		"web reaches 10.9.0.1 on udp/53 tcp/54 tcp/55", "web does not reach 10.9.0.1 on tcp/53 tcp/5400", "web does not reach 10.0.2.5 on udp/53",
	},
}, {
	Name:  "DNS: the addresses of node-local DNS",
	Given: serveDNS,
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: red}}}`,
	Lines: []string{"web reaches 10.0.1.5 on udp/53 tcp/53", "web does not reach 10.0.1.5 on sctp/53 udp/54"},
}, {
	Name:  "DNS: is egress only",
	Given: serveDNS,
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: red}}}`,
	Lines: []string{"names does not reach web on udp/81", "10.0.1.5 does not reach web on udp/53"},
}, {
	Name:  "DNS: may be off",
	Given: serveDNS,
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: red}}, allow: {dns: false}}`,
	Lines: []string{"web does not reach names on udp/81", "web does not reach 10.9.0.1 on udp/53", "web does not reach 10.0.1.5 on udp/53"},
}, {
	Name:  "DNS: may be on where sameTenant is off",
	Given: serveDNS,
	Objects: `
isolation x: {namespaceSelector: {matchLabels: {team: red}}, allow: {sameTenant: false, dns: true}}`,
	Lines: []string{"web reaches names on udp/81", "web does not reach db on udp/53"},
}, {
	Name:  "DNS: in Admin still needs the consent of NetworkPolicies",
	Given: serveDNS,
	Objects: `
isolation x: {tier: Admin, namespaceSelector: {matchLabels: {team: red}}}
red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}`,
	Lines: []string{"web does not reach 10.0.1.5 on udp/53", "db reaches 10.0.1.5 on udp/53"},
}}, dnsServices())

// serveDNS has the pod names behind the DNS Service at the address 10.9.0.1, which nobody translates, at three of its ports: by name, by number, and by no
// number of its own. Nodes serve DNS themselves at 10.0.1.5.
func serveDNS(c *Cluster) {
	c.DNSServices = []*corev1.Service{c.service("system/names", "10.9.0.1", "app=names",
		corev1.ServicePort{Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromString("query")},
		corev1.ServicePort{Port: 54, TargetPort: intstr.FromInt32(5400)},
		corev1.ServicePort{Protocol: corev1.ProtocolTCP, Port: 55})}
	c.localDNS("10.0.1.5")
}

// localDNS has nodes serve DNS at the address of an actor.
func (c *Cluster) localDNS(actor string) {
	a, _ := c.Actor(actor)
	c.DNSAddresses = []netip.Addr{a.V4, a.V6}
}

// dnsServices are Services that differ in one thing.
func dnsServices() []Scenario {
	var all []Scenario
	for _, row := range []struct {
		name   string
		change func(*corev1.Service)
		lines  []string
	}{
		{"one in another namespace selects nothing there", func(s *corev1.Service) { s.Namespace = "red" },
			[]string{"web does not reach names on udp/81", "web reaches 10.9.0.1 on udp/53"}},
		{"one without a selector selects nothing", func(s *corev1.Service) { s.Spec.Selector = nil },
			[]string{"web does not reach names on udp/81", "web reaches 10.9.0.1 on udp/53"}},
		{"a headless one has no address", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} },
			[]string{"web reaches names on udp/81", "web does not reach 10.9.0.1 on udp/53"}},
		{"all labels of the selector must be there", func(s *corev1.Service) { s.Spec.Selector["tier"] = "" },
			[]string{"web does not reach names on udp/81"}},
		{"an empty name of a target port is none", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("") },
			[]string{"web reaches names on udp/53", "web does not reach names on udp/81"}},
	} {
		all = append(all, Scenario{
			Name: "DNS Services: " + row.name, Lines: row.lines, Given: func(c *Cluster) { serveDNS(c); row.change(c.DNSServices[0]) },
			Objects: `isolation x: {namespaceSelector: {matchLabels: {team: red}}, allow: {sameTenant: false}}`,
		})
	}
	oneField := Scenario{
		Given:   func(c *Cluster) { serveDNS(c); c.DNSServices[0].Spec.ClusterIPs = nil },
		Objects: `isolation x: {namespaceSelector: {matchLabels: {team: red}}, allow: {sameTenant: false}}`,
	}
	v4, v6 := oneField, oneField
	v4.Name, v4.Only, v4.Lines = "DNS Services: an address that stands in one field only counts", IPv4, []string{"web reaches 10.9.0.1 on udp/53"}
	v6.Name, v6.Only, v6.Lines = v4.Name+", and no other", IPv6, []string{"web does not reach 10.9.0.1 on udp/53"}
	return append(all, v4, v6)
}
