package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// bareWatch notes when the events of a namespace's NetworkPolicies and pods reach a client that does nothing else: what an API server takes for a write, whoever
// listens.
type bareWatch struct {
	mu       sync.Mutex
	arrived  []time.Time
	more     chan struct{} // receives after each event
	watchers []apiwatch.Interface
}

func newBareWatch(ctx context.Context, client kubernetes.Interface, namespace string) (*bareWatch, error) {
	b := &bareWatch{more: make(chan struct{}, 1)}
	policies, pods := client.NetworkingV1().NetworkPolicies(namespace), client.CoreV1().Pods(namespace)
	have, err := policies.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing policies: %w", err)
	}
	for _, of := range []func(context.Context, metav1.ListOptions) (apiwatch.Interface, error){policies.Watch, pods.Watch} {
		// An API server ends the watch of a client that is slow for a moment: this one goes on.
		w, err := watchtools.NewRetryWatcherWithContext(ctx, have.ResourceVersion, &cache.ListWatch{
			WatchFuncWithContext: of,
		})
		if err != nil {
			return nil, fmt.Errorf("watching: %w", err)
		}
		b.watchers = append(b.watchers, w)
		go b.listen(w)
	}
	return b, nil
}

func (b *bareWatch) listen(w apiwatch.Interface) {
	for range w.ResultChan() {
		b.mu.Lock()
		b.arrived = append(b.arrived, time.Now())
		b.mu.Unlock()
		select {
		case b.more <- struct{}{}:
		default: // told already
		}
	}
}

// since is how long after a time the first event came. It waits for one.
func (b *bareWatch) since(ctx context.Context, since time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		b.mu.Lock()
		for _, at := range b.arrived {
			if at.After(since) {
				b.arrived = nil
				b.mu.Unlock()
				return at.Sub(since), nil
			}
		}
		b.mu.Unlock()
		select {
		case <-b.more:
		case <-ctx.Done():
			return 0, fmt.Errorf("no event since %s: %w", since, ctx.Err())
		}
	}
}

func (b *bareWatch) stop() {
	for _, w := range b.watchers {
		w.Stop()
	}
}
