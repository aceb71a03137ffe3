package compile

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Problem is a part of an object that could not be understood, and what was enforced instead.
type Problem struct {
	Ref    policy.Ref
	Field  string // path of the field, as in "spec.ingress[0].from[1].ipBlock.cidr"
	Detail string // what is wrong, what is enforced instead, and what to write
	// TooLarge is set where the policy is understood, and asks for more than a budget allows.
	TooLarge bool
	// Unknown is set where the policy is understood, and names pods that are not known yet.
	Unknown bool
	// Here is set where this node alone can tell: it depends on the pods that there are, on which of them are its own, and on what else selects them.
	Here bool
}

// String is one line for a person.
func (p Problem) String() string { return fmt.Sprintf("%s: %s: %s", p.Ref, p.Field, p.Detail) }

// parsedPolicy is a policy with its selectors, blocks and ports understood.
type parsedPolicy struct {
	ref      policy.Ref
	version  version
	part     string // what tells apart the policies that one object becomes
	stage    policy.Stage
	priority int32 // of a ClusterNetworkPolicy
	created  int64 // of a ClusterNetworkPolicy, in Unix seconds
	born     int64 // likewise, of every kind
	audit    bool
	logged   bool // all that it denies, by what its namespace or a namespace with pods here asks for
	// asksNamespace is set for a NetworkPolicy that does not say its mode itself.
	asksNamespace bool
	subject       podSelector
	applies       [2]bool
	rules         [2][]parsedRule // of the directions that the policy has rules for
	problems      []Problem
	unlisted      int // problems that are only counted
	// rulesField is what stands before a direction in the path of its rules.
	rulesField string
}

// version tells one state of an object from its others.
type version struct {
	uid        types.UID
	generation int64
	mode       string // what a NetworkPolicy says in an annotation, which has no generation
}

func versionOf(o metav1.Object) version {
	return version{o.GetUID(), o.GetGeneration(), o.GetAnnotations()[v1alpha1.ModeAnnotation]}
}

// parsedRule is one rule: its remote ends are the union of its peers, its ports the union of anyPort, ranges and named. A list that the API leaves empty is
// "any"; a list whose elements were all refused is nothing.
type parsedRule struct {
	index int // in the object's list, -1 for a rule that stands in no list
	name  string
	// understood is set if the rule stands in the object's list, and no field of it was refused. The remarks about other rules depend on how they are mended.
	understood bool
	action     policy.Action
	log        bool
	peers      [peerKinds]peers // nil where the rule has none of a kind
	anyPort    bool
	ranges     []policy.PortRange
	named      []rulePort
	isNamed    portNames // of named
	weight     weight
	sets       ruleSets // what settle makes of the above
}

// everything is a rule that denies whatever there is, in either direction.
func everything(index int, name string, log bool) parsedRule {
	r := parsedRule{index: index, name: name, log: log, action: policy.Deny, anyPort: true}
	r.addAny()
	r.settle(policy.Ingress)
	return r
}

// Where a NetworkPolicy's mode stands.
const (
	modeField          = "metadata.annotations[" + v1alpha1.ModeAnnotation + "]"
	namespaceModeField = modeField + " of the namespace"
)

func refOf(np *networkingv1.NetworkPolicy) policy.Ref {
	return policy.Ref{Kind: "NetworkPolicy", Namespace: np.Namespace, Name: np.Name}
}

// parse understands what it can of np. Everything that it cannot understand is a problem and matches nothing.
func parse(np *networkingv1.NetworkPolicy) *parsedPolicy {
	p := &parsedPolicy{
		ref:     refOf(np),
		version: versionOf(np), born: np.CreationTimestamp.Unix(),
		stage:      policy.NetworkPolicies,
		rulesField: "spec.",
	}
	defer p.countUnlisted()
	own, ok := np.Annotations[v1alpha1.ModeAnnotation]
	if ok {
		p.parseMode(modeField, own)
	}
	p.asksNamespace = !ok
	named := p.parseTypes(np)

	subject, err := labels.Selector(nil), error(nil)
	if n := valuesIn(&np.Spec.PodSelector); n > maxSubjectValues {
		err = tooManyValues(n)
	} else {
		subject, err = metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
	}
	if err != nil {
		p.problem("spec.podSelector", "%v: every pod of the namespace is isolated, and nothing is allowed, until it is mended", err)
		p.subject = podSelector{namespace: np.Namespace, pods: labels.Everything()}
		return p
	}
	p.subject = podSelector{namespace: np.Namespace, pods: subject}
	if !p.weigh(np) {
		return p
	}
	for i, r := range np.Spec.Ingress {
		p.parseRule(policy.Ingress, i, "from", r.From, r.Ports)
	}
	for i, r := range np.Spec.Egress {
		p.parseRule(policy.Egress, i, "to", r.To, r.Ports)
	}
	for _, d := range policy.Directions {
		if !named[d] {
			p.rules[d] = nil
		}
	}
	p.finish()
	return p
}

// in is the policy with what its namespace says of it. A mode of its own comes before its namespace's.
func (p *parsedPolicy) in(says settings) *parsedPolicy {
	if !p.asksNamespace {
		says.mode = ""
	}
	if says == (settings{}) {
		return p
	}
	q := *p
	q.logged = says.logged
	if says.mode != "" {
		q.problems = slices.Clip(q.problems)
		q.parseMode(namespaceModeField, says.mode)
	}
	return &q
}

// subjectOf refuses a selector that takes too long to match.
func subjectOf(s labels.Selector, err error) (labels.Selector, error) {
	if err == nil && valuesOf(s) > maxSubjectValues {
		err = tooManyValues(valuesOf(s))
	}
	return s, err
}

func tooManyValues(n int) error {
	return fmt.Errorf("it has %d requirements and values, where %d are allowed", n, maxSubjectValues)
}

