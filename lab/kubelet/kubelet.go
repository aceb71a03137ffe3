// Package kubelet stands for a node's kubelet and its container runtime: it makes the pods that are bound to the node
// out of network namespaces, CNI plugins and listening sockets, and says so in their status.
//
// What a real kubelet does and a policy enforcer can see, this one does in the same order: the sandbox has its
// network before the status names its addresses; a pod that ends or is deleted loses its network before the API
// server hears of it, so that its addresses may already be another pod's; a finished pod's status keeps naming them.
//
// Invariants:
//   - the API object is the only input, besides the annotations below: nothing has to be called to start or end a pod;
//   - each pod object (by UID) has one sandbox at most, and a new object of the same name never inherits the old one's;
//   - Close leaves no network namespace and no socket.
//
// There are no images, volumes, probes or resources. A container listens on all of its ports, at all of the pod's
// addresses, and answers with the name of the pod's host.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
)

// Annotations of a pod that stand for what its program does.
const (
	// Exit ends the pod's containers for good, at any time: "Succeeded" or "Failed".
	Exit = "lab.ringfence.io/exit"
	// Linger is how long the pod goes on serving after it was told to end, as a duration ("2s"), at most its
	// grace period. Without it the pod ends at once.
	Linger = "lab.ringfence.io/linger"
	// Addresses asks for those addresses, comma-separated, as the pod's own.
	Addresses = "lab.ringfence.io/addresses"
)

// workers bounds how many pods of a node start or end at once.
const workers = 4

// Config is what a kubelet needs.
type Config struct {
	// Node is the name of the Node object, Host its network namespace, Addresses those that the Node object names.
	Node      string
	Host      *host.Host
	Addresses []netip.Addr
	Network   *cni.Network

	Client kubernetes.Interface
	// Pods is a started or yet to be started informer of all pods.
	Pods cache.SharedIndexInformer
	// HostName names the network namespace of a pod.
	HostName func(namespace, name string) string
	// Report is told what went wrong with a pod; it will be tried again.
	Report func(error)
	// FirstAct, if it is set, is what a pod's program does first: it is called as soon as the pod has its network, before it listens and before its
	// status is written.
	FirstAct FirstAct
	// StatusDelay is how long after a pod has got its network its status says so.
	StatusDelay time.Duration
}

// FirstAct acts inside a pod that has just got its network.
type FirstAct func(pod *corev1.Pod, h *host.Host, addrs []netip.Addr)

// Kubelet runs the pods of one node.
type Kubelet struct {
	config Config
	lister corelisters.PodLister
	queue  workqueue.TypedRateLimitingInterface[types.NamespacedName]
	events cache.ResourceEventHandlerRegistration
	all    sync.WaitGroup

	mu        sync.Mutex
	sandboxes map[types.NamespacedName]*sandbox
}

// New registers for the pods of the node. Run does the work.
func New(config Config) (*Kubelet, error) {
	k := &Kubelet{
		config: config,
		lister: corelisters.NewPodLister(config.Pods.GetIndexer()),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 5*time.Second)),
		sandboxes: map[types.NamespacedName]*sandbox{},
	}
	var err error
	k.events, err = config.Pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    k.enqueue,
		UpdateFunc: func(_, pod any) { k.enqueue(pod) },
		DeleteFunc: k.enqueue,
	})
	if err != nil {
		return nil, fmt.Errorf("watching the pods of %s: %w", config.Node, err)
	}
	return k, nil
}

// enqueue takes an event. A pod never changes its node, so that other nodes' pods are of no interest.
func (k *Kubelet) enqueue(object any) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	if pod, ok := object.(*corev1.Pod); ok && pod.Spec.NodeName == k.config.Node {
		k.queue.Add(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name})
	}
}

// Start starts the workers. They end with Close.
func (k *Kubelet) Start(ctx context.Context) {
	for range workers {
		k.all.Go(func() {
			for k.work(ctx) {
			}
		})
	}
}

