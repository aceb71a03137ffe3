package announce

import "github.com/prometheus/client_golang/prometheus"

var (
	announcementWrites = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_announcement_writes_total",
		Help: "Writes of the addresses of new pods to their status, so that other nodes know them early.",
	})
	announcementErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_announcement_errors_total",
		Help: "Writes of the addresses of new pods that failed.",
	})
)

// Metrics are those of a node's announcements.
func Metrics() []prometheus.Collector {
	return []prometheus.Collector{announcementWrites, announcementErrors}
}
