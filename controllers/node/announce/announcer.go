package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

const (
	// announceWorkers is how many announcements a node writes at once. It starts few pods at a time, and each write takes some milliseconds.
	announceWorkers = 4
	announceTimeout = 10 * time.Second
	// Pauses between attempts that fail, the first and the longest. A kubelet has mostly written its status by the third.
	announceRetry    = 200 * time.Millisecond
	maxAnnounceRetry = 10 * time.Second
)

// Announcement is what the API is to say of the addresses of a pod before the pod's kubelet does.
type Announcement struct {
	Namespace, Name string
	UID             types.UID
	// Addrs are those that the pod has. None says that what was announced is not its own, or not any more.
	Addrs []netip.Addr
}

func (a Announcement) equal(b Announcement) bool {
	return a.Namespace == b.Namespace && a.Name == b.Name && a.UID == b.UID && slices.Equal(a.Addrs, b.Addrs)
}

// Writer writes announcements to the API.
type Writer interface {
	WriteAnnouncement(ctx context.Context, a Announcement) error
}

// Announcer writes into the status of pods of this node which addresses they have, for the other nodes' sake, as soon as this node's CNI plugins have given
// them, and takes back what does not hold. Nothing ever waits for it. A write that fails is tried again as long as it would say anything new.
//
// Note may be called from one goroutine while Start runs in another.
type Announcer struct {
	writer  Writer
	log     logr.Logger
	queue   workqueue.TypedRateLimitingInterface[types.UID]
	retries workqueue.TypedRateLimiter[types.UID]

	mu     sync.Mutex
	tasks  map[types.UID]*announcing
	silent bool // a failure was logged, and none has succeeded since
}

// announcing is one announcement on its way.
type announcing struct {
	Announcement
	done bool // the API says it, or refuses to
}

var _ manager.LeaderElectionRunnable = (*Announcer)(nil)

// New makes an Announcer, which writes nothing before it is started.
func New(w Writer, log logr.Logger) *Announcer {
	return &Announcer{
		writer: w, log: log, tasks: map[types.UID]*announcing{},
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[types.UID]()),
		retries: workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](announceRetry, maxAnnounceRetry),
	}
}

// NeedLeaderElection is false: each node speaks for itself.
func (a *Announcer) NeedLeaderElection() bool { return false }

// announcements are what the API should say of this node's pods, and whether it does: of those that have come it does not show the addresses, and of those
// that are announced and have not come, it shows what was a sandbox's that is no more. A pod that the API shows with other addresses is left out, as it had a
// sandbox before: nobody would believe what is announced of it. shown is the pod of a name as the API shows it now, nil if there is none.
func announcements(s compile.Snapshot, shown func(namespace, name string) *compile.Pod) []announcing {
	var all []announcing
	for _, p := range s.Local {
		if p.Source == compile.Shown {
			continue
		}
		to := announcing{Announcement: Announcement{Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}}
		now := shown(p.Namespace, p.Name)
		if now == nil || now.UID != p.UID || now.Source == compile.Shown && len(now.Addrs) > 0 {
			continue
		}
		if p.Source == compile.Arrived {
			to.Addrs = p.Addrs
			to.done = now.Source == compile.Announced && slices.Equal(now.Addrs, p.Addrs)
		}
		all = append(all, to)
	}
	return all
}

// Note takes in what the API should say of this node's pods, by a snapshot, and forgets all others. shown is the pod of a name as the API shows it now, nil
// if there is none.
func (a *Announcer) Note(s compile.Snapshot, shown func(namespace, name string) *compile.Pod) {
	a.note(announcements(s, shown))
}

func (a *Announcer) note(all []announcing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := make(map[types.UID]*announcing, len(all))
	for _, to := range all {
		before := a.tasks[to.UID]
		if before != nil && before.equal(to.Announcement) { // said, or on its way: what the cache shows may be older
			before.done = before.done || to.done
			now[to.UID] = before
			continue
		}
		now[to.UID] = &to
		if !to.done {
			a.queue.Add(to.UID)
		}
	}
	a.tasks = now
}

