package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// LabelSelector selects by labels; empty selects everything. It reads as Kubernetes' own selector, and differs in what the
// API server knows of it: bounds and operators, so that a selector that no one could understand is refused.
type LabelSelector struct {
	// matchLabels are labels that must all be there with these values.
	//
	// +optional
	MatchLabels map[string]string `json:"matchLabels,omitempty"`
	// matchExpressions are conditions that must all hold.
	//
	// +optional
	// +listType=atomic
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelSelectorRequirement is a condition on one label.
type LabelSelectorRequirement struct {
	// key is the label's key.
	//
	// +required
	Key string `json:"key"`
	// operator is In, NotIn, Exists or DoesNotExist. NotIn and DoesNotExist also hold where the key is missing.
	//
	// +required
	Operator metav1.LabelSelectorOperator `json:"operator"`
	// values are those of In and NotIn; Exists and DoesNotExist have none.
	//
	// +optional
	// +listType=atomic
	Values []string `json:"values,omitempty"`
}

// Kubernetes is the selector as Kubernetes' own type.
func (s *LabelSelector) Kubernetes() *metav1.LabelSelector {
	if s == nil {
		return nil
	}
	out := &metav1.LabelSelector{MatchLabels: s.MatchLabels}
	for _, r := range s.MatchExpressions {
		out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement(r))
	}
	return out
}

// Selector is the selector, ready to match; nil, of a selector that is not there, matches nothing. The error says what cannot be
// understood.
func (s *LabelSelector) Selector() (labels.Selector, error) {
	return metav1.LabelSelectorAsSelector(s.Kubernetes())
}
