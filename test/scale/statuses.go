package scale

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// version is a generation of a policy: of a NetworkPolicy by its namespace and name, of one of the cluster by its name.
type version struct {
	types.NamespacedName
	generation int64
}

// progress is what a status says of a generation: how many of the nodes that are to enforce it do.
type progress struct {
	generation          int64
	desired, programmed int32
}

// statuses are when which versions of policies were said to be programmed, as somebody sees it who watches statuses.
type statuses struct {
	mu      sync.Mutex
	at      map[version]time.Time
	last    map[types.NamespacedName]progress
	changed chan struct{} // closed when there is news
}

func newStatuses() *statuses {
	return &statuses{at: map[version]time.Time{}, last: map[types.NamespacedName]progress{}, changed: make(chan struct{})}
}

// see takes in a status.
func (s *statuses) see(o metav1.Object, status *v1alpha1.EnforcementStatus) {
	c := meta.FindStatusCondition(status.Conditions, v1alpha1.ProgrammedCondition)
	if c == nil {
		return
	}
	name := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
	v := version{name, c.ObservedGeneration}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[name] = progress{c.ObservedGeneration, status.Nodes.Desired, status.Nodes.Programmed}
	if c.Status == metav1.ConditionTrue && s.at[v].IsZero() {
		s.at[v] = time.Now()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// until waits until the last status of a policy is as it is wanted.
func (s *statuses) until(ctx context.Context, name types.NamespacedName, wanted func(progress) bool) error {
	for {
		s.mu.Lock()
		now, changed := s.last[name], s.changed
		s.mu.Unlock()
		if wanted(now) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for another status of %s than %+v", name, now), context.Cause(ctx))
		}
	}
}

func (s *statuses) when(v version) (at time.Time, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[v], s.changed
}

// programmed waits until a version is said to be programmed, and says when that was.
func (s *statuses) programmed(ctx context.Context, v version) (time.Time, error) {
	for {
		at, changed := s.when(v)
		if !at.IsZero() {
			return at, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return at, errors.Join(fmt.Errorf("waiting for generation %d of %s to be programmed", v.generation, v), context.Cause(ctx))
		}
	}
}

// count is how many versions were said to be programmed.
func (s *statuses) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}
