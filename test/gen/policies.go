package gen

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Policies draws policies for the pods and namespaces of c.
func Policies(s *Source, c Case, o Options) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for i := range s.between(0, 8) {
		out = append(out, Policy(s, c, o, fmt.Sprintf("policy-%d", i)))
	}
	return out
}

// Policy draws one policy.
func Policy(s *Source, c Case, o Options, name string) *networkingv1.NetworkPolicy {
	d := drawer{s, c, o}
	p := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.namespace(), Name: name},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: d.selector(), PolicyTypes: d.types()},
	}
	for range d.length() {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: d.peers(), Ports: d.ports()})
	}
	for range d.length() {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: d.peers(), Ports: d.ports()})
	}
	// The API gives a nil list and an empty one the same meaning, and a reader of JSON may make either.
	if p.Spec.Ingress == nil && s.oneIn(2) {
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{}
	}
	if p.Spec.Egress == nil && s.oneIn(2) {
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{}
	}
	return p
}

// namespace is mostly one that has pods.
func (d drawer) namespace() string {
	if len(d.c.Cluster.Pods) > 0 && !d.oneIn(8) {
		return pick(d.Source, d.c.Cluster.Pods).Namespace
	}
	return pick(d.Source, d.c.Cluster.Namespaces).Name
}

// drawer draws the parts of a policy.
type drawer struct {
	*Source
	c Case
	o Options
}

// wrong is true now and then where invalid objects are wanted.
func (d drawer) wrong() bool { return d.o.Invalid && d.oneIn(16) }

func (d drawer) length() int { return []int{1, 0, 2, 1, 3}[d.intN(5)] }

func (d drawer) types() []networkingv1.PolicyType {
	const in, out = networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress
	if d.wrong() {
		return pick(d.Source, [][]networkingv1.PolicyType{{"Sideways"}, {in, "egress"}, {""}, {out, "Ingres"}, {in, out, "Other"}})
	}
	return pick(d.Source, [][]networkingv1.PolicyType{nil, {in}, {out}, {in, out}, {}, {out, in}, {in, in}})
}

func (d drawer) selector() metav1.LabelSelector {
	var s metav1.LabelSelector
	switch d.intN(8) {
	case 0, 1: // everything
	case 2, 3:
		s.MatchLabels = map[string]string{pick(d.Source, labelKeys): pick(d.Source, labelValues)}
	case 4, 5, 6:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{d.requirement()}
	case 7:
		s.MatchLabels = map[string]string{pick(d.Source, labelKeys): pick(d.Source, labelValues)}
		s.MatchExpressions = []metav1.LabelSelectorRequirement{d.requirement(), d.requirement()}
	}
	if d.wrong() {
		s.MatchExpressions = append(s.MatchExpressions, pick(d.Source, []metav1.LabelSelectorRequirement{
			{Key: "app", Operator: metav1.LabelSelectorOpIn},
			{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{}},
			{Key: "app", Operator: metav1.LabelSelectorOpExists, Values: []string{"a"}},
			{Key: "tier", Operator: metav1.LabelSelectorOpDoesNotExist, Values: []string{"a"}},
			{Key: "app", Operator: "Equals", Values: []string{"a"}},
			{Key: "", Operator: metav1.LabelSelectorOpDoesNotExist},
			{Key: "a b", Operator: metav1.LabelSelectorOpDoesNotExist},
			{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"-"}},
		}))
	}
	return s
}

func (d drawer) requirement() metav1.LabelSelectorRequirement {
	r := metav1.LabelSelectorRequirement{
		Key: pick(d.Source, labelKeys),
		Operator: pick(d.Source, []metav1.LabelSelectorOperator{
			metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist}),
	}
	if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
		for range d.between(1, 2) {
			r.Values = append(r.Values, pick(d.Source, append(labelValues, "c")))
		}
	}
	return r
}

