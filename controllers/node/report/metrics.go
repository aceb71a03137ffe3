package report

import "github.com/prometheus/client_golang/prometheus"

var (
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
	policiesFailing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_failing_policies",
		Help: "Policies that this node does not enforce as they are now, because its last sync failed, or because its kernel or a budget refuses a part of " +
			"them; its NodeEnforcement names them.",
	})
)

// Metrics are what is said of the reports of a node.
func Metrics() []prometheus.Collector {
	return []prometheus.Collector{policiesFailing, reportWrites, reportErrors, lastReport, unhealthyNow}
}
