package report

import "github.com/prometheus/client_golang/prometheus"

var (
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
	policiesFailing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_failing_policies",
		Help: "Policies that this node does not enforce in their present version: its last sync failed, or the kernel or a budget refuses a part. " +
			"The NodeEnforcement names them.",
	})
)

// Metrics are those of a node's reports.
func Metrics() []prometheus.Collector {
	return []prometheus.Collector{policiesFailing, reportWrites, reportErrors, lastReport, unhealthyNow}
}
