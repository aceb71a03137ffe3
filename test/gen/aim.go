package gen

import (
	"errors"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	kubelabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/lab/oracle"
)

// tierRule is whom a rule of a cluster policy, or an allow of an isolation, is for, and what it matches.
type tierRule struct {
	subject   v1alpha1.Subject
	ingress   bool
	peers     []v1alpha1.Peer
	protocols []v1alpha1.Protocol
}

// tierRules are those of all cluster policies and isolations.
func (c Case) tierRules() []tierRule {
	var out []tierRule
	for _, p := range c.Cluster.ClusterPolicies {
		for _, r := range p.Spec.Ingress {
			out = append(out, tierRule{p.Spec.Subject, true, r.From, r.Protocols})
		}
		for _, r := range p.Spec.Egress {
			out = append(out, tierRule{p.Spec.Subject, false, r.To, r.Protocols})
		}
	}
	for _, iso := range c.Cluster.Isolations {
		isolated := v1alpha1.Subject{Namespaces: &iso.Spec.NamespaceSelector}
		for _, r := range iso.Spec.Allow.Ingress {
			out = append(out, tierRule{isolated, true, r.From, r.Protocols})
		}
		for _, r := range iso.Spec.Allow.Egress {
			out = append(out, tierRule{isolated, false, r.To, r.Protocols})
		}
	}
	return out
}

// dnsAddresses are where DNS is served, besides by pods.
func (c Case) dnsAddresses() []netip.Addr {
	out := slices.Clone(c.Cluster.DNSAddresses)
	for _, svc := range c.Cluster.DNSServices {
		out = append(out, addressesOfService(svc)...)
	}
	return out
}

func addressesOfService(svc *corev1.Service) []netip.Addr {
	return parsed(append([]string{svc.Spec.ClusterIP}, svc.Spec.ClusterIPs...))
}

func addressesOfNode(n *corev1.Node) []netip.Addr {
	var texts []string
	for _, a := range n.Status.Addresses {
		texts = append(texts, a.Address)
	}
	return parsed(texts)
}

