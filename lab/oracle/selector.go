package oracle

import (
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// selects reports whether a label selector matches labels. "The requirements are ANDed"; without any it
// matches everything. An invalid selector matches nothing.
func selects(s metav1.LabelSelector, labels map[string]string) bool {
	if !valid(s) {
		return false
	}
	for key, value := range s.MatchLabels {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	for _, r := range s.MatchExpressions {
		if !meets(r, labels) {
			return false
		}
	}
	return true
}

// meets evaluates one requirement. An absent key is in no set of values, so that NotIn matches it.
func meets(r metav1.LabelSelectorRequirement, labels map[string]string) bool {
	got, present := labels[r.Key]
	listed := false
	for _, v := range r.Values {
		if present && got == v {
			listed = true
		}
	}
	switch r.Operator {
	case metav1.LabelSelectorOpIn:
		return listed
	case metav1.LabelSelectorOpNotIn:
		return !listed
	case metav1.LabelSelectorOpExists:
		return present
	case metav1.LabelSelectorOpDoesNotExist:
		return !present
	}
	return false
}

// valid reports whether the API text gives every requirement a meaning: "If the operator is In or NotIn,
// the values array must be non-empty. If the operator is Exists or DoesNotExist, the values array must be
// empty." Keys and values must have the syntax of labels.
func valid(s metav1.LabelSelector) bool {
	for key, value := range s.MatchLabels {
		if !isLabelKey(key) || !isLabelValue(value) {
			return false
		}
	}
	for _, r := range s.MatchExpressions {
		if !isLabelKey(r.Key) {
			return false
		}
		switch r.Operator {
		case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
			if len(r.Values) == 0 {
				return false
			}
		case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
			if len(r.Values) != 0 {
				return false
			}
		default:
			return false
		}
		for _, v := range r.Values {
			if !isLabelValue(v) {
				return false
			}
		}
	}
	return true
}

var (
	labelWord = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

// isLabelKey reports a name of at most 63 characters, optionally after a DNS subdomain and a slash.
func isLabelKey(key string) bool {
	name := key
	if prefix, rest, ok := strings.Cut(key, "/"); ok {
		if len(prefix) > 253 || !subdomain.MatchString(prefix) {
			return false
		}
		name = rest
	}
	return len(name) <= 63 && labelWord.MatchString(name)
}

// isLabelValue reports the empty string or a name of at most 63 characters.
func isLabelValue(value string) bool {
	return value == "" || len(value) <= 63 && labelWord.MatchString(value)
}
