package compile

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestEqualListsAreOne(t *testing.T) {
	var i Interner
	web := i.Labels(NewLabels(map[string]string{"app": "web", "tier": "front"}))
	again := i.Labels(NewLabels(map[string]string{"tier": "front", "app": "web"}))
	other := i.Labels(NewLabels(map[string]string{"app": "web", "tier": "back"}))
	if &web[0] != &again[0] {
		t.Error("equal labels take memory twice")
	}
	if diff := cmp.Diff(Labels{{"app", "web"}, {"tier", "back"}}, other); diff != "" {
		t.Errorf("other labels (-want +got):\n%s", diff)
	}
}

func TestListsThatAreForgottenStayAsTheyAre(t *testing.T) {
	var in Interner
	first := in.Labels(NewLabels(map[string]string{"app": "web"}))
	for i := range 2 * maxLists {
		in.Labels(NewLabels(map[string]string{"pod": fmt.Sprint(i)}))
	}
	if n := len(in.labels.byHash); n > maxLists {
		t.Errorf("%d lists are remembered, want at most %d", n, maxLists)
	}
	if diff := cmp.Diff(first, in.Labels(NewLabels(map[string]string{"app": "web"}))); diff != "" {
		t.Errorf("the same labels, seen later (-want +got):\n%s", diff)
	}
}

func TestPodsWithEqualPortsShareThem(t *testing.T) {
	var i Interner
	pod := func(name string, port uint16) *Pod {
		return i.Pod(&Pod{Name: name, Labels: NewLabels(map[string]string{"app": "web"}), Ports: []NamedPort{{"http", policy.TCP, port}}})
	}
	first, second, other := pod("a", 80), pod("b", 80), pod("c", 81)
	if &first.Ports[0] != &second.Ports[0] || &first.Labels[0] != &second.Labels[0] {
		t.Error("equal pods take memory twice")
	}
	if diff := cmp.Diff([]NamedPort{{"http", policy.TCP, 81}}, other.Ports); diff != "" {
		t.Errorf("another port (-want +got):\n%s", diff)
	}
	if portless := i.Pod(&Pod{Name: "d"}); portless.Ports != nil {
		t.Errorf("a pod without ports has %v", portless.Ports)
	}
}