// parsed are those of the texts that are addresses.
func parsed(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// hasTiers reports whether there is something to aim at besides NetworkPolicies.
func (d flowDrawer) hasTiers() bool {
	return len(d.rules)+len(d.c.Cluster.Isolations)+len(d.c.Cluster.DNSServices)+len(d.c.Cluster.DNSAddresses) > 0
}

// aimAtTiers sends f from or to a pod that a rule of the tiers is for, the other end being one of its peers, on one of its ports; or it sends f
// from an isolated pod to DNS.
func (d flowDrawer) aimAtTiers(f *oracle.Flow) {
	is4 := f.Src.Is4()
	if isolations := d.c.Cluster.Isolations; len(d.rules) == 0 || len(isolations) > 0 && d.oneIn(3) {
		if len(isolations) > 0 {
			f.Src = d.oneOf(d.selected(&pick(d.Source, isolations).Spec.NamespaceSelector, nil), is4)
		}
		d.aimAtDNS(f)
		return
	}
	r := pick(d.Source, d.rules)
	subject, remote := d.oneOf(d.selected(r.subject.Namespaces, r.subject.Pods), is4), d.inPeers(r.peers, is4)
	if r.ingress {
		f.Src, f.Dst = remote, subject
	} else {
		f.Src, f.Dst = subject, remote
	}
	if len(r.protocols) > 0 {
		d.aimAtProtocol(f, pick(d.Source, r.protocols))
	}
}

// oneOf is one of the choices that are of the family, or where there is none, any end.
func (d flowDrawer) oneOf(choices []netip.Addr, is4 bool) netip.Addr {
	if choices = ofFamily(choices, is4); len(choices) == 0 {
		return d.end(is4)
	}
	return pick(d.Source, choices)
}

// selected are mostly the addresses of the pods that one of the selectors selects, else those of all pods.
func (d flowDrawer) selected(namespaces *v1alpha1.LabelSelector, pods *v1alpha1.NamespacedPod) []netip.Addr {
	inNamespace, inPod := kubelabels.Everything(), kubelabels.Everything()
	var errs [2]error
	switch {
	case namespaces != nil:
		inNamespace, errs[0] = namespaces.Selector()
	case pods != nil:
		inNamespace, errs[0] = pods.NamespaceSelector.Selector()
		inPod, errs[1] = pods.PodSelector.Selector()
	}
	if errors.Join(errs[:]...) != nil || d.oneIn(6) {
		return d.pods
	}
	var out []netip.Addr
	for _, n := range d.c.Cluster.Namespaces {
		for _, p := range d.c.Cluster.Pods {
			if p.Namespace == n.Name && inNamespace.Matches(kubelabels.Set(n.Labels)) && inPod.Matches(kubelabels.Set(p.Labels)) {
				out = append(out, addressesOf(p)...)
			}
		}
	}
	return out
}

// inPeers is an address of the family that one of the peers may hold: an edge of its networks, a node's, or a pod's.
func (d flowDrawer) inPeers(peers []v1alpha1.Peer, is4 bool) netip.Addr {
	if len(peers) == 0 {
		return d.end(is4)
	}
	var choices []netip.Addr
	switch p := pick(d.Source, peers); {
	case p.Nodes != nil:
		for _, n := range d.c.Cluster.Nodes {
			choices = append(choices, addressesOfNode(n)...)
		}
		for _, n := range d.c.Nodes {
			choices = append(choices, n.Addrs...)
		}
	case len(p.Networks) > 0:
		choices = d.near(pick(d.Source, p.Networks))
	default:
		choices = d.selected(p.Namespaces, p.Pods)
	}
	return d.oneOf(choices, is4)
}

// near are the edges of a block and the addresses in it that somebody has.
func (d flowDrawer) near(cidr v1alpha1.CIDR) []netip.Addr {
	prefix, err := netip.ParsePrefix(string(cidr))
	if err != nil {
		return nil
	}
	out := edgesOf(string(cidr))
	for _, a := range d.all {
		if prefix.Contains(a) {
			out = append(out, a)
		}
	}
	return out
}

// aimAtProtocol takes protocol and port of p; a name's are those of a container port that the destination has.
func (d flowDrawer) aimAtProtocol(f *oracle.Flow, p v1alpha1.Protocol) {
	match := p.TCP
	protocol := oracle.TCP
	switch {
	case p.UDP != nil:
		match, protocol = p.UDP, oracle.UDP
	case p.SCTP != nil:
		match, protocol = p.SCTP, oracle.SCTP
	case p.DestinationNamedPort != "":
		d.aimAtContainer(f, p.DestinationNamedPort)
		return
	}
	f.Protocol, f.ICMPType = protocol, 0
	f.DstPort = uint16(pick(d.Source, popularPorts))
	if match == nil || match.DestinationPort == nil {
		return
	}
	f.DstPort = uint16(match.DestinationPort.Number)
	if r := match.DestinationPort.Range; r != nil {
		f.DstPort = uint16(pick(d.Source, []int32{r.Start, r.End, (r.Start + r.End) / 2}))
	}
	switch d.intN(8) {
	case 6:
		f.DstPort++
	case 7:
		f.DstPort--
	}
}

// aimAtContainer takes protocol and number of a container port of the destination: mostly of one with that name. Now and then it takes another
// protocol.
func (d flowDrawer) aimAtContainer(f *oracle.Flow, name string) {
	var named, others []corev1.ContainerPort
	for _, p := range d.c.Cluster.Pods {
		if !slices.Contains(addressesOf(p), f.Dst) {
			continue
		}
		for _, port := range allPorts(p) {
			others = append(others, port)
			if port.Name == name {
				named = append(named, port)
			}
		}
	}
	if len(named) == 0 {
		named = others
	}
	if len(named) == 0 {
		return
	}
	port := pick(d.Source, named)
	setPort(f, port.Protocol, port.ContainerPort)
	if d.oneIn(6) {
		f.Protocol = pick(d.Source, []oracle.Protocol{oracle.TCP, oracle.UDP, oracle.SCTP})
	}
}

// setPort sets protocol and port; an empty protocol is TCP.
func setPort(f *oracle.Flow, protocol corev1.Protocol, number int32) {
	f.Protocol, f.ICMPType = map[corev1.Protocol]oracle.Protocol{"": oracle.TCP, "TCP": oracle.TCP, "UDP": oracle.UDP, "SCTP": oracle.SCTP}[protocol], 0
	f.DstPort = uint16(number)
}

// aimAtDNS sends f to an address at which DNS is served: of a node, of a Service, or of a pod that a Service selects; at port 53, at the
// Service's, or at the container's.
func (d flowDrawer) aimAtDNS(f *oracle.Flow) {
	if to := ofFamily(d.c.Cluster.DNSAddresses, f.Src.Is4()); len(to) > 0 && d.oneIn(3) {
		f.Dst = pick(d.Source, to)
		setPort(f, pick(d.Source, []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP, corev1.ProtocolSCTP}), pick(d.Source, []int32{53, 53, 53, 54}))
		return
	}
	if len(d.c.Cluster.DNSServices) == 0 {
		return
	}
	svc := pick(d.Source, d.c.Cluster.DNSServices)
	port := pick(d.Source, svc.Spec.Ports)
	setPort(f, port.Protocol, port.Port)
	if to := ofFamily(addressesOfService(svc), f.Src.Is4()); len(to) > 0 && d.oneIn(2) {
		f.Dst = pick(d.Source, to)
		return
	}
	var behind []netip.Addr
	for _, p := range d.c.Cluster.Pods {
		if p.Namespace == svc.Namespace && hasLabels(p, svc.Spec.Selector) {
			behind = append(behind, addressesOf(p)...)
		}
	}
	if behind = ofFamily(behind, f.Src.Is4()); len(behind) == 0 {
		return
	}
	f.Dst = pick(d.Source, behind)
	switch {
	case port.TargetPort.Type == intstr.String:
		d.aimAtContainer(f, port.TargetPort.StrVal)
	case port.TargetPort.IntVal != 0 && !d.oneIn(6):
		setPort(f, port.Protocol, port.TargetPort.IntVal)
	}
}

func hasLabels(p *corev1.Pod, wanted map[string]string) bool {
	for key, value := range wanted {
		if got, ok := p.Labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}
