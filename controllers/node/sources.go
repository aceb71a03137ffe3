package node

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var links = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "ringfence_links",
	Help: "Network links of this node's pods, by state: tied to their pod by the result of a CNI plugin (result) or by the addresses of the other end " +
		"(addresses), exempt, shut, or unknown.",
}, []string{"state"})

// Links knows the host's ends of pods' interfaces.
type Links interface {
	// Into adds them to a snapshot.
	Into(s *compile.Snapshot) error
}

// Sources says what becomes of what pods send from addresses that are not theirs. The zero value leaves it alone.
type Sources struct {
	// Links are the node's. Without it none is known.
	Links Links
	// Mode is what the enforcer is told to do.
	Mode v1alpha1.SourceCheckMode
	// Unable says why the kernel cannot do it, empty if it can. Without it the kernel can.
	Unable func() string
}

// sources is how a node goes about it.
type sources struct {
	Sources
	last   compile.Network // that could be read
	read   bool            // it could, once
	unread error           // why it could not, this time
	wrong  string          // what the log has it is wrong

	at      time.Time                 // of the last reading that went well
	local   []*compile.Pod            // of then
	watched atomic.Bool               // links that come or go are noted
	changed atomic.Pointer[time.Time] // when one last did
}

// note notes that a link has come or gone. From the first call on, links are read only where something has changed.
func (c *sources) note(now time.Time) {
	c.changed.Store(&now)
	c.watched.Store(true)
}

// isCurrent reports whether links were read since something has changed that they depend on: a link, or a pod of the node. What CNI plugins do with a new link
// takes some steps, so that it is read again after these.
func (c *sources) isCurrent(local []*compile.Pod) bool {
	if !c.watched.Load() || c.at.IsZero() || !slices.Equal(c.local, local) {
		return false
	}
	changed := c.changed.Load()
	return changed == nil || c.at.After(changed.Add(linkDelay))
}

// into adds the node's links to a snapshot. They are read where something has changed that they depend on, and with each look at the kernel. Where they cannot
// be read, those that were read last stand, and where none were, what holds links in the kernel: what is enforced stays.
func (c *sources) into(s *compile.Snapshot, verify bool) error {
	if c.Links == nil {
		return nil
	}
	if !verify && c.isCurrent(s.Local) {
		s.Network = c.last
		return nil
	}
	began := time.Now()
	c.unread, c.at = c.Links.Into(s), time.Time{}
	switch {
	case c.unread == nil:
		c.last, c.read, c.at, c.local = s.Network, true, began, s.Local
	case c.read:
		s.Network = c.last
	default:
		s.Network = compile.Network{Unread: true}
	}
	return c.unread
}

// concluded adds the condition, and how many links are tied, to what came of a sync, and logs what is wrong.
func (c *sources) concluded(ctx context.Context, o *outcome) {
	found := o.Report.Concerns.Links
	o.Sources, o.SourceCheck = c.condition(found), c.status(found)
	c.log(ctx, o.Sources)
}

// status is what a node's report says of its links, nil if nothing is looked at.
func (c *sources) status(n policy.LinkCounts) *v1alpha1.SourceCheckStatus {
	for tied, count := range map[string]int{"result": n.ByResult, "addresses": n.ByKernel, "exempt": n.Exempt, "shut": n.Shut, "unknown": n.Untied} {
		links.WithLabelValues(tied).Set(float64(count))
	}
	if c.Links == nil || c.Mode == "" {
		return nil
	}
	return &v1alpha1.SourceCheckStatus{
		Mode: c.Mode, Results: int32(n.ByResult), Addresses: int32(n.ByKernel), Exempt: int32(n.Exempt), Shut: int32(n.Shut), Unknown: int32(n.Untied),
	}
}

// condition says whether what each pod sends is held to its own addresses, nil if it is not to be.
func (c *sources) condition(n policy.LinkCounts) *metav1.Condition {
	if c.Links == nil || c.Mode == "" || c.Mode == v1alpha1.SourceCheckModeOff {
		return nil
	}
	says := func(status metav1.ConditionStatus, reason, format string, args ...any) *metav1.Condition {
		return &metav1.Condition{
			Type: v1alpha1.SourcesCheckedCondition, Status: status, Reason: reason,
			Message: cached.Shortened(fmt.Sprintf(format, args...), cached.MaxMessage),
		}
	}
	unable := ""
	if c.Unable != nil {
		unable = c.Unable()
	}
	switch {
	case unable != "":
		return says(metav1.ConditionFalse, v1alpha1.KernelLacksReason, "pods can send from addresses that are not theirs: %s", unable)
	case c.unread != nil:
		return says(metav1.ConditionFalse, v1alpha1.LinksUnknownReason,
			"which of the host's interfaces are pods' cannot be read, and what was known of it stands: %v", c.unread)
	case n.Untied > 0:
		return says(metav1.ConditionFalse, v1alpha1.LinksUnknownReason,
			"%d pods can send from addresses that are not theirs, %s the first: nobody knows which of the host's interfaces is theirs; mount libcni's cache "+
				"(/var/lib/cni) into the enforcer, or exempt their namespace", n.Untied, n.First)
	case c.Mode == v1alpha1.SourceCheckModeAudit:
		return says(metav1.ConditionTrue, v1alpha1.SourcesAuditedReason, "what a pod sends from an address that is not its own is counted, and passes")
	}
	return says(metav1.ConditionTrue, v1alpha1.SourcesCheckedReason, "what a pod sends from an address that is not its own is dropped")
}

// log logs what is wrong, once as long as it lasts. Pods come and go: a new number of them is no news.
func (c *sources) log(ctx context.Context, now *metav1.Condition) {
	wrong := ""
	if now != nil && now.Status != metav1.ConditionTrue {
		wrong = now.Reason
	}
	if wrong != "" && wrong != c.wrong {
		log.FromContext(ctx).Info("--source-check does not hold all pods", "reason", wrong, "detail", now.Message)
	}
	c.wrong = wrong
}
