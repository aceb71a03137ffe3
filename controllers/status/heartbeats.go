package status

import (
	"sync"
	"time"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// heartbeats says which nodes have been heard of, by this process's clock: nodes' own clocks may differ from it and from each other's. A node that was
// there before the controller is presumed to be heard of when the controller first sees its report.
type heartbeats struct {
	mu    sync.Mutex
	nodes map[string]heartbeat
}

type heartbeat struct {
	at     time.Time     // that the last heartbeat was seen
	silent time.Duration // after which the node is not heard of any more

	presumed bool // the heartbeat was there before this process, and may be of any age
}

// note takes in a report, and says whether the node was not heard of before.
func (h *heartbeats) note(e *cached.ReportEntry, now time.Time) (again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, known := h.nodes[e.Name]
	h.nodes[e.Name] = heartbeatAt(e, now)
	return !known || now.Sub(before.at) > before.silent
}

// presume takes in a report that was there before this process.
func (h *heartbeats) presume(e *cached.ReportEntry, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := heartbeatAt(e, now)
	n.presumed = true
	h.nodes[e.Name] = n
}

func heartbeatAt(e *cached.ReportEntry, now time.Time) heartbeat {
	return heartbeat{at: now, silent: v1alpha1.SilentHeartbeats * max(e.Interval, time.Second)}
}

// presumes reports whether it is only presumed that the node of a report is heard of.
func (h *heartbeats) presumes(e *cached.ReportEntry) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.nodes[e.Name]
	return !ok || n.presumed
}

func (h *heartbeats) forget(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.nodes, node)
}

// recent reports whether the node of a report is heard of. Of a report that nobody has noted yet, it is.
func (h *heartbeats) recent(e *cached.ReportEntry, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.nodes[e.Name]
	return !ok || now.Sub(n.at) <= n.silent
}

// lost are the nodes that fell silent between two moments.
func (h *heartbeats) lost(since, now time.Time) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name, n := range h.nodes {
		if end := n.at.Add(n.silent); end.Before(now) && !end.Before(since) {
			names = append(names, name)
		}
	}
	return names
}
