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

// statuses are when which versions of policies were said to be programmed, as somebody sees it who watches statuses.
type statuses struct {
	mu      sync.Mutex
	at      map[version]time.Time
	changed chan struct{} // closed when there is news
}

func newStatuses() *statuses {
	return &statuses{at: map[version]time.Time{}, changed: make(chan struct{})}
}

// see takes in a status.
func (s *statuses) see(o metav1.Object, status *v1alpha1.EnforcementStatus) {
	c := meta.FindStatusCondition(status.Conditions, v1alpha1.ProgrammedCondition)
	if c == nil || c.Status != metav1.ConditionTrue {
		return
	}
	v := version{types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, c.ObservedGeneration}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.at[v]; !ok {
		s.at[v] = time.Now()
		close(s.changed)
		s.changed = make(chan struct{})
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
