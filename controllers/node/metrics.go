package node

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence-io/ringfence/controllers/node/announce"
	"github.com/ringfence-io/ringfence/controllers/node/podnames"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/controllers/node/scope"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var (
	syncSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "ringfence_sync_duration_seconds",
		Help:    "Time from the snapshot of the cluster until its policy is in the kernel.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
	})
	syncErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_sync_errors_total",
		Help: "Syncs that failed; each is retried.",
	})
	syncFailing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_sync_failing",
		Help: "1 if the last sync failed and this node enforces an older policy, 0 otherwise.",
	})
	lastSync = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_last_sync_timestamp_seconds",
		Help: "Unix time of the last successful sync.",
	})
	repairs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ringfence_repairs_total",
		Help: "Changes that other programs made to Ringfence's rules and that were undone, by the kind of what was repaired.",
	}, []string{"kind"})
	problemsNow = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_policy_problems",
		Help: "Parts of policies that cannot be enforced as written. The log names each of them.",
	})
	changeSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "ringfence_change_to_enforcement_seconds",
		Help:    "Time from the arrival of a change at this node until it is enforced. A sync counts once, from the first change that it includes.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
	})
	watchedNamespaces = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_watched_namespaces",
		Help: "Namespaces whose pods this node watches one by one, because its policies can name them, or could a short time ago.",
	})
	watchesAllPods = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_all_pods_watched",
		Help: "1 if this node watches all pods of the cluster, 0 if it watches its own pods and those of some namespaces.",
	})
	missingPods = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_unknown_namespaces",
		Help: "Namespaces that this node's policies can name and whose pods the API server has not shown yet.",
	})
	enforced = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ringfence_enforced_objects",
		Help: "Objects that this node enforces, by kind: policies, endpoints, chains, rules, sets and entries of sets.",
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
		watchedNamespaces, watchesAllPods, missingPods,
		unknownPodsFailing, links, cutConnections, unheldConnections, cutSeconds, cutDelaySeconds, cutErrors, addressTroubles, findingsNow, unpolicedPods,
		comparisonsMade, differences,
	}
	return slices.Concat(own, report.Metrics(), announce.Metrics(), podnames.Metrics())
}

// noteWatched records what the node hears of, and how much of what it is to hear of is missing.
func noteWatched(w scope.Watched, missing int) {
	watchedNamespaces.Set(float64(w.Namespaces))
	watchesAllPods.Set(0)
	if w.All {
		watchesAllPods.Set(1)
	}
	missingPods.Set(float64(missing))
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
