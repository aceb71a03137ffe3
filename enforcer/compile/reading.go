package compile

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// reading is the policies of the last snapshot, as they were read. What is made of the same text, settings and tenant is the same parsed policy again. A
// NetworkPolicy of a namespace without pods on the node applies to none: of its text is kept what cannot be understood, and nothing else.
type reading struct {
	snapshots       int
	networkPolicies Objects[*networkingv1.NetworkPolicy] // of the last snapshot
	in              map[string]*readNamespace
	local, losers   []*Pod // whose namespaces are near
	clusterPolicies map[*v1alpha1.ClusterNetworkPolicy]*readPolicy
	isolations      map[*v1alpha1.NamespaceIsolation]*readIsolation
	logged          bool // what the policies of these two kinds deny
	dns             readDNS

	come, gone []*parsedPolicy        // since the last snapshot
	sorted     []*parsedPolicy        // in the order in which they are asked; a new list with each change
	far        map[*parsedPolicy]bool // those with problems that are not among sorted
	farChanged bool
	problems   []Problem // of these and those
}

// readNamespace is the NetworkPolicies of one namespace.
type readNamespace struct {
	says     settings
	near     bool // there are pods of it on the node
	policies map[*networkingv1.NetworkPolicy]*readPolicy
}

// readPolicy is a policy, and what it is by what its namespace says of it.
type readPolicy struct {
	text     *parsedPolicy // nil of a NetworkPolicy that is not near, as long as all of it is understood
	asSaid   *parsedPolicy // likewise
	snapshot int           // the last that had it, of a ClusterNetworkPolicy
}

// readIsolation is an isolation, and what it is for its tenants.
type readIsolation struct {
	text     *parsedIsolation
	dns      *readRules
	withDNS  *parsedIsolation
	tenants  map[string]*parsedPolicy // by part
	snapshot int
}

// readDNS is where pods ask for names, and the rules for that.
type readDNS struct {
	of    DNS
	rules *readRules
}

// readRules are rules that are known by their address.
type readRules struct{ rules []parsedRule }

// parseAll understands the snapshot's policies that may apply to a pod of the node, in the order in which they are asked. One that stood in the snapshot before
// has been read. changed is what has changed since then, nil if nobody knows.
func (r *reading) parseAll(c *cluster, s Snapshot, changed *changes) (parsed []*parsedPolicy, problems []Problem) {
	r.snapshots++
	r.readNetworkPolicies(c, s, changed)
	r.setLogged(c)
	for _, cnp := range s.ClusterPolicies {
		r.clusterPolicy(cnp)
	}
	if len(s.Isolations) > 0 {
		problems = append(problems, s.DNS.problems()...)
	}
	dns := r.dns.rulesOf(s.DNS)
	for _, ni := range s.Isolations {
		isolation := r.isolation(ni)
		problems = append(problems, isolation.text.problems...)
		r.tenants(c, isolation, dns)
	}
	r.forgetOlder(s)
	if r.sort(); len(problems) == 0 {
		return r.sorted, r.problems
	}
	return r.sorted, append(problems, r.problems...)
}

// readNetworkPolicies takes in which NetworkPolicies have gone and come, which namespaces are near, and what their modes are.
func (r *reading) readNetworkPolicies(c *cluster, s Snapshot, changed *changes) {
	if r.in == nil {
		r.in, r.far = map[string]*readNamespace{}, map[*parsedPolicy]bool{}
	}
	gone, come := s.Policies.Since(r.networkPolicies)
	r.networkPolicies = s.Policies
	for _, np := range gone {
		ns := r.in[np.Namespace]
		r.drop(ns, ns.policies[np])
		if delete(ns.policies, np); len(ns.policies) == 0 {
			delete(r.in, np.Namespace)
		}
	}
	r.setNear(c)
	if changed == nil {
		for name, ns := range r.in {
			r.set(ns, settingsOf(c.namespaces[name]))
		}
	} else {
		for name, one := range changed.in {
			if ns := r.in[name]; ns != nil {
				r.set(ns, settingsOf(one.after))
			}
		}
	}
	for _, np := range come {
		ns := r.in[np.Namespace]
		if ns == nil {
			ns = &readNamespace{says: settingsOf(c.namespaces[np.Namespace]), policies: map[*networkingv1.NetworkPolicy]*readPolicy{}}
			ns.near = slices.ContainsFunc(c.local, isIn(np.Namespace)) || slices.ContainsFunc(c.losers, isIn(np.Namespace))
			r.in[np.Namespace] = ns
		}
		ns.policies[np] = &readPolicy{}
		r.read(ns, np)
	}
}