func (d drawer) namespaceSelector() metav1.LabelSelector {
	if d.oneIn(4) {
		return metav1.LabelSelector{MatchLabels: map[string]string{
			corev1.LabelMetadataName: pick(d.Source, d.c.Cluster.Namespaces).Name}}
	}
	return d.selector()
}

func (d drawer) peers() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	switch d.intN(20) {
	case 18:
		return d.manySelectors()
	case 19:
		return d.manyBlocks()
	}
	for range d.length() {
		out = append(out, d.peer())
	}
	if out == nil && d.oneIn(2) {
		out = []networkingv1.NetworkPolicyPeer{}
	}
	return out
}

func (d drawer) peer() networkingv1.NetworkPolicyPeer {
	if d.wrong() {
		return pick(d.Source, []networkingv1.NetworkPolicyPeer{
			{},
			{IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}, PodSelector: &metav1.LabelSelector{}},
			{IPBlock: &networkingv1.IPBlock{CIDR: "::/0"}, NamespaceSelector: &metav1.LabelSelector{}},
		})
	}
	switch d.intN(5) {
	case 0:
		return networkingv1.NetworkPolicyPeer{PodSelector: pointer(d.selector())}
	case 1:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: pointer(d.namespaceSelector())}
	case 2:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: pointer(d.namespaceSelector()), PodSelector: pointer(d.selector())}
	}
	return networkingv1.NetworkPolicyPeer{IPBlock: d.block()}
}

func (d drawer) ports() []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	switch d.intN(20) {
	case 18:
		return d.manyNames()
	case 19:
		return d.manyPorts()
	}
	for range d.length() {
		out = append(out, d.port())
	}
	if out == nil && d.oneIn(2) {
		out = []networkingv1.NetworkPolicyPort{}
	}
	return out
}

// manyPorts are more than one match takes, with a port between each two that is not among them.
func (d drawer) manyPorts() []networkingv1.NetworkPolicyPort {
	protocol := pick(d.Source, protocols)
	var out []networkingv1.NetworkPolicyPort
	for i := range d.between(10, 40) {
		p := networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: pointer(intstr.FromInt32(int32(100 + 3*i)))}
		if d.oneIn(2) {
			p.EndPort = pointer(p.Port.IntVal + 1)
		}
		out = append(out, p)
	}
	return out
}

func (d drawer) port() networkingv1.NetworkPolicyPort {
	number := func(n int32) *intstr.IntOrString { return pointer(intstr.FromInt32(n)) }
	if d.wrong() {
		return pick(d.Source, []networkingv1.NetworkPolicyPort{
			{Port: number(0)}, {Port: number(-1)}, {Port: number(65536)}, {Port: number(65536 + 80)},
			{Protocol: pointer(corev1.Protocol("ICMP"))}, {Protocol: pointer(corev1.Protocol("tcp"))}, {Protocol: pointer(corev1.Protocol(""))},
			{Port: number(80), EndPort: pointer(int32(79))}, {Port: number(80), EndPort: pointer(int32(65536))}, {Port: number(0), EndPort: pointer(int32(80))},
			{EndPort: pointer(int32(80))}, {Port: pointer(intstr.FromString("http")), EndPort: pointer(int32(90))},
			{Port: pointer(intstr.FromString(""))}, {Port: &intstr.IntOrString{Type: 7, IntVal: 80}},
		})
	}
	var p networkingv1.NetworkPolicyPort
	if !d.oneIn(3) {
		p.Protocol = pointer(pick(d.Source, protocols))
	}
	switch d.intN(6) {
	case 0:
	case 1, 2:
		p.Port = pointer(intstr.FromString(pick(d.Source, append(portNames, "nobody"))))
	case 3:
		p.Port = number(pick(d.Source, portNumbers))
		end := pick(d.Source, []int32{0, 1, 2, 100, 65535})
		p.EndPort = pointer(min(p.Port.IntVal+end, 65535))
	default:
		p.Port = number(pick(d.Source, portNumbers))
	}
	return p
}

