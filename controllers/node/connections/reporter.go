package connections

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// When a ledger is written. What is new is there soon, what has merely grown is not worth many writes. The delays are spread over the nodes, so that an API
// server has some 200 writes a second of them at most, even if all have something to say all the time.
const (
	newsDelay  = time.Second
	newsPause  = 2 * time.Second  // between writes
	grownPause = 15 * time.Second // likewise, of numbers alone
	endPause   = 10 * time.Minute // so that what is to be listed no more goes together
	nodeShare  = 5 * time.Millisecond
	maxPause   = time.Minute // between attempts that fail
)

// Writer writes a node's connections into the API, and reads what was written.
type Writer interface {
	// Written is what the node has written before, zero if nothing.
	Written(ctx context.Context, node string) (v1alpha1.NodeConnectionsStatus, error)
	// Write puts connections in the place of those.
	Write(ctx context.Context, c *v1alpha1.NodeConnections) error
}

// Reporter writes the ledger of a node whenever there is something new in it.
type Reporter struct {
	Node   string
	Ledger *Ledger
	Writer Writer
	// Owner is the UID of the Node, empty while it is not known: then nothing is written.
	Owner func() types.UID
	// Nodes is how many nodes the cluster has.
	Nodes func() int

	restored bool
}

var _ manager.LeaderElectionRunnable = (*Reporter)(nil)

// NeedLeaderElection is false: each node speaks for itself.
func (*Reporter) NeedLeaderElection() bool { return false }

// Start writes until ctx ends.
func (r *Reporter) Start(ctx context.Context) error {
	var last time.Time // of the last write
	pause, failed := time.Duration(0), false
	due, planned := time.NewTimer(0), nothing
	defer due.Stop()
	<-due.C
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.Ledger.changed:
			if pause == 0 {
				planned = r.plan(due, last, planned)
			}
			continue
		case <-due.C:
		}
		last = time.Now()
		err := r.write(ctx, last)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if !failed {
				log.FromContext(ctx).Info("the denied connections of this node cannot be reported: they are kept, and it is tried again", "error", err.Error())
			}
			failed, pause = true, min(max(2*pause, newsPause), maxPause)
			due.Reset(cached.Spread(pause))
			continue
		}
		failed, pause = false, 0
		planned = r.plan(due, last, nothing)
	}
}

// urgency is how soon there is something to write.
type urgency int

const (
	nothing urgency = iota
	ends            // something is listed for too long
	numbers         // have grown
	news
)

// plan sets the timer for the next write, if that is more urgent than what it is set for: what keeps changing does not put a write off.
func (r *Reporter) plan(due *time.Timer, last time.Time, planned urgency) urgency {
	wait, what := r.wait(last)
	if what <= planned {
		return planned
	}
	due.Reset(wait)
	return what
}

// wait is for how long the next write is to wait, and for what there is one.
func (r *Reporter) wait(last time.Time) (time.Duration, urgency) {
	spread := rand.N(max(time.Duration(r.Nodes())*nodeShare, 1))
	some, isNew := r.Ledger.pending()
	switch end := r.Ledger.ends(); {
	case isNew:
		return max(time.Until(last.Add(newsPause)), newsDelay) + spread, news
	case some:
		return max(time.Until(last.Add(grownPause)), newsDelay) + spread, numbers
	case !end.IsZero():
		return max(time.Until(end), 0) + endPause + spread, ends
	}
	return 0, nothing
}

// write writes the ledger. The first time, it takes in what was written before.
func (r *Reporter) write(ctx context.Context, now time.Time) error {
	owner := r.Owner()
	if owner == "" {
		return fmt.Errorf("writing NodeConnections %s: the API has no Node of this name", r.Node)
	}
	ctx, cancel := context.WithTimeout(ctx, cached.RequestTimeout)
	defer cancel()
	if !r.restored {
		before, err := r.Writer.Written(ctx, r.Node)
		if err != nil {
			return err
		}
		r.Ledger.Restore(&before)
		r.restored = true
	}
	err := r.Writer.Write(ctx, &v1alpha1.NodeConnections{
		TypeMeta: cached.OurType("NodeConnections"),
		ObjectMeta: metav1.ObjectMeta{
			Name:            r.Node,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: r.Node, UID: owner}},
		},
		Status: r.Ledger.take(now),
	})
	if err != nil {
		r.Ledger.unwritten()
	}
	return err
}

// NewWriter writes with a client of our group's version.
func NewWriter(c rest.Interface) Writer { return writer{c} }

type writer struct{ rest.Interface }

var _ Writer = writer{}

const resource = "nodeconnections"

// reading is who asks for what was written.
const reading = cached.EnforcerManager + "-reading"

// Written asks by a change that changes nothing, and that is not carried out: so an enforcer needs no right to read the objects of all nodes, and is shown its
// own.
func (w writer) Written(ctx context.Context, node string) (v1alpha1.NodeConnectionsStatus, error) {
	body, err := json.Marshal(metav1.PartialObjectMetadata{TypeMeta: cached.OurType("NodeConnections"), ObjectMeta: metav1.ObjectMeta{Name: node}})
	if err != nil {
		return v1alpha1.NodeConnectionsStatus{}, fmt.Errorf("reading NodeConnections %s: %w", node, err)
	}
	answer, err := cached.Apply(w.Interface, reading, body).Param("dryRun", metav1.DryRunAll).SetHeader("Accept", "application/json").
		Resource(resource).Name(node).Do(ctx).Raw()
	var found v1alpha1.NodeConnections
	if err == nil {
		err = json.Unmarshal(answer, &found)
	}
	if err != nil {
		return v1alpha1.NodeConnectionsStatus{}, fmt.Errorf("reading NodeConnections %s: %w", node, cached.WithRemedy(err))
	}
	return found.Status, nil
}

// Write applies the object.
func (w writer) Write(ctx context.Context, c *v1alpha1.NodeConnections) error {
	body, err := json.Marshal(c)
	if err == nil {
		err = cached.Apply(w.Interface, cached.EnforcerManager, body).Resource(resource).Name(c.Name).Do(ctx).Error()
	}
	if err != nil {
		return fmt.Errorf("writing NodeConnections %s: %w", c.Name, cached.WithRemedy(err))
	}
	return nil
}
