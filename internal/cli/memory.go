package cli

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

const (
	// memoryShare of a container's memory limit is what Go may take; the rest is for what it does not count.
	memoryShare = 0.9
	// enforcerShare is the same where iptables programs run in the container too, and the kernel counts what its sets and rules take.
	enforcerShare = 0.6
	// memoryLook is how often the limit is looked at: it may be changed while the container runs.
	memoryLook = time.Minute
)

// limitMemory keeps Go below a share of the memory limit of the container, if it has one: rather than be killed for garbage, the process spends more time on
// collecting it. GOMEMLIMIT, where it is set, says otherwise.
func limitMemory(ctx context.Context, limit memlimit.Provider, share float64, log logr.Logger) error {
	_, err := memlimit.Set(memlimit.WithProvider(limit), memlimit.WithRatio(share), memlimit.WithRefreshInterval(ctx, memoryLook),
		memlimit.WithLogger(slog.New(logr.ToSlogHandler(log.WithName("memory")))))
	if err != nil {
		return fmt.Errorf("reading the container's memory limit: %w", err)
	}
	return nil
}
