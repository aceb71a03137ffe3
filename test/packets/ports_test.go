package packets

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// portRows say what a list of ports opens. Each becomes two scenarios, one per direction, about the pod far.
var portRows = []struct {
	name   string
	ports  string
	open   string
	closed string
}{
	{"a port is TCP's if no protocol is given", `[{port: 80}]`, "tcp/80", "tcp/81 udp/80 sctp/80 icmp other"},
	{"a TCP port", `[{port: 81, protocol: TCP}]`, "tcp/81", "tcp/80 tcp/82 udp/81 sctp/81 icmp other"},
	{"a UDP port", `[{port: 81, protocol: UDP}]`, "udp/81", "udp/80 tcp/81 sctp/81 icmp other"},
	{"an SCTP port", `[{port: 81, protocol: SCTP}]`, "sctp/81", "sctp/80 tcp/81 udp/81 icmp other"},
	{"a protocol without a port is all of its ports", `[{protocol: UDP}]`, "udp/80 udp/81 udp/82 udp/90", "tcp/80 sctp/80 icmp other"},
	{"SCTP without a port is all of its ports", `[{protocol: SCTP}]`, "sctp/80 sctp/90", "tcp/80 udp/80 icmp other"},
	{"an empty port is every TCP port", `[{}]`, "tcp/80 tcp/90", "udp/80 sctp/80 icmp other"},
	{"a range has both of its ends", `[{port: 81, endPort: 82}]`, "tcp/81 tcp/82", "tcp/80 tcp/90 udp/81 sctp/82"},
	{"a range of UDP", `[{port: 81, endPort: 90, protocol: UDP}]`, "udp/81 udp/82 udp/90", "udp/80 tcp/81 tcp/90"},
	{"a range of SCTP", `[{port: 80, endPort: 81, protocol: SCTP}]`, "sctp/80 sctp/81", "sctp/82 sctp/90 tcp/80"},
	{"a range of one port", `[{port: 81, endPort: 81}]`, "tcp/81", "tcp/80 tcp/82"},
	{"a range of all ports is still one protocol", `[{port: 1, endPort: 65535}]`, "tcp/80 tcp/90", "udp/80 sctp/80 icmp other"},
	{"ranges that overlap and touch", `[{port: 70, endPort: 80}, {port: 75, endPort: 81}, {port: 82, endPort: 85}]`, "tcp/80 tcp/81 tcp/82", "tcp/90 udp/80"},
	{"one of several ports must match", `[{port: 80}, {port: 82}, {port: 81, protocol: UDP}, {port: 90, protocol: SCTP}]`,
		"tcp/80 tcp/82 udp/81 sctp/90", "tcp/81 udp/80 udp/82 sctp/80 icmp other"},
	{"all three protocols without ports are not every protocol", `[{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]`,
		"tcp/80 udp/80 sctp/80", "icmp other"},
	{"more ports than one rule of iptables holds", manyPorts(), "tcp/80 tcp/90", "tcp/81 tcp/82 udp/80"},
	{"an empty list is every protocol", `[]`, everyProtocol + " tcp/90", ""},
}

// manyPorts are forty single ports, too far apart to be ranges, with 80 in their midst and 90 at their end.
func manyPorts() string {
	var ports []string
	for i := range 20 {
		ports = append(ports, fmt.Sprintf("{port: %d}", 1000+2*i))
	}
	ports = append(ports, "{port: 80}")
	for i := range 20 {
		ports = append(ports, fmt.Sprintf("{port: %d}", 2000+2*i))
	}
	return "[" + strings.Join(append(ports, "{port: 90}"), ", ") + "]"
}

func portScenarios() []scenario {
	var all []scenario
	for _, r := range portRows {
		all = append(all,
			scenario{
				name: r.name + ", ingress", want: portLines("client", "far", r.open, r.closed),
				policies: "red/p: {podSelector: {matchLabels: {app: far}}, ingress: [{from: [{namespaceSelector: {}}], ports: " + r.ports + "}]}",
			},
			scenario{
				name: r.name + ", egress", want: portLines("far", "web", r.open, r.closed),
				policies: "red/p: {podSelector: {matchLabels: {app: far}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: " + r.ports + "}]}",
			})
	}
	return all
}

func portLines(src, dst, open, closed string) []string {
	all := []string{fmt.Sprintf("%s reaches %s on %s", src, dst, open)}
	if closed != "" {
		all = append(all, fmt.Sprintf("%s does not reach %s on %s", src, dst, closed))
	}
	return all
}

