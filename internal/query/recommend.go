package query

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Observed is what was seen of a namespace's connections.
type Observed struct {
	Namespace string
	Report    v1alpha1.ConnectionReportStatus
	// Since leaves out what was seen last before it. Until is when it was asked.
	Since, Until time.Time
	// Unlisted are the namespaces whose pods could not be listed: that none is known there does not mean that there is none.
	Unlisted map[string]bool
	// Invented are addresses of pods that are not what nodes know the pods by.
	Invented map[netip.Addr]bool
}

// Recommendation are policies that allow what was seen, and deny all else that those allow which there are.
type Recommendation struct {
	// Notes say what was not seen, and then what else one should know before the policies are applied.
	Notes []string
	// Policies are in mode Audit. They are to be created, or to replace the one of the same name, which is part of it.
	Policies []*networkingv1.NetworkPolicy
	// Lacking is set if the policies may deny what passes: something was seen and is not allowed by them, or it is known that not all was seen.
	Lacking bool
}

// Recommend makes policies of what was seen.
//
// A connection that passes now is allowed at each of its ends that is a pod of the namespace. What policies deny now stays denied, though it was seen. The
// policies that there are stay, those in mode Audit as if they were enforced: what they allow needs no rule. A workload that they isolate in a direction, and
// that needs no rule in it, gets no policy for it.
func (c *Cluster) Recommend(o Observed) Recommendation {
	r := &recommending{Cluster: c, observed: o, subjects: map[string]map[string]*subject{}, wants: map[side]*wants{}, ranges: c.podRanges()}
	r.existing = c.underOwnPolicies(o.Namespace)
	for _, one := range o.Report.Connections {
		if one.Verdict != v1alpha1.ConnectionDenied && !one.LastTime.Time.Before(o.Since) {
			r.seen++
			r.take(one)
		}
	}
	var policies []*networkingv1.NetworkPolicy
	for _, s := range r.own() {
		if p := r.policyFor(s, policies); p != nil {
			policies = append(policies, p)
		}
	}
	return Recommendation{Notes: r.allNotes(), Policies: policies, Lacking: r.lacks()}
}

// recommending is a Recommendation under way.
type recommending struct {
	*Cluster
	observed Observed
	existing *Cluster                       // with the namespace's policies alone, enforced; nil if there are none
	subjects map[string]map[string]*subject // by namespace and workload
	wants    map[side]*wants
	ranges   []netip.Prefix // of pods
	seen     int
	fromNode int // connections from the pods' own nodes
	notes    notes
}

// side is one direction of a subject.
type side struct {
	*subject
	policy.Direction
}

// wants are what is to be allowed at a side.
type wants struct {
	peers map[string]*peerPorts // pods, by their selector
	addrs map[Port]map[netip.Addr]bool
}

// peerPorts are the ports that a peer needs.
type peerPorts struct {
	networkingv1.NetworkPolicyPeer
	ports map[Port]bool
}

// underOwnPolicies is the cluster with nothing but the policies of a namespace, all of them enforced; nil if there are none.
func (c *Cluster) underOwnPolicies(namespace string) *Cluster {
	o := c.parts.Objects
	o.Policies, o.ClusterPolicies, o.Isolations = nil, nil, nil
	for _, p := range c.parts.Policies {
		if p.Namespace != namespace {
			continue
		}
		p = p.DeepCopy()
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[v1alpha1.ModeAnnotation] = string(v1alpha1.Enforce)
		o.Policies = append(o.Policies, p)
	}
	if len(o.Policies) == 0 {
		return nil
	}
	return New(o)
}

// own are the subjects of the namespace, by their first workload.
func (r *recommending) own() []*subject {
	var all []*subject
	subjects := r.subjectsOf(r.observed.Namespace)
	for _, w := range sortedKeys(subjects) {
		if s := subjects[w]; s.workloads[0] == w {
			all = append(all, s)
		}
	}
	return all
}

// take takes in a connection that was seen.
func (r *recommending) take(o v1alpha1.ReportedConnection) {
	from, to := r.partyOf(o.From), r.partyOf(o.To)
	port, ok := portSeen(o.ObservedConnection)
	text := fmt.Sprintf("%s to %s on %s", from.name, to.name, port)
	switch {
	case !ok:
		r.notes.left = append(r.notes.left, fmt.Sprintf("%s to %s by %s: a NetworkPolicy allows that only with all ports. "+
			"A ClusterNetworkPolicy can allow it alone", from.name, to.name, strings.ToLower(o.Protocol)))
		return
	case from.isGone() || to.isGone():
		r.gone(from, to, text)
		return
	case r.isFromOwnNode(o, from):
		r.fromNode++
		return
	case r.isDenied(from, to, port):
		r.notes.denied = append(r.notes.denied, text)
		return
	}
	ports := []Port{port}
	if r.isDNS(to, port) {
		ports = []Port{{policy.UDP, port.Number}, {policy.TCP, port.Number}}
	}
	for _, p := range ports {
		r.want(from, to, p, policy.Egress)
		r.want(to, from, p, policy.Ingress)
	}
}

