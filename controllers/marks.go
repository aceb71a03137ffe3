package controllers

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Which policies an event is about.

// mark has policies looked at after a pause, with a review of their text if what that is about has changed.
func (r *Policies) mark(pause time.Duration, review bool, keys ...policyKey) {
	for _, key := range keys {
		r.index.mark(key, review)
		if pause > 0 {
			r.queue.AddAfter(key, pause)
		} else {
			r.queue.Add(key)
		}
	}
}

// onChange calls changed with what an object was and what it is; the zero value where it was not, or is not any more.
func onChange[T any](changed func(before, after T)) toolscache.ResourceEventHandler {
	var none T
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { changed(none, o.(T)) },
		UpdateFunc: func(before, after any) { changed(before.(T), after.(T)) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if before, ok := o.(T); ok {
				changed(before, none)
			}
		},
	}
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
		r.mark(0, changed, key)
		if _, cluster := o.(*v1alpha1.ClusterNetworkPolicy); cluster && changed {
			r.mark(0, true, r.index.in("")...)
		}
	}
}

// enforcementChanged marks the NetworkPolicy: somebody may have deleted what is said of it, or written something else.
func (r *Policies) enforcementChanged(before, after *v1alpha1.PolicyEnforcement) {
	o := after
	if o == nil {
		o = before
		r.index.unmade(policyKey{networkPolicies.String(), o.Namespace, o.Name})
	}
	r.mark(0, false, policyKey{networkPolicies.String(), o.Namespace, o.Name})
}

func (r *Policies) namespaceChanged(before, after *namespaceEntry) {
	if before != nil && after != nil && sameForPolicy(before, after) {
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
	if before != nil && after != nil && sameForPolicy(before, after) {
		return
	}
	var keys []policyKey
	for _, e := range []*podEntry{before, after} {
		if e == nil {
			continue
		}
		for _, key := range r.index.selecting(e.pod, r.view.namespace(e.pod.Namespace)) {
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
	return e.pod
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
	later := onChange(r.reportChanged)
	return toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			if e := o.(*reportEntry); initial {
				r.view.hearing.presume(e, time.Now())
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
func (r *Policies) reportChanged(before, after *reportEntry) {
	switch {
	case after == nil:
		r.view.hearing.forget(before.Name)
		r.mark(0, false, r.index.on(before.Name)...)
	case before == nil:
		r.view.hearing.note(after, time.Now())
		r.mark(reportPause, false, r.index.on(after.Name)...)
	default:
		again := !before.heartbeat.Equal(after.heartbeat) && r.view.hearing.note(after, time.Now())
		if again || after.worseThan(before) {
			r.mark(reportPause, false, r.index.on(after.Name)...)
		} else {
			r.mark(reportPause, false, r.index.waitingFor(after.Name)...)
		}
	}
}

// worseThan reports whether a policy that was programmed by the report before may not be by this one, or for another reason.
func (e *reportEntry) worseThan(before *reportEntry) bool {
	if e.failing != before.failing || e.unread != before.unread || !slices.Equal(e.families, before.families) || !e.covers(before.digests) ||
		!slices.Equal(e.refused, before.refused) {
		return true
	}
	for resource, version := range before.versions {
		if !e.reached(resource, version) {
			return true
		}
	}
	return false
}
