package reach

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// reached is what is found.
type reached struct {
	all, here []*compile.Namespace
	names     map[string]bool
	matching  map[string][]*compile.Namespace // of all, by selector
}

// addPolicy adds what the peers of a NetworkPolicy can name, in both directions: which of them are in force is another question.
func (r *reached) addPolicy(p *networkingv1.NetworkPolicy) {
	add := func(peers []networkingv1.NetworkPolicyPeer) {
		for i := range peers {
			switch peer := &peers[i]; {
			case peer.NamespaceSelector != nil:
				r.addMatching(metav1.LabelSelectorAsSelector(peer.NamespaceSelector))
			case peer.PodSelector != nil:
				r.names[p.Namespace] = true
			}
		}
	}
	for i := range p.Spec.Ingress {
		add(p.Spec.Ingress[i].From)
	}
	for i := range p.Spec.Egress {
		rule := &p.Spec.Egress[i]
		add(rule.To)
		named := func(p networkingv1.NetworkPolicyPort) bool { return p.Port != nil && p.Port.Type == intstr.String }
		if slices.ContainsFunc(rule.Ports, named) && (len(rule.To) == 0 || slices.ContainsFunc(rule.To, notOfPods)) {
			r.addMatching(labels.Everything(), nil)
		}
	}
}

// notOfPods reports whether a peer is anything else than pods which it selects, such as one that cannot be understood.
func notOfPods(p networkingv1.NetworkPolicyPeer) bool {
	_, first := metav1.LabelSelectorAsSelector(p.NamespaceSelector)
	_, second := metav1.LabelSelectorAsSelector(p.PodSelector)
	return p.IPBlock != nil || p.NamespaceSelector == nil && p.PodSelector == nil || first != nil || second != nil
}

func (r *reached) addClusterPolicy(p *v1alpha1.ClusterNetworkPolicy) {
	for i := range p.Spec.Ingress {
		r.addPeers(p.Spec.Ingress[i].From)
	}
	for i := range p.Spec.Egress {
		r.addDestinations(p.Spec.Egress[i].To, p.Spec.Egress[i].Protocols)
	}
}

// addDestinations adds peers of an egress rule.
func (r *reached) addDestinations(peers []v1alpha1.Peer, protocols []v1alpha1.Protocol) {
	r.addPeers(peers)
	others := func(p v1alpha1.Peer) bool {
		return (p.Namespaces == nil) == (p.Pods == nil) || p.Nodes != nil || len(p.Networks)+len(p.DomainNames) > 0
	}
	named := func(p v1alpha1.Protocol) bool { return p.DestinationNamedPort != "" }
	if slices.ContainsFunc(protocols, named) && slices.ContainsFunc(peers, others) {
		r.addMatching(labels.Everything(), nil)
	}
}

func (r *reached) addPeers(peers []v1alpha1.Peer) {
	for i := range peers {
		if n := peers[i].Namespaces; n != nil {
			r.addMatching(n.Selector())
		}
		if p := peers[i].Pods; p != nil {
			r.addMatching(p.NamespaceSelector.Selector())
		}
	}
}

// addMatching adds the namespaces that a peer's selector matches. A peer that cannot be understood names no pod.
func (r *reached) addMatching(s labels.Selector, err error) {
	if err != nil {
		return
	}
	text := s.String()
	found, known := r.matching[text]
	if !known {
		found = slices.DeleteFunc(slices.Clone(r.all), func(ns *compile.Namespace) bool { return !s.Matches(&ns.Labels) })
		r.matching[text] = found
	}
	for _, ns := range found {
		r.names[ns.Name] = true
	}
}

// isSubject reports whether a subject may be a pod of the node.
func (r *reached) isSubject(s *v1alpha1.Subject) bool {
	switch {
	case s.Namespaces != nil && s.Pods == nil:
		return slices.ContainsFunc(r.here, selected(s.Namespaces))
	case s.Pods != nil && s.Namespaces == nil:
		return slices.ContainsFunc(r.here, selected(&s.Pods.NamespaceSelector))
	}
	return true // what cannot be understood is about all
}

// certain is up to how many conditions a selector of a subject is believed to be understood: [compile] takes one that is too long for all.
const certain = 256

// selected says which namespaces a subject selects.
func selected(by *v1alpha1.LabelSelector) func(*compile.Namespace) bool {
	values := len(by.MatchLabels)
	for _, e := range by.MatchExpressions {
		values += 1 + len(e.Values)
	}
	s, err := by.Selector()
	return func(ns *compile.Namespace) bool { return err != nil || values > certain || s.Matches(&ns.Labels) }
}

// addIsolation adds what an isolation allows the pods of the node, if it isolates any: their tenants, the cluster's DNS, and its own peers.
func (r *reached) addIsolation(i *v1alpha1.NamespaceIsolation, dns []*corev1.Service) {
	isolated := slices.DeleteFunc(slices.Clone(r.here), func(ns *compile.Namespace) bool { return !selected(&i.Spec.NamespaceSelector)(ns) })
	if len(isolated) == 0 {
		return
	}
	for _, ns := range isolated {
		r.names[ns.Name] = true
		value, ok := ns.Labels.Lookup(i.Spec.TenantLabel)
		for _, other := range r.all {
			if theirs, has := other.Labels.Lookup(i.Spec.TenantLabel); ok && has && theirs == value {
				r.names[other.Name] = true
			}
		}
	}
	for _, s := range dns {
		if asksPods(s) {
			r.names[s.Namespace] = true
		}
	}
	for k := range i.Spec.Allow.Ingress {
		r.addPeers(i.Spec.Allow.Ingress[k].From)
	}
	for k := range i.Spec.Allow.Egress {
		r.addDestinations(i.Spec.Allow.Egress[k].To, i.Spec.Allow.Egress[k].Protocols)
	}
}

func asksPods(s *corev1.Service) bool { return len(s.Spec.Selector) > 0 }
