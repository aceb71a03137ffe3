package query

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Finding is something about policies that their author should look at.
type Finding struct {
	// Object is what it is about: "Kind namespace/name".
	Object string `json:"object"`
	// Reason is one word for it: a reason of the condition Accepted, or one of this package.
	Reason string `json:"reason"`
	Field  string `json:"field,omitempty"`
	Detail string `json:"detail"`
	// Error is set if the policy does something else than what it says. Other findings are warnings.
	Error bool `json:"error"`
}

// The reasons of findings that no condition has.
const (
	NoDNSReason         = "NoDNS"         // pods are isolated for egress, and cannot ask for names
	NotIsolatedReason   = "NotIsolated"   // a namespace lets everybody reach some of its pods
	RedundantRuleReason = "RedundantRule" // another rule of the policy allows all that a rule does
)

// errorReasons are those of findings that are errors.
var errorReasons = []string{v1alpha1.NotUnderstoodReason, v1alpha1.TooLargeReason, v1alpha1.ImpossibleAddressReason, v1alpha1.ContestedAddressReason}

// Lint is all that is to be said about the policies, by object.
func (c *Cluster) Lint() []Finding {
	c.expectMany()
	findings := c.reviewed()
	findings = append(findings, c.redundant()...)
	findings = append(findings, c.isolation()...)
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(findings)
}

// reviewed is what the controller says of policies in their conditions.
func (c *Cluster) reviewed() []Finding {
	var all []*compile.Understood
	view := compile.View{Namespaces: map[string]*compile.Namespace{}}
	for _, p := range c.parts.ClusterPolicies {
		u := compile.Understand(compile.Object{ClusterNetworkPolicy: p})
		all, view.ClusterPolicies = append(all, u), append(view.ClusterPolicies, u)
	}
	for _, p := range c.parts.Policies {
		all = append(all, compile.Understand(compile.Object{NetworkPolicy: p}))
	}
	for _, i := range c.parts.Isolations {
		all = append(all, compile.Understand(compile.Object{NamespaceIsolation: i}))
	}
	for n := range c.parts.namespaces.All() {
		view.Namespaces[n.Name] = n
	}
	pods := map[string][]*compile.Pod{}
	for _, p := range c.parts.pods {
		pods[p.Namespace] = append(pods[p.Namespace], p)
	}
	view.Pods = func(namespace string) []*compile.Pod { return pods[namespace] }
	var findings []Finding
	for _, u := range all {
		for _, r := range u.Review(view) {
			findings = append(findings, Finding{u.Ref().String(), r.Reason, r.Field, r.Detail, slices.Contains(errorReasons, r.Reason)})
		}
	}
	return findings
}

// enforcing are the nodes that run pods, the one of those that no node runs included; or the one that stands for all of them.
func (c *Cluster) enforcing() []*compiledNode {
	if c.every != nil {
		return []*compiledNode{c.every}
	}
	var nodes []*compiledNode
	for _, name := range slices.Sorted(maps.Keys(c.parts.byNode)) {
		nodes = append(nodes, c.node(name))
	}
	return nodes
}

// redundant are rules that add nothing to another rule of their policy.
func (c *Cluster) redundant() []Finding {
	var findings []Finding
	for _, node := range c.enforcing() {
		for i := range node.Policies {
			p := &node.Policies[i]
			for _, d := range policy.Directions {
				for _, index := range redundantIn(p.Rules[d], p.Stage.Isolates()) {
					findings = append(findings, Finding{
						p.Ref.String(), RedundantRuleReason, fmt.Sprintf("%s[%d]", d, index[0]),
						fmt.Sprintf("all that it matches, %s[%d] does: leave it out, or say what it is to match besides", d, index[1]), false,
					})
				}
			}
		}
	}
	return findings
}

// redundantIn are the indexes of rules, each with that of the rule by which it changes nothing: one that matches all of it, and does the same with it. In a
// list in which the first rule decides, that one stands before it.
func redundantIn(rules []policy.Rule, isolates bool) [][2]int {
	parts := map[int][]policy.Rule{} // one rule of the object becomes several
	for _, r := range rules {
		if r.Index >= 0 && r.Action != policy.NoAction {
			parts[r.Index] = append(parts[r.Index], r)
		}
	}
	var redundant [][2]int
	indexes := slices.Sorted(maps.Keys(parts)) // so that all nodes name the same one
	for _, i := range indexes {
		for _, j := range indexes {
			some, others := parts[i], parts[j]
			before := j < i || isolates && j > i && !covers(some, others)
			if i != j && before && covers(others, some) {
				redundant = append(redundant, [2]int{i, j})
				break
			}
		}
	}
	return redundant
}

