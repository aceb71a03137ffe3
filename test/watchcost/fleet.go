package watchcost

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/lab"
)

// Fleet are clients that watch at the same time.
type Fleet struct {
	cluster *Cluster
	clients []*Client
}

// Count is what has passed between a fleet and the API server.
type Count struct {
	Received, Sent    int64 // bytes, with TLS and HTTP/2
	Connections       int64
	Watches           int
	Events, Bookmarks int64
}

// Minus is the difference to an earlier count of the same fleet.
func (c Count) Minus(o Count) Count {
	c.Received, c.Sent, c.Connections, c.Watches = c.Received-o.Received, c.Sent-o.Sent, c.Connections-o.Connections, c.Watches-o.Watches
	c.Events, c.Bookmarks = c.Events-o.Events, c.Bookmarks-o.Bookmarks
	return c
}

// atOnce is how many clients of a fleet open watches at a time.
const atOnce = 16

// Open makes n clients, each of which watches what targets says, from now on. No object comes that is there already.
func (c *Cluster) Open(ctx context.Context, n int, targets func(client int) []Target) (*Fleet, error) {
	f := &Fleet{cluster: c}
	for range n {
		w, err := c.newClient()
		if err != nil {
			return f, err
		}
		f.clients = append(f.clients, w)
	}
	from, err := c.now(ctx, targets(0))
	if err != nil {
		return f, err
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, w := range f.clients {
		group.Go(func() error {
			for _, t := range targets(i) {
				if _, err := w.watch(t, from); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return f, group.Wait()
}

// now is how far the API server has come, once it caches all that the targets are of. The cache of a custom resource begins with the first request, and
// knows nothing of the time before.
func (c *Cluster) now(ctx context.Context, targets []Target) (resourceVersion string, err error) {
	first, err := c.newClient()
	if err != nil {
		return "", err
	}
	defer first.Close()
	for _, t := range targets {
		if t.resource == Pods().resource {
			continue
		}
		if _, err := first.List(t); err != nil {
			return "", err
		}
	}
	pods, err := c.kubes[workloads].CoreV1().Pods("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return "", fmt.Errorf("reading how far the API server has come: %w", err)
	}
	return pods.ResourceVersion, nil
}

// Count is what has passed so far.
func (f *Fleet) Count() Count {
	var sum Count
	for _, w := range f.clients {
		sum.Received, sum.Sent, sum.Connections = sum.Received+w.received.Load(), sum.Sent+w.sent.Load(), sum.Connections+w.connections.Load()
		sum.Watches += len(w.watches)
		for _, open := range w.watches {
			sum.Events, sum.Bookmarks = sum.Events+open.events.Load(), sum.Bookmarks+open.bookmarks.Load()
		}
	}
	return sum
}

// Hears is how many events of a round come to all clients together.
func (f *Fleet) Hears(r Round) (events int64) {
	for _, w := range f.clients {
		for _, open := range w.watches {
			events += int64(open.target.hears(r))
		}
	}
	return events
}

// Err says that a watch has ended, nil if all are open.
func (f *Fleet) Err() error {
	for i, w := range f.clients {
		for _, open := range w.watches {
			select {
			case <-open.ended:
				return fmt.Errorf("client %d does not watch %s any more: %w", i, open.target.resource, open.err)
			default:
			}
		}
	}
	return nil
}

// Await waits until a number of events have come since an earlier count. It fails if more have come.
func (f *Fleet) Await(ctx context.Context, before Count, events int64) error {
	err := lab.Poll(ctx, func(context.Context) error {
		if got := f.Count().Minus(before).Events; got < events {
			return fmt.Errorf("%d events of %d have come", got, events)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if got := f.Count().Minus(before).Events; got > events {
		return fmt.Errorf("%d events have come, and %d were to", got, events)
	}
	return f.Err()
}

// Close ends all clients.
func (f *Fleet) Close() {
	for _, w := range f.clients {
		w.Close()
	}
}

// Cost is what something took of the API server, and what passed to a fleet.
type Cost struct {
	Count
	CPU  time.Duration
	Wall time.Duration
}

// Cost is what do took. A fleet of nobody is none.
func (c *Cluster) Cost(f *Fleet, do func() error) (Cost, error) {
	began, count := time.Now(), f.Count()
	before, err := c.CPU()
	if err != nil {
		return Cost{}, err
	}
	if err := do(); err != nil {
		return Cost{}, err
	}
	after, err := c.CPU()
	return Cost{f.Count().Minus(count), after - before, time.Since(began)}, err
}

// Nobody is a fleet without clients.
func (c *Cluster) Nobody() *Fleet { return &Fleet{cluster: c} }

// CostOfChurn is what a round of churn took until the fleet had heard of all of it.
func (c *Cluster) CostOfChurn(ctx context.Context, f *Fleet, pods int, pause time.Duration) (Round, Cost, error) {
	var r Round
	cost, err := c.Cost(f, func() (err error) {
		before := f.Count()
		if r, err = c.Churn(ctx, pods, pause); err != nil {
			return err
		}
		return f.Await(ctx, before, f.Hears(r))
	})
	return r, cost, err
}

// CostOfSlices likewise is what n writes of slices took.
func (c *Cluster) CostOfSlices(ctx context.Context, f *Fleet, s *Slices, n int, pause time.Duration) (Cost, error) {
	return c.Cost(f, func() error {
		before := f.Count()
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for range n {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := s.Change(ctx); err != nil {
				return err
			}
		}
		return f.Await(ctx, before, int64(n*len(f.clients)))
	})
}

// CostOfReading is what it took n clients, one after another, to read all objects of a target: streamed by a watch, or as one list.
func (c *Cluster) CostOfReading(n int, t Target, streamed bool) (objects int, cost Cost, err error) {
	f := c.Nobody()
	defer f.Close()
	for range n {
		w, err := c.newClient()
		if err != nil {
			return 0, cost, err
		}
		f.clients = append(f.clients, w)
	}
	cost, err = c.Cost(f, func() error {
		for _, w := range f.clients {
			if !streamed {
				if _, err := w.List(t); err != nil {
					return err
				}
				continue
			}
			if objects, err = w.Stream(t); err != nil {
				return err
			}
		}
		return nil
	})
	return objects, cost, err
}