// gone notes that nothing can be said about a connection.
func (r *recommending) gone(from, to party, text string) {
	for _, p := range []party{from, to} {
		if p.isGone() {
			r.notes.left = append(r.notes.left, fmt.Sprintf("%s: %s has no pod now, so that its labels are not known. Ask again while it runs", text, p.name))
			return
		}
	}
}

// portSeen is where a connection went to. It reports false for what the rules of a NetworkPolicy cannot say.
func portSeen(o v1alpha1.ObservedConnection) (Port, bool) {
	p := Port{Protocol: ProtocolNamed(strings.ToLower(o.Protocol)), Number: uint16(o.Port)}
	return p, p.Protocol.HasPorts() && o.Port > 0 && o.Port <= lastPort
}

// isFromOwnNode reports whether a node has reached a pod of its own, such as its kubelet that probes it: that is always allowed. The nodes that have seen it
// tell; several have seen several pods. Without them the pod's node does.
func (r *recommending) isFromOwnNode(o v1alpha1.ReportedConnection, from party) bool {
	nodes := o.Nodes
	if pod := r.podOf(o.To); len(nodes) == 0 && pod != nil {
		nodes = []string{pod.Spec.NodeName}
	}
	return from.node != "" && slices.Equal(nodes, []string{from.node})
}

// mostPods is of how many pods of a workload it is asked whether one reaches another now.
const mostPods = 8

// isDenied reports whether policies that are enforced deny a connection now between all pods of two workloads that are asked about. What an end is whose pods
// nobody may list cannot be asked.
func (r *recommending) isDenied(from, to party, port Port) bool {
	asked := 0
	if from.whole != "" || to.whole != "" {
		return false
	}
	for _, src := range from.ends[:min(mostPods, len(from.ends))] {
		for _, dst := range to.ends[:min(mostPods, len(to.ends))] {
			for a, b := range pairs(src, dst) {
				if r.allows(a, b, port) {
					return false
				}
				asked++
			}
		}
	}
	return asked > 0
}

// pairs are two ends by their addresses of one family.
func pairs(src, dst End) func(yield func(src, dst End) bool) {
	return func(yield func(src, dst End) bool) {
		for _, a := range src.Addrs {
			for _, b := range dst.Addrs {
				src, dst := src, dst
				src.Addrs, dst.Addrs = []netip.Addr{a}, []netip.Addr{b}
				if a.Is4() == b.Is4() && !yield(src, dst) {
					return
				}
			}
		}
	}
}

// want notes what one end is to allow, if policies of the namespace are about it, and there is no rule that does.
func (r *recommending) want(local, remote party, port Port, d policy.Direction) {
	s := local.subject
	if s == nil || s.namespace != r.observed.Namespace {
		return
	}
	w := r.wants[side{s, d}]
	if w == nil {
		w = &wants{map[string]*peerPorts{}, map[Port]map[netip.Addr]bool{}}
		r.wants[side{s, d}] = w
	}
	if r.hasRule(local, remote, port, d) {
		return
	}
	if remote.subject == nil && remote.whole == "" {
		if w.addrs[port] == nil {
			w.addrs[port] = map[netip.Addr]bool{}
		}
		w.addrs[port][remote.addr] = true
		r.noteAddr(remote)
		return
	}
	peer, key := networkingv1.NetworkPolicyPeer{NamespaceSelector: namespaceSelector(remote.whole)}, remote.whole
	if remote.subject != nil {
		peer, key = remote.subject.asPeer(s.namespace), fmt.Sprint(remote.subject.namespace, remote.subject.labels)
		if s.namespace == remote.subject.namespace {
			key = fmt.Sprint(remote.subject.labels) // they come first
		}
		r.notePeer(remote)
	} else {
		r.notes.whole = append(r.notes.whole, remote.whole)
	}
	if w.peers[key] == nil {
		w.peers[key] = &peerPorts{peer, map[Port]bool{}}
	}
	w.peers[key].ports[port] = true
}

// hasRule reports whether rules of the policies that there are allow a connection at all pods of the local end.
func (r *recommending) hasRule(local, remote party, port Port, d policy.Direction) bool {
	if r.existing == nil || remote.whole != "" {
		return false
	}
	asked := 0
	for _, l := range local.ends {
		for _, o := range remote.ends {
			for a, b := range pairs(l, o) {
				f := r.existing.flow(ask{a, b, d}, a.Addrs[0], b.Addrs[0], port)
				if d == policy.Ingress {
					f = r.existing.flow(ask{a, b, d}, b.Addrs[0], a.Addrs[0], port)
				}
				if f.FromNode || a.Name == b.Name {
					continue
				}
				decision, ok := r.existing.node(l.Node).Decide(f, d)
				if !ok || decision.Ground != policy.RuleMatches || !decision.Allowed {
					return false
				}
				asked++
			}
		}
	}
	return asked > 0
}

// isIsolatedAlready reports whether policies that there are isolate all pods of a subject.
func (r *recommending) isIsolatedAlready(s *subject, d policy.Direction) bool {
	asked := 0
	for _, p := range s.pods {
		e := endAt(p)
		if r.existing == nil || len(e.Addrs) > 0 && !r.existing.isIsolated(e, d) {
			return false
		}
		asked += len(e.Addrs)
	}
	return asked > 0
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// joined are some names as a sentence has them: "a, b and c".
func joined(names []string) string {
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}
