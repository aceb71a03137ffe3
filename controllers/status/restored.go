package status

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/ringfence-io/ringfence/controllers/cached"
)

// historyProbe asks now and then how far the nodes' reports have come. Who leads and who waits to lead do so alike: both have caches.
type historyProbe struct{ reports rest.Interface }

var _ manager.LeaderElectionRunnable = historyProbe{}

// historyInterval is between two looks, and up to half as much more.
const historyInterval = time.Minute

// NeedLeaderElection is false.
func (historyProbe) NeedLeaderElection() bool { return false }

// Start looks until ctx ends, or the API server has gone back to older data.
func (o historyProbe) Start(ctx context.Context) error {
	var seen cached.History
	cached.Wait(ctx, rand.N(historyInterval))
	for ctx.Err() == nil {
		version, err := o.look(ctx)
		if err != nil && ctx.Err() == nil {
			log.FromContext(ctx).V(1).Info("the API server does not say how far its data has come: tried again", "error", err.Error())
		}
		if err := seen.Note(version); err != nil {
			return err
		}
		cached.Wait(ctx, cached.Spread(historyInterval))
	}
	return nil
}

// look lists one report at most: of the list, not of a cache's age.
func (o historyProbe) look(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, cached.RequestTimeout)
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
