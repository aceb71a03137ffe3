package node

import (
	"testing"
	"time"

	toolscache "k8s.io/client-go/tools/cache"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// TestNodesAreAskedForTheirRangesWhereOthersContestAnAddress, and not otherwise; nobody waits for them.
func TestNodesAreAskedForTheirRangesWhereOthersContestAnAddress(t *testing.T) {
	begun := 0
	w := &watches{begin: func(cached.Target) (*cached.Watch, error) {
		begun++
		return &cached.Watch{Target: allNodes, Handler: never{}, Stop: func() { begun-- }}, nil
	}}
	now := time.Now()
	for _, tt := range []struct {
		contested bool
		ago       time.Duration
		want      int
	}{{false, 0, 0}, {true, rangesKept / 2, 1}, {true, rangesKept / 2, 1}, {false, 0, 1}} {
		if err := w.askRanges(tt.contested, now.Add(-tt.ago)); err != nil || begun != tt.want {
			t.Errorf("%+v: %d watches, %v", tt, begun, err)
		}
		if late, err := w.fillNodes(&compile.Snapshot{}); late || err != nil || begun != tt.want {
			t.Errorf("%+v: a snapshot waits for them: %t, %v; %d watches", tt, late, err, begun)
		}
	}
	w.asked = now.Add(-rangesKept)
	if _, err := w.fillNodes(&compile.Snapshot{}); err != nil || begun != 0 {
		t.Errorf("long after: %d watches, %v", begun, err)
	}
}

// never has not synced.
type never struct {
	toolscache.ResourceEventHandlerRegistration
}

func (never) HasSynced() bool { return false }
