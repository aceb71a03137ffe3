package denials

import "github.com/prometheus/client_golang/prometheus"

var (
	lines = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_denied_log_lines_total",
		Help: "Log lines about packets that were denied, or would have been in mode Audit.",
	})
	lost = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_denied_log_lost_total",
		Help: "Sampled packets without a log line, because they arrived faster than they could be read.",
	})
	leftOut = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ringfence_denied_log_rate_limited_total",
		Help: "Sampled packets without a log line, because a rate limit was reached, by whose: that of the namespace, of the remote end or of the node.",
	}, []string{"reason"})
)

func init() {
	for _, reason := range []string{overShare, overRemote, overNode} {
		leftOut.WithLabelValues(reason)
	}
}

// Metrics are what an enforcer says of the log of denied packets.
func Metrics() []prometheus.Collector { return []prometheus.Collector{lines, lost, leftOut} }
