package startup

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// DefaultTaint is the key of the taint that an administrator registers nodes with. config/rbac lets the controller remove it, and no other.
const DefaultTaint = "node.ringfence.io/not-ready"

var taintsRemoved = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "ringfence_startup_taints_removed_total",
	Help: "Startup taints that were removed from nodes once their enforcer had everything in force.",
})

// Metrics are those of startup taints.
func Metrics() []prometheus.Collector { return []prometheus.Collector{taintsRemoved} }

// Taint takes a taint from each node, whatever effects it has there, when the node's enforcer reports that all is in force, and has been put in
// force since the node's last boot. It never adds the taint, and changes nothing else of a node.
type Taint struct {
	// Key is the taint's. Without it nothing is taken from any node.
	Key string

	nodes, reports toolscache.SharedIndexInformer
	client         corev1client.NodesGetter
}

// startupWorkers is how many nodes are written to at once: many may be registered together.
const startupWorkers = 4

// SetupWithManager starts the watches and the workers.
func (s *Taint) SetupWithManager(ctx context.Context, m ctrl.Manager) error {
	if err := cached.Register(Metrics()); err != nil {
		return fmt.Errorf("setting up the startup taint: %w", err)
	}
	if s.Key == "" {
		return nil
	}
	err := cached.Informers(ctx, m.GetCache(), []cached.Wanted{
		{Object: &corev1.Node{}, To: &s.nodes}, {Object: &v1alpha1.NodeEnforcement{}, To: &s.reports},
	})
	if err != nil {
		return err
	}
	if s.client, err = corev1client.NewForConfigAndClient(m.GetConfig(), m.GetHTTPClient()); err != nil {
		return fmt.Errorf("setting up the startup taint: %w", err)
	}
	c, err := controller.New("startup-taint", m, controller.Options{
		Reconciler: s, MaxConcurrentReconciles: startupWorkers, CacheSyncTimeout: math.MaxInt64,
		RateLimiter: cached.Retries[reconcile.Request](cached.LongestPause),
	})
	if err != nil {
		return fmt.Errorf("setting up the startup taint: %w", err)
	}
	if err := c.Watch(source.Func(s.watch)); err != nil {
		return fmt.Errorf("setting up the startup taint: %w", err)
	}
	return nil
}

// watch has a node looked at when it or its report changes, as long as it has the taint.
func (s *Taint) watch(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	look := func(name string) { queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}) }
	for _, w := range []struct {
		informer toolscache.SharedIndexInformer
		handler  toolscache.ResourceEventHandler
	}{
		{s.nodes, cached.OnChange(func(_, after *corev1.Node) {
			if after != nil && s.isOn(after) {
				look(after.Name)
			}
		})},
		{s.reports, cached.OnChange(func(_, after *cached.ReportEntry) {
			if after == nil {
				return
			}
			if node := cached.Get[*corev1.Node](s.nodes, after.Name); node != nil && s.isOn(node) {
				look(after.Name)
			}
		})},
	} {
		if _, err := w.informer.AddEventHandler(w.handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	return nil
}

// Reconcile takes the taint from one node, if it is time.
func (s *Taint) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	node := cached.Get[*corev1.Node](s.nodes, request.Name)
	if node == nil || !s.isOn(node) || !hasEnforced(node, cached.Get[*cached.ReportEntry](s.reports, request.Name)) {
		return reconcile.Result{}, nil
	}
	patch, err := s.removal(node)
	if err != nil {
		return reconcile.Result{}, err
	}
	_, err = s.client.Nodes().Patch(ctx, node.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: "ringfence-controller"})
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err), apierrors.IsInvalid(err):
		// Another writer has written meanwhile, perhaps the taints. That comes to the cache, too, and may be there already.
		return reconcile.Result{RequeueAfter: conflictPause}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("removing the taint %s of node %s: %w", s.Key, node.Name, err)
	}
	taintsRemoved.Inc()
	log.FromContext(ctx).Info("policy is in force on a node: removed its startup taint", "node", node.Name, "taint", s.Key)
	return reconcile.Result{}, nil
}

// conflictPause is how long a node is left alone that another writer is writing to.
const conflictPause = 100 * time.Millisecond

func (s *Taint) isOn(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == s.Key })
}

// hasEnforced reports whether a node's enforcer has put in force all that it should since the node's last boot. A Node that does not say which
// boot it is of has not heard of its kubelet.
func hasEnforced(node *corev1.Node, report *cached.ReportEntry) bool {
	boot := node.Status.NodeInfo.BootID
	return boot != "" && report != nil && report.Boot == boot && report.Complete
}

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value string `json:"value,omitempty"`
}

// removal is the patch that takes the taint from a node as it was seen, with all its effects, and fails if the node has changed since. It does not
// repeat what others have written.
func (s *Taint) removal(node *corev1.Node) ([]byte, error) {
	patch := []operation{{Op: "replace", Path: "/metadata/resourceVersion", Value: node.ResourceVersion}}
	for i, t := range slices.Backward(node.Spec.Taints) { // from the last: those before keep their places
		if t.Key == s.Key {
			patch = append(patch, operation{Op: "remove", Path: fmt.Sprintf("/spec/taints/%d", i)})
		}
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("removing the taint %s of node %s: %w", s.Key, node.Name, err)
	}
	return text, nil
}
