package gen

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/lab/oracle"
)

// outsiders are addresses that nobody has.
var outsiders = []netip.Addr{
	netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("10.244.0.200"), netip.MustParseAddr("10.0.0.1"),
	netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("fd00:10:24::200"), netip.MustParseAddr("fe80::1"),
}

// popularPorts are portNumbers, with those in front more often.
var popularPorts = append(portNumbers, 80, 80, 80, 53, 53, 1)

// addresses are those of the pods, of the nodes, of others and of DNS.
func (c Case) addresses() []netip.Addr {
	out := c.podAddresses()
	for _, n := range c.Nodes {
		out = append(out, n.Addrs...)
	}
	return slices.Concat(out, c.Others, c.dnsAddresses())
}

func (c Case) podAddresses() []netip.Addr {
	var out []netip.Addr
	for _, p := range c.Cluster.Pods {
		out = append(out, addressesOf(p)...)
	}
	return out
}

func addressesOf(p *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// edges are the first and last addresses of all blocks and exceptions, and their neighbours outside.
func (c Case) edges() []netip.Addr {
	var out []netip.Addr
	for _, peer := range c.peers() {
		if peer.IPBlock != nil {
			out = append(out, edgesOf(peer.IPBlock.CIDR)...)
			for _, x := range peer.IPBlock.Except {
				out = append(out, edgesOf(x)...)
			}
		}
	}
	for _, r := range c.tierRules() {
		for _, peer := range r.peers {
			for _, cidr := range peer.Networks {
				out = append(out, edgesOf(string(cidr))...)
			}
		}
	}
	return out
}

// edgesOf are those of one block, or none if it is none.
func edgesOf(cidr string) []netip.Addr {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return nil
	}
	var out []netip.Addr
	first, last := p.Masked().Addr(), lastOf(p)
	for _, a := range []netip.Addr{first, last, first.Prev(), last.Next()} {
		if a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
			out = append(out, a)
		}
	}
	return out
}

// peers are those of all rules of all policies.
func (c Case) peers() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for _, p := range c.Cluster.Policies {
		for _, r := range p.Spec.Ingress {
			out = append(out, r.From...)
		}
		for _, r := range p.Spec.Egress {
			out = append(out, r.To...)
		}
	}
	return out
}

// lastOf is the last address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Flows draws n flows that are likely to meet the cluster's policies: half of them aim at a rule, the others go between pods, block
// edges, nodes and outsiders, on ports that containers and policies name, and on their neighbours. Where there are tiers, half of all aim at these,
// and a quarter at a NetworkPolicy.
func Flows(s *Source, c Case, n int) []oracle.Flow {
	d := flowDrawer{s, c, c.podAddresses(), c.edges(), c.addresses(), c.tierRules()}
	var out []oracle.Flow
	for range n {
		f := d.anyFlow()
		switch {
		case d.hasTiers() && s.oneIn(2):
			d.aimAtTiers(&f)
		case s.oneIn(2):
			d.aim(&f)
		}
		for _, node := range c.Nodes {
			for _, a := range node.Addrs {
				if a == f.Src && (s.oneIn(2) || node.isGateway(a)) {
					f.FromNode = node.Name
				}
				if a == f.Dst {
					f.ToNode = node.Name
				}
			}
		}
		out = append(out, f)
	}
	return out
}

// flowDrawer draws flows between ends that it has collected.
type flowDrawer struct {
	*Source
	c                Case
	pods, edges, all []netip.Addr
	rules            []tierRule
}

func (d flowDrawer) anyFlow() oracle.Flow {
	is4 := d.intN(2) == 0
	f := oracle.Flow{Src: d.end(is4), Dst: d.end(is4)}
	setProtocol(d.Source, &f)
	return f
}

func (d flowDrawer) end(is4 bool) netip.Addr {
	choices := d.all
	switch k := d.intN(16); {
	case k < 11:
		choices = d.pods
	case k < 14:
		choices = d.edges
	}
	if of := ofFamily(choices, is4); len(of) > 0 {
		return pick(d.Source, of)
	}
	return pick(d.Source, ofFamily(d.all, is4))
}

func ofFamily(addrs []netip.Addr, is4 bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is4() != is4 })
}

// aim sends f to or from a pod in the namespace of a policy, on a port of one of its rules.
func (d flowDrawer) aim(f *oracle.Flow) {
	if len(d.c.Cluster.Policies) == 0 {
		return
	}
	policy := pick(d.Source, d.c.Cluster.Policies)
	var subjects []netip.Addr
	for _, p := range d.c.Cluster.Pods {
		if p.Namespace == policy.Namespace && !p.Spec.HostNetwork {
			subjects = append(subjects, addressesOf(p)...)
		}
	}
	subjects = ofFamily(subjects, f.Src.Is4())
	if len(subjects) == 0 {
		return
	}
	subject, ingress := pick(d.Source, subjects), d.oneIn(2)
	ports := portsOf(policy, ingress)
	if ingress {
		f.Dst = subject
	} else {
		f.Src = subject
	}
	if len(ports) > 0 {
		d.aimAt(f, pick(d.Source, ports))
	}
}

func portsOf(p *networkingv1.NetworkPolicy, ingress bool) []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	if ingress {
		for _, r := range p.Spec.Ingress {
			out = append(out, r.Ports...)
		}
		return out
	}
	for _, r := range p.Spec.Egress {
		out = append(out, r.Ports...)
	}
	return out
}

// aimAt takes protocol and number of the port; a name's number is that of some container that the destination has.
func (d flowDrawer) aimAt(f *oracle.Flow, port networkingv1.NetworkPolicyPort) {
	protocol := corev1.ProtocolTCP
	if port.Protocol != nil {
		protocol = *port.Protocol
	}
	numbers := map[corev1.Protocol]oracle.Protocol{"TCP": oracle.TCP, "UDP": oracle.UDP, "SCTP": oracle.SCTP}
	number, ok := numbers[protocol]
	if !ok {
		return
	}
	f.Protocol, f.ICMPType = number, 0
	switch {
	case port.Port == nil:
	case port.Port.Type == intstr.String:
		for _, p := range d.c.Cluster.Pods {
			if slices.Contains(addressesOf(p), f.Dst) {
				if named := allPorts(p); len(named) > 0 {
					f.DstPort = uint16(pick(d.Source, named).ContainerPort)
				}
			}
		}
	case port.EndPort != nil && d.oneIn(2):
		f.DstPort = uint16(*port.EndPort)
	default:
		f.DstPort = uint16(port.Port.IntVal)
	}
	switch d.intN(8) {
	case 6:
		f.DstPort++
	case 7:
		f.DstPort--
	}
}

func allPorts(p *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		out = append(out, c.Ports...)
	}
	return out
}

func setProtocol(s *Source, f *oracle.Flow) {
	switch k := s.intN(16); {
	case k < 8:
		f.Protocol = oracle.TCP
	case k < 10:
		f.Protocol = oracle.UDP
	case k < 13:
		f.Protocol = oracle.SCTP
	case k < 15 && f.Src.Is4():
		f.Protocol, f.ICMPType = oracle.ICMP, pick(s, []uint8{8, 0, 13})
		return
	case k < 15:
		f.Protocol, f.ICMPType = oracle.ICMPv6, pick(s, []uint8{128, 129, 132, 133, 134, 135, 136, 137, 138})
		return
	default:
		f.Protocol = 47
		return
	}
	f.DstPort = uint16(pick(s, popularPorts))
	switch s.intN(10) {
	case 8:
		f.DstPort++ // 65535 becomes 0
	case 9:
		f.DstPort--
	}
}
