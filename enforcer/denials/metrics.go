package denials

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

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
	// packets are those that were denied, and those that would have been.
	packets = map[bool]*prometheus.CounterVec{
		false: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ringfence_denied_packets_total",
			Help: "Packets that were denied, of those that are counted: by rules that are logged, in namespaces that ask for it, or with --log-denied by all.",
		}, []string{"direction", "tier"}),
		true: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ringfence_would_deny_packets_total",
			Help: "Packets that policies in mode Audit would have denied.",
		}, []string{"direction", "tier"}),
	}
)

// noTier stands for the tier of what no policy denies: the source check, and unknown pods.
const noTier = "none"

func init() {
	for _, d := range policy.Directions {
		for _, tier := range []string{policy.AdminRules.Tier(), policy.NetworkPolicies.Tier(), policy.BaselineRules.Tier(), noTier} {
			packets[false].WithLabelValues(d.String(), tier)
			packets[true].WithLabelValues(d.String(), tier)
		}
	}
	for _, reason := range []string{overShare, overRemote, overNode} {
		leftOut.WithLabelValues(reason)
	}
}

// Metrics are what an enforcer says of the log of denied packets.
func Metrics() []prometheus.Collector {
	return []prometheus.Collector{lines, lost, leftOut, packets[false], packets[true]}
}