// settings are what a namespace says of its policies.
type settings struct {
	mode   string
	logged bool
}

func settingsOf(ns *Namespace) settings {
	if ns == nil {
		return settings{}
	}
	return settings{ns.Mode, ns.Logged}
}

func isIn(namespace string) func(*Pod) bool {
	return func(p *Pod) bool { return p.Namespace == namespace }
}

// setNear finds out which namespaces have pods on the node.
func (r *reading) setNear(c *cluster) {
	if policy.IsOneSlice(r.local, c.local) && policy.IsOneSlice(r.losers, c.losers) {
		return
	}
	r.local, r.losers = c.local, c.losers
	near := map[string]bool{}
	for _, pods := range [2][]*Pod{c.local, c.losers} {
		for _, p := range pods {
			near[p.Namespace] = true
		}
	}
	for name, ns := range r.in {
		if ns.near == near[name] {
			continue
		}
		for _, p := range ns.policies {
			r.drop(ns, p)
		}
		ns.near = near[name]
		for np := range ns.policies {
			r.read(ns, np)
		}
	}
}

// set puts the policies of a namespace in its settings.
func (r *reading) set(ns *readNamespace, says settings) {
	if ns.says == says {
		return
	}
	ns.says = says
	for np, p := range ns.policies {
		if p.text == nil || p.asSaid != p.text.in(says) {
			r.drop(ns, p)
			r.read(ns, np)
		}
	}
}

// read reads a policy, unless its text was kept, and puts it in the mode of its namespace.
func (r *reading) read(ns *readNamespace, np *networkingv1.NetworkPolicy) {
	p := ns.policies[np]
	if p.text == nil {
		p.text = parse(np)
	}
	p.asSaid = p.text.in(ns.says)
	switch {
	case ns.near:
		r.come = append(r.come, p.asSaid)
	case len(p.asSaid.problems) > 0:
		r.far[p.asSaid], r.farChanged = true, true
	default:
		p.text, p.asSaid = nil, nil
	}
}

// drop takes a policy away that was read.
func (r *reading) drop(ns *readNamespace, p *readPolicy) {
	switch {
	case ns.near:
		r.gone = append(r.gone, p.asSaid)
	case p.asSaid != nil:
		delete(r.far, p.asSaid)
		r.farChanged = true
	}
}

// setLogged has what policies of the cluster deny be sampled, as soon as a namespace asks for that which has pods here.
func (r *reading) setLogged(c *cluster) {
	logged := slices.ContainsFunc(c.local, func(p *Pod) bool { return settingsOf(c.namespaces[p.Namespace]).logged })
	if logged == r.logged {
		return
	}
	r.logged = logged
	for _, p := range r.clusterPolicies {
		r.gone = append(r.gone, p.asSaid)
	}
	r.clusterPolicies = nil
	for _, f := range r.isolations {
		r.gone = slices.AppendSeq(r.gone, maps.Values(f.tenants))
		f.tenants = nil
	}
}

// clusterPolicy reads a policy of the cluster.
func (r *reading) clusterPolicy(cnp *v1alpha1.ClusterNetworkPolicy) {
	p := r.clusterPolicies[cnp]
	if p == nil {
		parsed := parseCluster(cnp)
		parsed.logged = r.logged
		p = &readPolicy{text: parsed, asSaid: parsed}
		if r.clusterPolicies == nil {
			r.clusterPolicies = map[*v1alpha1.ClusterNetworkPolicy]*readPolicy{}
		}
		r.clusterPolicies[cnp] = p
		r.come = append(r.come, parsed)
	}
	p.snapshot = r.snapshots
}

