package cached

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	signetv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// sigVersions are the versions of the SIG's ClusterNetworkPolicy, the newest first. [TestTheSIGsVersionsHaveTheSameFields] holds them to one shape.
var sigVersions = []schema.GroupVersion{schema.GroupVersion(signetv1beta1.GroupVersion), schema.GroupVersion(signetv1alpha2.GroupVersion)}

// SIGVersions are the versions in which the SIG's ClusterNetworkPolicy can be read, the newest first.
func SIGVersions() []schema.GroupVersion { return slices.Clone(sigVersions) }

// installSIG makes the SIG's kind known in all its versions. Objects of each version are read into the type of the newest.
func installSIG(s *runtime.Scheme) error {
	for _, version := range sigVersions {
		s.AddKnownTypes(version, &signetv1beta1.ClusterNetworkPolicy{}, &signetv1beta1.ClusterNetworkPolicyList{})
		metav1.AddToGroupVersion(s, version)
	}
	return nil
}

// FromSIG is the SIG's policy as one of ours, which has all its fields. It takes over o's maps. Its APIVersion has the SIG's group, by which reports
// tell the two apart, and always the newest version: which one it was read in makes no difference to policy. What o says in a field that the SIG's
// type does not have yet is not in o: the peer, protocol or port is an empty one then, which no packet matches in an Accept rule, and every packet
// in another.
func FromSIG(o *signetv1beta1.ClusterNetworkPolicy) *v1alpha1.ClusterNetworkPolicy {
	return &v1alpha1.ClusterNetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: sigVersions[0].String(), Kind: "ClusterNetworkPolicy"},
		ObjectMeta: versioned(o),
		Spec: v1alpha1.ClusterNetworkPolicySpec{
			Tier:     v1alpha1.Tier(o.Spec.Tier),
			Priority: o.Spec.Priority,
			Subject: v1alpha1.Subject{
				Namespaces: selectorFromSIG(o.Spec.Subject.Namespaces),
				Pods:       podsFromSIG(o.Spec.Subject.Pods),
			},
			Ingress: each(o.Spec.Ingress, func(r signetv1beta1.ClusterNetworkPolicyIngressRule) v1alpha1.IngressRule {
				return v1alpha1.IngressRule{
					Name:      r.Name,
					Action:    v1alpha1.Action(r.Action),
					From:      each(r.From, sourceFromSIG),
					Protocols: each(r.Protocols, protocolFromSIG),
				}
			}),
			Egress: each(o.Spec.Egress, func(r signetv1beta1.ClusterNetworkPolicyEgressRule) v1alpha1.EgressRule {
				return v1alpha1.EgressRule{
					Name:      r.Name,
					Action:    v1alpha1.Action(r.Action),
					To:        each(r.To, destinationFromSIG),
					Protocols: each(r.Protocols, protocolFromSIG),
				}
			}),
		},
	}
}

func sourceFromSIG(p signetv1beta1.ClusterNetworkPolicyIngressPeer) v1alpha1.Peer {
	return v1alpha1.Peer{Namespaces: selectorFromSIG(p.Namespaces), Pods: podsFromSIG(p.Pods)}
}

func destinationFromSIG(p signetv1beta1.ClusterNetworkPolicyEgressPeer) v1alpha1.Peer {
	return v1alpha1.Peer{
		Namespaces:  selectorFromSIG(p.Namespaces),
		Pods:        podsFromSIG(p.Pods),
		Nodes:       selectorFromSIG(p.Nodes),
		Networks:    each(p.Networks, func(c signetv1beta1.CIDR) v1alpha1.CIDR { return v1alpha1.CIDR(c) }),
		DomainNames: each(p.DomainNames, func(d signetv1beta1.DomainName) string { return string(d) }),
	}
}

func podsFromSIG(p *signetv1beta1.NamespacedPod) *v1alpha1.NamespacedPod {
	if p == nil {
		return nil
	}
	return &v1alpha1.NamespacedPod{
		NamespaceSelector: *selectorFromSIG(&p.NamespaceSelector),
		PodSelector:       *selectorFromSIG(&p.PodSelector),
	}
}

func selectorFromSIG(s *metav1.LabelSelector) *v1alpha1.LabelSelector {
	if s == nil {
		return nil
	}
	return &v1alpha1.LabelSelector{
		MatchLabels: s.MatchLabels,
		MatchExpressions: each(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) v1alpha1.LabelSelectorRequirement {
			return v1alpha1.LabelSelectorRequirement(r)
		}),
	}
}

func protocolFromSIG(p signetv1beta1.ClusterNetworkPolicyProtocol) v1alpha1.Protocol {
	out := v1alpha1.Protocol{DestinationNamedPort: p.DestinationNamedPort}
	if p.TCP != nil {
		out.TCP = &v1alpha1.PortMatch{DestinationPort: portFromSIG(p.TCP.DestinationPort)}
	}
	if p.UDP != nil {
		out.UDP = &v1alpha1.PortMatch{DestinationPort: portFromSIG(p.UDP.DestinationPort)}
	}
	if p.SCTP != nil {
		out.SCTP = &v1alpha1.PortMatch{DestinationPort: portFromSIG(p.SCTP.DestinationPort)}
	}
	return out
}

func portFromSIG(p *signetv1beta1.Port) *v1alpha1.Port {
	if p == nil {
		return nil
	}
	out := &v1alpha1.Port{Number: p.Number}
	if p.Range != nil {
		out.Range = &v1alpha1.PortRange{Start: p.Range.Start, End: p.Range.End}
	}
	return out
}

// each converts a list. What is no list stays none.
func each[From, To any](list []From, convert func(From) To) []To {
	if list == nil {
		return nil
	}
	out := make([]To, 0, len(list))
	for _, item := range list {
		out = append(out, convert(item))
	}
	return out
}
