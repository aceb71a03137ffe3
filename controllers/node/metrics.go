package node

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence-io/ringfence/controllers/node/announce"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var (
	syncSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "ringfence_sync_duration_seconds",
		Help:    "Time from taking a snapshot of the cluster to its policy being in the kernel.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
	})
	syncErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_sync_errors_total",
		Help: "Syncs that failed and were tried again.",
	})
	syncFailing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_sync_failing",
		Help: "1 if the last sync failed, so that this node enforces an older policy, else 0.",
	})
	lastSync = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_last_sync_timestamp_seconds",
		Help: "Unix time of the last sync that succeeded.",
	})
	repairs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ringfence_repairs_total",
		Help: "Changes that others made to our chains, jumps and sets and that were undone, by what was repaired.",
	}, []string{"what"})
	problemsNow = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_policy_problems",
		Help: "Parts of policies that cannot be enforced as written; the log names each.",
	})
	changeSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "ringfence_change_to_enforcement_seconds",
		Help:    "Time from the moment at which the first change that a sync takes in reached this node, to its enforcement.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
	})
	enforced = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ringfence_enforced",
		Help: "What this node enforces now, by kind: policies, endpoints, chains, rules, sets and set entries.",
	}, []string{"kind"})
)

func init() {
	for _, severity := range severities {
		findingsNow.WithLabelValues(severity)
	}
	for what := range (policy.Changes{}).Counts() {
		repairs.WithLabelValues(what) // a counter that starts at 0 can be alerted on
	}
}

// Metrics are what an enforcer says of itself. No other process has them: one that never syncs would say that its last sync was in 1970.
func Metrics() []prometheus.Collector {
	own := []prometheus.Collector{
		syncSeconds, syncErrors, syncFailing, lastSync, changeSeconds, repairs, problemsNow, enforced,
		unknownPodsFailing, links, cutConnections, unheldConnections, cutSeconds, cutErrors, addressTroubles, findingsNow, unpolicedPods,
	}
	return slices.Concat(own, report.Metrics(), announce.Metrics())
}

// measure records one sync.
func measure(_ context.Context, o *outcome) {
	r := o.Report
	for what, n := range r.Repairs.Counts() {
		repairs.WithLabelValues(what).Add(float64(n))
	}
	problemsNow.Set(float64(len(r.Problems)))
	if o.Err != nil {
		syncErrors.Inc()
		syncFailing.Set(1)
		return
	}
	syncFailing.Set(0)
	syncSeconds.Observe(time.Since(o.began).Seconds())
	lastSync.SetToCurrentTime()
	for kind, n := range map[string]int{
		"policies": r.Counts.Policies, "endpoints": r.Counts.Endpoints, "chains": r.Counts.Chains,
		"rules": r.Counts.Rules, "sets": r.Counts.Sets, "entries": r.Counts.Entries,
	} {
		enforced.WithLabelValues(kind).Set(float64(n))
	}
}