// Start writes until ctx ends.
func (a *Announcer) Start(ctx context.Context) error {
	defer context.AfterFunc(ctx, a.queue.ShutDown)()
	var workers sync.WaitGroup
	for range announceWorkers {
		workers.Go(func() {
			for a.work(ctx) {
			}
		})
	}
	workers.Wait()
	return nil
}

// work writes one announcement, and reports whether there may be more.
func (a *Announcer) work(ctx context.Context) bool {
	uid, shutdown := a.queue.Get()
	if shutdown {
		return false
	}
	defer a.queue.Done(uid)
	to, ok := a.task(uid)
	if !ok {
		a.retries.Forget(uid)
		return true
	}
	err := a.write(ctx, to)
	switch {
	case ctx.Err() != nil:
		return false
	case err == nil:
		announcementWrites.Inc()
	case isOfAnother(err):
	default:
		announcementErrors.Inc()
		a.say(err)
		if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			a.queue.AddAfter(uid, cached.Spread(a.retries.When(uid)))
			return true
		}
	}
	a.retries.Forget(uid)
	a.ended(to, err == nil)
	return true
}

// isOfAnother reports whether a pod could not be written to because it is gone, and perhaps another has its name.
func isOfAnother(err error) bool {
	if apierrors.IsNotFound(err) {
		return true
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

func (a *Announcer) write(ctx context.Context, to Announcement) error {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	return a.writer.WriteAnnouncement(ctx, to)
}

// task is what there is to say of a pod, if anything is.
func (a *Announcer) task(uid types.UID) (Announcement, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	to := a.tasks[uid]
	if to == nil || to.done {
		return Announcement{}, false
	}
	return to.Announcement, true
}

// ended notes that something need not be said again, unless something else is to be said by now.
func (a *Announcer) ended(to Announcement, written bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.tasks[to.UID]; now != nil && now.equal(to) {
		now.done = true
	}
	a.silent = a.silent && !written
}

// say logs the first of several failures.
func (a *Announcer) say(err error) {
	a.mu.Lock()
	silent := a.silent
	a.silent = true
	a.mu.Unlock()
	if silent {
		return
	}
	text := "the addresses of a new pod cannot be announced: other nodes let it in when its kubelet has written its status"
	if apierrors.IsForbidden(err) {
		text += ". An enforcer needs the rights of config/rbac for that, of this release, and a token that names its node"
	}
	a.log.Info(text, "error", err.Error())
}

// NewWriter writes announcements with a client of core/v1.
func NewWriter(c rest.Interface) Writer { return announcementClient{c} }

// announcementClient writes announcements as kubelets write statuses: by a patch that names the UID, so that it meets this pod or none, and that touches one
// condition, so that it is in nobody's way.
type announcementClient struct{ rest.Interface }

var _ Writer = announcementClient{}

// WriteAnnouncement asks for no more than the metadata in return.
func (c announcementClient) WriteAnnouncement(ctx context.Context, a Announcement) error {
	condition := corev1.PodCondition{
		Type: v1alpha1.AddressesCondition, Status: corev1.ConditionTrue, Reason: v1alpha1.SandboxConnectedReason,
		Message: compile.Announcement(a.Addrs), LastTransitionTime: metav1.Now(),
	}
	if condition.Message == "" {
		condition.Status, condition.Reason = corev1.ConditionFalse, v1alpha1.SandboxGoneReason
		condition.Message = "the pod has no sandbox with the addresses that were announced"
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": a.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{condition}},
	})
	if err != nil {
		return fmt.Errorf("announcing the addresses of pod %s/%s: %w", a.Namespace, a.Name, err)
	}
	err = c.Patch(types.StrategicMergePatchType).Param("fieldManager", cached.EnforcerManager).SetHeader("Accept", cached.OnlyMetadata).
		Namespace(a.Namespace).Resource("pods").Name(a.Name).SubResource("status").Body(body).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("announcing the addresses of pod %s/%s: %w", a.Namespace, a.Name, err)
	}
	return nil
}
