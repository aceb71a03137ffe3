package status

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Which policies an event is about.

// mark has policies looked at after a pause, with a review of their text if what that is about has changed. A policy that takes long to look at rests for
// longer: reports and pods that come meanwhile are looked at together.
func (r *Policies) mark(pause time.Duration, review bool, keys ...policyKey) {
	for _, key := range keys {
		if wait := max(pause, restAfter(r.index.mark(key, review))); wait > 0 {
			r.queue.AddAfter(key, wait)
		} else {
			r.queue.Add(key)
		}
	}
}

const (
	// restShare is how much longer than a look at a policy the rest behind it is, so that one policy never takes more than a fifth of a processor.
	restShare = 4
	// longestRest is how long what has happened waits at the most.
	longestRest = time.Second
)

// restAfter is how long a policy rests after a look that took so long. Most take less than a millisecond, and need no rest.
func restAfter(look time.Duration) time.Duration {
	if look < time.Millisecond {
		return 0
	}
	return min(restShare*look, longestRest)
}

// policyChanged marks a policy, and those that it may conflict with.
func (r *Policies) policyChanged(resource string) func(before, after metav1.Object) {
	return func(before, after metav1.Object) {
		o := after
		if o == nil {
			o = before
		}
		key := policyKey{resource, o.GetNamespace(), o.GetName()}
		changed := true
		if after == nil {
			r.index.forget(key)
		} else {
			changed = r.index.see(key, after, time.Now())
		}
		if !changed && r.index.wrote(key, after) {
			return
		}
		r.mark(0, changed, key)
		if changed {
			r.mark(0, true, r.index.tied(before, after)...)
		}
	}
}

// enforcementChanged marks the NetworkPolicy: a user may have deleted its PolicyEnforcement, or written something else.
func (r *Policies) enforcementChanged(before, after *v1alpha1.PolicyEnforcement) {
	if after == nil {
		key := policyKey{cached.NetworkPolicies.String(), before.Namespace, before.Name}
		r.index.enforcementGone(key)
		r.mark(0, false, key)
		return
	}
	if key := (policyKey{cached.NetworkPolicies.String(), after.Namespace, after.Name}); !r.index.wrote(key, after) {
		r.mark(0, false, key)
	}
}

func (r *Policies) namespaceChanged(before, after *cached.NamespaceEntry) {
	r.view.byName.changed()
	if before != nil && after != nil && cached.SameForPolicy(before, after) {
		return
	}
	e := after
	if e == nil {
		e = before
	}
	r.mark(0, true, r.index.in(e.Name)...)
	r.mark(0, true, r.index.in("")...)
}

func (r *Policies) podChanged(before, after *podEntry) {
	rivals := r.claims.change(podIn(before), podIn(after))
	if before != nil && after != nil && cached.SameForPolicy(before.PodEntry, after.PodEntry) {
		return
	}
	var keys []policyKey
	for _, e := range []*podEntry{before, after} {
		if e == nil {
			continue
		}
		for _, key := range r.index.selecting(e.Pod, r.view.namespace(e.Pod.Namespace)) {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	for _, p := range rivals {
		keys = append(keys, r.index.selecting(p, r.view.namespace(p.Namespace))...)
	}
	r.mark(0, true, keys...)
}

func podIn(e *podEntry) *compile.Pod {
	if e == nil {
		return nil
	}
	return e.Pod
}

// nodeChanged marks what runs on a node that came or went.
func (r *Policies) nodeChanged(before, after metav1.Object) {
	if (before == nil) == (after == nil) {
		return
	}
	o := after
	if o == nil {
		o = before
	}
	r.mark(0, false, r.index.on(o.GetName())...)
}

// onReport tells reports that were there before this process from those that come.
func (r *Policies) onReport() toolscache.ResourceEventHandler {
	later := cached.OnChange(r.reportChanged)
	return toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			if e := o.(*cached.ReportEntry); initial {
				r.view.heartbeats.presume(e, time.Now())
				r.mark(reportPause, false, r.index.on(e.Name)...)
				return
			}
			later.OnAdd(o, false)
		},
		UpdateFunc: later.OnUpdate,
		DeleteFunc: later.OnDelete,
	}
}

// reportChanged marks what a report is news for: every policy of the node if something has become worse, else those that wait for it.
func (r *Policies) reportChanged(before, after *cached.ReportEntry) {
	switch {
	case after == nil:
		r.view.heartbeats.forget(before.Name)
		r.mark(0, false, r.index.on(before.Name)...)
	case before == nil:
		r.view.heartbeats.note(after, time.Now())
		r.mark(reportPause, false, r.index.on(after.Name)...)
	default:
		again := !before.Heartbeat.Equal(after.Heartbeat) && r.view.heartbeats.note(after, time.Now())
		if again || after.WorseThan(before) {
			r.mark(reportPause, false, r.index.on(after.Name)...)
		} else {
			r.mark(reportPause, false, r.index.waitingFor(after.Name)...)
		}
	}
}
