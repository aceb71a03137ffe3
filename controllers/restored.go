package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// A cluster that is restored from a backup begins to count its changes where the backup ended, unless whoever restores it has etcd count on. Watches go on by
// the old count then: nothing is heard of until the new one has come as far, what was made after the backup stays in caches for good, and what was deleted
// after it is missing. No watch tells. What does tell is the count itself, wherever it is given with an answer that cannot be older than the one before.

// RestoredError says that the API server has gone back to older data.
type RestoredError struct{ Before, Now string }

func (e *RestoredError) Error() string {
	return fmt.Sprintf("the API server has gone back from resource version %s to %s, as after a restore from a backup: "+
		"this process ends, for its next start to read everything anew; what is enforced stays in force", e.Before, e.Now)
}

// history is how far the changes of one kind have come, by answers that each have all that was written before they were asked for.
type history struct{ newest string }

// note takes in a resource version, empty if there was none in the answer. It fails if the changes have gone back.
func (h *history) note(version string) error {
	if order, err := resourceversion.CompareResourceVersion(version, h.newest); err == nil && order < 0 {
		return &RestoredError{Before: h.newest, Now: version}
	}
	if version != "" {
		h.newest = version
	}
	return nil
}

// histories are those of several kinds.
type histories map[string]*history

// note takes in resource versions by kind. It fails if one of them has gone back.
func (h histories) note(versions map[string]string) error {
	for kind, version := range versions {
		if h[kind] == nil {
			h[kind] = &history{}
		}
		if err := h[kind].note(version); err != nil {
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

// outlook asks now and then how far the nodes' reports have come. Who leads and who waits to lead do so alike: both have caches.
type outlook struct{ reports rest.Interface }

var _ manager.LeaderElectionRunnable = outlook{}

// outlookInterval is between two looks, and up to half as much more.
const outlookInterval = time.Minute

// NeedLeaderElection is false.
func (outlook) NeedLeaderElection() bool { return false }

// Start looks until ctx ends, or the API server has gone back to older data.
func (o outlook) Start(ctx context.Context) error {
	var seen history
	wait(ctx, rand.N(outlookInterval))
	for ctx.Err() == nil {
		version, err := o.look(ctx)
		if err != nil && ctx.Err() == nil {
			log.FromContext(ctx).V(1).Info("the API server does not say how far its data has come: tried again", "error", err.Error())
		}
		if err := seen.note(version); err != nil {
			return err
		}
		wait(ctx, spread(outlookInterval))
	}
	return nil
}

// look lists one report at most: of the list, not of a cache's age.
func (o outlook) look(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	answer, err := o.reports.Get().Resource("nodeenforcements").Param("limit", "1").
		SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json").Do(ctx).Raw()
	if err != nil {
		return "", fmt.Errorf("asking for a report: %w", err)
	}
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(answer, &list); err != nil {
		return "", fmt.Errorf("asking for a report: %w", err)
	}
	return list.ResourceVersion, nil
}
