package compile

import (
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"
)

// parts are the selectors that must all match.
func (s podSelector) parts() []labels.Selector {
	if s.namespaces == nil {
		return []labels.Selector{s.pods}
	}
	return []labels.Selector{s.namespaces, s.pods}
}

// covers reports whether s certainly selects every pod that o does.
func (s podSelector) covers(o podSelector) bool {
	if s.namespaces == nil || o.namespaces == nil {
		return s.namespaces == nil && o.namespaces == nil && s.namespace == o.namespace && covers(s.pods, o.pods)
	}
	return covers(s.namespaces, o.namespaces) && covers(s.pods, o.pods)
}

// contradiction is the requirements about one key that no labels satisfy together, as a text; empty if some labels satisfy s.
func contradiction(s labels.Selector) string {
	byKey := requirementsByKey(s)
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		if !satisfiable(byKey[key]) {
			return selectorText(labels.NewSelector().Add(byKey[key]...))
		}
	}
	return ""
}

func requirementsByKey(s labels.Selector) map[string][]labels.Requirement {
	byKey := map[string][]labels.Requirement{}
	requirements, _ := s.Requirements()
	for _, r := range requirements {
		byKey[r.Key()] = append(byKey[r.Key()], r)
	}
	return byKey
}

// satisfiable reports whether a label, or its absence, satisfies all of the requirements, which are about one key. An operator that no
// LabelSelector of the API has is taken to be satisfied.
func satisfiable(requirements []labels.Requirement) bool {
	var present, absent bool
	var oneOf sets.Set[string] // nil is any
	noneOf := sets.New[string]()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			present = true
			values := sets.New(r.ValuesUnsorted()...)
			if oneOf != nil {
				values = values.Intersection(oneOf)
			}
			oneOf = values
		case selection.NotIn, selection.NotEquals:
			noneOf.Insert(r.ValuesUnsorted()...)
		case selection.Exists:
			present = true
		case selection.DoesNotExist:
			absent = true
		}
	}
	return !(present && absent) && (oneOf == nil || !noneOf.IsSuperset(oneOf))
}

// covers reports whether s certainly matches all labels that o does: whether for each requirement of s its opposite contradicts o.
func covers(s, o labels.Selector) bool {
	required, selectable := s.Requirements()
	if !selectable {
		return false
	}
	byKey := requirementsByKey(o)
	for _, r := range required {
		opposite, ok := negation(r)
		if !ok || satisfiable(append(slices.Clip(byKey[r.Key()]), opposite)) {
			return false
		}
	}
	return true
}

// opposites are the operators that hold exactly where another does not: a missing label satisfies NotIn.
var opposites = map[selection.Operator]selection.Operator{
	selection.In: selection.NotIn, selection.Equals: selection.NotIn, selection.DoubleEquals: selection.NotIn,
	selection.NotIn: selection.In, selection.NotEquals: selection.In,
	selection.Exists: selection.DoesNotExist, selection.DoesNotExist: selection.Exists,
}

func negation(r labels.Requirement) (labels.Requirement, bool) {
	operator, ok := opposites[r.Operator()]
	if !ok {
		return r, false
	}
	opposite, err := labels.NewRequirement(r.Key(), operator, r.ValuesUnsorted())
	if err != nil {
		return r, false
	}
	return *opposite, true
}

// within reports whether every address of inner is one of outer.
func within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Overlaps(inner)
}