// manySelectors are more than a rule has sets for, and now and then a block among them.
func (d drawer) manySelectors() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for range d.between(4, 9) {
		out = append(out, d.peer())
		if out[len(out)-1].IPBlock != nil {
			out = append(out, networkingv1.NetworkPolicyPeer{PodSelector: pointer(d.selector())})
		}
	}
	return out
}

// manyNames are more names of ports than a rule has sets for, most of which nobody has.
func (d drawer) manyNames() []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for i := range d.between(2, 9) {
		p := networkingv1.NetworkPolicyPort{Port: pointer(intstr.FromString(fmt.Sprintf("nobody-%d", i)))}
		if i == 0 || d.oneIn(2) {
			p.Port = pointer(intstr.FromString(pick(d.Source, portNames)))
		}
		if !d.oneIn(3) {
			p.Protocol = pointer(pick(d.Source, protocols))
		}
		out = append(out, p)
	}
	if d.oneIn(4) {
		out = append(out, d.port())
	}
	return out
}

// manyBlocks are more than a rule has matches for: single addresses that somebody has, and pairs of them.
func (d drawer) manyBlocks() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for range d.between(9, 20) {
		a := pick(d.Source, d.c.addresses())
		cidr := netip.PrefixFrom(a, a.BitLen()-d.intN(2)).Masked().String()
		out = append(out, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	return out
}

// block is a block around an address that somebody has, of any length, with exceptions inside of it.
func (d drawer) block() *networkingv1.IPBlock {
	base := pick(d.Source, d.c.addresses())
	lengths := []int{24, 0, 32, 31, 16, 28, 1, 25, 30, 8}
	if base.Is6() {
		lengths = []int{64, 0, 128, 127, 112, 124, 1, 121, 63, 8}
	}
	cidr := netip.PrefixFrom(base, pick(d.Source, lengths))
	b := &networkingv1.IPBlock{CIDR: cidr.Masked().String()}
	if d.oneIn(6) {
		b.CIDR = cidr.String() // with bits behind the prefix length
	}
	excepts := d.exceptions(cidr)
	if d.wrong() {
		outside := "203.0.113.0/32"
		if cidr.Contains(netip.MustParseAddr("203.0.113.0")) {
			outside = "fd99::/64"
		}
		excepts = append(excepts, pick(d.Source, []string{"nonsense", outside, b.CIDR, "10.0.0.1", ""}))
	}
	if d.wrong() {
		b.CIDR = pick(d.Source, []string{"", "nonsense", "10.0.0.1", "10.0.0.0/33", "fd00::/129", "10.0.0/8"})
	}
	b.Except = excepts
	return b
}

// exceptions are prefixes strictly within cidr: halves of it that touch, ranges around addresses that somebody has, and ranges
// within these.
func (d drawer) exceptions(cidr netip.Prefix) []string {
	if cidr.IsSingleIP() || d.oneIn(2) {
		return nil
	}
	var inside []netip.Addr
	for _, a := range d.c.addresses() {
		if cidr.Contains(a) {
			inside = append(inside, a)
		}
	}
	inside = append(inside, cidr.Masked().Addr(), lastOf(cidr))
	var out []string
	for range d.between(1, 3) {
		shortest, longest := cidr.Bits()+1, cidr.Addr().BitLen()
		bits := pick(d.Source, []int{shortest, shortest + 1, longest, longest - 1, (shortest + longest) / 2})
		bits = min(max(bits, shortest), longest)
		out = append(out, netip.PrefixFrom(pick(d.Source, inside), bits).Masked().String())
	}
	if d.oneIn(6) {
		half := netip.PrefixFrom(cidr.Masked().Addr(), cidr.Bits()+1)
		out = append(out, half.String(), netip.PrefixFrom(lastOf(cidr), cidr.Bits()+1).Masked().String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}
