package compile

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEqualListsAreOne(t *testing.T) {
	web := NewLabels(map[string]string{"app": "web", "tier": "front"})
	again := NewLabels(map[string]string{"tier": "front", "app": "web"})
	other := NewLabels(map[string]string{"app": "web", "tier": "back"})
	if &web[0] != &again[0] {
		t.Error("equal labels take memory twice")
	}
	if diff := cmp.Diff(Labels{{"app", "web"}, {"tier", "back"}}, other); diff != "" {
		t.Errorf("other labels (-want +got):\n%s", diff)
	}
}

func TestListsThatAreForgottenStayAsTheyAre(t *testing.T) {
	first := NewLabels(map[string]string{"app": "web"})
	for i := range 2 * maxLists {
		NewLabels(map[string]string{"pod": fmt.Sprint(i)})
	}
	if n := len(labelLists.byHash); n > maxLists {
		t.Errorf("%d lists are remembered, want at most %d", n, maxLists)
	}
	if diff := cmp.Diff(first, NewLabels(map[string]string{"app": "web"})); diff != "" {
		t.Errorf("the same labels, seen later (-want +got):\n%s", diff)
	}
}
