package compile

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Compile says what the snapshot's node must enforce. The problems are those of all policies in the
// snapshot, whether they concern the node or not, sorted by object.
func Compile(s Snapshot) (policy.Node, []Problem) { return CompileLike(s, nil) }

// CompileLike is [Compile], but where a set of like has the members that are wanted, it is these that stand in the result: a node that differs little
// from another takes little memory of its own.
func CompileLike(s Snapshot, like map[policy.SetID]policy.Set) (policy.Node, []Problem) {
	s = withGiven(s)
	c := newCluster(s)
	c.like = like
	parsed, problems := c.parseAll(s)
	subjects := make([]subject, len(c.local))
	used := make([]bool, len(parsed))
	concerned := newConcerns(c)
	for i, p := range parsed {
		for _, pod := range c.selectLocal(p.subject) {
			subjects[pod].add(i, p)
			concerned.add(p, c.local[pod])
		}
		concerned.addLosers(p)
	}
	for i := range subjects {
		subjects[i].settle(parsed, used)
	}
	problems = append(problems, ties(parsed, subjects)...)
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Ref.Compare(b.Ref) })

	node := policy.Node{Sets: map[policy.SetID]policy.Set{}, Concerns: concerned.sorted()}
	node.Concerns.Contested, node.Concerns.Impossible = c.claims.contests(), impossible(s)
	c.closeTo(s, &node)
	index := make([]int, len(parsed)) // in the node's policies
	for i, p := range parsed {
		if used[i] {
			index[i] = len(node.Policies)
			node.Policies = append(node.Policies, c.resolve(p, node.Sets))
		}
	}
	for i, pod := range c.local {
		e := policy.Endpoint{Namespace: pod.Namespace, Name: pod.Name, Addrs: pod.Addrs, Applies: subjects[i]}
		for d := range e.Applies {
			for stage := range e.Applies[d] {
				for k, p := range e.Applies[d][stage] {
					e.Applies[d][stage][k] = index[p]
				}
			}
		}
		if e.IsSubject(policy.Ingress) || e.IsSubject(policy.Egress) {
			node.Endpoints = append(node.Endpoints, e)
		}
	}
	c.tie(s, &node)
	return node, problems
}

// isVisible reports whether policy can see the pod: it runs, off the host network, with an address of its own.
func (p *Pod) isVisible() bool { return !p.HostNetwork && !p.Finished && len(p.Addrs) > 0 }

// cluster indexes the pods that policy can see.
type cluster struct {
	local       []*Pod            // on the node, sorted by namespace and name
	byNamespace map[string][]*Pod // all
	namespaces  map[string]*Namespace
	nodes       []*Node
	node        string       // the snapshot's
	own         []netip.Addr // that node's
	losers      []*Pod       // on the node, without an address that no other pod of the node holds
	claims      *claims
	members     []policy.Member // room to collect those of one set in
	like        map[policy.SetID]policy.Set
}

func newCluster(s Snapshot) *cluster {
	c := &cluster{byNamespace: map[string][]*Pod{}, namespaces: make(map[string]*Namespace, len(s.Namespaces)), nodes: s.Nodes, node: s.Node, own: s.Own}
	for _, ns := range s.Namespaces {
		c.namespaces[ns.Name] = ns
	}
	visible := make([]*Pod, 0, len(s.Pods))
	for _, p := range s.Pods {
		if p.isVisible() {
			visible = append(visible, p)
		}
	}
	c.claims = newClaims(&s, visible)
	for _, reported := range visible {
		p := c.claims.owning(reported)
		switch {
		case len(p.Addrs) == 0 && p.Node == s.Node:
			c.losers = append(c.losers, reported)
			continue
		case len(p.Addrs) == 0:
			continue
		}
		c.byNamespace[p.Namespace] = append(c.byNamespace[p.Namespace], p)
		if p.Node == s.Node {
			c.local = append(c.local, p)
		}
	}
	slices.SortFunc(c.local, comparePods)
	return c
}

