package query

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// policyFor is the policy of a subject, nil if those that there are do for it. Its name is none of those that are recommended already.
func (r *recommending) policyFor(s *subject, others []*networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.namespace, Annotations: map[string]string{v1alpha1.ModeAnnotation: string(v1alpha1.Audit)},
		},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: s.labels}},
	}
	for _, rule := range r.rulesFor(side{s, policy.Ingress}) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: rule.peers, Ports: rule.ports})
	}
	for _, rule := range r.rulesFor(side{s, policy.Egress}) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: rule.peers, Ports: rule.ports})
	}
	for _, d := range policy.Directions {
		isolated := r.isIsolatedAlready(s, d)
		if r.wants[side{s, d}] == nil {
			r.notes.unseen = append(r.notes.unseen, unseenText(s, d, isolated))
		}
		if d == policy.Ingress && len(p.Spec.Ingress) > 0 || d == policy.Egress && len(p.Spec.Egress) > 0 || !isolated {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, typeOf[d])
		}
	}
	if len(p.Spec.PolicyTypes) == 0 {
		return nil
	}
	if !r.named(s, p, others) {
		return nil
	}
	r.noteSubject(s, p.Name)
	return p
}

var typeOf = map[policy.Direction]networkingv1.PolicyType{policy.Ingress: networkingv1.PolicyTypeIngress, policy.Egress: networkingv1.PolicyTypeEgress}

// maxPolicyName is the length of a name that leaves room for a number behind it, in the 63 characters that people can read in a table.
const maxPolicyName = 59

// named gives a policy its name. If there is one of that name already, and it is about the same pods, the policy is that one with what is new; it reports
// false if nothing is. One that is enforced stays as narrow as it is: it is not to isolate a direction at once. Then, and if the name is another's, there is a
// number behind it.
func (r *recommending) named(s *subject, p *networkingv1.NetworkPolicy, others []*networkingv1.NetworkPolicy) bool {
	base := "ringfence-" + strings.Trim(strings.Map(forName, bare(s.pods[0])), "-")
	base = strings.TrimRight(base[:min(len(base), maxPolicyName)], "-")
	for i := 1; ; i++ {
		p.Name = base
		if i > 1 {
			p.Name = fmt.Sprintf("%s-%d", base, i)
		}
		has := func(o *networkingv1.NetworkPolicy) bool { return o.Namespace == p.Namespace && o.Name == p.Name }
		if slices.ContainsFunc(others, has) {
			continue
		}
		at := slices.IndexFunc(r.parts.Policies, has)
		if at < 0 {
			return true
		}
		if old := r.parts.Policies[at]; r.canGrow(old, s, p.Spec.PolicyTypes) {
			grown := grow(old, p)
			*p = *grown
			return !reflect.DeepEqual(grown.Spec, old.Spec)
		}
	}
}

// canGrow reports whether a policy is about the pods of a subject, and may be about some directions.
func (r *recommending) canGrow(old *networkingv1.NetworkPolicy, s *subject, types []networkingv1.PolicyType) bool {
	selector, err := metav1.LabelSelectorAsSelector(&old.Spec.PodSelector)
	if err != nil {
		return false
	}
	for _, of := range r.subjectsOf(s.namespace) {
		for _, p := range of.pods {
			if selector.Matches(labels.Set(p.Labels)) != slices.Contains(s.selected, p) {
				return false
			}
		}
	}
	mode, ok := old.Annotations[v1alpha1.ModeAnnotation]
	for _, n := range r.parts.Namespaces {
		if !ok && n.Name == s.namespace {
			mode = n.Annotations[v1alpha1.ModeAnnotation]
		}
	}
	return mode == string(v1alpha1.Audit) || !slices.ContainsFunc(types, func(t networkingv1.PolicyType) bool { return !slices.Contains(typesOf(old), t) })
}

// typesOf are the directions that a policy isolates, where those that it does not name are as the API says.
func typesOf(p *networkingv1.NetworkPolicy) []networkingv1.PolicyType {
	if len(p.Spec.PolicyTypes) > 0 {
		return p.Spec.PolicyTypes
	}
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if len(p.Spec.Egress) > 0 {
		types = append(types, networkingv1.PolicyTypeEgress)
	}
	return types
}

