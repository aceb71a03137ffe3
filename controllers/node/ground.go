package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Ground is a node's kernel besides the rules: what they can be made of, and what has packets pass them. It may change while an enforcer runs.
type Ground interface {
	// Look looks at it again, before a sync. Rules are made of what it finds from then on.
	Look(context.Context) Looked
	// Unseen are those of the addresses whose traffic with others on their bridge passes no rule, as of the last look.
	Unseen([]netip.Addr) ([]netip.Addr, error)
}

// Looked is what a look has found.
type Looked struct {
	// Facts are those of [Config.Facts], as they are now.
	Facts v1alpha1.NodeEnforcementStatus
	// Unable is that of [UnknownPods], as it is now.
	Unable string
	// Unsure is set if something could not be asked because it was busy: the next sync, whichever it is, looks again.
	Unsure bool
}

var (
	findingsNow = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ringfence_findings",
		Help: "Kernel features that this node lacks and settings that hinder enforcement, by severity. The NodeEnforcement names each of them.",
	}, []string{"severity"})
	unpolicedPods = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringfence_unpoliced_pods",
		Help: "Pods of this node that a policy selects but cannot protect within their bridge, because bridged packets do not pass iptables.",
	})
)

// severities are those of findings.
var severities = []string{"info", "degraded", "fatal"}

// grounds is what a node knows of its ground.
type grounds struct {
	Ground
	looked time.Time
	unsure bool
	facts  *v1alpha1.NodeEnforcementStatus // as of the last look, nil before
	logged map[string]string               // what the log has of each finding
	off    bool                            // the condition was False once
}

// look looks again if that is due, and reports whether it has.
func (g *grounds) look(ctx context.Context, every time.Duration) (found Looked, due bool) {
	if g.Ground == nil || !g.unsure && time.Since(g.looked) < every {
		return Looked{}, false
	}
	g.looked = time.Now()
	found = g.Ground.Look(ctx)
	g.facts, g.unsure = &found.Facts, found.Unsure
	g.log(ctx, found.Facts.Findings)
	return found, true
}

// log logs each finding that was not there at the last look, or had another text, and each that has gone. What the first look finds has been logged at
// the start.
func (g *grounds) log(ctx context.Context, findings []v1alpha1.Finding) {
	logger := log.FromContext(ctx)
	first := g.logged == nil
	now, counts := map[string]string{}, map[string]int{}
	for _, f := range findings {
		counts[f.Severity]++
		now[f.Name] = f.Severity + f.Detail
		if !first && g.logged[f.Name] != now[f.Name] {
			logger.Info("this node lacks something: "+f.Name, "severity", f.Severity, "found", f.Detail, "costs", f.Cost, "remedy", f.Remedy)
		}
	}
	for name := range g.logged {
		if _, still := now[name]; !still {
			logger.Info("this node does not lack it any more: " + name)
		}
	}
	g.logged = now
	for _, severity := range severities {
		findingsNow.WithLabelValues(severity).Set(float64(counts[severity]))
	}
}

// concluded adds to what came of a sync what was found of the node itself, the pods that have traffic which passes no rule, and the condition about them.
func (g *grounds) concluded(_ context.Context, o *outcome) {
	o.Facts = g.facts
	o.Unpoliced, o.Bridges = g.unpoliced(o.Report.Concerns)
}

// unpoliced are the pods that policies select and that have traffic which passes no rule, by their digests, and the condition that says so: nil where there
// has never been any. If it cannot be told which they are, all count.
func (g *grounds) unpoliced(found policy.Concerns) ([]uint64, *metav1.Condition) {
	if g.Ground == nil {
		return nil, nil
	}
	var addrs []netip.Addr
	for _, digest := range found.Pods {
		addrs = append(addrs, found.Addrs[digest]...)
	}
	unseen, err := g.Unseen(addrs)
	if err != nil {
		unseen = addrs
	}
	pods := slices.DeleteFunc(slices.Clone(found.Pods), func(digest uint64) bool {
		return !slices.ContainsFunc(found.Addrs[digest], func(a netip.Addr) bool { return slices.Contains(unseen, a) })
	})
	unpolicedPods.Set(float64(len(pods)))
	switch {
	case len(pods) > 0:
		g.off = true
		return pods, bridgesCondition(unseen[0], len(pods), err)
	case g.off:
		return nil, &metav1.Condition{
			Type: v1alpha1.BridgesPolicedCondition, Status: metav1.ConditionTrue, Reason: v1alpha1.BridgesPolicedReason,
			Message: "no pod that a policy selects has traffic within a bridge that passes no rule",
		}
	}
	return nil, nil
}

func bridgesCondition(first netip.Addr, pods int, err error) *metav1.Condition {
	family, sysctl := v1alpha1.IPv4, "iptables"
	if first.Is6() {
		family, sysctl = v1alpha1.IPv6, "ip6tables"
	}
	message := fmt.Sprintf("%s traffic between two pods of one bridge passes no policy: %s that policies select here are on a bridge, %s the first; "+
		"load br_netfilter and set net.bridge.bridge-nf-call-%s to 1", family, cached.Counted(int32(pods), "pod"), first, sysctl)
	if err != nil {
		message = fmt.Sprintf("traffic between two pods of one bridge passes no policy, and which pods are on one is not known: %v", err)
	}
	return &metav1.Condition{
		Type: v1alpha1.BridgesPolicedCondition, Status: metav1.ConditionFalse, Reason: v1alpha1.BridgeFilterOffReason,
		Message: cached.Shortened(message, cached.MaxMessage),
	}
}
