package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// outcome is what one sync was made from, and what came of it. Listeners add to it what the report has to say of their part.
type outcome struct {
	report.Synced
	snapshot compile.Snapshot
	began    time.Time
	changed  *time.Time // when the first event came that the sync takes in; nil if there was none
	verify   bool       // the sync looked at the kernel
	reading  bool       // it was to, and the kernel is being read for it: that asks for another sync
	stays    bool       // the snapshot is that of the sync before, since changes wait
	// ended, if there is one, answers whoever waits for the policy of pods that have just come.
	ended func(lacking func([]netip.Addr) error)
}

// listener is told of each sync, whether it went well or not.
type listener func(ctx context.Context, o *outcome)

// allListeners are told of each sync in this order.
func (n *Reconciler) allListeners() []listener {
	return []listener{
		answerArrivals,          // first: pods wait for it before they start
		measure,                 // metrics
		n.closing.concluded,     // adds the condition UnknownPodsDropped
		n.sources.concluded,     // adds the condition SourcesChecked
		n.grounds.concluded,     // adds the condition BridgesPoliced, and what was found of the node itself
		n.wantSizes,             // of namespaces, for the spreading of reports
		n.reportSync,            // the NodeEnforcement: behind all that add to it
		n.publishPoints,         // what the log of denied packets, and the audit, count
		n.publishWatched,        // whose connections are looked for
		n.log.concluded,         // repairs, problems, what waits and what is left over
		n.noteSetsLeft,          // the condition Healthy
		n.addresses.concluded,   // contested and impossible addresses
		n.comparisons.concluded, // whether what was made step by step is right
		n.askRanges,             // the ranges of other nodes, for the next sync
	}
}

// answerArrivals says of pods that have just come whether their policy is in force.
func answerArrivals(_ context.Context, o *outcome) {
	if o.ended != nil {
		o.ended(func(addrs []netip.Addr) error {
			return errors.Join(enforcer.Concerning(o.Err, addrs), lagging(o.snapshot, o.Report.Waiting, addrs), doubtful(o.Report.Concerns.InDoubt, addrs))
		})
	}
}

// lagging says whether one of the addresses is of a pod whose namespace's policies are not in force as they are now.
func lagging(s compile.Snapshot, waiting []string, addrs []netip.Addr) error {
	if len(waiting) == 0 {
		return nil
	}
	for _, p := range s.Local {
		has := func(a netip.Addr) bool { return slices.Contains(p.Addrs, a) }
		if slices.Contains(waiting, p.Namespace) && slices.ContainsFunc(addrs, has) {
			return fmt.Errorf("the policies of namespace %s are in force as they were: what they have become is being made ready", p.Namespace)
		}
	}
	return nil
}

// errDoubtful holds back pods whose policies name others that are not known yet. What a policy allows is part of it, and a pod that starts now would be denied
// that.
var errDoubtful = errors.New("a policy of the pod names pods that the API server has not shown this node yet: what it says of them fails closed")

// doubtful says whether one of the addresses is of a pod that a policy in doubt applies to.
func doubtful(inDoubt, addrs []netip.Addr) error {
	if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(inDoubt, a) }) {
		return errDoubtful
	}
	return nil
}

// reportSync has the reporter take in the sync.
func (n *Reconciler) reportSync(_ context.Context, o *outcome) {
	if n.reporter == nil {
		return
	}
	s := o.Synced
	s.Err, s.At = errors.Join(o.Err, n.watches.incomplete()), time.Now()
	s.Nodes = func(namespace string) int { return n.nodesWith(o.snapshot, namespace) }
	n.reporter.Note(s)
}

// publishPoints says in which places of the rules packets are counted or logged.
func (n *Reconciler) publishPoints(_ context.Context, o *outcome) {
	if n.Points != nil {
		n.Points(o.Report.Points)
	}
}

// publishWatched says for which pods connections that pass are looked for.
func (n *Reconciler) publishWatched(_ context.Context, o *outcome) {
	if n.Watched != nil {
		n.Watched(watchedPods(o.snapshot))
	}
}

// watchedPods are the pods of this node in namespaces that ask for their allowed connections, by their addresses.
func watchedPods(s compile.Snapshot) map[netip.Addr]policy.PodName {
	watched := map[string]bool{}
	for n := range s.Namespaces.All() {
		watched[n.Name] = n.Watched
	}
	var addrs []netip.Addr
	for _, p := range s.Local {
		if watched[p.Namespace] {
			addrs = append(addrs, p.Addrs...)
		}
	}
	s.Remote = compile.Objects[*compile.Pod]{} // a node believes its own pods first
	pods := map[netip.Addr]policy.PodName{}
	for i, p := range compile.Holders(s, addrs...) {
		if p != nil && watched[p.Namespace] {
			pods[addrs[i]] = p.Named()
		}
	}
	return pods
}

// noteSetsLeft has sets that others refer to count against the node's health.
func (n *Reconciler) noteSetsLeft(_ context.Context, o *outcome) {
	n.Health.Note(v1alpha1.SetsLeftReason, leftoverError(o.Report.Leftover))
}

// maxLeftoverNames is how many sets an error names.
const maxLeftoverNames = 5

// leftoverError says which sets stay that are needed no more, nil if there are none.
func leftoverError(sets []string) error {
	if len(sets) == 0 {
		return nil
	}
	some := strings.Join(sets[:min(len(sets), maxLeftoverNames)], ", ")
	return fmt.Errorf("%d sets that are needed no more stay, since rules of another program refer to them: %s; "+
		"see 'iptables-save' and 'nft list ruleset' on the node, and take these rules away", len(sets), some)
}

// askRanges has the ranges of other nodes watched while their pods contest addresses. If they cannot be, the sync counts as failed.
func (n *Reconciler) askRanges(_ context.Context, o *outcome) {
	if err := n.watches.askRanges(o.Report.Concerns.Contested.Elsewhere > 0, time.Now()); o.Err == nil {
		o.Err = err
	}
}
