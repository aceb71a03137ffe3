package lab

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// scheduler binds pods that have no node, in turn, to the nodes that their nodeSelector takes.
type scheduler struct {
	lab   *Lab
	pods  corelisters.PodLister
	nodes corelisters.NodeLister
	queue workqueue.TypedRateLimitingInterface[types.NamespacedName]
	turn  int
}

func newScheduler(l *Lab) *scheduler {
	s := &scheduler{
		lab:   l,
		pods:  l.informers.Core().V1().Pods().Lister(),
		nodes: l.informers.Core().V1().Nodes().Lister(),
		queue: newQueue[types.NamespacedName](),
	}
	enqueue := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok && pod.Spec.NodeName == "" {
			s.queue.Add(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name})
		}
	}
	watch(l.informers.Core().V1().Pods().Informer(), enqueue)
	return s
}

// start returns what runs until ctx ends.
func (s *scheduler) start(ctx context.Context) func() {
	return func() { work(ctx, s.queue, s.lab.opts.Report, s.bind) }
}

// bind gives a pod its node.
func (s *scheduler) bind(ctx context.Context, key types.NamespacedName) error {
	pod, err := s.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) || (err == nil && (pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading pod %s: %w", key, err)
	}
	node, err := s.next(labels.SelectorFromSet(pod.Spec.NodeSelector))
	if err != nil {
		return fmt.Errorf("placing pod %s: %w", key, err)
	}
	err = s.lab.Client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // deleted, or bound a moment ago
		return fmt.Errorf("binding pod %s to %s: %w", key, node, err)
	}
	return nil
}

// next takes the nodes that match in turn.
func (s *scheduler) next(selector labels.Selector) (string, error) {
	for range s.lab.Nodes {
		name := s.lab.Nodes[s.turn%len(s.lab.Nodes)].Name
		s.turn++
		node, err := s.nodes.Get(name)
		if err != nil {
			return "", fmt.Errorf("reading node %s: %w", name, err)
		}
		if selector.Matches(labels.Set(node.Labels)) {
			return name, nil
		}
	}
	return "", fmt.Errorf("no node has labels %s", selector)
}

// newQueue retries quickly: all that can fail here passes in a moment.
func newQueue[T comparable]() workqueue.TypedRateLimitingInterface[T] {
	return workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[T](50*time.Millisecond, 2*time.Second))
}

// watch calls enqueue with each object that is new or changed.
func watch(informer cache.SharedIndexInformer, enqueue func(any)) {
	// The only error is that the informer was stopped, and then nothing happens any more.
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
	})
}

// work handles the queue's keys one after another until ctx ends.
func work[T comparable](ctx context.Context, queue workqueue.TypedRateLimitingInterface[T], report func(error), handle func(context.Context, T) error) {
	stop := context.AfterFunc(ctx, queue.ShutDown)
	defer stop()
	for {
		key, shutdown := queue.Get()
		if shutdown {
			return
		}
		err := handle(ctx, key)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			report(err)
			queue.AddRateLimited(key)
		default:
			queue.Forget(key)
		}
		queue.Done(key)
	}
}
