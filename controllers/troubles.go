package controllers

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// When trouble is said, and when no longer. What fails once may go well a moment later, and what fails now and then is in trouble all the time: a condition
// that turns with every attempt would tell nobody anything, and cost a write each time.
const (
	troubleDelay = 2 * time.Second  // from the first failure to one that is said
	troubleHold  = 30 * time.Second // without a failure, until it is over
)

// Troubles are what does not work on a node besides its rules, and since when. The node's report says them, as its condition Healthy.
//
// Its methods may be called from several goroutines.
type Troubles struct {
	mu      sync.Mutex
	now     map[string]*trouble // by reason
	healthy metav1.Condition    // as last said
	changed chan struct{}       // receives when there is something new to say
}

// trouble is one thing that does not work.
type trouble struct {
	message string
	since   time.Time // of the first failure
	over    time.Time // of the first success after the last failure; zero while there is none
	said    bool
}

// NewTroubles begins with none.
func NewTroubles() *Troubles {
	return &Troubles{now: map[string]*trouble{}, changed: make(chan struct{}, 1)}
}

// Note takes in how an attempt at something ended, err being nil if it went well. Reasons are those of [v1alpha1.HealthyCondition]. Recovery makes nobody
// write: it is in the next report.
func (t *Troubles) Note(reason string, err error) {
	if t == nil {
		return
	}
	at := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.now[reason]
	if err == nil {
		troublesNow.WithLabelValues(reason).Set(0)
		switch {
		case one != nil && !one.said:
			delete(t.now, reason)
		case one != nil && one.over.IsZero():
			one.over = at
		}
		return
	}
	troublesNow.WithLabelValues(reason).Set(1)
	if one == nil {
		one = &trouble{since: at}
		t.now[reason] = one
	}
	one.message, one.over = err.Error(), time.Time{}
	if !one.said && at.Sub(one.since) >= troubleDelay {
		one.said = true
		select {
		case t.changed <- struct{}{}:
		default: // one is to be written already, and will say this too
		}
	}
}

// condition is Healthy, as it is to be said now.
func (t *Troubles) condition(at time.Time) metav1.Condition {
	t.mu.Lock()
	defer t.mu.Unlock()
	var reasons, messages []string
	for reason, one := range t.now {
		switch {
		case !one.over.IsZero() && at.Sub(one.over) >= troubleHold:
			delete(t.now, reason)
		case one.said:
			reasons = append(reasons, reason)
		}
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Compare(slices.Index(v1alpha1.TroubleReasons, a), slices.Index(v1alpha1.TroubleReasons, b))
	})
	for _, reason := range reasons {
		messages = append(messages, t.now[reason].message)
	}
	c := metav1.Condition{
		Type: v1alpha1.HealthyCondition, Status: metav1.ConditionTrue, Reason: v1alpha1.HealthyReason,
		Message: "all that the enforcer does besides the rules works", LastTransitionTime: metav1.NewTime(at),
	}
	if len(reasons) > 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, reasons[0], plain(strings.Join(messages, "; "), maxMessage)
	}
	if t.healthy.Status == c.Status {
		c.LastTransitionTime = t.healthy.LastTransitionTime
	}
	t.healthy = c
	return c
}

var troublesNow = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "ringfence_unhealthy",
	Help: "1 if a task besides the rules fails, 0 otherwise, by the reason in the condition Healthy of the NodeEnforcement.",
}, []string{"reason"})

func init() {
	for _, reason := range v1alpha1.TroubleReasons {
		troublesNow.WithLabelValues(reason)
	}
}
