package compile

import (
	"slices"
	"strconv"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// podPeers are pods, by their labels and their namespace's: podSelector and namespaceSelector of a NetworkPolicy, namespaces and pods of a
// ClusterNetworkPolicy, an isolation's tenant, and the pods of the DNS.
type podPeers struct{ selectors podSelectors }

// podSelectors select pods together: one that any of them selects.
type podSelectors []podSelector

var (
	_ peers      = (*podPeers)(nil)
	_ podVisitor = (*podPeers)(nil)
	_ source     = podSelectors(nil)
	_ finder     = (*podFinder)(nil)
)

// podFields are how pods are written in a [v1alpha1.Peer].
var podFields = []peerField{
	{"namespaces", func(p *v1alpha1.Peer) bool { return p.Namespaces != nil }, func(r *parsedRule, p *v1alpha1.Peer) error {
		return r.addUnderstood(everyPodIn(p.Namespaces))
	}},
	{"pods", func(p *v1alpha1.Peer) bool { return p.Pods != nil }, func(r *parsedRule, p *v1alpha1.Peer) error {
		return r.addUnderstood(podsIn(p.Pods))
	}},
}

func (r *parsedRule) addUnderstood(s podSelector, err error) error {
	if err == nil {
		r.addPods(s)
	}
	return err
}

// readSelectors adds the pods of a NetworkPolicy's peer to the rule.
func (p *parsedPolicy) readSelectors(r *parsedRule, field string, peer *networkingv1.NetworkPolicyPeer) {
	s := podSelector{namespace: p.ref.Namespace, pods: labels.Everything()}
	var err error
	if peer.PodSelector != nil {
		if s.pods, err = metav1.LabelSelectorAsSelector(peer.PodSelector); err != nil {
			p.problem(field+".podSelector", "%v: the peer matches nothing", err)
			return
		}
	}
	if peer.NamespaceSelector != nil {
		if s.namespaces, err = metav1.LabelSelectorAsSelector(peer.NamespaceSelector); err != nil {
			p.problem(field+".namespaceSelector", "%v: the peer matches nothing", err)
			return
		}
	}
	r.addPods(s)
}

// addPods adds the pods of a selector to the rule's peers.
func (r *parsedRule) addPods(s podSelector) {
	p := peersOf[podPeers](r, ofPods)
	p.selectors = append(p.selectors, s)
}

func (p *podPeers) weigh() (w weight) {
	w.selectors = len(p.selectors)
	for _, s := range p.selectors {
		for _, part := range s.parts() {
			w.values += valuesOf(part)
		}
	}
	return w
}

func (p *podPeers) never() string {
	return allNever(p.selectors, podSelector.never)
}

func (p *podPeers) covers(o peers) bool {
	theirs, ok := o.(*podPeers)
	return ok && !slices.ContainsFunc(theirs.selectors, func(s podSelector) bool {
		return !slices.ContainsFunc(p.selectors, func(t podSelector) bool { return t.covers(s) })
	})
}

// settle has a set of addresses for each selector. Where the pods are the destinations, a named port is theirs: a set says which pod and which port in one.
func (p *podPeers) settle(d policy.Direction, named []rulePort) ([]end, []ruleSet) {
	selectors := distinct(p.selectors)
	ends := endsOf(selectors, podSelector.setID)
	if d == policy.Ingress {
		return ends, nil
	}
	for i := range ends {
		ends[i].ownPorts = true
	}
	return ends, portsOf(selectors, named)
}

// distinct are the selectors, each once.
func distinct(selectors podSelectors) podSelectors {
	seen := make(map[policy.SetID]bool, len(selectors))
	var out podSelectors
	for _, s := range selectors {
		s.id = s.setID()
		if s.namespaces != nil {
			s.within = selectorText(s.namespaces)
		}
		if !seen[s.id] {
			seen[s.id] = true
			out = append(out, s)
		}
	}
	return out
}

// portsOf are the ports of the names on the pods of the selectors.
func portsOf(selectors podSelectors, named []rulePort) []ruleSet {
	if len(selectors) == 0 || len(named) == 0 {
		return nil
	}
	names, protocol := namesOf(named)
	if len(selectors)*len(named) > maxOwnSets {
		of, ports := make([]string, 0, len(selectors)), make([]string, 0, len(names))
		for _, s := range selectors {
			of = append(of, string(s.setID()))
		}
		for _, n := range names {
			ports = append(ports, string(setID(n.text(), n.name)))
		}
		slices.Sort(of)
		slices.Sort(ports)
		id := setID(slices.Concat([]string{"ports of", strconv.Itoa(len(of))}, of, ports)...)
		return []ruleSet{{id: id, of: selectors, names: names, protocol: protocol}}
	}
	var all []ruleSet
	for i, s := range selectors {
		var of source = selectors[i : i+1]
		for k, n := range names {
			id := setID("ports", s.scope(), selectorText(s.pods), n.text(), n.name)
			all = append(all, ruleSet{id: id, of: of, names: names[k : k+1], protocol: n.protocol})
		}
	}
	return all
}

func (p *podPeers) eachPod(r *review, visit func(*Pod) bool) bool {
	for _, s := range p.selectors {
		if !r.eachPod(s, visit) {
			return false
		}
	}
	return true
}

// podFinder finds the addresses of the pods of some selectors, or named ports of theirs.
type podFinder struct {
	selectors podSelectors
	names     portNames
	scopes    []*scope // of all selectors, each once
	// weights are how many pods the selectors of each scope take the time of together, for one that they are compared with.
	weights []int
	wide    int // how many selectors look for namespaces
}

// finder keeps a copy of the selectors, since they may be part of a long list.
func (s podSelectors) finder(k *knownSets, names []portName) finder {
	f := &podFinder{selectors: slices.Clone(s), names: newPortNames(names)}
	for _, one := range f.selectors {
		scope := k.scopeOf(one)
		i := slices.Index(f.scopes, scope)
		if i < 0 {
			i = len(f.scopes)
			f.scopes, f.weights = append(f.scopes, scope), append(f.weights, 0)
		}
		f.weights[i] += 1 + valuesOf(one.pods)/valuesPerLook
		if one.namespaces != nil {
			f.wide++
		}
	}
	return f
}

func (s podSelectors) among(c *cluster, namespaces []string) []string {
	selected := map[string]bool{}
	for _, one := range s {
		for _, name := range c.namespacesOf(one) {
			selected[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(namespaces), func(name string) bool { return !selected[name] })
}

func (f *podFinder) looks(c *cluster) int {
	n := f.wide * len(c.namespaces)
	for i, s := range f.scopes {
		n += f.weights[i] * s.pods
	}
	return n
}

func (f *podFinder) find(c *cluster, limit int) ([]policy.Member, bool) {
	if len(f.names) == 0 {
		members := c.addresses(c.selectedBy(f.selectors))
		return members, len(members) <= limit
	}
	c.members = c.members[:0]
	for _, g := range c.selectedBy(f.selectors) {
		c.addPorts(g.pods, f.names, limit)
	}
	return c.sortedWithin(limit)
}

// follow looks at the pods that have gone and come: no two pods hold one address, so that the members of one pod are no other's.
func (f *podFinder) follow(_ *cluster, all *changes) (gone, come []policy.Member, ok bool) {
	for _, one := range all.in {
		if f.isElsewhere(one.name) {
			continue
		}
		gone = f.appendMembers(gone, one.gone, one.before)
		come = f.appendMembers(come, one.come, one.after)
	}
	return gone, come, true
}

// isElsewhere reports whether none of the pods is certainly in a namespace.
func (f *podFinder) isElsewhere(namespace string) bool {
	return len(f.scopes) == 1 && f.scopes[0].namespaces == nil && f.scopes[0].namespace != namespace
}

// appendMembers adds what some pods of one namespace are in the set.
func (f *podFinder) appendMembers(to []policy.Member, pods []*Pod, ns *Namespace) []policy.Member {
	for _, p := range pods {
		if slices.ContainsFunc(f.selectors, func(s podSelector) bool { return s.selects(p, ns) }) {
			to = appendMembers(to, p, f.names)
		}
	}
	return to
}

// scope is where a selector looks for pods.
type scope struct {
	namespace  string
	namespaces labels.Selector
	pods       int // that policy can see there
	needed     bool
}

// covers reports whether a scope has a namespace, of which ns is what is known.
func (s *scope) covers(name string, ns *Namespace) bool {
	if s.namespaces == nil {
		return s.namespace == name
	}
	return ns != nil && s.namespaces.Matches(&ns.Labels)
}

// scopes are those of all selectors of known sets, by the text of the selector of namespaces, or the name.
type scopes map[string]*scope

// scopeOf is where a settled selector looks.
func (k *knownSets) scopeOf(s podSelector) *scope {
	text := "name " + s.namespace
	if s.namespaces != nil {
		text = "labels " + s.within
	}
	known := k.scopes[text]
	if known == nil {
		known = &scope{namespace: s.namespace, namespaces: s.namespaces}
		for _, name := range k.namespacesOf(s) {
			known.pods += len(k.byNamespace[name])
		}
		k.scopes[text] = known
	}
	return known
}

// follow counts the pods that have gone and come.
func (all scopes) follow(changed *changes) {
	for _, s := range all {
		for _, one := range changed.in {
			if s.covers(one.name, one.before) {
				s.pods -= len(one.gone)
			}
			if s.covers(one.name, one.after) {
				s.pods += len(one.come)
			}
		}
	}
}

// keepThoseOf forgets the scopes of which no set looks for pods.
func (all scopes) keepThoseOf(sets map[policy.SetID]*knownSet) {
	for _, s := range all {
		s.needed = false
	}
	for _, set := range sets {
		if f, ok := set.finder.(*podFinder); ok {
			for _, s := range f.scopes {
				s.needed = true
			}
		}
	}
	for text, s := range all {
		if !s.needed {
			delete(all, text)
		}
	}
}
