package compile

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// parsedIsolation is a NamespaceIsolation. It becomes one policy for each of its tenants that has pods here.
type parsedIsolation struct {
	parsedPolicy // without a subject
	namespaces   labels.Selector
	tenantLabel  string
	sameTenant   bool
	asksDNS      bool
}

// parseIsolation understands what it can of a NamespaceIsolation. What it cannot understand is a problem and allows nothing.
func parseIsolation(ni *v1alpha1.NamespaceIsolation) *parsedIsolation {
	p := &parsedIsolation{
		parsedPolicy: parsedPolicy{
			ref: policy.Ref{Kind: "NamespaceIsolation", Name: ni.Name}, version: versionOf(ni), stage: policy.BaselineIsolation,
			born: ni.CreationTimestamp.Unix(), rulesField: "spec.allow.",
		},
		tenantLabel: ni.Spec.TenantLabel,
		sameTenant:  orTrue(ni.Spec.Allow.SameTenant),
		asksDNS:     orTrue(ni.Spec.Allow.DNS),
	}
	switch ni.Spec.Tier {
	case v1alpha1.BaselineTier, "":
	case v1alpha1.AdminTier:
		p.stage = policy.AdminIsolation
	default:
		p.problem("spec.tier", "%q is not known: the isolation stands in the tier Admin; write Admin or Baseline", ni.Spec.Tier)
		p.stage = policy.AdminIsolation
	}
	p.parseMode("spec.mode", string(ni.Spec.Mode))
	p.parseDirections(ni.Spec.Directions)
	var err error
	if p.namespaces, err = subjectOf(ni.Spec.NamespaceSelector.Selector()); err != nil {
		p.problem("spec.namespaceSelector", "%v: every namespace is isolated until it is mended", err)
		p.namespaces = labels.Everything()
	}
	for i := range ni.Spec.Allow.Ingress {
		r := &ni.Spec.Allow.Ingress[i]
		p.parseAllow(policy.Ingress, i, "from", r.From, r.Protocols)
	}
	for i := range ni.Spec.Allow.Egress {
		r := &ni.Spec.Allow.Egress[i]
		p.parseAllow(policy.Egress, i, "to", r.To, r.Protocols)
	}
	p.finish()
	p.countUnlisted()
	return p
}

// withDNS is the isolation with rules for the DNS, if it wants them.
func (p *parsedIsolation) withDNS(rules []parsedRule) *parsedIsolation {
	if !p.asksDNS || len(rules) == 0 {
		return p
	}
	q := *p
	q.rules[policy.Egress] = slices.Concat(p.rules[policy.Egress], rules)
	return &q
}

func orTrue(b *bool) bool { return b == nil || *b }

// parseDirections isolates in both where none is given, or one is not known.
func (p *parsedIsolation) parseDirections(directions []v1alpha1.Direction) {
	p.applies = [2]bool{len(directions) == 0, len(directions) == 0}
	for i, d := range directions {
		switch d {
		case v1alpha1.Ingress:
			p.applies[policy.Ingress] = true
		case v1alpha1.Egress:
			p.applies[policy.Egress] = true
		default:
			p.problem(fmt.Sprintf("spec.directions[%d]", i), "%q is not known: both directions are isolated; write Ingress or Egress", d)
			p.applies = [2]bool{true, true}
		}
	}
}

func (p *parsedIsolation) parseAllow(d policy.Direction, index int, peersField string, peers []v1alpha1.Peer, protocols []v1alpha1.Protocol) {
	r := parsedRule{index: index, action: policy.Accept}
	if p.parsePeersAndProtocols(&r, fmt.Sprintf("spec.allow.%s[%d]", d, index), "nothing is allowed by it", peersField, peers, protocols) {
		p.rules[d] = append(p.rules[d], r)
	}
}

// Names of the rules that stand in no list of the object.
const (
	sameTenantRule = "sameTenant"
	dnsRule        = "dns"
)

// tenantOf is the part of the isolation's policies that a namespace belongs to, with what its tenant's namespaces have in common; nil if the namespace is a
// tenant of its own.
func (p *parsedIsolation) tenantOf(ns *Namespace) (part string, same *labels.Requirement) {
	if value, ok := ns.Labels.Lookup(p.tenantLabel); ok {
		if same, err := labels.NewRequirement(p.tenantLabel, selection.In, []string{value}); err == nil { // else it is one of its own, which allows least
			return "tenant " + value, same
		}
	}
	return "namespace " + ns.Name, nil
}

