package cached

import (
	"maps"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// seenSelectors remembers what selectors of policies match, so that equal ones share their memory: most of a policy is maps of one label, each of
// which takes room for eight, and policies that one template made differ in little else. It forgets all of them when they are too many, which
// costs memory for copies and nothing else. It is safe for concurrent use.
type seenSelectors struct {
	mu     sync.Mutex
	byText map[string]map[string]string
}

const maxSelectors = 2048

// share makes a policy's selectors share their labels with others. Nobody writes to them from here on.
func (s *seenSelectors) share(spec *networkingv1.NetworkPolicySpec) {
	s.shareLabels(&spec.PodSelector)
	for _, r := range spec.Ingress {
		s.sharePeers(r.From)
	}
	for _, r := range spec.Egress {
		s.sharePeers(r.To)
	}
}

func (s *seenSelectors) sharePeers(peers []networkingv1.NetworkPolicyPeer) {
	for _, p := range peers {
		s.shareLabels(p.PodSelector)
		s.shareLabels(p.NamespaceSelector)
	}
}

func (s *seenSelectors) shareLabels(one *metav1.LabelSelector) {
	if one == nil || len(one.MatchLabels) == 0 {
		return
	}
	text := labels.Set(one.MatchLabels).String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if seen, ok := s.byText[text]; ok && maps.Equal(seen, one.MatchLabels) {
		one.MatchLabels = seen
		return
	}
	if s.byText == nil || len(s.byText) >= maxSelectors {
		s.byText = map[string]map[string]string{}
	}
	s.byText[text] = one.MatchLabels
}
