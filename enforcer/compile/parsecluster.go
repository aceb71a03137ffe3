package compile

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// parseCluster understands what it can of a ClusterNetworkPolicy. What it cannot understand is a problem and fails closed, as the SIG's text
// has it for peers: an Accept rule matches nothing, any other rule denies everything.
func parseCluster(cnp *v1alpha1.ClusterNetworkPolicy) *parsedPolicy {
	p := &parsedPolicy{
		ref:        policy.Ref{Kind: clusterKind(cnp.APIVersion), Name: cnp.Name},
		version:    versionOf(cnp),
		priority:   cnp.Spec.Priority,
		created:    cnp.CreationTimestamp.Unix(),
		born:       cnp.CreationTimestamp.Unix(),
		rulesField: "spec.",
		stage:      policy.AdminRules,
		applies:    [2]bool{policy.Ingress: len(cnp.Spec.Ingress) > 0, policy.Egress: len(cnp.Spec.Egress) > 0},
	}
	switch cnp.Spec.Tier {
	case v1alpha1.AdminTier:
	case v1alpha1.BaselineTier:
		p.stage = policy.BaselineRules
	default:
		p.problem("spec.tier", "%q is not known: the policy stands in the tier Admin; write Admin or Baseline", cnp.Spec.Tier)
	}
	p.parseMode("spec.mode", string(cnp.Spec.Mode))
	for i := range cnp.Spec.Ingress {
		r := &cnp.Spec.Ingress[i]
		p.parseActionRule(policy.Ingress, parsedRule{index: i, name: r.Name, log: r.Log}, r.Action, "from", r.From, r.Protocols)
	}
	for i := range cnp.Spec.Egress {
		r := &cnp.Spec.Egress[i]
		p.parseActionRule(policy.Egress, parsedRule{index: i, name: r.Name, log: r.Log}, r.Action, "to", r.To, r.Protocols)
	}
	p.parseSubject(&cnp.Spec.Subject)
	p.finish()
	p.countUnlisted()
	return p
}

// clusterKind is the kind of a ClusterNetworkPolicy, qualified by its group where that is not ours.
func clusterKind(apiVersion string) string {
	const kind = "ClusterNetworkPolicy"
	group, _, qualified := strings.Cut(apiVersion, "/")
	if !qualified || group == v1alpha1.GroupVersion.Group {
		return kind
	}
	return kind + "." + group
}

// parseSubject selects every pod if the subject cannot be understood, and takes away what the policy would allow them.
func (p *parsedPolicy) parseSubject(s *v1alpha1.Subject) {
	var err error
	switch {
	case s.Namespaces != nil && s.Pods == nil:
		p.subject, err = everyPodIn(s.Namespaces)
	case s.Pods != nil && s.Namespaces == nil:
		p.subject, err = podsIn(s.Pods)
	default:
		err = errors.New("there is not exactly one of namespaces and pods")
	}
	if err == nil {
		return
	}
	p.problem("spec.subject", "%v: every pod is meant, and the rules that accept or pass match nothing, until it is mended", err)
	p.subject = podSelector{namespaces: labels.Everything(), pods: labels.Everything()}
	for d := range p.rules {
		for i := range p.rules[d] {
			if r := &p.rules[d][i]; r.action != policy.Deny {
				r.action, r.understood = policy.NoAction, false
			}
		}
	}
}

func everyPodIn(namespaces *v1alpha1.LabelSelector) (podSelector, error) {
	s, err := subjectOf(namespaces.Selector())
	return podSelector{namespaces: s, pods: labels.Everything()}, err
}

func podsIn(p *v1alpha1.NamespacedPod) (podSelector, error) {
	namespaces, err := subjectOf(p.NamespaceSelector.Selector())
	if err != nil {
		return podSelector{}, fmt.Errorf("namespaceSelector: %w", err)
	}
	pods, err := subjectOf(p.PodSelector.Selector())
	if err != nil {
		return podSelector{}, fmt.Errorf("podSelector: %w", err)
	}
	return podSelector{namespaces: namespaces, pods: pods}, nil
}

