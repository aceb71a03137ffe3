package dataplane

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// What is looked at here is no part of the rules, and may change at any time while they stand: settings, and what other programs do with packets. It is
// cheap to ask, and asked again with each resync.

// settings are what was found of it.
type settings struct {
	findings []Finding
	// unseen are the families whose traffic within a bridge passes no rule, on a node that has bridges with ports.
	unseen []iptables.Family
}

// surveySettings looks at the settings without which packets do not pass our chains, or pass them in another shape.
func surveySettings(p probes) settings {
	var s settings
	s.bridges(p)
	s.forwarding(p)
	s.ipvs(p)
	return s
}

// bridgeSettings are those by which bridged packets pass iptables, by family. The kernel has them while br_netfilter is loaded.
var bridgeSettings = []struct {
	sysctl, name string
	family       iptables.Family
}{
	{"bridge/bridge-nf-call-iptables", "IPv4", iptables.IPv4},
	{"bridge/bridge-nf-call-ip6tables", "IPv6", iptables.IPv6},
}

func (s *settings) bridges(p probes) {
	severity, where := Info, "on this node there is no bridge with ports at the moment"
	switch bridges, err := p.bridges(); {
	case err != nil:
		where = fmt.Sprintf("whether this node has bridges is not known: %v", err)
	case len(bridges) > 0:
		severity, where = Degraded, "bridges on this node: "+some(bridges)
	}
	const cost = "%s traffic between two pods of one bridge passes no policy; routed traffic does"
	for _, w := range bridgeSettings {
		_, name, _ := strings.Cut(w.sysctl, "/")
		f := Finding{Name: name, Severity: severity, Cost: fmt.Sprintf(cost, w.name)}
		switch v, err := p.sysctl(w.sysctl); {
		case err != nil:
			f.Detail = "the kernel module br_netfilter is not loaded; " + where
			f.Remedy = "modprobe br_netfilter"
		case v != "1":
			f.Detail = fmt.Sprintf("it is %s; %s", v, where)
			f.Remedy = "sysctl -w net.bridge." + name + "=1"
		default:
			f = Finding{Name: name, OK: true, Detail: "bridged " + w.name + " traffic passes our chains"}
		}
		s.findings = append(s.findings, f)
		if !f.OK && severity == Degraded {
			s.unseen = append(s.unseen, w.family)
		}
	}
}

// maxNamed is how many names a finding has at most.
const maxNamed = 5

func some(names []string) string {
	text := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func (s *settings) forwarding(p probes) {
	f := Finding{Name: "ip_forward", OK: true, Detail: "the node routes IPv4 traffic"}
	if v, err := p.sysctl("ipv4/ip_forward"); err != nil || v != "1" {
		f = Finding{
			Name: "ip_forward", Severity: Info, Detail: "the node does not route IPv4 traffic",
			Cost: "routed pods reach nothing, whatever policies say", Remedy: "sysctl -w net.ipv4.ip_forward=1",
		}
	}
	s.findings = append(s.findings, f)
}

func (s *settings) ipvs(p probes) {
	f := Finding{Name: "IPVS", OK: true, Detail: "no Service is served by it"}
	const cost = "a packet to a Service's address passes INPUT with that address, by which egress rules do not know the pods behind it, and goes on " +
		"through OUTPUT, where nothing is policed: ingress is not asked for a pod of this node, and egress only about the Service's address"
	const remedy = "run kube-proxy with --proxy-mode=nftables (Kubernetes 1.35 has deprecated ipvs), and 'kube-proxy --cleanup' once on the node"
	switch seen, err := p.ipvs(); {
	case err != nil:
		f = Finding{Name: f.Name, Severity: Info, Detail: fmt.Sprintf("whether Services are served by it is not known: %v", err), Cost: cost, Remedy: remedy}
	case seen != "":
		f = Finding{Name: f.Name, Severity: Degraded, Detail: seen, Cost: cost, Remedy: remedy}
	}
	s.findings = append(s.findings, f)
}

// ipvsServices counts the virtual services in what /proc/net/ip_vs shows: a line for each, and one for each server behind it, which is indented.
func ipvsServices(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		protocol, _, _ := strings.Cut(line, " ")
		if slices.Contains([]string{"TCP", "UDP", "SCTP", "FWM"}, strings.TrimSpace(protocol)) {
			n++
		}
	}
	return n
}
