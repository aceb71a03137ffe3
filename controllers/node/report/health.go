package report

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// When trouble is reported, and when no longer. What fails once may go well a moment later, and what fails now and then is in trouble all the time: a condition
// that turns with every attempt would tell nobody anything, and cost a write each time.
const (
	troubleDelay = 2 * time.Second  // from the first failure to one that is reported
	troubleHold  = 30 * time.Second // without a failure, until it is over
)

// Health is what does not work on a node besides its rules, and since when. The node's report has it, as its condition Healthy.
//
// Its methods may be called from several goroutines.
type Health struct {
	mu      sync.Mutex
	now     map[string]*trouble // by reason
	healthy metav1.Condition    // as last reported
	changed chan struct{}       // receives when there is something new to say
}

// trouble is one thing that does not work.
type trouble struct {
	message  string
	since    time.Time // of the first failure
	over     time.Time // of the first success after the last failure; zero while there is none
	reported bool
}

// NewHealth begins with a node on which all works.
func NewHealth() *Health {
	return &Health{now: map[string]*trouble{}, changed: make(chan struct{}, 1)}
}

// Note takes in how an attempt at something ended, err being nil if it went well. Reasons are those of [v1alpha1.HealthyCondition]. Recovery makes nobody
// write: it is in the next report.
func (h *Health) Note(reason string, err error) {
	if h == nil {
		return
	}
	at := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	one := h.now[reason]
	if err == nil {
		unhealthyNow.WithLabelValues(reason).Set(0)
		switch {
		case one != nil && !one.reported:
			delete(h.now, reason)
		case one != nil && one.over.IsZero():
			one.over = at
		}
		return
	}
	unhealthyNow.WithLabelValues(reason).Set(1)
	if one == nil {
		one = &trouble{since: at}
		h.now[reason] = one
	}
	one.message, one.over = err.Error(), time.Time{}
	if !one.reported && at.Sub(one.since) >= troubleDelay {
		one.reported = true
		select {
		case h.changed <- struct{}{}:
		default: // one is to be written already, and will say this too
		}
	}
}

// condition is Healthy, as it is to be reported now.
func (h *Health) condition(at time.Time) metav1.Condition {
	h.mu.Lock()
	defer h.mu.Unlock()
	var reasons, messages []string
	for reason, one := range h.now {
		switch {
		case !one.over.IsZero() && at.Sub(one.over) >= troubleHold:
			delete(h.now, reason)
		case one.reported:
			reasons = append(reasons, reason)
		}
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Compare(slices.Index(v1alpha1.TroubleReasons, a), slices.Index(v1alpha1.TroubleReasons, b))
	})
	for _, reason := range reasons {
		messages = append(messages, h.now[reason].message)
	}
	c := metav1.Condition{
		Type: v1alpha1.HealthyCondition, Status: metav1.ConditionTrue, Reason: v1alpha1.HealthyReason,
		Message: "all that the enforcer does besides the rules works", LastTransitionTime: metav1.NewTime(at),
	}
	if len(reasons) > 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, reasons[0], cached.Plain(strings.Join(messages, "; "), cached.MaxMessage)
	}
	if h.healthy.Status == c.Status {
		c.LastTransitionTime = h.healthy.LastTransitionTime
	}
	h.healthy = c
	return c
}

var unhealthyNow = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "ringfence_unhealthy",
	Help: "1 if a task besides the rules fails, 0 otherwise, by the reason in the condition Healthy of the NodeEnforcement.",
}, []string{"reason"})

func init() {
	for _, reason := range v1alpha1.TroubleReasons {
		unhealthyNow.WithLabelValues(reason)
	}
}
