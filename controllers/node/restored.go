package node

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/ringfence-io/ringfence/controllers/cached"
)

// histories are those of several kinds.
type histories map[string]*cached.History

// note takes in resource versions by kind. It fails if one of them has gone back.
func (h histories) note(versions map[string]string) error {
	for kind, version := range versions {
		if h[kind] == nil {
			h[kind] = &cached.History{}
		}
		if err := h[kind].Note(version); err != nil {
			return err
		}
	}
	return nil
}

// restoration ends the process once its caches have gone back: some may list anew and show older data while others cannot tell, and what both say together has
// never been so. Nothing of that is to be enforced.
type restoration struct {
	seen  histories
	ended chan error // has the first error, and is never empty again
}

var _ manager.LeaderElectionRunnable = (*restoration)(nil)

func newRestoration() *restoration { return &restoration{histories{}, make(chan error, 1)} }

// note takes in how far caches have come, by kind. Once they have gone back it always fails.
func (r *restoration) note(versions map[string]string) error {
	err := r.seen.note(versions)
	if err != nil {
		select {
		case r.ended <- err:
		default: // it has one
		}
	}
	return err
}

// NeedLeaderElection is false: each process has caches.
func (*restoration) NeedLeaderElection() bool { return false }

// Start waits for what ends the process.
func (r *restoration) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-r.ended:
		return err
	}
}
