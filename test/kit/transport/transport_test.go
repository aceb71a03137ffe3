package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/test/kit"
)

// newClient is a client that reaches a server by a transport. The server answers all.
func newClient(t *testing.T) (*Transport, func(ctx context.Context, method, path string) (io.Closer, error)) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	to := New()
	client, err := rest.HTTPClientFor(to.To(&rest.Config{Host: server.URL}))
	kit.Must(t, err)
	return to, func(ctx context.Context, method, path string) (io.Closer, error) {
		q, err := http.NewRequestWithContext(ctx, method, server.URL+path, nil)
		kit.Must(t, err)
		response, err := client.Do(q)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { response.Body.Close() })
		return response.Body, nil
	}
}

func TestBreakAndMend(t *testing.T) {
	to, do := newClient(t)
	to.Break()
	if _, err := do(t.Context(), http.MethodGet, "/"); err == nil {
		t.Error("a request passes")
	}
	to.Mend()
	if _, err := do(t.Context(), http.MethodGet, "/"); err != nil {
		t.Errorf("after Mend: %v", err)
	}
}

func TestHoldAndRelease(t *testing.T) {
	to, do := newClient(t)
	to.Hold(Path("/held"))
	_, err := do(t.Context(), http.MethodGet, "/other")
	kit.Must(t, err)
	ended := make(chan error)
	request := func(ctx context.Context) {
		_, err := do(ctx, http.MethodGet, "/held")
		ended <- err
	}
	go request(t.Context())
	kit.Eventually(t, time.Minute, "a request is held", func() bool { return to.Held() == 1 })
	to.Release()
	kit.Must(t, <-ended)
	if n := to.Held(); n != 0 {
		t.Errorf("%d requests are held after Release", n)
	}

	to.Hold(Path("/held"))
	ctx, cancel := context.WithCancel(t.Context())
	go request(ctx)
	kit.Eventually(t, time.Minute, "a request is held", func() bool { return to.Held() == 1 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a request that is given up ends with %v", err)
	}
}

func TestWatches(t *testing.T) {
	to, do := newClient(t)
	watch, err := do(t.Context(), http.MethodGet, "/pods?watch=true")
	kit.Must(t, err)
	_, err = do(t.Context(), http.MethodGet, "/pods")
	kit.Must(t, err)
	if got := [2]int{to.Watches(Path("/pods")), to.Watches(Path("/nodes"))}; got != [2]int{1, 0} {
		t.Errorf("there are %v watches of pods and nodes, want 1 and 0", got)
	}
	kit.Must(t, watch.Close())
	if n := to.Watches(Path("/pods")); n != 0 {
		t.Errorf("there are %d watches after the end of the only one", n)
	}
}

func TestExpire(t *testing.T) {
	to, do := newClient(t)
	for range 2 {
		_, err := do(t.Context(), http.MethodGet, "/pods?watch=true")
		kit.Must(t, err)
		_, err = do(t.Context(), http.MethodGet, "/nodes?watch=true")
		kit.Must(t, err)
		to.Expire(Path("/pods"))
		if got := [2]int{to.Watches(Path("/pods")), to.Watches(Path("/nodes"))}; got[0] != 0 || got[1] == 0 {
			t.Errorf("there are %v watches of pods and nodes, want none of pods", got)
		}
		_, err = do(t.Context(), http.MethodGet, "/pods?watch=true")
		kit.Must(t, err)
		if to.Expired() != 1 || to.Watches(Path("/pods")) != 0 {
			t.Errorf("%d watches were answered as too old, %d go on", to.Expired(), to.Watches(Path("/pods")))
		}
	}
}

func TestLack(t *testing.T) {
	to, do := newClient(t)
	to.Lack(Path("/lacking"))
	for _, path := range []string{"/lacking", "/other"} {
		_, err := do(t.Context(), http.MethodPatch, path)
		kit.Must(t, err)
	}
	to.Lack(nil)
	_, err := do(t.Context(), http.MethodPatch, "/lacking")
	kit.Must(t, err)
	if diff := cmp.Diff([]string{"PATCH /lacking 404", "PATCH /other 200", "PATCH /lacking 200"}, to.Writes("")); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func TestWrites(t *testing.T) {
	to, do := newClient(t)
	for _, request := range [][2]string{{"GET", "/pods/a"}, {"PATCH", "/pods/a"}, {"PUT", "/leases/a"}, {"POST", "/nodes"}} {
		_, err := do(t.Context(), request[0], request[1])
		kit.Must(t, err)
	}
	for part, want := range map[string][]string{"": {"PATCH /pods/a 200", "POST /nodes 200"}, "/nodes": {"POST /nodes 200"}} {
		if diff := cmp.Diff(want, to.Writes(part)); diff != "" {
			t.Errorf("writes with %q (-want +got):\n%s", part, diff)
		}
	}
}
