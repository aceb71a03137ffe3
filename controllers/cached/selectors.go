package cached

import (
	"maps"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// selectors remembers what selectors of policies match, so that equal ones share their memory: most of a policy is maps of one label, each of
// which takes room for eight, and policies that one template made differ in little else. It forgets all of them when they are too many, which
// costs memory for copies and nothing else.
var selectors struct {
	mu     sync.Mutex
	byText map[string]map[string]string
}

const maxSelectors = 2048

// shareSelectors makes a policy's selectors share their labels with others. Nobody writes to them from here on.
func shareSelectors(spec *networkingv1.NetworkPolicySpec) {
	shareLabels(&spec.PodSelector)
	for _, r := range spec.Ingress {
		sharePeers(r.From)
	}
	for _, r := range spec.Egress {
		sharePeers(r.To)
	}
}

func sharePeers(peers []networkingv1.NetworkPolicyPeer) {
	for _, p := range peers {
		shareLabels(p.PodSelector)
		shareLabels(p.NamespaceSelector)
	}
}

func shareLabels(s *metav1.LabelSelector) {
	if s == nil || len(s.MatchLabels) == 0 {
		return
	}
	text := labels.Set(s.MatchLabels).String()
	selectors.mu.Lock()
	defer selectors.mu.Unlock()
	if seen, ok := selectors.byText[text]; ok && maps.Equal(seen, s.MatchLabels) {
		s.MatchLabels = seen
		return
	}
	if selectors.byText == nil || len(selectors.byText) >= maxSelectors {
		selectors.byText = map[string]map[string]string{}
	}
	selectors.byText[text] = s.MatchLabels
}
