package status

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
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
)

// Metrics are what the controller says of itself.
func (r *Policies) Metrics() []prometheus.Collector {
	return []prometheus.Collector{collector{r}, programmingSeconds, statusWrites, statusErrors}
}

// collector counts policies and nodes when the controller's metrics are read. A controller that does not lead has listened to nobody and says nothing:
// to it, every node that has ever reported would be enforcing.
type collector struct{ policies *Policies }

var _ prometheus.Collector = collector{}

var (
	policiesNow = prometheus.NewDesc("ringfence_policies",
		"Policies, by resource and by whether every desired node has them programmed.", []string{"resource", "programmed"}, nil)
	nodesNow = prometheus.NewDesc("ringfence_nodes",
		"Nodes, by state: enforcing, failing, or unknown if their enforcer does not report.", []string{"state"}, nil)
)

// Describe names the metrics.
func (collector) Describe(to chan<- *prometheus.Desc) {
	to <- policiesNow
	to <- nodesNow
}

// Collect counts.
func (s collector) Collect(to chan<- prometheus.Metric) {
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
