package controllers

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
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

// addresses says of addresses that cannot all be as the API says.
type addresses struct {
	said bool      // the log has it that there are some
	at   time.Time // of the last line
}

// say logs that there are some, with their first ones, and that there are none any more: seldom, whatever happens.
func (a *addresses) say(ctx context.Context, c policy.Concerns, now time.Time) {
	addressTroubles.WithLabelValues("contested").Set(float64(c.Contested.Here))
	addressTroubles.WithLabelValues("contested_elsewhere").Set(float64(c.Contested.Elsewhere))
	addressTroubles.WithLabelValues("impossible").Set(float64(c.Impossible.Here + c.Impossible.Elsewhere))
	troubles := addressTroublesOf(c)
	if a.said == (troubles != nil) || !a.at.IsZero() && now.Sub(a.at) < addressesSpacing {
		return
	}
	a.said, a.at = troubles != nil, now
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

// addressTroublesOf is what a report says of addresses, nil if there is nothing to say.
func addressTroublesOf(c policy.Concerns) *v1alpha1.AddressTroubles {
	t := &v1alpha1.AddressTroubles{
		Contested: int32(c.Contested.Here), ContestedElsewhere: int32(c.Contested.Elsewhere), Impossible: int32(c.Impossible.Here + c.Impossible.Elsewhere),
	}
	if t.Contested+t.ContestedElsewhere+t.Impossible == 0 {
		return nil
	}
	for _, one := range c.Contested.First {
		t.Named = append(t.Named, v1alpha1.AddressTrouble{Address: one.Addr.String(), Message: plain(contestText(one), maxTroubleMessage)})
	}
	impossible := make([]v1alpha1.AddressTrouble, len(c.Impossible.First))
	for i, o := range c.Impossible.First {
		text := ownerText(o) + " is shown with an address that none can have: it is left out of everything"
		impossible[i].Message = plain(text, maxTroubleMessage)
	}
	// Each kind has room for half, and what the other leaves.
	const half = v1alpha1.MaxAddressTroubles / 2
	room := v1alpha1.MaxAddressTroubles - min(len(impossible), half)
	t.Named = t.Named[:min(len(t.Named), room)]
	t.Named = append(t.Named, impossible[:min(len(impossible), v1alpha1.MaxAddressTroubles-len(t.Named))]...)
	return t
}

// maxTroubleMessage is the longest message about an address, in bytes: two pods with the longest names fit in.
const maxTroubleMessage = 1024

func contestText(c policy.Contest) string {
	held := "it is taken for nobody's"
	switch {
	case c.Here:
		held = fmt.Sprintf("it is taken for that of %s, which is on this node", ownerText(c.Holder))
		if c.Holder == (policy.Owner{}) {
			held = "two pods of this node are announced with it, so that it is taken for nobody's"
		}
	case c.Holder != policy.Owner{}:
		held = "it is taken for that of " + ownerText(c.Holder)
	}
	more := ""
	if c.Pods > 2 {
		more = fmt.Sprintf(", and %d more", c.Pods-2)
	}
	return fmt.Sprintf("%d pods are shown with %s: %s; another is %s%s", c.Pods, c.Addr, held, ownerText(c.Other), more)
}

func ownerText(o policy.Owner) string {
	if o.Ref.Kind == "Node" {
		return o.Ref.String()
	}
	return fmt.Sprintf("%s on node %s", o.Ref, o.Node)
}