// covers reports whether each of some parts is covered by one of others.
func covers(others, some []policy.Rule) bool {
	return !slices.ContainsFunc(some, func(s policy.Rule) bool {
		return !slices.ContainsFunc(others, func(o policy.Rule) bool {
			return o.Action == s.Action && coversPeer(o.Peer, s.Peer) && coversPorts(o.Ports, s.Ports)
		})
	})
}

func coversPeer(o, s policy.Peer) bool {
	switch {
	case o.Kind == policy.AnyPeer:
		return true
	case o.Kind != s.Kind:
		return false
	case o.Kind == policy.InSet:
		return o.Set == s.Set
	}
	return slices.EqualFunc(o.Blocks, s.Blocks, policy.Block.Equal)
}

func coversPorts(o, s policy.Ports) bool {
	switch {
	case o.Kind == policy.AnyPort:
		return true
	case o.Kind != s.Kind:
		return false
	case o.Kind == policy.InPorts:
		return o.Set == s.Set
	}
	return !slices.ContainsFunc(s.Ranges, func(r policy.PortRange) bool {
		return !slices.ContainsFunc(o.Ranges, func(q policy.PortRange) bool {
			return q.Protocol == r.Protocol && q.First <= r.First && r.Last <= q.Last
		})
	})
}

// isolation finds namespaces whose pods everybody reaches, and pods that cannot ask for names.
func (c *Cluster) isolation() []Finding {
	open, mute := map[string]string{}, map[string]string{} // the first pod, by namespace
	for _, w := range c.workloads() {
		for _, k := range w.classes {
			if open[w.namespace] == "" && !c.isIsolated(k.ends[0], policy.Ingress) {
				open[w.namespace] = w.name
			}
			if mute[w.namespace] == "" && c.isIsolated(k.ends[0], policy.Egress) && !c.asksForNames(k.ends[0]) {
				mute[w.namespace] = w.name
			}
		}
	}
	var findings []Finding
	for namespace, workload := range open {
		findings = append(findings, Finding{
			"Namespace " + namespace, NotIsolatedReason, "",
			workload + " is isolated by no policy: everybody reaches it. Add a NetworkPolicy with an empty podSelector, or a NamespaceIsolation", false,
		})
	}
	for namespace, workload := range mute {
		findings = append(findings, Finding{
			"Namespace " + namespace, NoDNSReason, "",
			workload + " is isolated for egress, and no rule lets it ask for names: allow udp/53 and tcp/53 to the cluster's DNS", false,
		})
	}
	return findings
}

// isIsolated reports whether an enforced policy isolates a pod in a direction.
func (c *Cluster) isIsolated(e End, d policy.Direction) bool {
	node := c.at(e)
	endpoint := node.endpoints[e.Addrs[0]]
	if endpoint == nil {
		return false
	}
	for _, s := range policy.Stages {
		if policies := endpoint.Applies[d][s]; s.Isolates() && len(policies) > 0 && !node.Policies[policies[0]].Audit {
			return true
		}
	}
	return false
}

// asksForNames reports whether a pod reaches the cluster's DNS, as far as that is known, or else any address at its port.
func (c *Cluster) asksForNames(e End) bool {
	port := Port{policy.UDP, 53}
	for _, s := range c.parts.DNS.Services {
		if pods := c.behind(s); len(pods) > 0 {
			return c.leaves(e, c.podEnd(pods[0]), portBehind(s, port))
		}
	}
	node := c.at(e)
	for _, policies := range node.endpoints[e.Addrs[0]].Applies[policy.Egress] {
		for _, i := range policies {
			for _, r := range node.Policies[i].Rules[policy.Egress] {
				named := r.Ports.Kind == policy.InRanges && slices.ContainsFunc(r.Ports.Ranges, func(p policy.PortRange) bool {
					return p.Protocol == policy.UDP && p.First <= 53 && 53 <= p.Last
				})
				if r.Action == policy.Accept && (named || r.Ports.Kind == policy.AnyPort) {
					return true
				}
			}
		}
	}
	return false
}

// portBehind is the port of a Service's pods.
func portBehind(s *corev1.Service, port Port) Port {
	for _, p := range s.Spec.Ports {
		if p.Protocol == corev1.ProtocolUDP && p.Port == int32(port.Number) && p.TargetPort.IntVal > 0 {
			port.Number = uint16(p.TargetPort.IntVal)
		}
	}
	return port
}

// leaves reports whether a pod's own side lets a connection out.
func (c *Cluster) leaves(from, to End, port Port) bool {
	out := asks(from, to)[0]
	for _, src := range from.Addrs {
		for _, dst := range to.Addrs {
			if src.Is4() == dst.Is4() && !c.decide(out, c.flow(out, src, dst, port)).Allowed {
				return false
			}
		}
	}
	return true
}
