package connections

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// Which namespaces have a report.
const (
	ForThoseThatAsk = "asked" // those with the annotation
	ForAll          = "all"
	ForNone         = "none"
)

const (
	workers = 2
	// joinDelay is how long a report waits for other nodes, which have heard of the same.
	joinDelay = 500 * time.Millisecond
	// writePause is how long there is no second write of one report.
	writePause = 2 * time.Second
)

// Reports keeps the ConnectionReports.
type Reports struct {
	// For says which namespaces have one.
	For string
	// Runs reports whether a node runs pods of a namespace.
	Runs func(node, namespace string) bool

	nodes, namespaces, reports toolscache.SharedIndexInformer
	client                     rest.Interface
	recorder                   events.EventRecorder
	queue                      workqueue.TypedRateLimitingInterface[string]
	index                      index
	notices                    notices

	mu      sync.Mutex
	written map[string]time.Time // when each namespace's was written last, as long as that is to be known
}

// SetupWithManager starts the watches and the workers.
func (r *Reports) SetupWithManager(ctx context.Context, m ctrl.Manager, ours rest.Interface) error {
	err := cached.Informers(ctx, m.GetCache(), []cached.Wanted{
		{Object: &corev1.Namespace{}, To: &r.namespaces},
		{Object: &v1alpha1.NodeConnections{}, To: &r.nodes},
		{Object: &v1alpha1.ConnectionReport{}, To: &r.reports},
	})
	if err != nil {
		return err
	}
	r.client, r.written = ours, map[string]time.Time{}
	r.recorder = m.GetEventRecorder("ringfence-controller")
	c, err := controller.NewTyped("connection-reports", m, controller.TypedOptions[string]{
		Reconciler: r, MaxConcurrentReconciles: workers, CacheSyncTimeout: math.MaxInt64, RateLimiter: cached.Retries[string](cached.LongestPause),
	})
	if err != nil {
		return fmt.Errorf("setting up the reports of connections: %w", err)
	}
	if err := c.Watch(source.TypedFunc[string](r.watch)); err != nil {
		return fmt.Errorf("setting up the reports of connections: %w", err)
	}
	return nil
}

// watch has a namespace looked at when it, its report, or what a node says of it changes.
//
// It returns once all that is there has been heard of: a report that is made of what some nodes say would forget the others, and that they were believed.
func (r *Reports) watch(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string]) error {
	r.queue = queue
	var heard []toolscache.InformerSynced
	for _, w := range []struct {
		informer toolscache.SharedIndexInformer
		handler  toolscache.ResourceEventHandler
	}{
		{r.nodes, cached.OnChange(func(before, after *v1alpha1.NodeConnections) {
			one := after
			if one == nil {
				one = before
			}
			for _, namespace := range r.index.put(one.Name, before, after) {
				queue.AddAfter(namespace, joinDelay)
			}
		})},
		{r.namespaces, cached.OnChange(func(before, after *cached.NamespaceEntry) {
			if after != nil && (before == nil || before.Namespace.Logged != after.Namespace.Logged) {
				queue.Add(after.Name)
			}
		})},
		{r.reports, cached.OnChange(func(before, after *v1alpha1.ConnectionReport) {
			if after == nil {
				queue.Add(before.Namespace)
			}
		})},
	} {
		registration, err := w.informer.AddEventHandler(w.handler)
		if err != nil {
			return fmt.Errorf("watching: %w", err)
		}
		heard = append(heard, registration.HasSynced)
	}
	toolscache.WaitForCacheSync(ctx.Done(), heard...)
	return nil
}

// Reconcile brings the report of one namespace to what nodes say.
func (r *Reports) Reconcile(ctx context.Context, namespace string) (reconcile.Result, error) {
	before := cached.Get[*v1alpha1.ConnectionReport](r.reports, namespace+"/"+v1alpha1.ConnectionReportName)
	ns := cached.Get[*cached.NamespaceEntry](r.namespaces, namespace)
	if !r.isAsked(ns) {
		return reconcile.Result{}, r.remove(ctx, before)
	}
	now := time.Now()
	if wait := r.pause(namespace, now); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	status := merge(namespace, r.saidOf(namespace), r.runs(before), now)
	if before != nil && equality.Semantic.DeepEqual(status, before.Status) {
		return reconcile.Result{}, nil
	}
	if err := r.write(ctx, namespace, status); err != nil {
		return reconcile.Result{}, err
	}
	r.mu.Lock()
	r.written[namespace] = now
	r.mu.Unlock()
	r.notices.emit(r.recorder, namespace, before, status, now)
	return reconcile.Result{}, nil
}

// isAsked reports whether a namespace is to have a report; nil is one that is gone.
func (r *Reports) isAsked(ns *cached.NamespaceEntry) bool {
	return ns != nil && (r.For == ForAll || r.For == ForThoseThatAsk && ns.Namespace.Logged)
}

// pause is how long the report is not to be written again.
func (r *Reports) pause(namespace string, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, at := range r.written {
		if now.Sub(at) >= writePause {
			delete(r.written, name)
		}
	}
	if at, there := r.written[namespace]; there {
		return writePause - now.Sub(at)
	}
	return 0
}

// saidOf is what nodes say of a namespace.
func (r *Reports) saidOf(namespace string) []said {
	var all []said
	for _, node := range r.index.of(namespace) {
		if c := cached.Get[*v1alpha1.NodeConnections](r.nodes, node); c != nil {
			all = append(all, said{node, &c.Status})
		}
	}
	return all
}

// runs reports whether a node runs pods of a namespace, or did when it was named in the report.
func (r *Reports) runs(before *v1alpha1.ConnectionReport) func(node, namespace string) bool {
	return func(node, namespace string) bool {
		return r.Runs(node, namespace) || before != nil && slices.ContainsFunc(before.Status.Connections, func(c v1alpha1.ReportedConnection) bool {
			local, _ := c.Ends()
			return local.Namespace == namespace && slices.Contains(c.Nodes, node)
		})
	}
}

// applied is a report as it is written: what is not there any more is written too, or it would stay.
type applied struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        map[string]string               `json:"metadata"`
	Status          v1alpha1.ConnectionReportStatus `json:"status"`
}

func (r *Reports) write(ctx context.Context, namespace string, status v1alpha1.ConnectionReportStatus) error {
	body, err := json.Marshal(applied{
		TypeMeta: cached.OurType("ConnectionReport"), Status: status,
		Metadata: map[string]string{"namespace": namespace, "name": v1alpha1.ConnectionReportName},
	})
	if err == nil {
		err = cached.Apply(r.client, cached.ControllerManager, body).Namespace(namespace).Resource("connectionreports").
			Name(v1alpha1.ConnectionReportName).Do(ctx).Error()
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil // it goes with its namespace
	}
	if err != nil {
		return fmt.Errorf("writing the ConnectionReport of namespace %s: %w", namespace, err)
	}
	return nil
}

// remove deletes a report that nobody asks for any more.
func (r *Reports) remove(ctx context.Context, report *v1alpha1.ConnectionReport) error {
	if report == nil {
		return nil
	}
	err := r.client.Delete().Namespace(report.Namespace).Resource("connectionreports").Name(report.Name).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &report.UID}}).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting the ConnectionReport of namespace %s: %w", report.Namespace, err)
	}
	return nil
}
