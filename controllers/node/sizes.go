package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// A report waits the longer the more nodes may have to write for the same reason (docs/adr/0008). How many run pods of a namespace is counted where all its
// pods are known. Elsewhere the API server says how many pods the namespace has, and how many nodes there are: neither is less.

const (
	// sizesKept is how long an answer is used before it is asked for again, and up to half as much more.
	sizesKept = 10 * time.Minute
	// sizesSpread is over how long the nodes ask that have pods of a namespace which is new to them: many may have got them at once.
	sizesSpread = time.Second
	// sizesPause is between two questions of a node, and sizesRetry behind one that failed.
	sizesPause = 200 * time.Millisecond
	sizesRetry = 30 * time.Second
	// sizesTimeout bounds a question: nothing waits for it.
	sizesTimeout = 10 * time.Second
	// anyNodes is for how many nodes a report waits before anything is known: a second at most. That spreads a cluster of 5,000 nodes too thinly, and holds up
	// one of three longer than it need be; either only in the moment after the start.
	anyNodes = 500
)

// sizes are how many pods namespaces have, and nodes the cluster, under the empty name. Nobody waits for an answer.
type sizes struct {
	ask func(ctx context.Context, namespace string) (int, error)

	mu   sync.Mutex
	of   map[string]*size
	news chan struct{} // receives when there is something new to ask
}

// size is an answer.
type size struct {
	count  int
	known  bool
	due    time.Time // when it is asked for
	wanted time.Time // when it was, last
}

var _ manager.LeaderElectionRunnable = (*sizes)(nil)

func newSizes() *sizes { return &sizes{of: map[string]*size{}, news: make(chan struct{}, 1)} }

// want has some namespaces asked about, and others no more after a while.
func (s *sizes) want(namespaces []string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range namespaces {
		if s.of[name] == nil {
			s.of[name] = &size{due: now}
			if name != "" {
				s.of[name].due = now.Add(rand.N(sizesSpread))
			}
			select {
			case s.news <- struct{}{}:
			default: // it will be seen
			}
		}
		s.of[name].wanted = now
	}
	for name, one := range s.of {
		if now.Sub(one.wanted) >= sizesKept {
			delete(s.of, name)
		}
	}
}

// atMost is how many nodes may run pods of a namespace, or any pods with the empty name.
func (s *sizes) atMost(namespace string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := anyNodes
	nodes, pods := s.of[""], s.of[namespace]
	if nodes != nil && nodes.known {
		most = nodes.count
	}
	if pods != nil && pods.known {
		if nodes == nil || !nodes.known {
			return pods.count
		}
		most = min(most, pods.count)
	}
	return most
}

// next is what is to be asked now, or how long it is until something is.
func (s *sizes) next(now time.Time) (namespace string, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = sizesKept
	for name, one := range s.of {
		if left := one.due.Sub(now); left < wait {
			namespace, wait = name, left
		}
	}
	return namespace, wait
}

// note notes an answer. What was known stays where there is none.
func (s *sizes) note(namespace string, count int, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.of[namespace]
	switch {
	case one == nil: // not wanted any more
	case err != nil:
		one.due = now.Add(cached.Spread(sizesRetry))
	default:
		one.count, one.known, one.due = count, true, now.Add(cached.Spread(sizesKept))
	}
}

// NeedLeaderElection is false: each node reports.
func (*sizes) NeedLeaderElection() bool { return false }

// Start asks until ctx ends.
func (s *sizes) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		namespace, wait := s.next(time.Now())
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-s.news:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		within, done := context.WithTimeout(ctx, sizesTimeout)
		count, err := s.ask(within, namespace)
		done()
		s.note(namespace, count, err, time.Now())
		cached.Wait(ctx, sizesPause)
	}
	return nil
}

// SizeAsker asks an API server by a client of its version v1, for one object and for how many there are besides. The answer is of the moment: for an older one
// the API server would not heed the limit.
func SizeAsker(c rest.Interface) func(ctx context.Context, namespace string) (int, error) {
	return func(ctx context.Context, namespace string) (int, error) {
		request := c.Get().Resource("nodes")
		if namespace != "" {
			request = c.Get().Namespace(namespace).Resource("pods")
		}
		list, err := cached.ListMetadata(ctx, request.Param("limit", "1"))
		if err != nil {
			return 0, fmt.Errorf("asking for the size of namespace %q: %w", namespace, err)
		}
		switch {
		case list.RemainingItemCount != nil:
			return len(list.Items) + int(*list.RemainingItemCount), nil
		case list.Continue != "":
			return 0, fmt.Errorf("asking for the size of namespace %q: the API server does not say how many there are", namespace)
		}
		return len(list.Items), nil
	}
}

// wantSizes has the API server asked about the namespaces with pods here whose pods are not all known, and about nodes.
func (n *Reconciler) wantSizes(_ context.Context, o *outcome) {
	if n.stores.pods.knows("") {
		return
	}
	names, seen := []string{""}, map[string]bool{}
	for _, p := range o.snapshot.Local {
		if !seen[p.Namespace] && !p.HostNetwork && !p.Finished {
			seen[p.Namespace] = true
			if !n.stores.pods.knows(p.Namespace) {
				names = append(names, p.Namespace)
			}
		}
	}
	n.sizes.want(names, time.Now())
}

// nodesWith is how many nodes run pods of a namespace, or any pods with the empty name, at the most. It walks over all known pods.
func (n *Reconciler) nodesWith(s compile.Snapshot, namespace string) int {
	known := nodesWith(s, namespace)
	if n.stores.pods.knows(namespace) {
		return known
	}
	return max(known, n.sizes.atMost(namespace))
}