// selectLocal are the indexes of the local pods that s selects.
func (c *cluster) selectLocal(s podSelector) []int {
	var selected []int
	if s.namespaces != nil {
		for i, p := range c.local {
			if s.selects(p, c.namespaces[p.Namespace]) {
				selected = append(selected, i)
			}
		}
		return selected
	}
	first, _ := slices.BinarySearchFunc(c.local, s.namespace, func(q *Pod, ns string) int { return cmp.Compare(q.Namespace, ns) })
	for i := first; i < len(c.local) && c.local[i].Namespace == s.namespace; i++ {
		if s.pods.Matches(c.local[i].Labels) {
			selected = append(selected, i)
		}
	}
	return selected
}

// resolve makes the policy's rules, and adds the sets that they name to sets.
func (c *cluster) resolve(p *parsedPolicy, sets map[policy.SetID]policy.Set) policy.Policy {
	out := policy.Policy{Ref: p.ref, Part: p.part, Stage: p.stage, Audit: p.audit}
	for _, d := range policy.Directions {
		if !p.applies[d] {
			continue
		}
		for _, r := range p.rules[d] {
			out.Rules[d] = append(out.Rules[d], c.resolveRule(d, r, sets)...)
		}
	}
	return out
}

func (c *cluster) resolveRule(d policy.Direction, r parsedRule, sets map[policy.SetID]policy.Set) []policy.Rule {
	var numbered []policy.Ports
	switch {
	case r.anyPort:
		numbered = []policy.Ports{{Kind: policy.AnyPort}}
	case len(r.ranges) > 0:
		numbered = []policy.Ports{{Kind: policy.InRanges, Ranges: r.ranges}}
	}
	var rules []policy.Rule
	add := func(peer policy.Peer, all ...policy.Ports) {
		for _, ports := range all {
			rules = append(rules, policy.Rule{Index: r.index, Name: r.name, Action: r.action, Log: r.log, Peer: peer, Ports: ports})
		}
	}
	addAll := func(peer policy.Peer) {
		add(peer, numbered...)
		add(peer, c.namedPorts(d, r.named, sets)...)
	}
	anyPeer := policy.Peer{Kind: policy.AnyPeer}
	if r.anyPeer {
		addAll(anyPeer)
	}
	if len(r.blocks) > 0 {
		addAll(policy.Peer{Kind: policy.InBlocks, Blocks: r.blocks})
	}
	for _, s := range r.nodes {
		addAll(c.selectedNodes(s, sets))
	}
	for _, s := range r.selectors {
		if d == policy.Ingress {
			addAll(c.selected(s, sets))
			continue
		}
		add(c.selected(s, sets), numbered...)
		// The port belongs to the remote pod: one set says both.
		for _, name := range r.named {
			add(anyPeer, c.selectedPorts(s, name, sets))
		}
	}
	return rules
}

// selected is the peer that a selector stands for.
func (c *cluster) selected(s podSelector, sets map[policy.SetID]policy.Set) policy.Peer {
	id := setID("addresses", s.scope(), selectorText(s.pods))
	c.addSet(sets, id, policy.Addresses, func(yield func(policy.Member)) {
		c.eachSelected(s, func(p *Pod) {
			for _, a := range p.Addrs {
				yield(policy.Member{Addr: policy.AddrOf(a)})
			}
		})
	})
	return policy.Peer{Kind: policy.InSet, Set: id}
}

// selectedNodes are the addresses of the nodes that a selector stands for.
func (c *cluster) selectedNodes(s labels.Selector, sets map[policy.SetID]policy.Set) policy.Peer {
	id := setID("nodes", selectorText(s))
	c.addSet(sets, id, policy.Addresses, func(yield func(policy.Member)) {
		c.eachOfNodes(s, func(a netip.Addr) { yield(policy.Member{Addr: policy.AddrOf(a)}) })
	})
	return policy.Peer{Kind: policy.InSet, Set: id}
}

