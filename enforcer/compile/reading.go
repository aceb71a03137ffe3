package compile

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// reading is the policies of the last snapshot, as they were read. What is made of the same text, mode and tenant is the same parsed policy again.
type reading struct {
	snapshots  int
	policies   map[any]*readPolicy // by the object's address
	isolations map[any]*readIsolation
	dns        readDNS

	come, gone []*parsedPolicy // since the last snapshot
	sorted     []*parsedPolicy // in the order in which they are asked; a new list with each change
	problems   []Problem       // of these
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

// parseAll understands the snapshot's policies, in the order in which they are asked. One that stood in the snapshot before has been read.
func (r *reading) parseAll(c *cluster, s Snapshot) (parsed []*parsedPolicy, problems []Problem) {
	r.snapshots++
	for _, np := range s.Policies {
		mode := ""
		if ns := c.namespaces[np.Namespace]; ns != nil {
			mode = ns.Mode
		}
		r.policy(np, mode, func() *parsedPolicy { return parse(np) })
	}
	for _, cnp := range s.ClusterPolicies {
		r.policy(cnp, "", func() *parsedPolicy { return parseCluster(cnp) })
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
	r.sort()
	return r.sorted, append(problems, r.problems...)
}

// policy reads a policy, and puts it in a mode of its namespace.
func (r *reading) policy(object any, mode string, read func() *parsedPolicy) {
	p := r.policies[object]
	if p == nil {
		p = &readPolicy{text: read()}
		p.inMode = p.text.inMode(mode)
		p.mode = mode
		if r.policies == nil {
			r.policies = map[any]*readPolicy{}
		}
		r.policies[object] = p
		r.come = append(r.come, p.inMode)
	}
	p.snapshot = r.snapshots
	if p.mode != mode {
		was := p.inMode
		p.mode, p.inMode = mode, p.text.inMode(mode)
		if p.inMode != was {
			r.come, r.gone = append(r.come, p.inMode), append(r.gone, was)
		}
	}
}

// isolation reads an isolation.
func (r *reading) isolation(ni *v1alpha1.NamespaceIsolation) *readIsolation {
	f := r.isolations[ni]
	if f == nil {
		f = &readIsolation{text: parseIsolation(ni)}
		if r.isolations == nil {
			r.isolations = map[any]*readIsolation{}
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
	if len(r.policies) > len(s.Policies)+len(s.ClusterPolicies) {
		for object, p := range r.policies {
			if p.snapshot != r.snapshots {
				delete(r.policies, object)
				r.gone = append(r.gone, p.inMode)
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
	if len(gone)+len(come) == 0 {
		return
	}
	isGone := make(map[*parsedPolicy]bool, len(gone))
	for _, p := range gone {
		isGone[p] = true
	}
	slices.SortFunc(come, (*parsedPolicy).compare)
	sorted := make([]*parsedPolicy, 0, len(r.sorted)+len(come))
	for _, p := range r.sorted {
		if isGone[p] {
			continue
		}
		for len(come) > 0 && come[0].compare(p) < 0 {
			sorted, come = append(sorted, come[0]), come[1:]
		}
		sorted = append(sorted, p)
	}
	r.sorted, r.problems = append(sorted, come...), nil
	for _, p := range r.sorted {
		r.problems = append(r.problems, p.problems...)
	}
}