// policyFor is the policy for the tenant that a namespace belongs to.
func (p *parsedIsolation) policyFor(ns *Namespace) *parsedPolicy {
	tenant := podSelector{namespace: ns.Name, pods: labels.Everything()}
	out := p.parsedPolicy
	out.problems = nil // which are the isolation's, and reported once
	out.subject = tenant
	part, same := p.tenantOf(ns)
	out.part = part
	if same != nil {
		tenant.namespaces = labels.NewSelector().Add(*same)
		out.subject = podSelector{namespaces: intersection(tenant.namespaces, p.namespaces), pods: labels.Everything()}
	}
	if p.sameTenant {
		for _, d := range policy.Directions {
			rule := parsedRule{index: -1, name: sameTenantRule, action: policy.Accept, anyPort: true}
			rule.addPods(tenant)
			rule.settle(d)
			out.rules[d] = append([]parsedRule{rule}, p.rules[d]...)
		}
	}
	return &out
}

// intersection selects what both select.
func intersection(a, b labels.Selector) labels.Selector {
	requirements, selectable := b.Requirements()
	if !selectable {
		return labels.Nothing()
	}
	return a.Add(requirements...)
}

// rules allow to ask the DNS for names: at the pods of its Services, at the addresses of these where a node answers in their place, and at the
// nodes' own addresses for it.
func (dns DNS) rules() []parsedRule {
	var rules []parsedRule
	add := func(r parsedRule) {
		r.index, r.name, r.action = -1, dnsRule, policy.Accept
		r.complete()
		r.settle(policy.Egress)
		rules = append(rules, r)
	}
	services := slices.Clone(dns.Services)
	slices.SortFunc(services, func(a, b *corev1.Service) int {
		return policy.Ref{Namespace: a.Namespace, Name: a.Name}.Compare(policy.Ref{Namespace: b.Namespace, Name: b.Name})
	})
	for _, s := range services {
		if len(s.Spec.Selector) > 0 {
			r := parsedRule{}
			r.addPods(podSelector{namespace: s.Namespace, pods: labels.SelectorFromSet(s.Spec.Selector)})
			for i, port := range s.Spec.Ports {
				r.addTarget(i, port)
			}
			add(r)
		}
		r := parsedRule{}
		addrs, _ := serviceAddrs(s)
		for _, a := range addrs {
			r.addBlock(policy.Block{Prefix: netip.PrefixFrom(a, a.BitLen())})
		}
		for _, port := range s.Spec.Ports {
			r.addPort(port.Protocol, port.Port)
		}
		add(r)
	}
	if len(dns.Addresses) > 0 {
		r := parsedRule{}
		for _, a := range dns.Addresses {
			r.addBlock(policy.Block{Prefix: netip.PrefixFrom(a, a.BitLen())})
		}
		r.addPort(corev1.ProtocolUDP, 53)
		r.addPort(corev1.ProtocolTCP, 53)
		add(r)
	}
	return rules
}

// problems are the addresses of Services at which nobody can be asked.
func (dns DNS) problems() []Problem {
	var all []Problem
	for _, s := range dns.Services {
		if _, impossible := serviceAddrs(s); impossible {
			all = append(all, Problem{
				Ref: policy.Ref{Kind: "Service", Namespace: s.Namespace, Name: s.Name}, Field: "spec.clusterIPs",
				Detail: "one of the addresses is none that a Service can have: no isolation allows to ask for names there",
			})
		}
	}
	return all
}

func serviceAddrs(s *corev1.Service) (addrs []netip.Addr, impossible bool) {
	return parseAddrs(append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...), IsPossible)
}

// addTarget adds the port at which a Service's pods answer.
func (r *parsedRule) addTarget(index int, p corev1.ServicePort) {
	target := p.TargetPort
	switch {
	case target.Type == intstr.String && target.StrVal != "":
		if protocol, ok := protocolOf(p.Protocol); ok {
			r.addNamed(index, portName{protocol, target.StrVal})
		}
	case target.Type == intstr.Int && target.IntVal != 0:
		r.addPort(p.Protocol, target.IntVal)
	default:
		r.addPort(p.Protocol, p.Port)
	}
}

func (r *parsedRule) addPort(name corev1.Protocol, port int32) {
	if protocol, ok := protocolOf(name); ok && port > 0 && port <= 65535 {
		r.ranges = append(r.ranges, policy.PortRange{Protocol: protocol, First: uint16(port), Last: uint16(port)})
	}
}