// selectedPorts are the ports of a name on the pods that a selector stands for.
func (c *cluster) selectedPorts(s podSelector, name portName, sets map[policy.SetID]policy.Set) policy.Ports {
	id := setID("ports", s.scope(), selectorText(s.pods), name.text(), name.name)
	c.addSet(sets, id, policy.AddressPorts, func(yield func(policy.Member)) {
		c.eachSelected(s, func(p *Pod) { p.eachNamed(name, yield) })
	})
	return policy.Ports{Kind: policy.InPorts, Set: id, Protocol: name.protocol}
}

// namedPorts are the ports of the names on whatever pod is the destination: one of this node for ingress, where the
// packet has met the policy only because it goes to a pod that the policy isolates; any pod for egress.
func (c *cluster) namedPorts(d policy.Direction, names []portName, sets map[policy.SetID]policy.Set) []policy.Ports {
	var all []policy.Ports
	for _, name := range names {
		id := setID("ports to", d.String(), name.text(), name.name)
		c.addSet(sets, id, policy.AddressPorts, func(yield func(policy.Member)) {
			if d == policy.Ingress {
				for _, p := range c.local {
					p.eachNamed(name, yield)
				}
				return
			}
			for _, pods := range c.byNamespace {
				for _, p := range pods {
					p.eachNamed(name, yield)
				}
			}
		})
		all = append(all, policy.Ports{Kind: policy.InPorts, Set: id, Protocol: name.protocol})
	}
	return all
}

// counts reports whether the port is one of those that the name stands for.
func (n portName) counts(port NamedPort) bool {
	return n.name == port.Name && (n.protocol == 0 || n.protocol == port.Protocol)
}

// text is the protocol for which the name counts.
func (n portName) text() string {
	if n.protocol == 0 {
		return "any"
	}
	return n.protocol.String()
}

// scope names the namespaces in which s selects.
func (s podSelector) scope() string {
	if s.namespaces == nil {
		return "namespace " + strconv.Quote(s.namespace)
	}
	return "namespaces " + selectorText(s.namespaces)
}

// selectorText is the selector's requirements in one order: a Selector keeps those of one key in the order in which they came,
// and matchLabels come in none.
func selectorText(s labels.Selector) string {
	requirements, _ := s.Requirements()
	texts := make([]string, len(requirements))
	for i := range requirements {
		texts[i] = requirements[i].String()
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), ",")
}

func (c *cluster) eachSelected(s podSelector, visit func(*Pod)) {
	if s.namespaces == nil {
		eachMatching(c.byNamespace[s.namespace], s.pods, visit)
		return
	}
	for _, ns := range c.namespaces {
		if s.namespaces.Matches(ns.Labels) {
			eachMatching(c.byNamespace[ns.Name], s.pods, visit)
		}
	}
}

func eachMatching(pods []*Pod, s labels.Selector, visit func(*Pod)) {
	for _, p := range pods {
		if s.Matches(p.Labels) {
			visit(p)
		}
	}
}

func (p *Pod) eachNamed(name portName, yield func(policy.Member)) {
	for _, port := range p.Ports {
		if !name.counts(port) {
			continue
		}
		for _, a := range p.Addrs {
			yield(policy.Member{Addr: policy.AddrOf(a), Protocol: port.Protocol, Port: port.Port})
		}
	}
}

// addSet fills the set once, however many rules name it.
func (c *cluster) addSet(sets map[policy.SetID]policy.Set, id policy.SetID, kind policy.SetKind, fill func(yield func(policy.Member))) {
	if _, ok := sets[id]; ok {
		return
	}
	c.members = c.members[:0]
	fill(func(m policy.Member) { c.members = append(c.members, m) })
	slices.SortFunc(c.members, policy.Member.Compare)
	members := slices.Compact(c.members)
	if same := c.like[id].Members; slices.Equal(same, members) {
		members = same
	} else {
		members = slices.Clone(members)
	}
	sets[id] = policy.Set{Kind: kind, Members: members}
}
