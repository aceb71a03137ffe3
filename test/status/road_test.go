package status

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// road is the way from one controller to the API server. It remembers what was written, can make requests wait, and can be broken.
type road struct {
	mu       sync.Mutex
	opened   *sync.Cond
	broken   bool
	barred   func(*http.Request) bool // nil: nobody
	waiting  int                      // at the bar
	underway int                      // requests that write, past the bar and not yet answered
	wrote    []string                 // method, path and status of each request that writes, but for those about leases
}

// isWrite leaves out what is about leases, which are written all the time.
func isWrite(q *http.Request) bool {
	return q.Method != http.MethodGet && !strings.Contains(q.URL.Path, "/leases")
}

func newRoad() *road {
	r := &road{}
	r.opened = sync.NewCond(&r.mu)
	return r
}

// to is a configuration that reaches the API server by this road.
func (r *road) to(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(q *http.Request) (*http.Response, error) {
			if err := r.enter(q); err != nil {
				return nil, err
			}
			response, err := next.RoundTrip(q)
			if isWrite(q) {
				r.answered(q, response, err)
			}
			return response, err
		})
	})
	return config
}

func (r *road) enter(q *http.Request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.barred != nil && r.barred(q) && q.Context().Err() == nil {
		r.waiting++
		r.opened.Wait()
		r.waiting--
	}
	if r.broken {
		return errors.New("the road is broken")
	}
	if err := q.Context().Err(); err != nil {
		return err
	}
	if isWrite(q) {
		r.underway++
	}
	return nil
}

func (r *road) answered(q *http.Request, response *http.Response, err error) {
	status := "no answer"
	if err == nil {
		status = fmt.Sprint(response.StatusCode)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.underway--
	r.wrote = append(r.wrote, q.Method+" "+q.URL.Path+" "+status)
	r.opened.Broadcast()
}

// bar makes requests wait; nil lets all go.
func (r *road) bar(which func(*http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.barred = which
	r.opened.Broadcast()
}

// atTheBar is how many requests wait there.
func (r *road) atTheBar() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

// breakUp makes all requests fail from now on.
func (r *road) breakUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = true
}

// writes are those whose path has a part of a text. It waits for the answers that are still to come: others may have seen the outcome before.
func (r *road) writes(part string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.underway > 0 {
		r.opened.Wait()
	}
	return slices.DeleteFunc(slices.Clone(r.wrote), func(line string) bool { return !strings.Contains(line, part) })
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f roundTrip) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }
