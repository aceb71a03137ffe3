package compile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// podSelector selects pods, in the namespaces that match, or in one namespace if namespaces is nil.
type podSelector struct {
	namespace  string
	namespaces labels.Selector
	pods       labels.Selector
	id         policy.SetID // of its addresses; once it is settled, as the next
	within     string       // namespaces as a text
}

// selects does not ask whether policy can see the pod.
func (s podSelector) selects(p *Pod, ns *Namespace) bool {
	if s.namespaces == nil {
		return p.Namespace == s.namespace && s.pods.Matches(&p.Labels)
	}
	return ns != nil && s.namespaces.Matches(&ns.Labels) && s.pods.Matches(&p.Labels)
}

// setID is that of the set of the selected pods' addresses.
func (s podSelector) setID() policy.SetID {
	if s.id != "" {
		return s.id
	}
	return setID("addresses", s.scope(), selectorText(s.pods))
}

// scope names the namespaces in which s selects.
func (s podSelector) scope() string {
	if s.namespaces == nil {
		return "namespace " + strconv.Quote(s.namespace)
	}
	return "namespaces " + selectorText(s.namespaces)
}

// never says why s can select no pod, empty if it can.
func (s podSelector) never() string {
	for _, part := range s.parts() {
		if texts := contradiction(part); texts != "" {
			return fmt.Sprintf("no labels satisfy %q", texts)
		}
	}
	return ""
}

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

// valuesOf is how many values a selector compares labels with.
func valuesOf(s labels.Selector) int {
	requirements, _ := s.Requirements()
	n := len(requirements)
	for i := range requirements {
		n += len(requirements[i].ValuesUnsorted())
	}
	return n
}
