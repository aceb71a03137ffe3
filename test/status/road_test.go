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
	mu      sync.Mutex
	opened  *sync.Cond
	broken  bool
	barred  func(*http.Request) bool // nil: nobody
	waiting int                      // at the bar
	wrote   []string                 // method, path and status of each request that writes, but for those about leases
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
			if q.Method != http.MethodGet && !strings.Contains(q.URL.Path, "/leases") {
				status := "no answer"
				if err == nil {
					status = fmt.Sprint(response.StatusCode)
				}
				r.mu.Lock()
				r.wrote = append(r.wrote, q.Method+" "+q.URL.Path+" "+status)
				r.mu.Unlock()
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
	return q.Context().Err()
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

// writes are those whose path has a part of a text.
func (r *road) writes(part string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.wrote), func(line string) bool { return !strings.Contains(line, part) })
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f roundTrip) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }
