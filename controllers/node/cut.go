package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var (
	cutConnections = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_connections_cut_total",
		Help: "Open connections that were cut because policy now denies them.",
	})
	unheldConnections = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_connections_cut_unblocked_total",
		Help: "Cut connections whose remote end is not blocked from continuing, because their namespace has used up its share of blocked ones.",
	})
	cutSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "ringfence_connections_cut_duration_seconds",
		Help:    "Time to list the open connections that changes may have denied, to judge them, and to cut those that policy denies.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
	})
	cutDelaySeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "ringfence_connections_cut_delay_seconds",
		Help:    "Time from the first change that may have denied open connections until those that policy denies were cut.",
		Buckets: prometheus.ExponentialBuckets(0.1, 2, 11),
	})
	cutErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ringfence_connections_cut_errors_total",
		Help: "Attempts to cut open connections that failed, wholly or in part; each is retried.",
	})
)

// Live ends the live connections that policy denies.
type Live interface {
	Due() <-chan struct{}
	Urgent() bool
	Cut(context.Context) (enforcer.Ended, error)
}

var _ Live = (*enforcer.Connections)(nil)

const (
	// cutDelay gives packets that the old rules let through the time to become connections that are listed, and changes that come together to come.
	cutDelay = 50 * time.Millisecond
	// cutPause is between two looks at the live connections at least, so that changes without end do not cost looks without end. With the delay and the look
	// itself it bounds how long a connection outlives the change that denies it: well below a second, as long as a look takes less than a tenth of one.
	cutPause = 300 * time.Millisecond
	// cutShare is how many times as long as the last look took the pause after it lasts, up to longestCutPause: looks then take a quarter of the time.
	cutShare        = 3
	longestCutPause = 10 * time.Second
	// patientParts and patientAllowance are for looks that are not urgent, about pods of other nodes that are gone: a large cluster loses some all the time,
	// and nobody is at the other end of their connections. One part in 400 is a quarter of a percent, and [enforcer.Connections] takes as much for looks
	// that nothing asks for. Urgent looks do not count. longestPatience bounds how long they wait.
	patientParts     = 400
	patientAllowance = 300 * time.Millisecond
	longestPatience  = time.Minute
	// maxCutPause is between two attempts when all fail, and up to half as much more.
	maxCutPause = 20 * time.Second
)

// Cutter ends live connections when there may be some that policy has come to deny. Nothing waits for it.
type Cutter struct {
	Live Live
	// Pods names the pods that hold addresses, for the log, now or later.
	Pods func(write func(pods []policy.PodName), addrs ...netip.Addr)
	// Health, if it is given, is told how attempts end.
	Health *report.Health

	patient debt                 // of looks that are not urgent
	spent   func() time.Duration // the processor time of the thread so far; [threadTime] but for tests
}

var _ manager.Runnable = (*Cutter)(nil)

// Start runs until ctx ends.
func (c *Cutter) Start(ctx context.Context) error {
	c.patient = debt{parts: patientParts, allowance: patientAllowance, longest: longestPatience}
	if c.spent == nil {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		c.spent = threadTime
	}
	for c.await(ctx) {
		start := time.Now()
		for pause := cutPause; !c.cut(ctx); pause = min(2*pause, maxCutPause) {
			cached.Wait(ctx, cached.Spread(pause))
			if ctx.Err() != nil {
				return nil
			}
			start = time.Now()
		}
		took := time.Since(start)
		cached.Wait(ctx, min(max(cutPause, cutShare*took), longestCutPause))
	}
	return nil
}

// await returns when a look is to begin, with false if ctx has ended.
func (c *Cutter) await(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c.Live.Due():
	}
	for {
		cached.Wait(ctx, cutDelay)
		pause := c.patient.pause(time.Now())
		if pause <= 0 || c.Live.Urgent() {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-c.Live.Due(): // it may be urgent now
			timer.Stop()
		case <-timer.C:
			return true
		}
	}
}

// cut makes one attempt, and reports whether nothing is left to try again.
func (c *Cutter) cut(ctx context.Context) bool {
	logger := log.FromContext(ctx)
	urgent, start, spent := c.Live.Urgent(), time.Now(), c.spent()
	ended, err := c.Live.Cut(ctx)
	cutSeconds.Observe(time.Since(start).Seconds())
	if !urgent && !ended.Check {
		c.patient.took(c.spent()-spent, time.Now())
	}
	cutConnections.Add(float64(ended.Cut))
	if err == nil && !ended.Since.IsZero() {
		cutDelaySeconds.Observe(time.Since(ended.Since).Seconds())
	}
	if ended.Cut > 0 {
		c.sayCut(logger, ended)
	}
	if len(ended.Unheld) > 0 {
		c.sayUnheld(logger, ended.Unheld)
	}
	if ctx.Err() == nil {
		c.Health.Note(v1alpha1.CutFailingReason, err)
	}
	if err != nil && ctx.Err() == nil {
		cutErrors.Inc()
		logger.Error(err, "some live connections may go on that policy denies; tried again")
	}
	return err == nil || ctx.Err() != nil
}

// sayUnheld says of which namespaces so much is held off already that the other ends of further connections may begin again, where policy lets them.
func (c *Cutter) sayUnheld(logger logr.Logger, unheld map[string]int) {
	namespaces := slices.SortedFunc(maps.Keys(unheld), func(a, b string) int { return cmp.Or(unheld[b]-unheld[a], cmp.Compare(a, b)) })
	all := 0
	for _, n := range unheld {
		all += n
	}
	unheldConnections.Add(float64(all))
	logger.Info("connections were cut whose other ends are not held off: their namespaces have as many held off already as they may",
		"connections", all, "namespaces", namespaces[:min(len(namespaces), shownNamespaces)])
}

// shownNamespaces is how many of them one line names.
const shownNamespaces = 5

// sayCut says which connections were cut, and why. The look does not wait for the names of their pods.
func (c *Cutter) sayCut(logger logr.Logger, ended enforcer.Ended) {
	var ends []netip.Addr
	for _, one := range ended.First {
		ends = append(ends, one.Flow().Src, one.Flow().Dst)
	}
	c.Pods(func(pods []policy.PodName) {
		var lines []string
		for i, one := range ended.First {
			src, dst := cmp.Or(pods[2*i].String(), ends[2*i].String()), cmp.Or(pods[2*i+1].String(), ends[2*i+1].String())
			lines = append(lines, fmt.Sprintf("%s to %s (%s): %s", src, dst, one.Original, one.Reason))
		}
		logger.Info("cut live connections that policy has come to deny",
			"cut", ended.Cut, "of", ended.Seen, "notHeldOff", ended.Forgotten, "first", lines)
	}, ends...)
}