// isolation reads an isolation.
func (r *reading) isolation(ni *v1alpha1.NamespaceIsolation) *readIsolation {
	f := r.isolations[ni]
	if f == nil {
		f = &readIsolation{text: parseIsolation(ni)}
		if r.isolations == nil {
			r.isolations = map[*v1alpha1.NamespaceIsolation]*readIsolation{}
		}
		r.isolations[ni] = f
	}
	f.snapshot = r.snapshots
	return f
}

// tenants makes an isolation's policies, one for each tenant with pods on the node.
func (r *reading) tenants(c *cluster, f *readIsolation, dns *readRules) {
	if f.dns != dns {
		f.dns, f.withDNS = dns, f.text.withDNS(dns.rules)
		r.gone = slices.AppendSeq(r.gone, maps.Values(f.tenants))
		f.tenants = nil
	}
	before := f.tenants
	f.tenants = map[string]*parsedPolicy{}
	asked := map[*Namespace]bool{}
	for _, pod := range slices.Concat(c.local, c.losers) {
		ns := c.namespaces[pod.Namespace]
		if ns == nil || asked[ns] {
			continue
		}
		asked[ns] = true
		if !f.text.namespaces.Matches(ns.Labels) {
			continue
		}
		part, _ := f.text.tenantOf(ns)
		switch {
		case f.tenants[part] != nil:
		case before[part] != nil:
			f.tenants[part] = before[part]
		default:
			f.tenants[part] = f.withDNS.policyFor(ns)
			f.tenants[part].logged = r.logged
			r.come = append(r.come, f.tenants[part])
		}
	}
	for part, p := range before {
		if f.tenants[part] == nil {
			r.gone = append(r.gone, p)
		}
	}
}

// rulesOf are the rules for the DNS: the same ones as long as nothing of it changes.
func (r *readDNS) rulesOf(dns DNS) *readRules {
	same := len(dns.Services) == len(r.of.Services) && slices.Equal(dns.Addresses, r.of.Addresses) &&
		!slices.ContainsFunc(dns.Services, func(s *corev1.Service) bool { return !slices.Contains(r.of.Services, s) })
	if r.rules == nil || !same {
		r.of = DNS{Services: slices.Clone(dns.Services), Addresses: slices.Clone(dns.Addresses)}
		r.rules = &readRules{dns.rules()}
	}
	return r.rules
}

// forgetOlder drops what the snapshot does not have.
func (r *reading) forgetOlder(s Snapshot) {
	if len(r.clusterPolicies) > len(s.ClusterPolicies) {
		for object, p := range r.clusterPolicies {
			if p.snapshot != r.snapshots {
				delete(r.clusterPolicies, object)
				r.gone = append(r.gone, p.asSaid)
			}
		}
	}
	if len(r.isolations) > len(s.Isolations) {
		for object, f := range r.isolations {
			if f.snapshot != r.snapshots {
				delete(r.isolations, object)
				r.gone = slices.AppendSeq(r.gone, maps.Values(f.tenants))
			}
		}
	}
}

// sort puts those that have come in their place among the others, which are in order already.
func (r *reading) sort() {
	come, gone := r.come, r.gone
	r.come, r.gone = nil, nil
	if len(gone)+len(come) == 0 && !r.farChanged {
		return
	}
	isGone := setOf(gone)
	come = slices.DeleteFunc(come, func(p *parsedPolicy) bool { return isGone[p] }) // one may have been read twice
	slices.SortFunc(come, (*parsedPolicy).compare)
	sorted := make([]*parsedPolicy, 0, max(0, len(r.sorted)+len(come)-len(gone)))
	for _, p := range r.sorted {
		if len(isGone) > 0 && isGone[p] {
			continue
		}
		for len(come) > 0 && come[0].compare(p) < 0 {
			sorted, come = append(sorted, come[0]), come[1:]
		}
		sorted = append(sorted, p)
	}
	r.sorted, r.farChanged = append(sorted, come...), false
	r.list()
}

// list lists the problems of all policies.
func (r *reading) list() {
	with := slices.Collect(maps.Keys(r.far))
	for _, p := range r.sorted {
		if len(p.problems) > 0 {
			with = append(with, p)
		}
	}
	slices.SortFunc(with, (*parsedPolicy).compare)
	r.problems = nil
	for _, p := range with {
		r.problems = append(r.problems, p.problems...)
	}
}
