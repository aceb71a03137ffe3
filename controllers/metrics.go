package controllers

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
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
	reportWrites = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_report_writes_total",
		Help: "Writes of the NodeEnforcement of this node.",
	})
	reportErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_report_errors_total",
		Help: "Writes of the NodeEnforcement of this node that failed; each is retried.",
	})
	lastReport = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_last_report_timestamp_seconds",
		Help: "Unix time of the last successful write of the NodeEnforcement of this node.",
	})
	announcementWrites = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_announcement_writes_total",
		Help: "Writes of the addresses of new pods to their status, so that other nodes know them early.",
	})
	announcementErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_announcement_errors_total",
		Help: "Writes of the addresses of new pods that failed.",
	})
	policiesFailing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_failing_policies",
		Help: "Policies that this node does not enforce in their present version: its last sync failed, or the kernel or a budget refuses a part. " +
			"The NodeEnforcement names them.",
	})
	statusWrites = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ringfence_status_writes_total",
		Help: "Writes of the status of policies, by the resource of the policy.",
	}, []string{"resource"})
	statusErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_status_errors_total",
		Help: "Writes of the status of policies that failed; each is retried.",
	})
	programmingSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "ringfence_policy_programming_seconds",
		Help:    "Time from the arrival of a policy's version at the controller until every desired node has it programmed.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 16),
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
	for what := range planSize(iptables.Plan{}) {
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
	for what, n := range planSize(r.Repairs) {
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

// planSize counts what a plan changes.
func planSize(p iptables.Plan) map[string]int {
	size := map[string]int{
		"table": len(p.Restore), "jump": len(p.Jumps), "set": len(p.CreateSets) + len(p.DestroySets), "entry": 0,
	}
	for _, all := range [][]iptables.SetEntries{p.Close, p.AddEntries, p.DelEntries, p.Open} {
		for _, s := range all {
			size["entry"] += len(s.Entries)
		}
	}
	return size
}

// standings counts policies and nodes when the controller's metrics are read. A controller that does not lead has listened to nobody and says nothing:
// to it, every node that has ever reported would be enforcing.
type standings struct{ policies *Policies }

var _ prometheus.Collector = standings{}

var (
	policiesNow = prometheus.NewDesc("ringfence_policies",
		"Policies, by resource and by whether every desired node has them programmed.", []string{"resource", "programmed"}, nil)
	nodesNow = prometheus.NewDesc("ringfence_nodes",
		"Nodes, by state: enforcing, failing, or unknown if their enforcer does not report.", []string{"state"}, nil)
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
