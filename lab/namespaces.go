package lab

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/util/workqueue"
)

// namespacePoll is how long a namespace waits for its pods between two looks.
const namespacePoll = 50 * time.Millisecond

// namespaces ends namespaces that are being deleted, which in a whole cluster is the controller manager's work: it
// deletes all that is in them, and when nothing is left takes the finalizer away.
type namespaces struct {
	lab   *Lab
	queue workqueue.TypedRateLimitingInterface[string]
}

func newNamespaces(l *Lab) *namespaces {
	c := &namespaces{lab: l, queue: newQueue[string]()}
	watch(l.informers.Core().V1().Namespaces().Informer(), func(object any) {
		if ns, ok := object.(*corev1.Namespace); ok && ns.DeletionTimestamp != nil {
			c.queue.Add(ns.Name)
		}
	})
	return c
}

// start returns what runs until ctx ends.
func (c *namespaces) start(ctx context.Context) func() {
	return func() { work(ctx, c.queue, c.lab.opts.Report, c.end) }
}

// end empties a namespace and lets it go.
func (c *namespaces) end(ctx context.Context, name string) error {
	namespace, err := c.lab.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading namespace %s: %w", name, err)
	}
	left, err := c.empty(ctx, name)
	if err != nil {
		return fmt.Errorf("emptying namespace %s: %w", name, err)
	}
	if left > 0 { // pods take a moment to end
		c.queue.AddAfter(name, namespacePoll)
		return nil
	}
	namespace.Spec.Finalizers = nil
	_, err = c.lab.Client.CoreV1().Namespaces().Finalize(ctx, namespace, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // a conflict comes back as an event
		return fmt.Errorf("finalizing namespace %s: %w", name, err)
	}
	return nil
}

// empty deletes everything in the namespace and returns how much there was.
func (c *namespaces) empty(ctx context.Context, name string) (int, error) {
	resources, err := c.resources()
	if err != nil {
		return 0, err
	}
	left := 0
	for _, resource := range resources {
		client := c.lab.metadata.Resource(resource).Namespace(name)
		list, err := client.List(ctx, metav1.ListOptions{Limit: 1})
		if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) { // its definition has just gone
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("listing %s: %w", resource.Resource, err)
		}
		if len(list.Items) == 0 {
			continue
		}
		left += len(list.Items)
		if err := client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			return 0, fmt.Errorf("deleting %s: %w", resource.Resource, err)
		}
	}
	return left, nil
}

// resources are all kinds of namespaced objects that can be listed and deleted, those of custom definitions among them.
func (c *namespaces) resources() ([]schema.GroupVersionResource, error) {
	lists, err := c.lab.Client.Discovery().ServerPreferredNamespacedResources()
	if err != nil {
		return nil, fmt.Errorf("asking for the kinds of objects: %w", err)
	}
	lists = discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "deletecollection"}}, lists)
	all, err := discovery.GroupVersionResources(lists)
	if err != nil {
		return nil, fmt.Errorf("reading the kinds of objects: %w", err)
	}
	return sets.KeySet(all).UnsortedList(), nil
}
