package v1alpha1

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// LabelSelector selects by labels; empty selects everything. It reads as Kubernetes' own selector, and differs in what the
// API server knows of it: bounds and operators, so that a selector that no one could understand is refused.
//
// The API server limits what the rules of a schema may cost in the worst case, and a policy has room for thousands of selectors. A
// rule that reads each character is therefore affordable for matchLabels only. In matchExpressions patterns do the same, which count
// for nothing there but cannot say what to write instead.
//
// +structType=atomic
// +kubebuilder:object:generate=false
type LabelSelector struct {
	// matchLabels are labels that must all be there with these values. At most 32.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(key, size(key) <= 317 && key.indexOf('/') <= 253 && key.matches('^(([a-z0-9]+(-+|[.]))*[a-z0-9]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="write keys of labels, such as app or example.com/app"
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`
	// matchExpressions are conditions that must all hold. At most 32.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelValue is the value of a label. It is the same type as string, so that selectors of either kind convert freely.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule=`self.matches(r'^([^\W_]([-.\w]*[^\W_])?)?$')`,message="write the value of a label, such as web or v1.2: letters, digits, and between them - _ . too"
type LabelValue = string

// LabelSelectorRequirement is a condition on one label.
//
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['In', 'NotIn']) || has(self.values) && size(self.values) > 0",message="In and NotIn need values"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",message="Exists and DoesNotExist take no values",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="self.key.indexOf('/') <= 253",message="write at most 253 characters in front of the / of a key",fieldPath=".key"
type LabelSelectorRequirement struct {
	// key is the label's key, such as app or example.com/app.
	//
	// +required
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:Pattern=`^(([a-z0-9]+(-+|[.]))*[a-z0-9]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`
	Key string `json:"key"`
	// operator is In, NotIn, Exists or DoesNotExist. NotIn and DoesNotExist also hold where the key is missing.
	//
	// +required
	// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
	Operator metav1.LabelSelectorOperator `json:"operator"`
	// values are those of In and NotIn, such as web or v1.2, at most 256; Exists and DoesNotExist have none.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`
	Values []string `json:"values,omitempty"`
}

// DeepCopyInto writes a copy of the selector that shares nothing with it. It stands here because the generator does not know what
// to do with a map of [LabelValue].
func (s *LabelSelector) DeepCopyInto(out *LabelSelector) {
	*out = LabelSelector{MatchLabels: maps.Clone(s.MatchLabels), MatchExpressions: slices.Clone(s.MatchExpressions)}
	for i, r := range s.MatchExpressions {
		r.DeepCopyInto(&out.MatchExpressions[i])
	}
}

// DeepCopy returns a copy of the selector that shares nothing with it.
func (s *LabelSelector) DeepCopy() *LabelSelector {
	if s == nil {
		return nil
	}
	out := new(LabelSelector)
	s.DeepCopyInto(out)
	return out
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
