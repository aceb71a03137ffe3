package compile

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// reading is the policies of the last snapshot, as they were read. What is made of the same text, mode and tenant is the same parsed policy again.
type reading struct {
	snapshots int
	policies  map[any]*readPolicy // by the object's address
	fences    map[any]*readIsolation
	dns       readDNS
	list      previous[*parsedPolicy]
	sorted    []*parsedPolicy
}

// readPolicy is a policy, and what it is in the mode of its namespace.
type readPolicy struct {
	text     *parsedPolicy
	mode     string
	inMode   *parsedPolicy
	snapshot int // the last that had it
}

// readIsolation is an isolation, and what it is for its tenants.
type readIsolation struct {
	text     *parsedIsolation
	rules    *readRules
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

// parseAll understands the snapshot's policies, in the order in which they are asked. One that stood in the snapshot before has been read.
func (r *reading) parseAll(c *cluster, s Snapshot) (parsed []*parsedPolicy, problems []Problem) {
	r.snapshots++
	parsed = make([]*parsedPolicy, 0, len(s.Policies)+len(s.ClusterPolicies))
	for _, np := range s.Policies {
		mode := ""
		if ns := c.namespaces[np.Namespace]; ns != nil {
			mode = ns.Mode
		}
		parsed = append(parsed, r.policy(np, mode, func() *parsedPolicy { return parse(np) }))
	}
	for _, cnp := range s.ClusterPolicies {
		parsed = append(parsed, r.policy(cnp, "", func() *parsedPolicy { return parseCluster(cnp) }))
	}
	forgetOlder(r.policies, len(s.Policies)+len(s.ClusterPolicies), func(p *readPolicy) bool { return p.snapshot == r.snapshots })
	if len(s.Isolations) > 0 {
		problems = append(problems, s.DNS.problems()...)
	}
	rules := r.dns.rulesOf(s.DNS)
	for _, ni := range s.Isolations {
		fence := r.isolation(ni, rules)
		problems = append(problems, fence.text.problems...)
		parsed = append(parsed, c.tenantsOf(fence)...)
	}
	forgetOlder(r.fences, len(s.Isolations), func(f *readIsolation) bool { return f.snapshot == r.snapshots })
	r.sort(parsed)
	for _, p := range r.sorted {
		problems = append(problems, p.problems...)
	}
	return r.sorted, problems
}

// policy is a policy in a mode of its namespace.
func (r *reading) policy(object any, mode string, read func() *parsedPolicy) *parsedPolicy {
	p := r.policies[object]
	if p == nil {
		p = &readPolicy{text: read()}
		p.inMode = p.text
		if r.policies == nil {
			r.policies = map[any]*readPolicy{}
		}
		r.policies[object] = p
	}
	p.snapshot = r.snapshots
	if p.mode != mode {
		p.mode, p.inMode = mode, p.text.inMode(mode)
	}
	return p.inMode
}

// isolation is an isolation with rules for the DNS.
func (r *reading) isolation(ni *v1alpha1.NamespaceIsolation, dns *readRules) *readIsolation {
	f := r.fences[ni]
	if f == nil {
		f = &readIsolation{text: parseIsolation(ni)}
		if r.fences == nil {
			r.fences = map[any]*readIsolation{}
		}
		r.fences[ni] = f
	}
	f.snapshot = r.snapshots
	if f.rules != dns {
		f.rules, f.withDNS, f.tenants = dns, f.text.withDNS(dns.rules), nil
	}
	return f
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

// forgetOlder drops what is no longer in use, where n things are.
func forgetOlder[T any](all map[any]T, n int, inUse func(T) bool) {
	if len(all) == n {
		return
	}
	for object, one := range all {
		if !inUse(one) {
			delete(all, object)
		}
	}
}

// sort sorts the policies. Those that were there before stand in their order already.
func (r *reading) sort(parsed []*parsedPolicy) {
	gone, come := r.list.compare(parsed)
	if len(gone)+len(come) == 0 {
		return
	}
	isGone := make(map[*parsedPolicy]bool, len(gone))
	for _, p := range gone {
		isGone[p] = true
	}
	slices.SortFunc(come, (*parsedPolicy).compare)
	sorted := make([]*parsedPolicy, 0, len(parsed))
	for _, p := range r.sorted {
		if isGone[p] {
			continue
		}
		for len(come) > 0 && come[0].compare(p) < 0 {
			sorted, come = append(sorted, come[0]), come[1:]
		}
		sorted = append(sorted, p)
	}
	r.sorted = append(sorted, come...)
}

// tenantsOf are an isolation's policies, one for each tenant with pods on the node.
func (c *cluster) tenantsOf(f *readIsolation) []*parsedPolicy {
	var policies []*parsedPolicy
	tenants := map[string]*parsedPolicy{}
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
		if tenants[part] != nil {
			continue
		}
		tenants[part] = f.tenants[part]
		if tenants[part] == nil {
			tenants[part] = f.withDNS.policyFor(ns)
		}
		policies = append(policies, tenants[part])
	}
	f.tenants = tenants
	return policies
}
