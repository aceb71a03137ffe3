package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// When reports are written. A change is written after a short while in which others may join it, and changes that go on come in one
// write a second. All delays are spread; where a change may concern many nodes, over as long as the API server may need for their writes. The
// controller is its client too, and holds its lease by it.
const (
	reportDelay = 100 * time.Millisecond
	// reportShare is what each node that writes adds to the time over which their writes are spread: 500 a second.
	reportShare   = 2 * time.Millisecond
	reportSpacing = time.Second
	maxReportWait = 30 * time.Second // between attempts that fail

	// DefaultHeartbeat is how often a node writes even if nothing has changed.
	DefaultHeartbeat = time.Minute
)

// Writer writes a node's account to the API, and sets the report's resource version to the one that it has got.
type Writer interface {
	WriteReport(ctx context.Context, report *v1alpha1.NodeEnforcement) error
}

// Reporter writes what one node enforces into its NodeEnforcement: soon after something that concerns the node has changed, and now and
// then as a sign of life. A write that fails is tried again, with what is the case by then; enforcement never waits for it.
//
// Note may be called from one goroutine while Start runs in another.
type Reporter struct {
	node      string
	writer    Writer
	owner     func() types.UID
	heartbeat time.Duration
	health    *Health
	history   cached.History // of the reports

	mu      sync.Mutex
	account *Account
	synced  bool // there is something to say
	fanOut  int  // how many nodes may be about to write for the same reason
	changed chan struct{}
}

var _ manager.LeaderElectionRunnable = (*Reporter)(nil)

// NewReporter makes a Reporter whose reports start from facts: what does not change while the enforcer runs. The heartbeat is the longest time between
// two writes. The owner is the Node object's UID, empty while it is not known: then there is nothing to own a report, and none is written. Health, if it
// is given, is in the reports.
func NewReporter(node string, w Writer, owner func() types.UID, heartbeat time.Duration, facts v1alpha1.NodeEnforcementStatus, health *Health) *Reporter {
	if health == nil {
		health = NewHealth()
	}
	facts.HeartbeatSeconds = int32(heartbeat.Seconds())
	return &Reporter{
		node: node, writer: w, owner: owner, heartbeat: heartbeat, health: health, account: NewAccount(facts), changed: make(chan struct{}, 1),
	}
}

// NeedLeaderElection is false: each node speaks for itself.
func (r *Reporter) NeedLeaderElection() bool { return false }

// Note takes in what came of a sync.
func (r *Reporter) Note(s Synced) {
	r.mu.Lock()
	changed := r.account.Note(s) || !r.synced
	if changed {
		r.fanOut = max(r.fanOut, r.account.fanOut)
	}
	r.synced = true
	policiesFailing.Set(float64(r.account.status.Failing))
	r.mu.Unlock()
	if changed {
		select {
		case r.changed <- struct{}{}:
		default: // one is on its way already, and will write this too
		}
	}
}

// Start writes until ctx ends, or the API server has gone back to older data: then nothing that this process has cached can be relied upon.
func (r *Reporter) Start(ctx context.Context) error {
	var last time.Time // of the last attempt to write
	retry := time.Duration(0)
	silent, soon := false, false // a failure was logged; a change is to be written soon
	due := time.NewTimer(cached.Spread(r.heartbeat))
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.changed:
			soon = r.soon(due, soon || retry > 0, last) || soon
			continue
		case <-r.health.changed:
			soon = r.soon(due, soon || retry > 0, last) || soon
			continue
		case <-due.C:
		}
		last, soon = time.Now(), false
		err := r.write(ctx)
		if err == nil {
			retry, silent = 0, false
			due.Reset(cached.Spread(r.heartbeat))
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if restored := new(cached.RestoredError); errors.As(err, &restored) {
			return err
		}
		reportErrors.Inc()
		if !silent {
			log.FromContext(ctx).Info("what this node enforces cannot be reported: it is enforced all the same, and tried again", "error", err.Error())
			silent = true
		}
		retry = min(max(2*retry, time.Second), maxReportWait)
		due.Reset(cached.Spread(retry))
	}
}

// soon makes the next write due soon, unless an attempt is: that one says it too, and one change after another would put it off for good.
func (r *Reporter) soon(due *time.Timer, already bool, last time.Time) bool {
	if !already {
		due.Reset(max(r.delay(), time.Until(last.Add(cached.Spread(reportSpacing)))))
	}
	return !already
}

// delay is how long a change waits until it is written.
func (r *Reporter) delay() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	fanOut := r.fanOut
	r.fanOut = 0
	return cached.Spread(reportDelay) + rand.N(time.Duration(max(fanOut-1, 0))*reportShare+1)
}

// write writes the account as it is now.
func (r *Reporter) write(ctx context.Context) error {
	r.mu.Lock()
	status, synced := r.account.status.DeepCopy(), r.synced
	r.mu.Unlock()
	if !synced {
		return nil
	}
	owner := r.owner()
	if owner == "" {
		return fmt.Errorf("writing NodeEnforcement %s: the API has no Node of this name", r.node)
	}
	status.HeartbeatTime = metav1.NowMicro()
	status.Conditions = append(status.Conditions, r.health.condition(time.Now()))
	status.Before = r.history.Newest()
	ctx, cancel := context.WithTimeout(ctx, cached.RequestTimeout)
	defer cancel()
	report := &v1alpha1.NodeEnforcement{
		TypeMeta: cached.OurType("NodeEnforcement"),
		ObjectMeta: metav1.ObjectMeta{
			Name:            r.node,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: r.node, UID: owner}},
		},
		Status: *status,
	}
	if err := r.writer.WriteReport(ctx, report); err != nil {
		return err
	}
	reportWrites.Inc()
	lastReport.SetToCurrentTime()
	return r.history.Note(report.ResourceVersion)
}

// NewWriter writes reports with a client of our group's version.
func NewWriter(c rest.Interface) Writer { return reportClient{c} }

// reportClient writes reports by server-side apply.
type reportClient struct{ rest.Interface }

var _ Writer = reportClient{}

// WriteReport asks for no more than the metadata in return: a node need not be told what it has just written.
func (c reportClient) WriteReport(ctx context.Context, report *v1alpha1.NodeEnforcement) error {
	body, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("writing NodeEnforcement %s: %w", report.Name, err)
	}
	answer, err := cached.Apply(c.Interface, cached.EnforcerManager, body).Resource("nodeenforcements").Name(report.Name).Do(ctx).Raw()
	var written metav1.PartialObjectMetadata
	if err == nil {
		err = json.Unmarshal(answer, &written)
	}
	if err != nil {
		return fmt.Errorf("writing NodeEnforcement %s: %w", report.Name, cached.WithRemedy(err))
	}
	report.ResourceVersion = written.ResourceVersion
	return nil
}
