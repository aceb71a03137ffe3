// Package reach finds the namespaces whose pods a node has to know: those that the policies of its own pods can name as peers. Other pods of the cluster
// change nothing that the node enforces.
//
// Invariants:
//   - a node that knows its own pods and those of the namespaces which it reaches enforces what it would if it knew all pods (TestWhatIsReachedIsEnough);
//   - what is in doubt is reached: a namespace too many costs a watch, and one too few would open or close something;
//   - labels of pods do not count, so that a pod which changes its labels changes nothing here; nor do addresses, so that a pod which has just been bound to
//     the node counts before it has any;
//   - a named port means what the pod at the destination means by it. An egress rule that names one, and no pods beside it, reaches all namespaces.
//
// It does not answer who has an address that pods of several nodes claim: only all pods of the cluster do (docs/adr/0025).
package reach

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Finder finds the namespaces that one snapshot of a node after the other reaches. It looks again only when policies, namespaces, or the set of namespaces
// with pods on the node have changed: what happens to other nodes' pods costs nothing. The zero value is ready to use, by one goroutine at a time.
type Finder struct {
	last  inputs
	names []string
	known bool
}

// Of are the names of these namespaces, sorted. Of the snapshot's pods it looks at the node's own only. Nobody may write to what it returns.
func (f *Finder) Of(s compile.Snapshot) []string {
	now := inputs{
		here: namespacesHere(s), namespaces: s.Namespaces, policies: s.Policies, clusterPolicies: s.ClusterPolicies, isolations: s.Isolations,
		services: s.DNS.Services,
	}
	if !f.known || !now.equal(&f.last) {
		f.last, f.names, f.known = now, now.find(), true
	}
	return f.names
}

// Of are the namespaces that a snapshot reaches.
func Of(s compile.Snapshot) []string { return new(Finder).Of(s) }

// inputs are what the answer follows from.
type inputs struct {
	here            []string // sorted
	namespaces      compile.Objects[*compile.Namespace]
	policies        compile.Objects[*networkingv1.NetworkPolicy]
	clusterPolicies []*v1alpha1.ClusterNetworkPolicy
	isolations      []*v1alpha1.NamespaceIsolation
	services        []*corev1.Service
}

// namespacesHere are those with a pod on the node that a policy may be about.
func namespacesHere(s compile.Snapshot) []string {
	names := map[string]bool{}
	for _, p := range s.Local {
		if !p.HostNetwork && !p.Finished {
			names[p.Namespace] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// equal reports whether the very same objects are in both.
func (i *inputs) equal(o *inputs) bool {
	return slices.Equal(i.here, o.here) && isSame(i.namespaces, o.namespaces) && isSame(i.policies, o.policies) &&
		sameObjects(i.clusterPolicies, o.clusterPolicies) && sameObjects(i.isolations, o.isolations) && sameObjects(i.services, o.services)
}

func isSame[T compile.Named](a, b compile.Objects[T]) bool {
	gone, come := a.Since(b)
	return len(gone)+len(come) == 0
}

// sameObjects compares lists that come in any order.
func sameObjects[T comparable](a, b []T) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(one T) bool { return !slices.Contains(b, one) })
}

// find looks at all policies that may be about a pod of the node.
func (i *inputs) find() []string {
	r := reached{all: slices.Collect(i.namespaces.All()), names: map[string]bool{}, matching: map[string][]*compile.Namespace{}}
	for _, name := range i.here {
		ns, ok := i.namespaces.Get("", name)
		if !ok {
			ns = &compile.Namespace{Name: name} // the API has not shown it: its NetworkPolicies are in force all the same
		}
		r.here = append(r.here, ns)
	}
	for p := range i.policies.All() {
		if _, here := slices.BinarySearch(i.here, p.Namespace); here {
			r.addPolicy(p)
		}
	}
	for _, p := range i.clusterPolicies {
		if r.isSubject(&p.Spec.Subject) {
			r.addClusterPolicy(p)
		}
	}
	for _, one := range i.isolations {
		r.addIsolation(one, i.services)
	}
	return slices.Sorted(maps.Keys(r.names))
}
