package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// TestWhoWasSilentStaysSilent says what a new controller makes of a report that it finds, by what the one before has said of the node.
func TestWhoWasSilentStaysSilent(t *testing.T) {
	for _, c := range []struct {
		name     string
		previous []v1alpha1.NodeTrouble
		old      bool // nothing has been heard since the controller started
		heard    bool
	}{
		{"of which nothing was wrong", nil, true, true},
		{"that had fallen silent", []v1alpha1.NodeTrouble{{Name: "n", Standing: v1alpha1.NodeUnknown, Message: fallenSilent}}, true, false},
		{"that had fallen silent, and is heard of again", []v1alpha1.NodeTrouble{{Name: "n", Standing: v1alpha1.NodeUnknown, Message: fallenSilent}}, false, true},
		{"that had never reported, and has meanwhile", []v1alpha1.NodeTrouble{{Name: "n", Standing: v1alpha1.NodeUnknown, Message: neverReported}}, true, true},
		{"that failed", []v1alpha1.NodeTrouble{{Name: "n", Standing: v1alpha1.NodeFailing, Message: "refused"}}, true, true},
		{"beside one that had fallen silent", []v1alpha1.NodeTrouble{{Name: "m", Standing: v1alpha1.NodeUnknown, Message: fallenSilent}}, true, true},
	} {
		t.Run("a node "+c.name, func(t *testing.T) {
			n := &nodeCase{report: &reportEntry{}, heard: true, old: c.old}
			keepSilent(map[string]*nodeCase{"n": n}, &v1alpha1.EnforcementStatus{Nodes: v1alpha1.NodeCounts{NotProgrammed: c.previous}})
			if n.heard != c.heard {
				t.Errorf("heard of: %t, want %t", n.heard, c.heard)
			}
		})
	}
}

func TestHearing(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	h := hearing{nodes: map[string]heard{}}
	e := &reportEntry{ObjectMeta: metav1.ObjectMeta{Name: "n"}, interval: 10 * time.Second}
	type answer struct{ Recent, Old bool }
	at := func(after time.Duration) answer {
		recent, old := h.recent(e, start.Add(after))
		return answer{recent, old}
	}
	var got []answer
	got = append(got, at(0)) // nobody has noted it yet
	h.note(e, true, start)
	got = append(got, at(30*time.Second), at(31*time.Second))
	if !h.note(e, false, start.Add(40*time.Second)) {
		t.Error("a heartbeat after a silence is not called the first one")
	}
	got = append(got, at(41*time.Second))
	if h.note(e, false, start.Add(50*time.Second)) {
		t.Error("a heartbeat in its time is called the first one")
	}
	if diff := cmp.Diff([]answer{{true, true}, {true, true}, {false, true}, {true, false}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if lost := h.lost(start.Add(79*time.Second), start.Add(81*time.Second)); len(lost) != 1 {
		t.Errorf("fallen silent in the second after three heartbeats: %v", lost)
	}
}
