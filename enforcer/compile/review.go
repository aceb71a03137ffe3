package compile

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// View is the cluster as [Understood.Review] sees it.
type View struct {
	Namespaces      map[string]*Namespace
	Pods            func(namespace string) []*Pod // of one namespace
	ClusterPolicies []*Understood                 // all ClusterNetworkPolicies, to find those of the same tier and priority
	// Contested reports whether another pod contests an address of this one, and which. Nil if nobody knows.
	Contested func(*Pod) (netip.Addr, bool)
}

// Remark is something about a policy that its author should know.
type Remark struct {
	Reason string // one of the reasons of [v1alpha1.AcceptedCondition]
	Field  string // path; empty if it is about the whole
	Detail string // what it means, and what to write instead
}

// severity is the order in which api/v1alpha1 lists the reasons.
var severity = []string{
	v1alpha1.NotUnderstoodReason, v1alpha1.TooLargeReason, v1alpha1.ConflictingReason, v1alpha1.ContestedAddressReason, v1alpha1.ImpossibleAddressReason,
	v1alpha1.NeverMatchesReason, v1alpha1.UnknownPortReason, v1alpha1.SelectsNothingReason,
}

// Review returns remarks, the most serious first, then by field. None: there is nothing to say.
func (u *Understood) Review(v View) []Remark {
	r := &review{Understood: u, view: v, remarks: slices.Clone(u.remarks)}
	r.namespaceMode()
	r.each(u.policy.subject, func(p *Pod) bool {
		if p.isVisible() {
			r.selected = append(r.selected, p)
		}
		if p.Impossible && !p.HostNetwork && !p.Finished && (r.impossible == nil || comparePods(p, r.impossible) < 0) {
			r.impossible = p
		}
		return true
	})
	r.addresses()
	if len(r.selected) == 0 {
		r.selectsNothing()
	}
	r.conflicts()
	for _, d := range policy.Directions {
		if !u.policy.applies[d] {
			continue
		}
		for i := range u.policy.rules[d] {
			r.unknownPorts(d, &u.policy.rules[d][i])
		}
	}
	slices.SortStableFunc(r.remarks, func(a, b Remark) int {
		return cmp.Or(cmp.Compare(slices.Index(severity, a.Reason), slices.Index(severity, b.Reason)), cmp.Compare(a.Field, b.Field))
	})
	return r.remarks
}

// review is a policy's review under way.
type review struct {
	*Understood
	view       View
	namespaces []string // of sorted
	selected   []*Pod   // visible
	impossible *Pod     // the first of those that are selected and have such an address
	remarks    []Remark
}

func (r *review) remark(reason, field, format string, args ...any) {
	r.remarks = append(r.remarks, Remark{reason, field, fmt.Sprintf(format, args...)})
}

// eachPod visits the visible pods that s selects, until visit returns false. It reports whether visit always returned true.
func (r *review) eachPod(s podSelector, visit func(*Pod) bool) bool {
	return r.each(s, func(p *Pod) bool { return !p.isVisible() || visit(p) })
}

// eachVisible visits all visible pods likewise.
func (r *review) eachVisible(visit func(*Pod) bool) bool {
	for _, name := range r.sorted() {
		for _, p := range r.view.Pods(name) {
			if p.isVisible() && !visit(p) {
				return false
			}
		}
	}
	return true
}

// each visits the pods that s selects likewise.
func (r *review) each(s podSelector, visit func(*Pod) bool) bool {
	more := true
	r.eachNamespace(s, func(name string, ns *Namespace) bool {
		for _, p := range r.view.Pods(name) {
			if s.selects(p, ns) && !visit(p) {
				more = false
				return false
			}
		}
		return true
	})
	return more
}

// eachNamespace visits the namespaces that s selects pods in, until visit returns false. ns is nil if it is not known.
func (r *review) eachNamespace(s podSelector, visit func(name string, ns *Namespace) bool) {
	if s.namespaces == nil {
		visit(s.namespace, r.view.Namespaces[s.namespace])
		return
	}
	for _, name := range r.sorted() {
		if ns := r.view.Namespaces[name]; s.namespaces.Matches(&ns.Labels) && !visit(name, ns) {
			return
		}
	}
}

// sorted is all namespaces by name. Most policies select in one, and need no list.
func (r *review) sorted() []string {
	if r.namespaces == nil {
		r.namespaces = slices.Sorted(maps.Keys(r.view.Namespaces))
	}
	return r.namespaces
}

// namespaceMode says what cannot be understood of the mode that a NetworkPolicy has from its namespace.
func (r *review) namespaceMode() {
	ns := r.view.Namespaces[r.policy.ref.Namespace]
	if !r.policy.asksNamespace || ns == nil {
		return
	}
	p := parsedPolicy{ref: r.policy.ref}
	p.parseMode(namespaceModeField, ns.Mode)
	r.remarks = append(r.remarks, notUnderstood(p.problems)...)
}

// addresses names the first of the selected pods that others contest an address of, and the first that has an impossible one. It names nobody else: who reads
// of a policy may know nothing of other namespaces.
func (r *review) addresses() {
	var contested *Pod
	var addr netip.Addr
	for _, p := range r.selected {
		if r.view.Contested == nil || contested != nil && comparePods(contested, p) <= 0 {
			continue
		}
		if a, ok := r.view.Contested(p); ok {
			contested, addr = p, a
		}
	}
	if contested != nil {
		r.remark(v1alpha1.ContestedAddressReason, "", "another pod is shown with the address %s of the pod %s/%s too: the policy holds for this pod "+
			"all the same, but as a peer it may be taken for the other; the NodeEnforcement of node %s names both, for administrators",
			addr, contested.Namespace, contested.Name, contested.Node)
	}
	if p := r.impossible; p != nil {
		r.remark(v1alpha1.ImpossibleAddressReason, "", "the pod %s/%s is shown with an address that no pod can have: nothing is enforced on that "+
			"address; see its status.podIPs, and what runs as the kubelet of node %s", p.Namespace, p.Name, p.Node)
	}
}

