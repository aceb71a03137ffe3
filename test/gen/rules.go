package gen

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// tierDrawer draws the parts of cluster policies and isolations. Where sig is set, those of the SIG's policies.
type tierDrawer struct {
	drawer
	sig bool
}

// ownSelector is a selector in the words of our API.
func ownSelector(s metav1.LabelSelector) v1alpha1.LabelSelector {
	out := v1alpha1.LabelSelector{MatchLabels: s.MatchLabels}
	for _, r := range s.MatchExpressions {
		out.MatchExpressions = append(out.MatchExpressions, v1alpha1.LabelSelectorRequirement(r))
	}
	return out
}

func (d tierDrawer) tier() v1alpha1.Tier {
	if d.wrong() {
		return "Top"
	}
	return pick(d.Source, []v1alpha1.Tier{v1alpha1.AdminTier, v1alpha1.BaselineTier})
}

func (d tierDrawer) mode() v1alpha1.Mode {
	if d.wrong() {
		return pick(d.Source, []v1alpha1.Mode{"Shadow", "audit"})
	}
	return pick(d.Source, []v1alpha1.Mode{v1alpha1.Enforce, v1alpha1.Audit, ""})
}

func (d tierDrawer) action() v1alpha1.Action {
	if d.wrong() {
		return pick(d.Source, []v1alpha1.Action{"Log", "accept", ""})
	}
	return pick(d.Source, []v1alpha1.Action{v1alpha1.Deny, v1alpha1.Accept, v1alpha1.Pass})
}

func (d tierDrawer) subject() v1alpha1.Subject {
	if d.wrong() {
		return pick(d.Source, []v1alpha1.Subject{{}, {Namespaces: &v1alpha1.LabelSelector{}, Pods: &v1alpha1.NamespacedPod{}}})
	}
	switch d.intN(5) {
	case 0:
		return v1alpha1.Subject{Namespaces: &v1alpha1.LabelSelector{}}
	case 1, 2:
		return v1alpha1.Subject{Namespaces: pointer(ownSelector(d.namespaceSelector()))}
	}
	return v1alpha1.Subject{Pods: d.namespacedPod()}
}

// namespacedPod selects by pods, by namespaces, or, which is seldom anybody, by both.
func (d tierDrawer) namespacedPod() *v1alpha1.NamespacedPod {
	p := &v1alpha1.NamespacedPod{}
	by := d.intN(4)
	if by != 0 {
		p.PodSelector = ownSelector(d.selector())
	}
	if by == 0 || by == 3 {
		p.NamespaceSelector = ownSelector(d.namespaceSelector())
	}
	return p
}

// clusterPeers are one to three peers; with podsOnly, pods by their own labels and their namespaces'.
func (d tierDrawer) clusterPeers(podsOnly bool) []v1alpha1.Peer {
	if d.wrong() {
		return pick(d.Source, [][]v1alpha1.Peer{nil, {}})
	}
	var out []v1alpha1.Peer
	for range pick(d.Source, []int{1, 1, 2, 3, 1, 1, 2, 3, 1, 1, 2, 3, 9}) {
		out = append(out, d.clusterPeer(podsOnly))
	}
	return out
}

func (d tierDrawer) clusterPeer(podsOnly bool) v1alpha1.Peer {
	if d.wrong() {
		return d.wrongPeer(podsOnly)
	}
	kinds := 9
	if podsOnly {
		kinds = 4
	}
	switch d.intN(kinds) {
	case 0, 1:
		return v1alpha1.Peer{Namespaces: pointer(ownSelector(d.namespaceSelector()))}
	case 2, 3:
		return v1alpha1.Peer{Pods: d.namespacedPod()}
	case 4, 5:
		if d.oneIn(3) {
			node := pick(d.Source, d.c.Nodes).Name
			return v1alpha1.Peer{Nodes: &v1alpha1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: node}}}
		}
		return v1alpha1.Peer{Nodes: pointer(ownSelector(d.selector()))}
	}
	return v1alpha1.Peer{Networks: d.networks()}
}