// namedPortScenarios are about ports by name, which each pod resolves for itself.
var namedPortScenarios = []scenario{{
	name:     "a named port differs from pod to pod, ingress",
	policies: `red/p: {podSelector: {}, ingress: [{ports: [{port: http}]}]}`,
	want: []string{
		"client reaches web on tcp/80", "client reaches db on tcp/81", "client reaches far on tcp/82", "outside reaches web on tcp/80",
		"client does not reach web on tcp/81 tcp/82 udp/80 sctp/80 icmp", "client does not reach db on tcp/80 tcp/82",
		"client does not reach far on tcp/80 tcp/81",
	},
}, {
	name:     "a named port with peers, ingress",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/16}}], ports: [{port: http}]}]}`,
	want: []string{
		"db reaches web on tcp/80", "far reaches web on tcp/80", "web reaches far on tcp/82", "10.0.1.5 reaches db on tcp/81",
		"client does not reach web on tcp/80", "db does not reach web on tcp/81", "10.0.1.5 does not reach db on tcp/80", "outside does not reach db on tcp/81",
	},
}, {
	name:     "a named port differs from pod to pod, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	want: []string{
		"web reaches db on tcp/81", "web reaches far on tcp/82", "web reaches remote on tcp/80", "far reaches web on tcp/80",
		"web does not reach db on tcp/80", "web does not reach far on tcp/80", "web does not reach remote on tcp/81 udp/80 icmp",
	},
}, {
	name:     "a named port is nothing where no pod has it: other pods, nodes, other hosts",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	want:     []string{"web does not reach client", "web does not reach bare", "web does not reach outside", "web does not reach n1", "web does not reach n2"},
}, {
	name:     "a named port with a podSelector, egress",
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}]}`,
	want:     []string{"web reaches db on tcp/81", "web does not reach db on tcp/80", "web does not reach far on tcp/82", "web does not reach remote on tcp/80"},
}, {
	name:     "a named port with a namespaceSelector, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: http}]}]}`,
	want:     []string{"web reaches remote on tcp/80", "web does not reach db on tcp/81", "web does not reach client on tcp/80", "far reaches remote on tcp/80"},
}, {
	name:     "a named port with a block, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.2.0/24}}], ports: [{port: http}]}]}`,
	want:     []string{"web reaches far on tcp/82", "web reaches remote on tcp/80", "web does not reach db on tcp/81", "web does not reach far on tcp/80"},
}, {
	name:     "names and numbers in one list add up",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: http}, {port: 90}]}], egress: [{ports: [{port: http}, {port: 90}]}]}`,
	want: []string{
		"client reaches db on tcp/81 tcp/90", "client does not reach db on tcp/80 tcp/82", "web reaches far on tcp/82 tcp/90",
		"web does not reach far on tcp/80", "web reaches outside on tcp/90",
	},
}, {
	name:     "a name on TCP and UDP is told apart by the protocol, TCP",
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: dual}]}]}`,
	want:     []string{"client reaches web on tcp/81", "client does not reach web on udp/82 tcp/82 udp/81"},
}, {
	name:     "a name on TCP and UDP is told apart by the protocol, UDP",
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: dual, protocol: UDP}]}]}`,
	want:     []string{"client reaches web on udp/82", "client does not reach web on tcp/81 udp/81 tcp/82"},
}, {
	name:     "a name on TCP and UDP is told apart by the protocol, egress",
	policies: `red/p: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: dual, protocol: UDP}]}]}`,
	want:     []string{"db reaches web on udp/82", "db does not reach web on tcp/81 udp/81", "far reaches web on udp/82"},
}, {
	name:     "a name with a protocol that no pod uses it for matches nothing",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: http, protocol: SCTP}]}], egress: [{ports: [{port: http, protocol: SCTP}]}]}`,
	want:     []string{"client does not reach web on tcp/80 sctp/80", "web does not reach remote on tcp/80 sctp/80"},
}, {
	name:     "a name that no pod has matches nothing",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: nope}]}], egress: [{ports: [{port: nope}]}]}`,
	want:     []string{"client does not reach web", "web does not reach client"},
}, {
	name:     "the ports of init and sidecar containers count",
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: side}, {port: init, protocol: UDP}]}], egress: [{ports: [{port: side}, {port: init, protocol: UDP}]}]}`,
	want:     []string{"client reaches web on tcp/90 udp/90", "db reaches web on tcp/90 udp/90", "far reaches web on tcp/90", "client does not reach web on tcp/80 udp/80"},
}, {
	name:     "a named SCTP port",
	given:    func(c *cluster) { ports(&c.pod("far").Spec.Containers, "signal=SCTP/82") },
	policies: `red/p: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: signal, protocol: SCTP}]}], egress: [{ports: [{port: signal, protocol: SCTP}]}]}`,
	want:     []string{"web reaches far on sctp/82", "client reaches far on sctp/82", "web does not reach far on sctp/80 tcp/82", "client does not reach far on tcp/82"},
}, {
	name:     "a completed pod's named ports match nothing",
	given:    func(c *cluster) { c.pod("db").Status.Phase = corev1.PodSucceeded },
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	want:     []string{"web does not reach db on tcp/81", "web reaches far on tcp/82"},
}, {
	name:     "a host-network pod's named ports match nothing",
	given:    func(c *cluster) { ports(&c.pod("host").Spec.Containers, "http=TCP/80") },
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	want:     []string{"web does not reach host on tcp/80", "web does not reach n2 on tcp/80", "web reaches remote on tcp/80"},
}, {
	name: "a pod may have several ports of one name",
	given: func(c *cluster) {
		ports(&c.pod("web").Spec.Containers, "http=TCP/82")
	},
	policies: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}`,
	want:     []string{"client reaches web on tcp/80 tcp/82", "client does not reach web on tcp/81"},
}}