// selectsNothing says that no visible pod is selected, and why, where that can be seen. A subject that can select no pod was named as such.
func (r *review) selectsNothing() {
	if r.policy.subject.never() != "" {
		return
	}
	var somewhere, onHost, anyLabels bool
	for _, s := range r.policy.subject.parts() {
		anyLabels = anyLabels || !s.Empty()
	}
	r.eachNamespace(r.policy.subject, func(string, *Namespace) bool {
		somewhere = true
		return false
	})
	r.each(r.policy.subject, func(p *Pod) bool {
		onHost = p.HostNetwork && !p.Finished
		return !onHost
	})
	what := "pod that runs"
	switch {
	case onHost:
		r.remark(v1alpha1.SelectsNothingReason, r.fields.subject, "the pods that match are on the host network, where no policy holds: nothing is enforced")
		return
	case !somewhere:
		what = "namespace"
	case r.policy.subject.namespaces == nil:
		what = "pod that runs in the namespace"
	}
	hint := ""
	if anyLabels {
		hint = "; if there should be one, compare its labels"
	}
	r.remark(v1alpha1.SelectsNothingReason, r.fields.subject, "no %s matches: nothing is enforced until one does%s", what, hint)
}

// namedRivals is how many conflicting policies are named; the others are counted.
const namedRivals = 3

// conflicts names the ClusterNetworkPolicies of the same tier and priority that have rules of the same direction for one of the same pods, as
// ties does.
func (r *review) conflicts() {
	if !r.policy.isRanked() {
		return
	}
	var rivals []*Understood
	for _, other := range r.view.ClusterPolicies {
		if r.policy.isTiedWith(other.policy) && r.sharedPod(other) != nil {
			rivals = append(rivals, other)
		}
	}
	slices.SortFunc(rivals, func(a, b *Understood) int { return a.policy.compare(b.policy) })
	for i, other := range rivals {
		if i == namedRivals {
			r.remark(v1alpha1.ConflictingReason, "spec.priority", "so it is with %d more; give them different priorities", len(rivals)-i)
			return
		}
		pod, first := r.sharedPod(other), "it"
		if r.policy.compare(other.policy) < 0 {
			first = "this one"
		}
		r.remark(v1alpha1.ConflictingReason, "spec.priority",
			"%s has the same tier and priority, and both select the pod %s/%s: %s is asked first, %s; give them different priorities",
			other.policy.ref, pod.Namespace, pod.Name, first, r.policy.whyFirst(other.policy))
	}
}

// sharedPod is the first of the pods that both select, by namespace and name; nil if there is none.
func (r *review) sharedPod(other *Understood) *Pod {
	var shared *Pod
	for _, p := range r.selected {
		if shared != nil && cmp.Or(cmp.Compare(shared.Namespace, p.Namespace), cmp.Compare(shared.Name, p.Name)) <= 0 {
			continue
		}
		if other.Selects(p, r.view.Namespaces[p.Namespace]) {
			shared = p
		}
	}
	return shared
}

// unknownPorts names the rule's named ports that none of the pods has whose ports they are.
func (r *review) unknownPorts(d policy.Direction, rule *parsedRule) {
	if rule.index < 0 || rule.action == policy.NoAction {
		return
	}
	pods := "pod that is selected"
	if d == policy.Egress {
		pods = "pod that the rule leads to"
	}
	if len(rule.named) == 0 {
		return
	}
	about, have := false, map[string]map[string]bool{} // the protocols for which pods have a name
	missing := len(rule.named)
	found := map[portName]bool{}
	r.eachDestination(d, rule, func(p *Pod) bool {
		about = true
		for _, port := range p.Ports {
			if have[port.Name] == nil {
				have[port.Name] = map[string]bool{}
			}
			have[port.Name][protocolName(port.Protocol)] = true
			for _, n := range []portName{{port.Protocol, port.Name}, {0, port.Name}} {
				if rule.isNamed[n] && !found[n] {
					found[n] = true
					missing--
				}
			}
		}
		return missing > 0
	})
	if !about {
		return
	}
	for _, p := range rule.named {
		name := p.name
		if found[name] {
			continue
		}
		elsewhere := have[name.name]
		kind, write := "", "write the name of one of their container ports, or its number"
		if name.protocol != 0 {
			kind = protocolName(name.protocol) + " "
		}
		if len(elsewhere) > 0 {
			write = fmt.Sprintf("they have it for %s: write that protocol", strings.Join(slices.Sorted(maps.Keys(elsewhere)), " and "))
		}
		r.remark(v1alpha1.UnknownPortReason, r.fields.rule(d, rule.index)+"."+fmt.Sprintf(r.fields.port, p.at),
			"no %s has a %sport of the name %q: the name matches nothing; %s", pods, kind, name.name, write)
	}
}

// eachDestination visits the visible pods whose ports a rule names, until visit returns false: for ingress those that are selected, for egress
// those that the rule's peers stand for. One may come twice.
func (r *review) eachDestination(d policy.Direction, rule *parsedRule, visit func(*Pod) bool) {
	if d == policy.Ingress {
		_ = slices.ContainsFunc(r.selected, func(p *Pod) bool { return !visit(p) })
		return
	}
	for _, p := range rule.peers {
		if v, ok := p.(podVisitor); ok && !v.eachPod(r, visit) {
			return
		}
	}
}

func protocolName(p policy.Protocol) string { return strings.ToUpper(p.String()) }
