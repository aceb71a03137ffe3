package query

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Change is what has to be applied so that a connection that is denied becomes possible. It opens as little as the API can say: one pair of workloads and one
// port. It closes nothing: it isolates no pod that was not isolated before.
type Change struct {
	// Objects are to be created, or to replace the one of the same name.
	Objects []metav1.Object `json:"objects"`
	// Notes say what one should know before it is applied.
	Notes []string `json:"notes,omitempty"`
}

// steps bounds how many objects a change has: one for each end of each family, and as many again for what turns up behind them.
const steps = 8

// Allowing is the smallest change that allows what an answer says is denied. It fails if no policy can.
func (c *Cluster) Allowing(a Answer) (Change, error) {
	var change Change
	for range steps {
		v, remote, ok := a.firstDenied()
		if !ok {
			return change, nil
		}
		one, note, err := c.allowing(a, v, remote)
		if err != nil {
			return Change{}, err
		}
		change.add(one, note)
		c = c.with(one)
		a = c.Why(a.from, a.to, a.port)
	}
	return Change{}, fmt.Errorf("%d objects are not enough to allow %s from %s to %s", steps, a.Port, a.From, a.To)
}

func (c *Change) add(o metav1.Object, note string) {
	c.Objects = over(c.Objects, []metav1.Object{o})
	if note != "" && !slices.Contains(c.Notes, note) {
		c.Notes = append(c.Notes, note)
	}
}

// firstDenied is a verdict that denies, and the address at the other end.
func (a Answer) firstDenied() (v Verdict, remote netip.Addr, ok bool) {
	for _, p := range a.Paths {
		for _, v := range p.Verdicts {
			if v.Allowed {
				continue
			}
			if v.Direction == policy.Egress.String() {
				return v, p.Destination, true
			}
			return v, p.Source, true
		}
	}
	return Verdict{}, netip.Addr{}, false
}

// allowing is the object that has one end allow a connection.
func (c *Cluster) allowing(a Answer, v Verdict, remote netip.Addr) (metav1.Object, string, error) {
	local, other := a.from, a.to
	if v.decision.Direction == policy.Ingress {
		local, other = a.to, a.from
	}
	x := opening{Cluster: c, decision: v.decision, local: local, remote: c.asSeen(local.Node, other, remote), addr: remote, port: a.port}
	x.name = x.nameOf()
	switch d := v.decision; {
	case d.Stage == policy.NetworkPolicies:
		return x.networkPolicy()
	case d.Stage.Isolates():
		return x.clusterPolicy(lastPriority), x.passesNetworkPolicies(), nil
	default:
		return x.beforeRule()
	}
}

// asSeen is an end as a node sees it. Where several pods claim an address, and the node takes it for another's, the end is known to it by the address alone.
func (c *Cluster) asSeen(node string, e End, addr netip.Addr) End {
	if !e.isPod() {
		return e
	}
	if i := c.parts.holder(node, addr); i >= 0 && c.parts.Pods[i].Namespace == e.Pod.Namespace && c.parts.Pods[i].Name == e.Pod.Name {
		return e
	}
	return End{Name: addr.String(), Addrs: []netip.Addr{addr}}
}

// opening is what is to be opened at one end.
type opening struct {
	*Cluster
	decision      *policy.Decision
	local, remote End
	addr          netip.Addr // of the remote end
	port          Port
	name          string
}

// lastPriority is the one that is asked last.
const lastPriority = 1000

// nameOf is a name for the object, which none of the same kind has.
func (x *opening) nameOf() string {
	other := x.addr.String()
	if x.remote.Pod != nil {
		other = x.remote.Pod.Namespace + "-" + bare(x.remote.Pod)
	}
	parts := []string{"allow", bare(x.local.Pod), "from", other}
	if x.decision.Direction == policy.Egress {
		parts[2] = "to"
	}
	base := strings.Trim(strings.Map(forName, strings.Join(append(parts, strings.ReplaceAll(x.port.String(), "/", "-")), "-")), "-")
	base = strings.TrimRight(base[:min(len(base), 55)], "-")
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name = fmt.Sprintf("%s-%d", base, i)
		}
		if !x.isTaken(name) {
			return name
		}
	}
}

func (x *opening) isTaken(name string) bool {
	return slices.ContainsFunc(x.parts.policiesIn[x.local.Pod.Namespace], func(p *networkingv1.NetworkPolicy) bool { return p.Name == name }) ||
		slices.ContainsFunc(x.parts.ClusterPolicies, func(p *v1alpha1.ClusterNetworkPolicy) bool { return p.Name == name })
}

