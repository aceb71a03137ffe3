// Package denials says which packets this node has denied, or would have.
//
//	kernel ── samples ──> a log line for each
//	kernel ── counts ──> a log line for each audited object, as often as it grows
//
// It reports, and decides nothing: enforcement goes on as if it were not there, whatever fails here.
//
// Invariants:
//   - the counts are of all packets; the samples are few by the rules that make them, and what is lost of them is counted;
//   - no namespace and no remote address takes the lines of another;
//   - nothing here waits for a packet, and no packet waits for anything here.
//
// It knows no rules: a sample carries the ID of a [policy.Point], and whoever renders says which points there are.
package denials

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Source is the kernel.
type Source interface {
	// Denied gives handle the packets that are sampled, until ctx ends or something fails.
	Denied(ctx context.Context, group uint16, handle func(dataplane.Packet)) error
	// Counts are the packets that each point has counted, by its ID.
	Counts(ctx context.Context) (map[string]uint64, error)
}

var (
	_ Source = (*dataplane.Dataplane)(nil)
	_ Source = (*dataplane.Fake)(nil)
)

// Pods know whose an address is.
type Pods interface {
	// Named has write called with the pods that hold the addresses, zero for an address that no pod holds. It may call it later, if that is to be found
	// out, and in the order of its own calls.
	Named(write func(pods []policy.PodName), addrs ...netip.Addr)
}

// Journal writes what is denied into a log. Start runs it, and SetPoints tells it meanwhile what the rules are.
type Journal struct {
	Source Source
	Pods   Pods
	Log    logr.Logger
	// Group is the NFLOG group to read from the start; 0 reads none until [Journal.Read] names one.
	Group uint16
	// Interval is how often counts are read, if nothing is seen meanwhile.
	Interval time.Duration
	// Witness hears of all that is said in the log, if it is given.
	Witness Witness

	mu      sync.Mutex // guards the points
	points  policy.Map[string, policy.Point]
	retired policy.Map[string, policy.Point] // those before: their last packets may be on the way still

	counts counts        // the last that were read
	said   counts        // those of the last lines
	shares *shares       // of the lines; nil before the first
	later  chan uint16   // the group that is named later; made when it is needed
	seen   chan struct{} // receives when something was sampled that is not counted yet; likewise
}

// Sample is a packet that was denied, or would have been, and that was looked at.
type Sample struct {
	At       time.Time
	Point    policy.Point
	Packet   dataplane.Packet
	Src, Dst policy.PodName
}

// Growth is how many packets an object has denied in one direction since it was counted before, or would have.
type Growth struct {
	Ref       policy.Ref
	Direction policy.Direction
	Audit     bool
	Packets   uint64
}

// Witness hears of what is denied. It is called from several goroutines.
type Witness interface {
	// Saw takes a sample of a point that is known, whose line has been written.
	Saw(Sample)
	// Counted takes what has grown.
	Counted([]Growth)
}

// Read names the group to read, if there was none at the start. It may be called at any time; the first call counts.
func (j *Journal) Read(group uint16) {
	select {
	case j.named() <- group:
	default: // named already
	}
}

func (j *Journal) named() chan uint16 {
	j.init()
	return j.later
}

func (j *Journal) init() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.later == nil {
		j.later, j.seen = make(chan uint16, 1), make(chan struct{}, 1)
	}
}

// SetPoints says which points the rules have from now on. It may be called at any time.
func (j *Journal) SetPoints(points policy.Map[string, policy.Point]) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !points.IsOne(j.points) && !points.Equal(j.points) {
		j.points, j.retired = points, j.points
	}
}

func (j *Journal) point(id string) (policy.Point, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p, ok := j.points.Lookup(id)
	if !ok {
		p, ok = j.retired.Lookup(id)
	}
	return p, ok
}

// Start runs until ctx ends. It never fails: what cannot be read is logged, and tried again.
func (j *Journal) Start(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() {
		group := j.Group
		if group == 0 {
			select {
			case <-ctx.Done():
				return
			case group = <-j.named():
			}
		}
		j.read(ctx, group)
	})
	running.Go(func() { j.count(ctx) })
	running.Wait()
	return nil
}

// The pauses before a group is opened again. A reading that has lasted long starts over with the shortest.
const (
	shortestPause = time.Second
	longestPause  = time.Minute
)

// read writes a line for each sampled packet.
func (j *Journal) read(ctx context.Context, group uint16) {
	pause, logged := shortestPause, ""
	for {
		begun := time.Now()
		err := j.Source.Denied(ctx, group, j.line)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("the reading ended")
		}
		if time.Since(begun) > longestPause {
			pause, logged = shortestPause, ""
		}
		if err.Error() != logged { // and not again with each attempt
			j.Log.Error(err, "denied packets are not logged for now, it will be tried again; enforcement goes on", "nflogGroup", group)
			logged = err.Error()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// line writes the line of one packet, if its namespace has not had its share: it counts as of now, whenever the names of its pods are there.
func (j *Journal) line(p dataplane.Packet) {
	lost.Add(float64(p.Lost))
	j.init()
	select {
	case j.seen <- struct{}{}:
	default: // it is known that something was seen
	}
	point, known := j.point(p.ID)
	if j.shares == nil {
		j.shares = newShares()
	}
	tenant, remote := tenantOf(point, &p)
	now := time.Now()
	before, why := j.shares.take(now, tenant, remote)
	if why != "" {
		leftOut.WithLabelValues(why).Inc()
		return
	}
	j.Pods.Named(func(pods []policy.PodName) {
		msg, fields := describe(p, point, known, pods[0].String(), pods[1].String())
		if before > 0 {
			fields = append(fields, "leftOutBefore", before)
		}
		j.Log.Info(msg, fields...)
		lines.Inc()
		if j.Witness != nil && known {
			j.Witness.Saw(Sample{now, point, p, pods[0], pods[1]})
		}
	}, p.Src, p.Dst)
}
