package scenario

import (
	"fmt"
	"strings"
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
	{"a range has both of its ends", `[{port: 81, endPort: 82}]`, "tcp/81 tcp/82", "tcp/80 tcp/83 tcp/90 udp/81 sctp/82"},
	{"a range of UDP", `[{port: 81, endPort: 90, protocol: UDP}]`, "udp/81 udp/82 udp/90", "udp/80 tcp/81 tcp/90"},
	{"a range of SCTP", `[{port: 80, endPort: 81, protocol: SCTP}]`, "sctp/80 sctp/81", "sctp/82 sctp/90 tcp/80"},
	{"a range of one port", `[{port: 81, endPort: 81}]`, "tcp/81", "tcp/80 tcp/82"},
	{"a range of all ports is still one protocol", `[{port: 1, endPort: 65535}]`, "tcp/80 tcp/90", "udp/80 sctp/80 icmp other"},
	{"ranges that overlap and touch", `[{port: 70, endPort: 80}, {port: 75, endPort: 81}, {port: 82, endPort: 85}]`, "tcp/80 tcp/81 tcp/82", "tcp/90 udp/80"},
	{"ranges at both ends of all ports", `[{port: 65535, endPort: 65535}, {port: 1, endPort: 2, protocol: UDP}]`,
		"tcp/65535 udp/1 udp/2", "tcp/65534 tcp/1 udp/3"},
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

// ports is about what a list of ports opens.
func ports() []Scenario {
	var all []Scenario
	for _, r := range portRows {
		all = append(all,
			Scenario{
				Name: r.name + ", ingress", Lines: portLines("client", "far", r.open, r.closed),
				Objects: "red/p: {podSelector: {matchLabels: {app: far}}, ingress: [{from: [{namespaceSelector: {}}], ports: " + r.ports + "}]}",
			},
			Scenario{
				Name: r.name + ", egress", Lines: portLines("far", "web", r.open, r.closed),
				Objects: "red/p: {podSelector: {matchLabels: {app: far}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: " + r.ports + "}]}",
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