// bare is the name of a pod's workload.
func bare(p *corev1.Pod) string {
	w := Workload(p)
	return w[strings.LastIndexByte(w, '/')+1:]
}

// forName are the characters that a name may have.
func forName(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

// networkPolicy is one that adds to those that isolate the pod. It selects pods that one of these selects, and no others: so it isolates none that was not.
func (x *opening) networkPolicy() (metav1.Object, string, error) {
	isolating := x.isolating()
	if isolating == nil {
		return nil, "", fmt.Errorf("%s is isolated by %s, which is not among the objects", x.local.Name, x.decision.By()[0].Ref)
	}
	p := &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: x.local.Pod.Namespace, Name: x.name},
	}
	if x.isUnderstood(networkPolicyRef(isolating), "spec.podSelector") { // else it isolates every pod of the namespace
		p.Spec.PodSelector = *isolating.Spec.PodSelector.DeepCopy()
	}
	if mode, ok := isolating.Annotations[v1alpha1.ModeAnnotation]; ok {
		p.Annotations = map[string]string{v1alpha1.ModeAnnotation: mode}
	}
	if own := lasting(x.local.Pod.Labels); len(own) > 0 {
		labels := maps.Clone(p.Spec.PodSelector.MatchLabels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, own)
		p.Spec.PodSelector.MatchLabels = labels
	}
	peers, ports := []networkingv1.NetworkPolicyPeer{x.peer()}, x.ports()
	if x.decision.Direction == policy.Ingress {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports}}
	} else {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peers, Ports: ports}}
	}
	return p, x.unlabelled(), nil
}

// isolating is one of the NetworkPolicies that isolate the pod.
func (x *opening) isolating() *networkingv1.NetworkPolicy {
	for _, by := range x.decision.By() {
		for _, p := range x.parts.Policies {
			if by.Ref == networkPolicyRef(p) {
				return p
			}
		}
	}
	return nil
}

// isUnderstood reports whether nodes enforce a field of a policy as it is written.
func (x *opening) isUnderstood(p policy.Ref, field string) bool {
	return !slices.ContainsFunc(x.node(x.local.Node).problems, func(problem compile.Problem) bool {
		return problem.Ref == p && strings.HasPrefix(problem.Field, field)
	})
}

func networkPolicyRef(p *networkingv1.NetworkPolicy) policy.Ref {
	return policy.Ref{Kind: "NetworkPolicy", Namespace: p.Namespace, Name: p.Name}
}

// unlabelled is what is to be said if an end has no labels of its own.
func (x *opening) unlabelled() string {
	for _, e := range []End{x.local, x.remote} {
		if e.isPod() && len(lasting(e.Pod.Labels)) == 0 {
			return fmt.Sprintf("%s has no labels: what is allowed goes for all pods of namespace %s. Label it, and ask again.", e.Name, e.Pod.Namespace)
		}
	}
	return ""
}

// peer is the remote end.
func (x *opening) peer() networkingv1.NetworkPolicyPeer {
	if !x.remote.isPod() {
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: x.block()}}
	}
	return networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: x.namespaceLabels(x.remote.Pod.Namespace)},
		PodSelector:       &metav1.LabelSelector{MatchLabels: lasting(x.remote.Pod.Labels)},
	}
}

// block is the smallest block that has the remote address and means it. A block of IPv4-mapped addresses means IPv4, so that the smallest that has such an
// address and means IPv6 is twice as large as all of them.
func (x *opening) block() string {
	bits := x.addr.BitLen()
	if x.addr.Is4In6() {
		bits = mappedBits - 1
	}
	return netip.PrefixFrom(x.addr, bits).Masked().String()
}

// mappedBits is the length of the prefix that IPv4-mapped addresses have (RFC 4291, 2.5.5.2).
const mappedBits = 96

// namespaceLabels are by which a namespace is known: the name that the API server labels it with, or where a file lacks that, all that it has.
func (x *opening) namespaceLabels(name string) map[string]string {
	n := x.parts.namespaceNamed[name]
	if n == nil || n.Labels[corev1.LabelMetadataName] == name {
		return map[string]string{corev1.LabelMetadataName: name}
	}
	return n.Labels
}

func (x *opening) ports() []networkingv1.NetworkPolicyPort {
	if !x.port.Protocol.HasPorts() {
		return nil
	}
	protocol, number := corev1.Protocol(strings.ToUpper(x.port.Protocol.String())), intstr.FromInt32(int32(x.port.Number))
	return []networkingv1.NetworkPolicyPort{{Protocol: &protocol, Port: &number}}
}

