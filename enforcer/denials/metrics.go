package denials

import "github.com/prometheus/client_golang/prometheus"

var (
	lines = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_denied_log_lines_total",
		Help: "Log lines about packets that were denied, or would have been.",
	})
	lost = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_denied_log_lost_total",
		Help: "Sampled packets that are in no log line, because they came faster than they could be read.",
	})
	leftOut = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ringfence_denied_log_left_out_total",
		Help: "Sampled packets that are in no log line, because their namespace, their remote end or all of the node had their share, by which of these.",
	}, []string{"reason"})
)

func init() {
	for _, reason := range []string{overShare, overRemote, overNode} {
		leftOut.WithLabelValues(reason)
	}
}

// Metrics are what an enforcer says of the log of denied packets.
func Metrics() []prometheus.Collector { return []prometheus.Collector{lines, lost, leftOut} }