// work handles one pod and reports whether there may be more.
func (k *Kubelet) work(ctx context.Context) bool {
	key, shutdown := k.queue.Get()
	if shutdown {
		return false
	}
	defer k.queue.Done(key)
	after, err := k.sync(ctx, key)
	switch {
	case err == nil:
		k.queue.Forget(key)
		if after > 0 {
			k.queue.AddAfter(key, after)
		}
		return true
	case ctx.Err() != nil:
		return false
	case !apierrors.IsConflict(err): // a conflict only says that the cache is a moment behind
		k.config.Report(fmt.Errorf("pod %s on %s: %w", key, k.config.Node, err))
	}
	k.queue.AddRateLimited(key)
	return true
}

// sync brings one pod to where its object wants it. A positive duration asks for another look after it.
func (k *Kubelet) sync(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	pod, err := k.lister.Pods(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("reading it: %w", err)
	}
	box := k.sandbox(key)
	if box != nil && (err != nil || box.uid != pod.UID) { // deleted by force, and perhaps made anew
		if err := k.end(ctx, key, box); err != nil {
			return 0, err
		}
		box = nil
	}
	if err != nil || pod.Spec.NodeName != k.config.Node {
		return 0, nil
	}
	switch exit := pod.Annotations[Exit]; {
	case pod.DeletionTimestamp != nil:
		if left := lingering(pod, time.Now()); box != nil && left > 0 {
			return left, nil
		}
		return 0, errors.Join(k.end(ctx, key, box), k.remove(ctx, pod))
	case isOver(pod):
		return 0, k.end(ctx, key, box)
	case exit != "":
		if err := k.end(ctx, key, box); err != nil {
			return 0, err
		}
		return 0, k.writeStatus(ctx, pod, exitedStatus(pod, corev1.PodPhase(exit), k.config.Addresses))
	}
	if box == nil {
		if box, err = k.begin(ctx, key, pod); err != nil {
			return 0, err
		}
	}
	if wait := time.Until(box.connected.Add(k.config.StatusDelay)); wait > 0 {
		return wait, nil
	}
	return 0, k.writeStatus(ctx, pod, runningStatus(pod, box, k.config.Addresses))
}

// lingering is how long a pod that is being deleted goes on.
func lingering(pod *corev1.Pod, now time.Time) time.Duration {
	linger, err := time.ParseDuration(pod.Annotations[Linger])
	if err != nil || pod.DeletionGracePeriodSeconds == nil {
		return 0
	}
	// The deletion timestamp is when the grace period will be over.
	grace := time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	return pod.DeletionTimestamp.Add(-grace).Add(min(linger, grace)).Sub(now)
}

// remove takes the object of a pod that has ended out of the API server.
func (k *Kubelet) remove(ctx context.Context, pod *corev1.Pod) error {
	err := k.config.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, deleteNow(pod.UID))
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // gone, or another of the same name
		return fmt.Errorf("removing its object: %w", err)
	}
	return nil
}

// Host returns the network namespace of a running pod of this node, or nil.
func (k *Kubelet) Host(namespace, name string) *host.Host {
	if box := k.sandbox(types.NamespacedName{Namespace: namespace, Name: name}); box != nil {
		return box.host
	}
	return nil
}

func (k *Kubelet) sandbox(key types.NamespacedName) *sandbox {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sandboxes[key]
}

// Close stops the workers and takes away all sandboxes, as a power cut would: no status is written. The context given to
// Start should have ended before, or a call to the API server may hold Close up.
func (k *Kubelet) Close() error {
	_ = k.config.Pods.RemoveEventHandler(k.events) // the informer may be stopped already
	k.queue.ShutDown()
	k.all.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, box := range k.sandboxes {
		errs = append(errs, box.close())
	}
	k.sandboxes = nil
	return errors.Join(errs...)
}
