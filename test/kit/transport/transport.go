// Package transport has the way from a client to an API server that tests can interrupt: requests fail, or wait, and the test sees which watches
// are open and what was written.
package transport

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// Transport is a way to an API server. Its methods may be called at any time, from any goroutine.
type Transport struct {
	mu       sync.Mutex
	broken   bool
	held     func(*http.Request) bool // nil: no request
	changed  chan struct{}            // closed, and made anew, by each change of held
	lacking  func(*http.Request) bool // nil: no request
	waiting  int                      // requests that are held
	underway int                      // requests that write, not held and not yet answered
	answered *sync.Cond               // of those
	writes   []string
	watches  map[*http.Request]*body  // that are open
	expired  func(*http.Request) bool // watches that are answered as too old, each once; nil: none
	told     map[string]bool          // of which paths they were
}

// New returns a transport that lets all requests pass.
func New() *Transport {
	t := &Transport{changed: make(chan struct{}), watches: map[*http.Request]*body{}}
	t.answered = sync.NewCond(&t.mu)
	return t
}

// To returns a configuration whose clients reach the API server by this transport.
func (t *Transport) To(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(q *http.Request) (*http.Response, error) { return t.roundTrip(q, next) })
	})
	return config
}

func (t *Transport) roundTrip(q *http.Request, next http.RoundTripper) (*http.Response, error) {
	if err := t.enter(q); err != nil {
		return nil, err
	}
	if isWatch(q) && t.isExpired(q) {
		return gone(q), nil
	}
	response, err := t.answer(q, next)
	if isWrite(q) {
		t.noteWrite(q, response, err)
	}
	if err == nil && isWatch(q) && response.StatusCode == http.StatusOK {
		watch := &body{ReadCloser: response.Body, closed: func() { t.setWatch(q, nil) }}
		t.setWatch(q, watch)
		response.Body = watch
	}
	return response, err
}

// answer sends a request on, unless the API server is to lack the resource.
func (t *Transport) answer(q *http.Request, next http.RoundTripper) (*http.Response, error) {
	t.mu.Lock()
	lacks := t.lacking != nil && t.lacking(q)
	t.mu.Unlock()
	if !lacks {
		return next.RoundTrip(q)
	}
	return &http.Response{
		Request: q, StatusCode: http.StatusNotFound, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
		Body: io.NopCloser(strings.NewReader("404 page not found\n")),
	}, nil
}

// Lack makes requests be answered as by an API server that does not have their resource. Nil has all go on.
func (t *Transport) Lack(which func(*http.Request) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lacking = which
}

// enter returns when a request may pass, or with the reason why it may not.
func (t *Transport) enter(q *http.Request) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.held != nil && t.held(q) && q.Context().Err() == nil {
		changed := t.changed
		t.waiting++
		t.mu.Unlock()
		select {
		case <-changed:
		case <-q.Context().Done():
		}
		t.mu.Lock()
		t.waiting--
	}
	if t.broken {
		return errors.New("the test has broken the connection to the API server")
	}
	if err := q.Context().Err(); err != nil {
		return err
	}
	if isWrite(q) {
		t.underway++
	}
	return nil
}

// isWrite leaves out what is about leases, which are written all the time.
func isWrite(q *http.Request) bool {
	return q.Method != http.MethodGet && !strings.Contains(q.URL.Path, "/leases")
}

func (t *Transport) noteWrite(q *http.Request, response *http.Response, err error) {
	status := "no answer"
	if err == nil {
		status = fmt.Sprint(response.StatusCode)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.underway--
	t.writes = append(t.writes, q.Method+" "+q.URL.Path+" "+status)
	t.answered.Broadcast()
}

func isWatch(q *http.Request) bool { return q.URL.Query().Get("watch") == "true" }

func (t *Transport) setWatch(q *http.Request, open *body) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if open != nil {
		t.watches[q] = open
	} else {
		delete(t.watches, q)
	}
}

// Expire ends the watches of a kind, and has the next attempt at each be answered as by an API server that does not have the resource version any more (410).
func (t *Transport) Expire(which func(*http.Request) bool) {
	t.mu.Lock()
	t.expired, t.told = which, map[string]bool{}
	var open []*body
	for q, watch := range t.watches {
		if which(q) {
			open = append(open, watch)
		}
	}
	t.mu.Unlock()
	for _, watch := range open {
		_ = watch.Close() // whoever reads sees the end
	}
}

func (t *Transport) isExpired(q *http.Request) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	watched := q.URL.Path + " " + q.URL.Query().Get("fieldSelector")
	if t.expired == nil || !t.expired(q) || t.told[watched] {
		return false
	}
	t.told[watched] = true
	return true
}

// gone is the answer to a watch from a version that is too old.
func gone(q *http.Request) *http.Response {
	const status = `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old resource version"}`
	return &http.Response{
		Request: q, StatusCode: http.StatusGone, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(status)),
	}
}

// Expired returns how many watches were answered so.
func (t *Transport) Expired() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.told)
}

// Break makes all requests fail from now on, until Mend. Watches that are open stay open.
func (t *Transport) Break() { t.setBroken(true) }

// Mend ends what Break began.
func (t *Transport) Mend() { t.setBroken(false) }

func (t *Transport) setBroken(broken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = broken
}

// Hold makes requests of a kind wait until Release, or until another Hold that is not about them.
func (t *Transport) Hold(which func(*http.Request) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = which
	close(t.changed)
	t.changed = make(chan struct{})
}

// Release lets all requests go on.
func (t *Transport) Release() { t.Hold(nil) }

// Held returns how many requests are waiting.
func (t *Transport) Held() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting
}

// Watches returns how many watches of a kind are open.
func (t *Transport) Watches(which func(*http.Request) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	count := 0
	for q := range t.watches {
		if which(q) {
			count++
		}
	}
	return count
}

// Writes returns the requests so far that wrote something, but for leases, and that have a text in their paths: method, path and status of
// each. It waits for answers that are still to come: others may have seen the outcome before.
func (t *Transport) Writes(part string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.underway > 0 {
		t.answered.Wait()
	}
	return slices.DeleteFunc(slices.Clone(t.writes), func(line string) bool { return !strings.Contains(line, part) })
}

// Path is about requests whose path ends as given.
func Path(end string) func(*http.Request) bool {
	return func(q *http.Request) bool { return strings.HasSuffix(q.URL.Path, end) }
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls r.
func (r roundTripper) RoundTrip(q *http.Request) (*http.Response, error) { return r(q) }

// body notes when it is closed.
type body struct {
	io.ReadCloser
	closed func()
}

// Close closes the body.
func (b *body) Close() error {
	b.closed()
	return b.ReadCloser.Close()
}
