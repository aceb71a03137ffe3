package compile

import (
	"cmp"
	"slices"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// View is the cluster as [Understood.Review] sees it.
type View struct {
	Namespaces      map[string]*Namespace
	Pods            func(namespace string) []*Pod // of one namespace
	Nodes           []*Node
	ClusterPolicies []*Understood // all ClusterNetworkPolicies, to find those of the same tier and priority
}

// Remark is something about a policy that its author should know.
type Remark struct {
	Reason string // one of the reasons of [v1alpha1.AcceptedCondition]
	Field  string // path; empty if it is about the whole
	Detail string // what it means, and what to write instead
}

// severity is the order in which api/v1alpha1 lists the reasons.
var severity = []string{
	v1alpha1.NotUnderstoodReason, v1alpha1.ConflictingReason, v1alpha1.NeverMatchesReason, v1alpha1.UnknownPortReason, v1alpha1.SelectsNothingReason,
}

// Review returns remarks, the most serious first, then by field. None: there is nothing to say.
func (u *Understood) Review(v View) []Remark {
	var remarks []Remark
	for _, p := range u.policy.problems {
		remarks = append(remarks, Remark{v1alpha1.NotUnderstoodReason, p.Field, p.Detail})
	}
	slices.SortStableFunc(remarks, func(a, b Remark) int {
		return cmp.Or(cmp.Compare(slices.Index(severity, a.Reason), slices.Index(severity, b.Reason)), cmp.Compare(a.Field, b.Field))
	})
	return remarks
}
