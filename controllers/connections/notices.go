package connections

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// How many Events there are about the pods of one namespace.
const (
	noticeBurst = 10
	noticeEvery = time.Minute
	noticeFresh = time.Minute // an Event is about what has just happened
)

// notices are Events on pods whose connections are denied.
type notices struct {
	mu     sync.Mutex
	limits map[string]*rate.Limiter // by namespace; those that are full again are forgotten
}

// emit makes an Event of each connection of the namespace's own pods that the report did not have before.
func (n *notices) emit(recorder events.EventRecorder, namespace string, before *v1alpha1.ConnectionReport, now v1alpha1.ConnectionReportStatus, at time.Time) {
	known := map[string]bool{}
	if before != nil {
		for _, c := range before.Status.Connections {
			known[connectionKey(c)] = true
		}
	}
	for _, c := range now.Connections {
		if known[connectionKey(c)] || c.From.Namespace != namespace || c.From.Pod == "" || c.Verdict != v1alpha1.ConnectionDenied ||
			at.Sub(c.LastTime.Time) > noticeFresh {
			continue
		}
		if !n.may(namespace, at) {
			return
		}
		pod := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: c.From.Namespace, Name: c.From.Pod}
		recorder.Eventf(pod, nil, corev1.EventTypeWarning, "ConnectionDenied", "Enforce", "%s", cached.Shortened(notice(c), cached.MaxNote))
	}
}

// may reports whether there may be one more Event.
func (n *notices) may(namespace string, at time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, l := range n.limits {
		if l.TokensAt(at) >= noticeBurst {
			delete(n.limits, name)
		}
	}
	if n.limits == nil {
		n.limits = map[string]*rate.Limiter{}
	}
	if n.limits[namespace] == nil {
		n.limits[namespace] = rate.NewLimiter(rate.Every(noticeEvery), noticeBurst)
	}
	return n.limits[namespace].AllowN(at, 1)
}

// notice is what an Event says of a connection.
func notice(c v1alpha1.ReportedConnection) string {
	to := cmp.Or(c.To.Address, "somebody")
	if c.To.Workload != "" {
		to = c.To.Namespace + "/" + c.To.Workload
	}
	port := c.Protocol
	if c.Port > 0 {
		port = fmt.Sprintf("%s/%d", c.Protocol, c.Port)
	}
	return fmt.Sprintf("A connection to %s on %s was denied, %s by %s. List such connections by: kubectl -n %s ringfence denied",
		to, port, strings.ToLower(string(c.Direction)), c.Policy, c.From.Namespace)
}
