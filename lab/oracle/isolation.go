package oracle

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// isolation is the stage of a tier's NamespaceIsolations. They add up as NetworkPolicies do: what one of them allows goes on to the next
// stage, what none allows is denied.
func (c Cluster) isolation(tier v1alpha1.Tier, e end) answer {
	var audited []Denial
	enforced, wouldAllow, allowed := 0, false, ""
	for _, iso := range c.Isolations {
		if isolationTier(iso) != tier || !c.isIsolated(iso, e) {
			continue
		}
		what := c.isolationAllows(iso.Spec, e)
		if iso.Spec.Mode == v1alpha1.Audit {
			audited = append(audited, Denial{Kind: isolationKind, Name: iso.Name, Direction: e.word()})
			wouldAllow = wouldAllow || what != ""
			continue
		}
		enforced++
		if what != "" {
			allowed = fmt.Sprintf("%s of NamespaceIsolation %s allows %s", what, iso.Name, e)
		}
	}
	switch {
	case allowed != "":
		return answer{reason: allowed}
	case enforced > 0:
		return answer{says: denies, reason: fmt.Sprintf("%s is isolated for %s by %d NamespaceIsolations and none allows", e, e.word(), enforced)}
	case wouldAllow:
		return answer{}
	}
	return answer{noted: audited}
}

// isolationTier is Baseline where nothing is said, and Admin where a tier is named that nobody knows.
func isolationTier(iso *v1alpha1.NamespaceIsolation) v1alpha1.Tier {
	if iso.Spec.Tier == "" || iso.Spec.Tier == v1alpha1.BaselineTier {
		return v1alpha1.BaselineTier
	}
	return v1alpha1.AdminTier
}

// isIsolated reports whether the isolation is for the pod's namespace and for the direction. A selector that is not understood might have
// meant any namespace, and a direction that nobody knows either.
func (c Cluster) isIsolated(iso *v1alpha1.NamespaceIsolation, e end) bool {
	if valid(plain(iso.Spec.NamespaceSelector)) && !c.isInNamespaces(iso.Spec.NamespaceSelector, e.pod) {
		return false
	}
	if len(iso.Spec.Directions) == 0 {
		return true
	}
	for _, d := range iso.Spec.Directions {
		if string(d) == string(e.direction) || d != v1alpha1.Ingress && d != v1alpha1.Egress {
			return true
		}
	}
	return false
}

// isolationAllows names the field that allows the flow, or is empty.
func (c Cluster) isolationAllows(spec v1alpha1.NamespaceIsolationSpec, e end) string {
	if isSet(spec.Allow.SameTenant) && c.isSameTenant(spec.TenantLabel, e.pod, c.owner(e.remote)) {
		return "allow.sameTenant"
	}
	if e.direction == ingress {
		for i, r := range spec.Allow.Ingress {
			if c.isolationRuleMatches(r.From, r.Protocols, e) {
				return fmt.Sprintf("allow.ingress[%d]", i)
			}
		}
		return ""
	}
	if isSet(spec.Allow.DNS) && c.isDNS(e.flow) {
		return "allow.dns"
	}
	for i, r := range spec.Allow.Egress {
		if c.isolationRuleMatches(r.To, r.Protocols, e) {
			return fmt.Sprintf("allow.egress[%d]", i)
		}
	}
	return ""
}

// isSet reads a switch that is on by default.
func isSet(b *bool) bool { return b == nil || *b }

// isolationRuleMatches: a rule of which a part is not understood allows nothing.
func (c Cluster) isolationRuleMatches(peers []v1alpha1.Peer, protocols []v1alpha1.Protocol, e end) bool {
	return areUnderstoodPeers(peers) && areUnderstoodProtocols(protocols) &&
		c.clusterPeersMatch(peers, e.remote) && c.protocolsMatch(protocols, e.flow)
}

// isSameTenant: "Namespaces that share its value, selected or not, are one tenant; a namespace without the label is a tenant of its
// own. Without tenantLabel each namespace is."
func (c Cluster) isSameTenant(label string, pod, other *corev1.Pod) bool {
	if other == nil {
		return false
	}
	if pod.Namespace == other.Namespace {
		return true
	}
	own, others := c.namespace(pod.Namespace), c.namespace(other.Namespace)
	if label == "" || own == nil || others == nil {
		return false
	}
	value, ok := own.Labels[label]
	otherValue, otherOK := others.Labels[label]
	return ok && otherOK && value == otherValue
}

// isDNS reports whether the flow goes to "the cluster's DNS: the pods and addresses of its Service, and the node-local DNS address".
func (c Cluster) isDNS(f Flow) bool {
	for _, s := range c.DNSServices {
		if c.isServicePod(s, f) || isServiceAddress(s, f) {
			return true
		}
	}
	return slices.Contains(c.DNSAddresses, f.Dst) && (f.Protocol == UDP || f.Protocol == TCP) && f.DstPort == 53
}

// isServicePod reports whether the destination is a pod behind the Service, at the container's side of one of the Service's ports. A
// Service without a selector selects no pods.
func (c Cluster) isServicePod(s *corev1.Service, f Flow) bool {
	dst := c.owner(f.Dst)
	if dst == nil || dst.Namespace != s.Namespace || len(s.Spec.Selector) == 0 {
		return false
	}
	for key, value := range s.Spec.Selector {
		if got, ok := dst.Labels[key]; !ok || got != value {
			return false
		}
	}
	for _, port := range s.Spec.Ports {
		if !isOfPort(port, f) {
			continue
		}
		if port.TargetPort.Type == intstr.String && port.TargetPort.StrVal != "" {
			if servesNamedPort(dst, port.TargetPort.StrVal, f.Protocol, f.DstPort) {
				return true
			}
			continue
		}
		// "If this is not specified, the value of the 'port' field is used"
		number := port.TargetPort.IntVal
		if number == 0 || port.TargetPort.Type == intstr.String {
			number = port.Port
		}
		if number != 0 && number == int32(f.DstPort) {
			return true
		}
	}
	return false
}

// isServiceAddress reports whether the flow goes to an address of the Service itself, at one of its ports: so it is where whoever
// translates such addresses sees packets later than policy does.
func isServiceAddress(s *corev1.Service, f Flow) bool {
	for _, text := range append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...) {
		// "None" and "" are no addresses.
		if a, err := netip.ParseAddr(text); err != nil || a.Unmap() != f.Dst {
			continue
		}
		for _, port := range s.Spec.Ports {
			if isOfPort(port, f) && port.Port != 0 && port.Port == int32(f.DstPort) {
				return true
			}
		}
	}
	return false
}

// isOfPort reports whether the flow has the Service port's protocol: "Default is TCP."
func isOfPort(port corev1.ServicePort, f Flow) bool {
	name := port.Protocol
	if name == "" {
		name = corev1.ProtocolTCP
	}
	number, known := protocolNumber(name)
	return known && number == f.Protocol
}
