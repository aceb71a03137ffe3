package scale

import (
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// Count is requests of one sort that were answered. Bytes are those of bodies, as they go over the wire.
type Count struct {
	Requests int64
	Refused  int64 // those of them that the API server did not carry out
	Sent     int64
	Received int64
}

// Plus is the sum of two counts.
func (c Count) Plus(d Count) Count {
	return Count{c.Requests + d.Requests, c.Refused + d.Refused, c.Sent + d.Sent, c.Received + d.Received}
}

// Minus is what came to c since d.
func (c Count) Minus(d Count) Count {
	return Count{c.Requests - d.Requests, c.Refused - d.Refused, c.Sent - d.Sent, c.Received - d.Received}
}

// Counts are counts by sort.
type Counts map[string]Count

// Minus is what came to c since d, without the sorts of which nothing came.
func (c Counts) Minus(d Counts) Counts {
	out := Counts{}
	for sort, count := range c {
		if diff := count.Minus(d[sort]); diff != (Count{}) {
			out[sort] = diff
		}
	}
	return out
}

// Add adds d to c.
func (c Counts) Add(d Counts) {
	for sort, count := range d {
		c[sort] = c[sort].Plus(count)
	}
}

// Sum is the sum of all sorts.
func (c Counts) Sum() Count {
	var sum Count
	for _, count := range c {
		sum = sum.Plus(count)
	}
	return sum
}

// traffic counts requests where they leave for the API server. Any number of goroutines may use it.
type traffic struct {
	mu     sync.Mutex
	counts Counts
	open   map[string]int       // requests that have no answer yet
	last   map[string]time.Time // that one began or was answered
}

func newTraffic() *traffic {
	return &traffic{counts: Counts{}, open: map[string]int{}, last: map[string]time.Time{}}
}

// now is what has been counted so far.
func (t *traffic) now() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}

// restless is a sort of requests that was made since a moment or is not answered, empty if there is none.
func (t *traffic) restless(since time.Time, matters func(sort string) bool) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for sort, at := range t.last {
		if matters(sort) && (t.open[sort] > 0 || at.After(since)) {
			return sort
		}
	}
	return ""
}

func (t *traffic) begin(sort string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[sort]++
	t.last[sort] = time.Now()
}

func (t *traffic) answered(sort string, what Count) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[sort] = t.counts[sort].Plus(what)
	t.open[sort]--
	t.last[sort] = time.Now()
}

func (t *traffic) received(sort string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[sort] = t.counts[sort].Plus(Count{Received: int64(n)})
}

// counting is a transport that counts.
type counting struct {
	to   *traffic
	sort func(*http.Request) string
	base http.RoundTripper
}

var _ http.RoundTripper = counting{}

// RoundTrip counts the request by its declared length, which clients of Kubernetes know, and the answer as it is read.
func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	sort := c.sort(r)
	c.to.begin(sort)
	resp, err := c.base.RoundTrip(r)
	what := Count{Requests: 1, Sent: max(r.ContentLength, 0)}
	if err != nil || resp.StatusCode >= http.StatusBadRequest {
		what.Refused = 1
	}
	c.to.answered(sort, what)
	if err == nil {
		resp.Body = countedBody{resp.Body, func(n int) { c.to.received(sort, n) }}
	}
	return resp, err
}

// countedBody is a body that is counted as it is read.
type countedBody struct {
	io.ReadCloser
	read func(n int)
}

// Read reads on.
func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.read(n)
	}
	return n, err
}
