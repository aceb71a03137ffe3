package podnames

import "github.com/prometheus/client_golang/prometheus"

// What becomes of a question.
const (
	found    = "found"
	none     = "none"
	failed   = "failed"
	notAsked = "not_asked" // there were too many, or the one before has failed
)

var lookups = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "ringfence_pod_lookups_total",
	Help: "Addresses in log lines for which the API server was to be asked for the name of the pod, by result: found, none, failed, or not_asked because of " +
		"a rate limit.",
}, []string{"result"})

func init() {
	for _, result := range []string{found, none, failed, notAsked} {
		lookups.WithLabelValues(result)
	}
}

// Metrics are what an enforcer says of the names of pods.
func Metrics() []prometheus.Collector { return []prometheus.Collector{lookups} }