// clusterPolicy is one of the tier in which the connection was denied.
func (x *opening) clusterPolicy(priority int32) *v1alpha1.ClusterNetworkPolicy {
	p := &v1alpha1.ClusterNetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterNetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: x.name},
		Spec: v1alpha1.ClusterNetworkPolicySpec{
			Mode: v1alpha1.Enforce, Tier: v1alpha1.Tier(x.decision.Stage.Tier()), Priority: priority, Subject: v1alpha1.Subject{Pods: x.pods(x.local)},
		},
	}
	if x.decision.Direction == policy.Ingress {
		p.Spec.Ingress = []v1alpha1.IngressRule{x.ingressRule()}
	} else {
		p.Spec.Egress = []v1alpha1.EgressRule{x.egressRule()}
	}
	return p
}

func (x *opening) ingressRule() v1alpha1.IngressRule {
	return v1alpha1.IngressRule{Action: v1alpha1.Accept, From: []v1alpha1.Peer{x.clusterPeer()}, Protocols: x.protocols()}
}

func (x *opening) egressRule() v1alpha1.EgressRule {
	return v1alpha1.EgressRule{Action: v1alpha1.Accept, To: []v1alpha1.Peer{x.clusterPeer()}, Protocols: x.protocols()}
}

func (x *opening) pods(e End) *v1alpha1.NamespacedPod {
	return &v1alpha1.NamespacedPod{
		NamespaceSelector: v1alpha1.LabelSelector{MatchLabels: x.namespaceLabels(e.Pod.Namespace)},
		PodSelector:       v1alpha1.LabelSelector{MatchLabels: lasting(e.Pod.Labels)},
	}
}

func (x *opening) clusterPeer() v1alpha1.Peer {
	if !x.remote.isPod() {
		return v1alpha1.Peer{Networks: []v1alpha1.CIDR{v1alpha1.CIDR(x.block())}}
	}
	return v1alpha1.Peer{Pods: x.pods(x.remote)}
}

func (x *opening) protocols() []v1alpha1.Protocol {
	match := &v1alpha1.PortMatch{DestinationPort: &v1alpha1.Port{Number: int32(x.port.Number)}}
	switch x.port.Protocol {
	case policy.TCP:
		return []v1alpha1.Protocol{{TCP: match}}
	case policy.UDP:
		return []v1alpha1.Protocol{{UDP: match}}
	case policy.SCTP:
		return []v1alpha1.Protocol{{SCTP: match}}
	}
	return nil
}

// passesNetworkPolicies is what is to be said of a rule of the Admin tier.
func (x *opening) passesNetworkPolicies() string {
	note := x.unlabelled()
	if x.decision.Stage.Tier() == string(v1alpha1.AdminTier) {
		note = strings.TrimSpace("What the Admin tier accepts, no NetworkPolicy can deny any more. " + note)
	}
	return note
}

// beforeRule has the connection accepted before the rule is asked that denies it: by a policy of the next lower priority, or if there is none, by a rule of
// the same policy, which goes for all pods that the policy is for.
func (x *opening) beforeRule() (metav1.Object, string, error) {
	of := x.denying()
	if of == nil {
		return nil, "", fmt.Errorf("%s is denied by %s, which is not among the objects", x.local.Name, x.decision.Policy.Ref)
	}
	if of.Spec.Priority > 0 {
		return x.clusterPolicy(of.Spec.Priority - 1), x.passesNetworkPolicies(), nil
	}
	if !x.isUnderstood(x.decision.Policy.Ref, "spec.subject") { // then no rule of it accepts anything
		return nil, "", fmt.Errorf("%w: %s has priority 0, so nothing can come before it", ErrNotUnderstood, x.decision.Policy.Ref)
	}
	edited, at := of.DeepCopy(), max(x.decision.Rule.Index, 0)
	rules := len(edited.Spec.Ingress)
	if x.decision.Direction == policy.Ingress {
		edited.Spec.Ingress = slices.Insert(edited.Spec.Ingress, min(at, rules), x.ingressRule())
	} else {
		rules = len(edited.Spec.Egress)
		edited.Spec.Egress = slices.Insert(edited.Spec.Egress, min(at, rules), x.egressRule())
	}
	if rules >= maxRules {
		return nil, "", fmt.Errorf("%w: %s has priority 0 and %d rules, of at most %d: give it a higher priority, and ask again",
			ErrNoRoom, x.decision.Policy.Ref, rules, maxRules)
	}
	note := fmt.Sprintf("%s has priority 0, so nothing can come before it: the new rule stands in it, and goes for all pods that it is for.",
		x.decision.Policy.Ref)
	return edited, strings.TrimSpace(note + " " + x.passesNetworkPolicies()), nil
}

