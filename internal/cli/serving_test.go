package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/ringfence-io/ringfence/test/kit"
)

// notes are what a node's troubles would be told.
type notes struct {
	mu  sync.Mutex
	all []error
}

func (n *notes) note(_ string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, err)
}

func (n *notes) last() (told bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.all) == 0 {
		return false, nil
	}
	return true, n.all[len(n.all)-1]
}

// get is the status of a probe, 0 if nobody answers.
func get(t *testing.T, url string) int {
	t.Helper()
	r, err := http.Get(url) //nolint:gosec,noctx // of the test's own server
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode
}

// TestAPortThatAnotherProgramHas is said, once in the log, tried again, and served as soon as it is free. Another that takes it later is no matter.
func TestAPortThatAnotherProgramHas(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := other.Addr().String()
	var mu sync.Mutex
	var log []string
	logger := funcr.New(func(_, args string) { mu.Lock(); defer mu.Unlock(); log = append(log, args) }, funcr.Options{})
	ready := errors.New("not yet")
	p := probes{address, func(*http.Request) error { return nil }, func(*http.Request) error { return ready }}
	n := &notes{}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		service{what: "probes", reason: "Probes", address: address, serve: p.serve}.keep(ctx, 20*time.Millisecond, n.note, logger)
	})
	tries := func(count int) bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.all) >= count }
	kit.Eventually(t, 30*time.Second, "it is tried again", func() bool { return tries(3) })
	if _, err := n.last(); err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("it is told %v", err)
	}
	mu.Lock()
	if len(log) != 1 || !strings.Contains(log[0], address) {
		t.Errorf("the log says %q, want one line", log)
	}
	mu.Unlock()
	_ = other.Close()
	kit.Eventually(t, 30*time.Second, "it is served", func() bool { return get(t, "http://"+address+"/healthz") == http.StatusOK })
	kit.Eventually(t, 30*time.Second, "that is told", func() bool { told, err := n.last(); return told && err == nil })
	for path, want := range map[string]int{"/healthz/syncing": 200, "/readyz": 500, "/readyz/synced": 500, "/": 404, "/metrics": 404} {
		if got := get(t, "http://"+address+path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	cancel()
	serving.Wait()
	if get(t, "http://"+address+"/healthz") != 0 {
		t.Error("when it has ended, somebody answers")
	}
}

// TestAServiceThatCannotBegin: whatever the reason, who asked for it goes on.
func TestAServiceThatCannotBegin(t *testing.T) {
	n := &notes{}
	p := probes{address: "this is no address"}
	stop := serveAll(t.Context(), []service{{what: "probes", reason: "Probes", address: p.address, serve: p.serve}}, n.note, logr.Discard())
	kit.Eventually(t, 30*time.Second, "it is told", func() bool { _, err := n.last(); return err != nil })
	stop()
}
