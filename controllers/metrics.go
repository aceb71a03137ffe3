package controllers

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/ringfence-io/ringfence/enforcer"
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
	reportWrites = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_report_writes_total",
		Help: "Writes of this node's NodeEnforcement.",
	})
	reportErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_report_errors_total",
		Help: "Writes of this node's NodeEnforcement that failed and were tried again.",
	})
	lastReport = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_last_report_timestamp_seconds",
		Help: "Unix time of the last write of this node's NodeEnforcement that succeeded.",
	})
	announcementWrites = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_announcement_writes_total",
		Help: "Writes to the status of this node's new pods, which tell other nodes their addresses, or take them back.",
	})
	announcementErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_announcement_errors_total",
		Help: "Writes to the status of this node's new pods that failed.",
	})
	policiesFailing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_failing_policies",
		Help: "Policies that this node does not enforce as they are now, because its last sync failed, or because its kernel or a budget refuses a part of " +
			"them; its NodeEnforcement names them.",
	})
	statusWrites = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ringfence_status_writes_total",
		Help: "Writes of policies' statuses, by the resource of the policy.",
	}, []string{"resource"})
	statusErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_status_errors_total",
		Help: "Writes of policies' statuses that failed and were tried again.",
	})
	programmingSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "ringfence_policy_programming_seconds",
		Help:    "Time from the moment at which the controller first sees a version of a policy, to its being programmed on every desired node.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 16),
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

// NodeMetrics are what an enforcer says of itself. No other process has them: one that never syncs would say that its last sync was in 1970.
func NodeMetrics() []prometheus.Collector {
	return []prometheus.Collector{
		syncSeconds, syncErrors, syncFailing, lastSync, changeSeconds, repairs, problemsNow, policiesFailing, enforced,
		unknownPodsFailing, links, reportWrites, reportErrors, lastReport, announcementWrites, announcementErrors,
		cutConnections, unheldConnections, cutSeconds, cutErrors, troublesNow, addressTroubles, findingsNow, unpolicedPods,
	}
}

// Metrics are what the controller says of itself.
func (r *Policies) Metrics() []prometheus.Collector {
	return []prometheus.Collector{standings{r}, programmingSeconds, statusWrites, statusErrors, startupTaintsRemoved}
}

// register adds metrics to those of this process, where they may be already.
func register(all []prometheus.Collector) error {
	for _, c := range all {
		var already prometheus.AlreadyRegisteredError
		if err := metrics.Registry.Register(c); err != nil && (!errors.As(err, &already) || already.ExistingCollector != c) {
			return fmt.Errorf("adding metrics: %w", err)
		}
	}
	return nil
}

// observe records one sync.
func observe(r enforcer.Report, err error, took time.Duration) {
	for what, n := range r.Repairs.Counts() {
		repairs.WithLabelValues(what).Add(float64(n))
	}
	problemsNow.Set(float64(len(r.Problems)))
	if err != nil {
		syncErrors.Inc()
		syncFailing.Set(1)
		return
	}
	syncFailing.Set(0)
	syncSeconds.Observe(took.Seconds())
	lastSync.SetToCurrentTime()
	for kind, n := range map[string]int{
		"policies": r.Counts.Policies, "endpoints": r.Counts.Endpoints, "chains": r.Counts.Chains,
		"rules": r.Counts.Rules, "sets": r.Counts.Sets, "entries": r.Counts.Entries,
	} {
		enforced.WithLabelValues(kind).Set(float64(n))
	}
}

// standings counts policies and nodes when the controller's metrics are read. A controller that does not lead has listened to nobody and says nothing:
// to it, every node that has ever reported would be enforcing.
type standings struct{ policies *Policies }

var _ prometheus.Collector = standings{}

var (
	policiesNow = prometheus.NewDesc("ringfence_policies",
		"Policies by resource, and by whether every desired node has them programmed.", []string{"resource", "programmed"}, nil)
	nodesNow = prometheus.NewDesc("ringfence_nodes",
		"Nodes by what is known of them: enforcing, failing, or unknown because their enforcer has not been heard of.", []string{"standing"}, nil)
)

// Describe names the metrics.
func (standings) Describe(to chan<- *prometheus.Desc) {
	to <- policiesNow
	to <- nodesNow
}

// Collect counts.
func (s standings) Collect(to chan<- prometheus.Metric) {
	if !s.policies.leads.Load() {
		return
	}
	for at, n := range s.policies.index.count() {
		to <- prometheus.MustNewConstMetric(policiesNow, prometheus.GaugeValue, float64(n), at.resource, strconv.FormatBool(at.programmed))
	}
	for standing, n := range s.policies.view.count(time.Now()) {
		to <- prometheus.MustNewConstMetric(nodesNow, prometheus.GaugeValue, float64(n), standing)
	}
}
