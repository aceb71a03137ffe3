package node

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var unknownPodsFailing = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "ringfence_unknown_pods_failing",
	Help: "1 if --unknown-pods=drop does not drop exactly the unknown pods of this node, 0 otherwise. The NodeEnforcement has the reason.",
})

// UnknownPods says what becomes of addresses of the node's pods that no pod is known to hold. The zero value leaves them alone.
type UnknownPods struct {
	// Drop has nothing of them get through.
	Drop bool
	// Ranges are those of this node's pods; without any, those that the Node names.
	Ranges []netip.Prefix
	// Unable says why the kernel cannot tell them from others, empty if it can.
	Unable string
}

// closing is how a node goes about its unknown pods.
type closing struct {
	UnknownPods
	known []netip.Prefix // that the Node named last: if it is deleted, it still has pods, and rules about them
	wrong string         // what the log has it is wrong
}

// ranges are those to close now; named are those that the Node names.
func (c *closing) ranges(named []netip.Prefix) []netip.Prefix {
	own := c.own(named)
	if !c.Drop || c.Unable != "" {
		return nil
	}
	return own
}

// own are those that are known to be of the node's pods.
func (c *closing) own(named []netip.Prefix) []netip.Prefix {
	if len(named) > 0 {
		c.known = named
	}
	if len(c.Ranges) > 0 {
		return c.Ranges
	}
	return c.known
}

// concluded adds the condition to what came of a sync, and logs what is wrong.
func (c *closing) concluded(ctx context.Context, o *outcome) {
	o.UnknownPods = c.condition(o.snapshot.Closed, o.Report.Concerns)
	c.log(ctx, o.UnknownPods)
}

// condition says whether just the unknown pods of this node are dropped, nil if they are not to be.
func (c *closing) condition(ranges []netip.Prefix, found policy.Concerns) *metav1.Condition {
	if !c.Drop {
		return nil
	}
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = r.String()
	}
	all := strings.Join(texts, ", ")
	says := func(status metav1.ConditionStatus, reason, format string, args ...any) *metav1.Condition {
		message := cached.Shortened(fmt.Sprintf(format, args...), cached.MaxMessage)
		return &metav1.Condition{Type: v1alpha1.UnknownPodsDroppedCondition, Status: status, Reason: reason, Message: message}
	}
	switch {
	case c.Unable != "":
		return says(metav1.ConditionFalse, v1alpha1.KernelLacksReason, "no unknown pod is dropped: %s", c.Unable)
	case len(ranges) == 0:
		return says(metav1.ConditionFalse, v1alpha1.NoPodRangeReason,
			"no unknown pod is dropped: the Node has no spec.podCIDRs, so nobody knows which addresses its pods get; give them with --pod-cidrs")
	case found.Strange.Count > 0:
		return says(metav1.ConditionFalse, v1alpha1.PodsOfOthersReason,
			"%s is not the range of this node's pods alone: pods of other nodes hold %d addresses in it, %s the first, and what they send through this node "+
				"is dropped; mend --pod-cidrs, or leave --unknown-pods=drop away", all, found.Strange.Count, found.Strange.First)
	case found.Outside.Count > 0:
		return says(metav1.ConditionFalse, v1alpha1.PodsOutsideReason,
			"pods of this node hold %d addresses outside of %s, %s the first: unknown ones there are not dropped; give all ranges with --pod-cidrs",
			found.Outside.Count, all, found.Outside.First)
	}
	return says(metav1.ConditionTrue, v1alpha1.UnknownPodsDroppedReason, "what no known pod holds in %s gets nothing through", all)
}

// log logs what is wrong, once as long as it lasts.
func (c *closing) log(ctx context.Context, now *metav1.Condition) {
	wrong := ""
	if now != nil && now.Status != metav1.ConditionTrue {
		wrong = now.Message
	}
	if wrong != "" {
		unknownPodsFailing.Set(1)
	} else {
		unknownPodsFailing.Set(0)
	}
	if wrong != "" && wrong != c.wrong {
		log.FromContext(ctx).Info("--unknown-pods=drop does not do what it says", "reason", now.Reason, "detail", wrong)
	}
	c.wrong = wrong
}