func (d tierDrawer) wrongPeer(podsOnly bool) v1alpha1.Peer {
	all := &v1alpha1.LabelSelector{}
	peers := []v1alpha1.Peer{{}, {Namespaces: all, Pods: d.namespacedPod()}}
	if !podsOnly {
		peers = append(peers, v1alpha1.Peer{Networks: []v1alpha1.CIDR{}}, v1alpha1.Peer{DomainNames: []string{"example.com"}},
			v1alpha1.Peer{Networks: d.networks(), DomainNames: []string{"*.example.com"}},
			v1alpha1.Peer{Namespaces: all, Nodes: all}, v1alpha1.Peer{Pods: d.namespacedPod(), Networks: d.networks()})
	}
	return pick(d.Source, peers)
}

// networks are one to three blocks around addresses that somebody has, seldom many, each once.
func (d tierDrawer) networks() []v1alpha1.CIDR {
	var out []v1alpha1.CIDR
	count := d.between(1, 3)
	if d.oneIn(16) {
		count = d.between(10, 25)
	}
	for range count {
		base := pick(d.Source, d.c.addresses())
		lengths := []int{32, 24, 31, 28, 25, 32, 30, 16, 1, 0}
		if base.Is6() {
			lengths = []int{128, 64, 127, 124, 121, 128, 112, 63, 1, 0}
		}
		cidr := netip.PrefixFrom(base, pick(d.Source, lengths))
		if !d.oneIn(6) {
			cidr = cidr.Masked()
		}
		if text := v1alpha1.CIDR(cidr.String()); !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	if d.wrong() {
		out = append(out, pick(d.Source, []v1alpha1.CIDR{"", "nonsense", "10.0.0.1", "10.0.0.0/33", "fd00::/129", "10.0.0/8"}))
	}
	return out
}

// protocols are none, or one to three.
func (d tierDrawer) protocols() []v1alpha1.Protocol {
	var out []v1alpha1.Protocol
	for range d.length() {
		out = append(out, d.protocol())
	}
	if out == nil && d.oneIn(2) {
		out = []v1alpha1.Protocol{}
	}
	return out
}

func (d tierDrawer) protocol() v1alpha1.Protocol {
	if d.wrong() {
		return pick(d.Source, []v1alpha1.Protocol{
			{}, {TCP: &v1alpha1.PortMatch{}, UDP: &v1alpha1.PortMatch{}}, {SCTP: &v1alpha1.PortMatch{}, DestinationNamedPort: "http"}})
	}
	if d.oneIn(3) {
		return v1alpha1.Protocol{DestinationNamedPort: pick(d.Source, append(slices.Clone(portNames), "nobody"))}
	}
	match := &v1alpha1.PortMatch{DestinationPort: d.destinationPort()}
	switch d.intN(4) {
	case 0:
		return v1alpha1.Protocol{UDP: match}
	case 1:
		return v1alpha1.Protocol{SCTP: match}
	}
	return v1alpha1.Protocol{TCP: match}
}

func (d tierDrawer) destinationPort() *v1alpha1.Port {
	if d.wrong() {
		return pick(d.Source, []*v1alpha1.Port{
			{}, {Number: -1}, {Number: 65536}, {Number: 65536 + 80}, {Number: 80, Range: &v1alpha1.PortRange{Start: 80, End: 81}},
			{Range: &v1alpha1.PortRange{Start: 0, End: 80}}, {Range: &v1alpha1.PortRange{Start: 80, End: 79}},
			{Range: &v1alpha1.PortRange{Start: 80, End: 65536}},
			{Range: &v1alpha1.PortRange{}}, {Range: &v1alpha1.PortRange{Start: 80, End: 80}},
		})
	}
	number := pick(d.Source, portNumbers)
	switch d.intN(5) {
	case 0:
		return nil
	case 1, 2:
		if number < 65535 {
			return &v1alpha1.Port{Range: &v1alpha1.PortRange{Start: number, End: min(number+pick(d.Source, []int32{1, 2, 100, 65535}), 65535)}}
		}
	}
	return &v1alpha1.Port{Number: number}
}
