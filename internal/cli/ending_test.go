package cli

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node"
)

// TestAskedToEndBeforeTheCachesHaveSynced has controller-runtime's manager wait for an API server that does not answer. Asked to end then, it goes round in a
// loop for ever, and is not waited for.
func TestAskedToEndBeforeTheCachesHaveSynced(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // at which nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	manager, err := ctrl.NewManager(&rest.Config{Host: "http://" + l.Addr().String()}, ctrl.Options{
		Logger: logr.Discard(), Cache: node.CacheOptions("n1"), MapperProvider: cached.RESTMapper,
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, _ = manager.GetCache().GetInformer(ctx, &corev1.Pod{}) // returns when it has synced
	}()
	asked := make(chan struct{})
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			close(asked)
			<-ctx.Done()
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- startBounded(ctx, 100*time.Millisecond, manager.Start, logr.Discard()) }()
	select {
	case <-asked:
	case <-time.After(30 * time.Second):
		t.Fatal("the API server is not asked")
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("half a minute after it was asked to end it has not")
	}
}

func TestHowAProcessEnds(t *testing.T) {
	bad, mine := errors.New("bad"), &endError{errors.New("mine")}
	hangs := func(context.Context) error { select {} }
	for _, tt := range []struct {
		name  string
		start func(context.Context) error
		cause error // of the end, none if it ends by itself
		want  error
	}{
		{"by itself", func(context.Context) error { return nil }, nil, nil},
		{"with an error", func(context.Context) error { return bad }, nil, bad},
		{"asked to", func(ctx context.Context) error { <-ctx.Done(); return nil }, context.Canceled, nil},
		{"asked to, with an error", func(ctx context.Context) error { <-ctx.Done(); return bad }, context.Canceled, bad},
		{"by our own decision", func(ctx context.Context) error { <-ctx.Done(); return nil }, mine, mine},
	} {
		ctx, end := context.WithCancelCause(t.Context())
		if tt.cause != nil {
			end(tt.cause)
		}
		if err := startBounded(ctx, time.Minute, tt.start, logr.Discard()); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		end(nil)
	}
	ctx, end := context.WithCancelCause(t.Context())
	end(mine)
	if err := startBounded(ctx, time.Millisecond, hangs, logr.Discard()); !errors.Is(err, mine) || !strings.Contains(err.Error(), "mine") {
		t.Errorf("what hangs: %v", err)
	}
	stopped := make(chan struct{})
	endBounded(time.Millisecond, func() { close(stopped) }, func() { select {} })
	select {
	case <-stopped:
	case <-time.After(30 * time.Second):
		t.Error("what does not hang was not ended")
	}
}

// TestAnEnforcerThatDoesNotLiveEnds, since no probe of the kubelet's does it.
func TestAnEnforcerThatDoesNotLiveEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		fails func(look int) bool
		ends  bool
	}{
		"it lives":                 {func(int) bool { return false }, false},
		"now and then it does not": {func(look int) bool { return look%liveLooks != 0 }, false},
		"from some time on":        {func(look int) bool { return look > 20 }, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, end := context.WithCancelCause(t.Context())
			look := 0
			go watchLife(ctx, liveTime, func() error {
				if look++; tt.fails(look) {
					return errors.New("a sync has not ended")
				}
				return nil
			}, end)
			time.Sleep(100 * liveTime)
			synctest.Wait()
			var ended *endError
			if got := errors.As(context.Cause(ctx), &ended); got != tt.ends {
				t.Errorf("%s: it ends: %v, want %v", name, got, tt.ends)
			}
			end(nil)
		})
	}
}
