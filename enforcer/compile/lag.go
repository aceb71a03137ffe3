package compile

import (
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Lag is what of a snapshot decides which NetworkPolicies are in force on its node, and for whom: these policies, and the pods of the node as far as they are
// selected by something.
type Lag struct {
	policies []*networkingv1.NetworkPolicy
	pods     map[string]*Pod // of the node, by UID
}

// Lag is that of s.
func (s Snapshot) Lag() Lag {
	l := Lag{policies: slices.Collect(s.Policies.All()), pods: make(map[string]*Pod, len(s.Local))}
	for _, p := range s.Local {
		l.pods[p.UID] = p
	}
	return l
}

// Of is the part of l that is of some namespaces.
func (l Lag) Of(namespaces map[string]bool) Lag {
	some := Lag{pods: map[string]*Pod{}}
	for _, p := range l.policies {
		if namespaces[p.Namespace] {
			some.policies = append(some.policies, p)
		}
	}
	for uid, p := range l.pods {
		if namespaces[p.Namespace] {
			some.pods[uid] = p
		}
	}
	return some
}

// And is l with what is in o, which is of other namespaces.
func (l Lag) And(o Lag) Lag {
	both := Lag{policies: slices.Concat(l.policies, o.policies), pods: maps.Clone(o.pods)}
	maps.Copy(both.pods, l.pods)
	return both
}

// Lagging is s with that of some namespaces as it was, as if the API had shown later what has become of it: their NetworkPolicies, and what their pods on the
// node are selected by. A pod that was not there yet is as it is, and so is all else.
func (s Snapshot) Lagging(namespaces map[string]bool, l Lag) Snapshot {
	if len(namespaces) == 0 {
		return s
	}
	l = l.Of(namespaces)
	for p := range s.Policies.All() {
		if namespaces[p.Namespace] {
			s.Policies = s.Policies.Without(p.Namespace, p.Name)
		}
	}
	for _, p := range l.policies {
		s.Policies = s.Policies.With(p)
	}
	cloned := false
	for i, p := range s.Local {
		was := l.pods[p.UID]
		if was == nil || was.Namespace != p.Namespace || p.isSelectedAs(was) {
			continue
		}
		if !cloned {
			s.Local, cloned = slices.Clone(s.Local), true
		}
		q := *p
		q.Labels, q.Ports = was.Labels, was.Ports
		s.Local[i] = &q
	}
	return s
}

// isSelectedAs reports whether the same policies select both states of a pod, and mean the same by its named ports.
func (p *Pod) isSelectedAs(o *Pod) bool {
	return slices.Equal(p.Labels, o.Labels) && slices.Equal(p.Ports, o.Ports)
}

// HasNothingNew reports whether all that l has of a namespace is also in before: the very same policies, and pods that are selected as they were.
func (l Lag) HasNothingNew(before Lag, namespace string) bool {
	is, was := l.Of(map[string]bool{namespace: true}), before.Of(map[string]bool{namespace: true})
	for uid, p := range is.pods {
		if o := was.pods[uid]; o != nil && !p.isSelectedAs(o) {
			return false
		}
	}
	return !slices.ContainsFunc(is.policies, func(p *networkingv1.NetworkPolicy) bool { return !slices.Contains(was.policies, p) })
}

// HasOneOf reports whether l has a NetworkPolicy of a namespace, in whatever version, or the very labels of a pod, that after has and before has not.
func (l Lag) HasOneOf(before, after Lag, namespace string) bool {
	one := map[string]bool{namespace: true}
	was, came, is := before.Of(one), after.Of(one), l.Of(one)
	for uid, p := range came.pods {
		if o, now := was.pods[uid], is.pods[uid]; o != nil && now != nil && !p.isSelectedAs(o) && now.isSelectedAs(p) {
			return true
		}
	}
	return slices.ContainsFunc(came.policies, func(p *networkingv1.NetworkPolicy) bool {
		return !slices.Contains(was.policies, p) &&
			slices.ContainsFunc(is.policies, func(q *networkingv1.NetworkPolicy) bool { return q.UID == p.UID && q.Name == p.Name })
	})
}

// HasPolicy reports whether l has a NetworkPolicy of a namespace that which is true for.
func (l Lag) HasPolicy(namespace string, which func(policy.Ref) bool) bool {
	return slices.ContainsFunc(l.policies, func(p *networkingv1.NetworkPolicy) bool { return p.Namespace == namespace && which(refOf(p)) })
}