// ErrNoRoom is in the chain of an error if a rule would have to stand in an object that can have no more.
var ErrNoRoom = errors.New("there is no room for the rule that would allow it")

// ErrNotUnderstood is in the chain of an error if a policy denies because its subject is not understood, and nothing but mending it helps.
var ErrNotUnderstood = errors.New("the policy that denies is not understood: mend its spec.subject first")

// maxRules is how many rules a ClusterNetworkPolicy may have in a direction.
const maxRules = 25

// denying is the ClusterNetworkPolicy whose rule denies.
func (x *opening) denying() *v1alpha1.ClusterNetworkPolicy {
	for _, p := range x.parts.ClusterPolicies {
		if x.decision.Policy.Ref == (policy.Ref{Kind: clusterKind(p), Name: p.Name}) {
			return p
		}
	}
	return nil
}

// clusterKind is how refs name the kind of a ClusterNetworkPolicy: that of the SIG with its group.
func clusterKind(p *v1alpha1.ClusterNetworkPolicy) string {
	if group, _, ok := strings.Cut(p.APIVersion, "/"); ok && group != v1alpha1.GroupVersion.Group {
		return "ClusterNetworkPolicy." + group
	}
	return "ClusterNetworkPolicy"
}

func kindOf(o metav1.Object) string {
	switch o := o.(type) {
	case *networkingv1.NetworkPolicy:
		return "NetworkPolicy"
	case *v1alpha1.ClusterNetworkPolicy:
		return clusterKind(o)
	}
	return fmt.Sprintf("%T", o)
}

// With are the objects with some more policies, each in the place of the one of its name.
func (o Objects) With(more ...metav1.Object) Objects {
	for _, one := range more {
		switch p := one.(type) {
		case *networkingv1.NetworkPolicy:
			o.Policies = over(o.Policies, []*networkingv1.NetworkPolicy{p})
		case *v1alpha1.ClusterNetworkPolicy:
			o.ClusterPolicies = over(o.ClusterPolicies, []*v1alpha1.ClusterNetworkPolicy{p})
		}
	}
	return o
}

// Over are the objects with others applied to them, each in the place of the one of its kind and name. The pods of a workload take the place of all that it
// had.
func (o Objects) Over(others Objects) Objects {
	isOther := map[string]bool{}
	for _, p := range others.Pods {
		isOther[Workload(p)] = true
	}
	o.Pods = slices.DeleteFunc(slices.Clone(o.Pods), func(p *corev1.Pod) bool { return isOther[Workload(p)] })
	o.Pods, o.Namespaces, o.Nodes = over(o.Pods, others.Pods), over(o.Namespaces, others.Namespaces), over(o.Nodes, others.Nodes)
	o.Services, o.Policies = over(o.Services, others.Services), over(o.Policies, others.Policies)
	o.ClusterPolicies, o.Isolations = over(o.ClusterPolicies, others.ClusterPolicies), over(o.Isolations, others.Isolations)
	return o
}

// over are some objects of a kind, with others in their place.
func over[T metav1.Object](old, others []T) []T {
	isOther := map[[3]string]bool{}
	for _, o := range others {
		isOther[identity(o)] = true
	}
	return append(slices.DeleteFunc(slices.Clone(old), func(o T) bool { return isOther[identity(o)] }), others...)
}

// identity is what tells an object from others of its type.
func identity(o metav1.Object) [3]string { return [3]string{kindOf(o), o.GetNamespace(), o.GetName()} }

// clusterPeers are those of all rules of all objects that are in no namespace.
func (c *Cluster) clusterPeers() []v1alpha1.Peer {
	var peers []v1alpha1.Peer
	for _, p := range c.parts.ClusterPolicies {
		for _, r := range p.Spec.Ingress {
			peers = append(peers, r.From...)
		}
		for _, r := range p.Spec.Egress {
			peers = append(peers, r.To...)
		}
	}
	for _, i := range c.parts.Isolations {
		for _, r := range i.Spec.Allow.Ingress {
			peers = append(peers, r.From...)
		}
		for _, r := range i.Spec.Allow.Egress {
			peers = append(peers, r.To...)
		}
	}
	return peers
}
