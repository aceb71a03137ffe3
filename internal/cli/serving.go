package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node"
)

// portRetry is how long a port is not tried again that another program has. What has been served for so long is taken to work.
const portRetry = 5 * time.Second

// service is what a process serves beside its work, on a port of the node that another program may have.
type service struct {
	what    string // in the log
	reason  string // in the node's report, when it is not served
	address string
	// serve serves until ctx ends, and fails if it cannot begin.
	serve func(ctx context.Context) error
}

// keep serves until ctx ends, and tries again whenever that fails: what the process is there for never ends for it.
func (s service) keep(ctx context.Context, retry time.Duration, note func(reason string, err error), log logr.Logger) {
	logged := ""
	for ctx.Err() == nil {
		works := time.AfterFunc(retry, func() { note(s.reason, nil) })
		err := s.serve(ctx)
		works.Stop()
		if ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("the %s are not served on %s: %w", s.what, s.address, errors.Join(err))
		note(s.reason, err)
		if logged != err.Error() {
			logged = err.Error()
			log.Error(err, "another program may have the port: policy is enforced all the same, and the port is tried again", "every", retry.String())
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// probes answer the kubelet.
type probes struct {
	address     string
	live, ready healthz.Checker
}

func (p probes) serve(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for path, check := range map[string]map[string]healthz.Checker{"/healthz": {"syncing": p.live}, "/readyz": {"synced": p.ready}} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: check})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler)
	}
	const patience = 10 * time.Second
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience, IdleTimeout: patience, MaxHeaderBytes: 1 << 16}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	return server.Serve(l)
}

// services are the enforcer's.
func (o *enforcerOptions) services(manager ctrlmanager.Manager, n *node.Reconciler) []service {
	var all []service
	if o.health != "" && o.health != "0" {
		p := probes{o.health, func(*http.Request) error { return n.Live() }, func(*http.Request) error { return n.Synced() }}
		all = append(all, service{what: "probes", reason: v1alpha1.ProbesNotServedReason, address: o.health, serve: p.serve})
	}
	if o.metrics.address != "" && o.metrics.address != "0" {
		all = append(all, service{what: "metrics", reason: v1alpha1.MetricsNotServedReason, address: o.metrics.address, serve: func(ctx context.Context) error {
			server, err := metricsserver.NewServer(o.metrics.options(), manager.GetConfig(), manager.GetHTTPClient())
			if err != nil {
				return err
			}
			return server.Start(ctx)
		}})
	}
	return all
}

// serveAll keeps all of them served. What it returns ends them.
func serveAll(ctx context.Context, all []service, note func(reason string, err error), log logr.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, s := range all {
		running.Go(func() { s.keep(ctx, portRetry, note, log) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}
