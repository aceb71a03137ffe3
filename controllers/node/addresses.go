package node

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var addressTroubles = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "ringfence_address_problems",
	Help: "Addresses that the API cannot be right about, by kind: contested with a pod of this node, contested between pods of other nodes, or impossible " +
		"for a pod or a node. The NodeEnforcement names some.",
}, []string{"kind"})

// addressesSpacing is the shortest time between two log lines about addresses that cannot be as the API says: in clusters whose nodes all give their pods
// addresses of one range, each pod that starts anywhere is news.
const addressesSpacing = 10 * time.Minute

// addressLog logs that addresses cannot all be as the API says.
type addressLog struct {
	some bool      // the log has it that there are some
	at   time.Time // of the last line
}

// concluded takes in what came of a sync.
func (a *addressLog) concluded(ctx context.Context, o *outcome) {
	a.note(ctx, o.Report.Concerns, time.Now())
}

// note logs that there are some, with their first ones, and that there are none any more: seldom, whatever happens.
func (a *addressLog) note(ctx context.Context, c policy.Concerns, now time.Time) {
	addressTroubles.WithLabelValues("contested").Set(float64(c.Contested.Here))
	addressTroubles.WithLabelValues("contested_elsewhere").Set(float64(c.Contested.Elsewhere))
	addressTroubles.WithLabelValues("impossible").Set(float64(c.Impossible.Here + c.Impossible.Elsewhere))
	troubles := report.AddressTroubles(c)
	if a.some == (troubles != nil) || !a.at.IsZero() && now.Sub(a.at) < addressesSpacing {
		return
	}
	a.some, a.at = troubles != nil, now
	if troubles == nil {
		log.FromContext(ctx).Info("all addresses can be as the API says again")
		return
	}
	lines := make([]string, len(troubles.Named))
	for i, one := range troubles.Named {
		lines[i] = one.Message
	}
	log.FromContext(ctx).Info("some addresses cannot be as the API says", "contestedWithPodsOfThisNode", troubles.Contested,
		"contestedElsewhere", troubles.ContestedElsewhere, "impossible", troubles.Impossible, "first", lines)
}