// problem notes what could not be understood. An object may have a great many such fields: the first are named, the others counted.
func (p *parsedPolicy) problem(field, format string, args ...any) {
	if len(p.problems) >= maxProblems {
		p.unlisted++
		return
	}
	p.problems = append(p.problems, Problem{Ref: p.ref, Field: field, Detail: fmt.Sprintf(format, args...)})
}

// refused is how many fields could not be understood so far.
func (p *parsedPolicy) refused() int { return len(p.problems) + p.unlisted }

// ruleField is the path of a rule; of one that stands in no list, the object's.
func (p *parsedPolicy) ruleField(d policy.Direction, index int) string {
	if index < 0 {
		return "spec"
	}
	return fmt.Sprintf("%s%s[%d]", p.rulesField, d, index)
}

// parseMode sets whether the policy is audited. Whatever is not known enforces.
func (p *parsedPolicy) parseMode(field, mode string) {
	switch v1alpha1.Mode(mode) {
	case v1alpha1.Audit:
		p.audit = true
	case v1alpha1.Enforce, "":
	default:
		p.problem(field, "%q is not known: the policy is enforced; write Enforce or Audit", mode)
	}
}

// parseTypes sets which directions the policy isolates, and returns those that its types name. Without policyTypes it isolates for
// ingress, and for egress if it has egress rules. A type that is not known might mean either direction, so that it isolates
// in both; but the rules of a direction count only if a type names it, as without the unknown one.
func (p *parsedPolicy) parseTypes(np *networkingv1.NetworkPolicy) (named [2]bool) {
	if len(np.Spec.PolicyTypes) == 0 {
		named[policy.Ingress] = true
		named[policy.Egress] = len(np.Spec.Egress) > 0
	}
	known := true
	for i, t := range np.Spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			named[policy.Ingress] = true
		case networkingv1.PolicyTypeEgress:
			named[policy.Egress] = true
		default:
			known = false
			p.problem(fmt.Sprintf("spec.policyTypes[%d]", i),
				"%q is not known: the policy isolates in both directions; write Ingress or Egress", t)
		}
	}
	for _, d := range policy.Directions {
		p.applies[d] = named[d] || !known
	}
	return named
}

func (p *parsedPolicy) parseRule(d policy.Direction, index int, peersField string,
	peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	r := parsedRule{index: index, action: policy.Accept, anyPort: len(ports) == 0}
	refused := p.refused()
	path := fmt.Sprintf("spec.%s[%d]", d, index)
	if len(peers) == 0 {
		r.addAny()
	}
	for i := range peers {
		p.parsePeer(&r, fmt.Sprintf("%s.%s[%d]", path, peersField, i), &peers[i])
	}
	for i := range ports {
		p.parsePort(&r, fmt.Sprintf("%s.ports[%d]", path, i), i, &ports[i])
	}
	r.understood = p.refused() == refused
	r.complete()
	p.rules[d] = append(p.rules[d], r)
}

// complete is called once all peers and ports of a rule are read: what is written in another order, or twice, is the same rule.
func (r *parsedRule) complete() {
	for _, p := range r.peers {
		if p != nil {
			r.weight.join(p.weigh())
		}
	}
	r.weight.names = len(r.named)
	r.ranges = mergeRanges(r.ranges)
}

func (p *parsedPolicy) parsePeer(r *parsedRule, field string, peer *networkingv1.NetworkPolicyPeer) {
	bySelector := peer.PodSelector != nil || peer.NamespaceSelector != nil
	switch {
	case peer.IPBlock != nil && bySelector:
		p.problem(field, "ipBlock stands together with a selector: the peer matches nothing; make two peers of it")
	case peer.IPBlock != nil:
		p.readBlock(r, field+".ipBlock", peer.IPBlock)
	case bySelector:
		p.readSelectors(r, field, peer)
	default:
		p.problem(field, "the peer is empty and matches nothing; write podSelector, namespaceSelector or ipBlock")
	}
}

func (p *parsedPolicy) parsePort(r *parsedRule, field string, index int, port *networkingv1.NetworkPolicyPort) {
	protocol := policy.TCP
	if port.Protocol != nil {
		var ok bool
		if protocol, ok = protocolOf(*port.Protocol); !ok || *port.Protocol == "" {
			p.problem(field+".protocol", "%q is not known: the port matches nothing; write TCP, UDP or SCTP", *port.Protocol)
			return
		}
	}
	switch {
	case port.Port == nil && port.EndPort != nil:
		p.problem(field+".endPort", "it stands without port: the port matches nothing")
	case port.Port == nil:
		r.ranges = append(r.ranges, policy.AllPorts(protocol))
	case port.Port.Type == intstr.String && port.EndPort != nil:
		p.problem(field+".endPort", "it stands with the named port %q: the port matches nothing; write the number", port.Port.StrVal)
	case port.Port.Type == intstr.String && port.Port.StrVal == "":
		p.problem(field+".port", "the name is empty: the port matches nothing; write a name or a number")
	case port.Port.Type == intstr.String:
		r.addNamed(index, portName{protocol, port.Port.StrVal})
	case port.Port.Type != intstr.Int:
		p.problem(field+".port", "it is neither a number nor a name: the port matches nothing")
	default:
		first, last := port.Port.IntVal, port.Port.IntVal
		if port.EndPort != nil {
			last = *port.EndPort
		}
		if first < 1 || last > 65535 || last < first {
			p.problem(field, "%d to %d is no range of ports: the port matches nothing; write 1 to 65535, and endPort not below port", first, last)
			return
		}
		r.ranges = append(r.ranges, policy.PortRange{Protocol: protocol, First: uint16(first), Last: uint16(last)})
	}
}
