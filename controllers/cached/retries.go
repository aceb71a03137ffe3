package cached

import (
	"context"
	"math/rand/v2"
	"time"

	"k8s.io/client-go/util/workqueue"
)

// LongestPause is the longest pause between attempts of the controller to write that fail, as while the API server is away.
const LongestPause = 30 * time.Second

// RequestTimeout is longer than an API server lets a request wait in its queues. When 1,000 nodes write at once to one that has too little to work with, each
// write that is given up was work for nothing, and comes again.
const RequestTimeout = 45 * time.Second

// Wait returns after d, or when ctx ends.
func Wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Retries says when what failed is tried again: at once, then after pauses that double up to the longest, each spread by up to half as much more, so that
// what fails at the same time does not come back at the same time. A success begins anew. So that it may be the cure, a change does not wait for the
// pause to end, and does not shorten the one after it. controller-runtime's own longest pause is a quarter of an hour: that long a kernel could go
// unrepaired, and a status wrong, after the cause of the failures has gone.
func Retries[K comparable](longest time.Duration) workqueue.TypedRateLimiter[K] {
	return spreading[K]{workqueue.NewTypedItemExponentialFailureRateLimiter[K](5*time.Millisecond, longest*2/3)}
}

// spreading is a limiter whose pauses are spread.
type spreading[K comparable] struct{ workqueue.TypedRateLimiter[K] }

// When is how long to wait now.
func (s spreading[K]) When(key K) time.Duration { return Spread(s.TypedRateLimiter.When(key)) }

// Spread is d, or up to half as much more.
func Spread(d time.Duration) time.Duration { return d + rand.N(d/2+1) }
