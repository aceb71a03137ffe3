package announce

import "github.com/prometheus/client_golang/prometheus"

var (
	announcementWrites = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_announcement_writes_total",
		Help: "Writes to the status of this node's new pods, which tell other nodes their addresses, or take them back.",
	})
	announcementErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_announcement_errors_total",
		Help: "Writes to the status of this node's new pods that failed.",
	})
)

// Metrics are what is said of the announcements of a node.
func Metrics() []prometheus.Collector {
	return []prometheus.Collector{announcementWrites, announcementErrors}
}