var actions = map[v1alpha1.Action]policy.Action{
	v1alpha1.Accept: policy.Accept, v1alpha1.Deny: policy.Deny, v1alpha1.Pass: policy.Pass,
}

// parseActionRule adds a rule, with what its peers and protocols say, to those of a direction.
func (p *parsedPolicy) parseActionRule(d policy.Direction, r parsedRule, action v1alpha1.Action, peersField string,
	peers []v1alpha1.Peer, protocols []v1alpha1.Protocol) {
	path := fmt.Sprintf("spec.%s[%d]", d, r.index)
	var known bool
	if r.action, known = actions[action]; !known {
		p.problem(path+".action", "%q is not known: the rule denies everything; write Accept, Deny or Pass", action)
	}
	if known && p.parsePeersAndProtocols(&r, path, "a rule that accepts then matches nothing, any other denies everything", peersField, peers, protocols) {
		p.rules[d] = append(p.rules[d], r)
		return
	}
	if r.action != policy.Accept {
		p.rules[d] = append(p.rules[d], everything(r.index, r.name, r.log))
	}
}

// parsePeersAndProtocols reports whether it understood all of them. A problem says what is done instead.
func (p *parsedPolicy) parsePeersAndProtocols(r *parsedRule, path, instead, peersField string,
	peers []v1alpha1.Peer, protocols []v1alpha1.Protocol) bool {
	ok := true
	if len(peers) == 0 {
		p.problem(path+"."+peersField, "it is empty: %s; write at least one peer", instead)
		ok = false
	}
	for i := range peers {
		if err := r.addPeer(&peers[i]); err != nil {
			p.problem(fmt.Sprintf("%s.%s[%d]", path, peersField, i), "%v: %s", err, instead)
			ok = false
		}
	}
	r.anyPort = len(protocols) == 0
	for i := range protocols {
		if err := r.addProtocol(i, &protocols[i]); err != nil {
			p.problem(fmt.Sprintf("%s.protocols[%d]", path, i), "%v: %s", err, instead)
			ok = false
		}
	}
	r.understood = ok
	r.complete()
	return ok
}

func (r *parsedRule) addProtocol(index int, p *v1alpha1.Protocol) error {
	fields := 0
	for _, m := range []struct {
		match    *v1alpha1.PortMatch
		protocol policy.Protocol
	}{{p.TCP, policy.TCP}, {p.UDP, policy.UDP}, {p.SCTP, policy.SCTP}} {
		if m.match == nil {
			continue
		}
		fields++
		ports, err := portRange(m.protocol, m.match.DestinationPort)
		if err != nil {
			return err
		}
		r.ranges = append(r.ranges, ports)
	}
	if p.DestinationNamedPort != "" {
		fields++
		r.addNamed(index, portName{name: p.DestinationNamedPort})
	}
	if fields != 1 {
		return fmt.Errorf("the protocol has %d of the fields tcp, udp, sctp and destinationNamedPort where it must have one", fields)
	}
	return nil
}

func portRange(protocol policy.Protocol, p *v1alpha1.Port) (policy.PortRange, error) {
	if p == nil {
		return policy.AllPorts(protocol), nil
	}
	first, last := p.Number, p.Number
	if p.Range != nil {
		if p.Number != 0 {
			return policy.PortRange{}, errors.New("destinationPort has both number and range; write one of them")
		}
		first, last = p.Range.Start, p.Range.End
	}
	if first < 1 || last > 65535 || last < first {
		return policy.PortRange{}, fmt.Errorf("destinationPort %d to %d is no range of ports; write 1 to 65535, and end not below start", first, last)
	}
	return policy.PortRange{Protocol: protocol, First: uint16(first), Last: uint16(last)}, nil
}
