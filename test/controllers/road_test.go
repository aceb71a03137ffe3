package controllers

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// road is the way from the controllers to the API server. It can be broken, so that requests fail, or barred for some requests, which wait
// then; and it knows who is on it.
type road struct {
	mu      sync.Mutex
	broken  bool
	barred  func(*http.Request) bool // nil: nobody
	lacking func(*http.Request) bool // nil: nothing
	changed chan struct{}            // closed, and made anew, by each change of barred
	waiting int                      // at the bar
	watches map[*http.Request]bool   // that are being answered
}

func newRoad() *road {
	return &road{changed: make(chan struct{}), watches: map[*http.Request]bool{}}
}

// to is a configuration that reaches the API server by this road.
func (r *road) to(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(q *http.Request) (*http.Response, error) { return r.travel(q, next) })
	})
	return config
}

func (r *road) travel(q *http.Request, next http.RoundTripper) (*http.Response, error) {
	if err := r.enter(q); err != nil {
		return nil, err
	}
	if r.lacks(q) {
		return &http.Response{
			Request: q, StatusCode: http.StatusNotFound, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
			Body: io.NopCloser(strings.NewReader("404 page not found\n")),
		}, nil
	}
	response, err := next.RoundTrip(q)
	if err == nil && q.URL.Query().Get("watch") == "true" && response.StatusCode == http.StatusOK {
		r.mu.Lock()
		r.watches[q] = true
		r.mu.Unlock()
		response.Body = &body{ReadCloser: response.Body, closed: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.watches, q)
		}}
	}
	return response, err
}

func (r *road) enter(q *http.Request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.barred != nil && r.barred(q) {
		changed := r.changed
		r.waiting++
		r.mu.Unlock()
		select {
		case <-changed:
		case <-q.Context().Done():
		}
		r.mu.Lock()
		r.waiting--
		if err := q.Context().Err(); err != nil {
			return err
		}
	}
	if r.broken {
		return errors.New("the road is broken")
	}
	return nil
}

func (r *road) breakUp(broken bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = broken
}

// bar makes requests wait; nil lets all go.
func (r *road) bar(which func(*http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.barred = which
	close(r.changed)
	r.changed = make(chan struct{})
}

// lack makes requests be answered as by an API server that does not have the resource.
func (r *road) lack(which func(*http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lacking = which
}

func (r *road) lacks(q *http.Request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lacking != nil && r.lacking(q)
}

// atTheBar is how many requests wait there.
func (r *road) atTheBar() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

// open counts the watches of a kind that are open.
func (r *road) open(which func(*http.Request) bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := 0
	for q := range r.watches {
		if which(q) {
			count++
		}
	}
	return count
}

// path is the requests whose path ends as given.
func path(end string) func(*http.Request) bool {
	return func(q *http.Request) bool { return strings.HasSuffix(q.URL.Path, end) }
}

// allNodes is the requests for all nodes, rather than for the enforcer's own.
func allNodes(q *http.Request) bool {
	return q.URL.Path == "/api/v1/nodes" && q.URL.Query().Get("fieldSelector") == ""
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f roundTrip) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

// body tells when it is closed.
type body struct {
	io.ReadCloser
	closed func()
}

// Close closes the body.
func (b *body) Close() error {
	b.closed()
	return b.ReadCloser.Close()
}