// grow is a policy with what another has besides.
func grow(old, more *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	p := old.DeepCopy()
	p.TypeMeta = more.TypeMeta
	delete(p.Annotations, corev1.LastAppliedConfigAnnotation)
	for _, rule := range more.Spec.Ingress {
		rule.From = slices.DeleteFunc(slices.Clone(rule.From), func(peer networkingv1.NetworkPolicyPeer) bool {
			return slices.ContainsFunc(old.Spec.Ingress, func(o networkingv1.NetworkPolicyIngressRule) bool { return says(o.From, o.Ports, peer, rule.Ports) })
		})
		if len(rule.From) > 0 {
			p.Spec.Ingress = append(p.Spec.Ingress, rule)
		}
	}
	for _, rule := range more.Spec.Egress {
		rule.To = slices.DeleteFunc(slices.Clone(rule.To), func(peer networkingv1.NetworkPolicyPeer) bool {
			return slices.ContainsFunc(old.Spec.Egress, func(o networkingv1.NetworkPolicyEgressRule) bool { return says(o.To, o.Ports, peer, rule.Ports) })
		})
		if len(rule.To) > 0 {
			p.Spec.Egress = append(p.Spec.Egress, rule)
		}
	}
	types := slices.Clone(typesOf(old))
	for _, t := range more.Spec.PolicyTypes {
		if !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	if len(types) > len(typesOf(old)) {
		p.Spec.PolicyTypes = types
	}
	return p
}

// says reports whether a rule names a peer and all of some ports.
func says(peers []networkingv1.NetworkPolicyPeer, in []networkingv1.NetworkPolicyPort, peer networkingv1.NetworkPolicyPeer,
	ports []networkingv1.NetworkPolicyPort,
) bool {
	return slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool { return reflect.DeepEqual(p, peer) }) &&
		!slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
			return !slices.ContainsFunc(in, func(q networkingv1.NetworkPolicyPort) bool { return reflect.DeepEqual(p, q) })
		})
}

// rule is one of either direction.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// rulesFor are those that a side needs: peers with the same ports share one.
func (r *recommending) rulesFor(of side) []rule {
	w := r.wants[of]
	if w == nil {
		return nil
	}
	var peers []*peerPorts
	for _, key := range sortedKeys(w.peers) {
		peers = append(peers, w.peers[key])
	}
	blocks := map[string]*peerPorts{}
	for port, addrs := range w.addrs {
		for _, b := range r.blocksFor(of, port, addrs) {
			if blocks[b.CIDR] == nil {
				blocks[b.CIDR] = &peerPorts{networkingv1.NetworkPolicyPeer{IPBlock: &b}, map[Port]bool{}}
			}
			blocks[b.CIDR].ports[port] = true
		}
	}
	for _, key := range sortedKeys(blocks) {
		peers = append(peers, blocks[key])
	}
	byPorts, keys := map[string]*rule{}, []string{}
	for _, p := range peers {
		ports := sortedPorts(p.ports)
		key := fmt.Sprint(ports)
		if byPorts[key] == nil {
			byPorts[key], keys = &rule{ports: policyPorts(ports)}, append(keys, key)
		}
		byPorts[key].peers = append(byPorts[key].peers, p.NetworkPolicyPeer)
	}
	var rules []rule
	for _, key := range keys {
		rules = append(rules, *byPorts[key])
	}
	return rules
}

// blocksFor are the blocks of the addresses that need a port, with a note if they have more than these.
func (r *recommending) blocksFor(of side, port Port, addrs map[netip.Addr]bool) []networkingv1.IPBlock {
	var all []netip.Addr
	for a := range addrs {
		all = append(all, a)
	}
	blocks, larger := blocksOf(all, r.ranges)
	if larger {
		var texts []string
		for _, b := range blocks {
			if len(b.Except) > 0 || !netip.MustParsePrefix(b.CIDR).IsSingleIP() {
				texts = append(texts, b.CIDR)
			}
		}
		r.notes.blocks = append(r.notes.blocks, fmt.Sprintf("%s, %s on %s: %d addresses were seen. %s stand for them: look whether that is meant",
			of.name(), of.Direction, port, len(all), joined(texts)))
	}
	return blocks
}

func sortedPorts(ports map[Port]bool) []Port {
	var all []Port
	for p := range ports {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	})
	return all
}

func policyPorts(ports []Port) []networkingv1.NetworkPolicyPort {
	var all []networkingv1.NetworkPolicyPort
	for _, p := range ports {
		protocol, number := corev1.Protocol(strings.ToUpper(p.Protocol.String())), intstr.FromInt32(int32(p.Number))
		all = append(all, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &number})
	}
	return all
}
