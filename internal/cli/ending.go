package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
)

// shutdownTime is how long the parts of a process may take to end. Kubelets kill an enforcer 10 s after they have asked it to end, and what it enforces
// stays in force however it ends.
const shutdownTime = 5 * time.Second

// endError is why a process ends by itself, to be started anew.
type endError struct{ why error }

func (e *endError) Error() string { return "ending, to be started anew: " + e.why.Error() }
func (e *endError) Unwrap() error { return e.why }

// startBounded runs what ends with ctx, and waits for its end no longer than limit: controller-runtime's manager, asked to end before its caches have synced,
// goes round in a loop for ever. It returns what start returns, or why ctx ended if that is an error of ours.
func startBounded(ctx context.Context, limit time.Duration, start func(context.Context) error, log logr.Logger) error {
	done := make(chan error, 1)
	go func() { done <- start(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(limit):
			log.Info("not all that runs has ended in time, and it is not waited for", "waited", limit.String())
		}
	}
	var end *endError
	if errors.As(context.Cause(ctx), &end) {
		return end
	}
	return err
}

// endBounded calls what ends the parts of a process, and waits for them no longer than limit.
func endBounded(limit time.Duration, stops ...func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, stop := range stops {
			stop()
		}
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// How often it is looked whether the enforcer lives, and for how many looks in a row it may not.
const (
	liveTime  = 10 * time.Second
	liveLooks = 6
)

// watchLife ends the process when its liveness check has failed for some looks in a row. The kubelet cannot do so for us: on the host's network another
// program may have the port that it would ask, and an enforcer that works would be killed for what that answers.
func watchLife(ctx context.Context, every time.Duration, live func() error, end context.CancelCauseFunc) {
	failed := 0
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := live()
		if failed++; err == nil {
			failed = 0
		}
		if failed >= liveLooks {
			end(&endError{fmt.Errorf("the liveness check has failed for %s: %w", time.Duration(failed)*every, err)})
			return
		}
	}
}
