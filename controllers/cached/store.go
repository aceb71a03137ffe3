package cached

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Store holds what the API shows of one kind, as [compile.Objects]: it hands out what it holds as it is, together with how far it has seen the API, and that
// stays as it was then. A reflector writes to it, without a queue in between: with a hundred thousand pods, each copy of them counts.
//
// An object that has changed in nothing that policy looks at stays the one that it was, so that nobody takes it for another.
type Store[T compile.Named] struct {
	target Target
	take   func(entry any) (T, bool)
	here   func(T) bool
	same   func(before, after T) bool
	wait   func()
	synced chan struct{}
	dated  bool

	mu         sync.Mutex
	changed    func(before, after T)
	local      compile.Objects[T]
	others     compile.Objects[T]
	version    string
	newest     map[string]string // see Newest
	everSynced bool
}

var (
	_ toolscache.TransformingStore      = (*Store[*compile.Pod])(nil)
	_ toolscache.ReflectorBookmarkStore = (*Store[*compile.Pod])(nil)
)

// StoreOptions say what a [Store] makes of a kind.
type StoreOptions[T compile.Named] struct {
	// Target is what is watched. Its transform makes the entries, which take turns into what is stored.
	Target Target
	Take   func(entry any) (T, bool)
	// Here reports whether an object is held apart from the others; nil: none is.
	Here func(T) bool
	// Same reports whether policy sees no difference between two versions.
	Same func(before, after T) bool
	// Dated has the store know when something was last changed in a namespace.
	Dated bool
	// Wait, if it is given, returns when a change may be taken in. Later ones are not even decoded meanwhile. A list does not wait.
	Wait func()
}

// NewStore is a store that nothing writes to yet.
func NewStore[T compile.Named](o StoreOptions[T]) *Store[T] {
	if o.Here == nil {
		o.Here = func(T) bool { return false }
	}
	if o.Wait == nil {
		o.Wait = func() {}
	}
	return &Store[T]{
		target: o.Target, take: o.Take, here: o.Here, same: o.Same, wait: o.Wait, synced: make(chan struct{}), changed: func(_, _ T) {},
		dated: o.Dated, newest: map[string]string{},
	}
}

// OnChange has each change told: what an object was and what it is, the zero value where it was not or is not any more. All that the first list has is one
// change, from nothing to nothing. It is called before anything runs.
func (s *Store[T]) OnChange(changed func(before, after T)) { s.changed = changed }

// Contents are the objects that are here, and all others, and how far the API has been seen by then.
func (s *Store[T]) Contents() (here, others compile.Objects[T], resourceVersion string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.local, s.others, s.version
}

// ResourceVersion is how far the API has been seen.
func (s *Store[T]) ResourceVersion() string {
	_, _, version := s.Contents()
	return version
}

// Newest is the version of the last change in a namespace that was told, a deletion included, or of what is newest of a list. It is empty if nothing is
// known to have been there, and in a store that is not Dated.
func (s *Store[T]) Newest(namespace string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest[namespace]
}

// date is for who has the lock, or the map alone.
func (s *Store[T]) date(newest map[string]string, namespace, version string) {
	if s.dated && !Reached(newest[namespace], version) {
		newest[namespace] = version
	}
}

// Get is the object of a name; ok is false if there is none.
func (s *Store[T]) Get(namespace, name string) (one T, ok bool) {
	here, others, _ := s.Contents()
	if one, ok = here.Get(namespace, name); ok {
		return one, true
	}
	return others.Get(namespace, name)
}

// HasSynced reports whether all objects have come.
func (s *Store[T]) HasSynced() bool {
	select {
	case <-s.synced:
		return true
	default:
		return false
	}
}

// Target is what is watched.
func (s *Store[T]) Target() Target { return s.target }

// String is what the log calls what is watched.
func (s *Store[T]) String() string { return s.target.String() }

// Follow watches until ctx ends.
func (s *Store[T]) Follow(ctx context.Context, w *Watcher) {
	toolscache.NewReflectorWithOptions(w.source(s.target), s.target.Example, s, toolscache.ReflectorOptions{Name: s.String()}).RunWithContext(ctx)
}

// Transformer is the target's transform, which a reflector applies before it collects a list.
func (s *Store[T]) Transformer() toolscache.TransformFunc { return s.target.Transform }

// entry is what is stored for an object of the API, or for what the transform has made of it, and its resource version.
func (s *Store[T]) entry(obj any) (one T, resourceVersion string, err error) {
	made, err := s.target.Transform(obj)
	if err != nil {
		return one, "", fmt.Errorf("storing %s: %w", s, err)
	}
	one, ok := s.take(made)
	if !ok {
		return one, "", fmt.Errorf("storing %s: got a %T", s, obj)
	}
	object, err := meta.Accessor(made)
	if err != nil {
		return one, "", fmt.Errorf("storing %s: %w", s, err)
	}
	return one, object.GetResourceVersion(), nil
}

// Add stores an object, in the place of one of its name.
func (s *Store[T]) Add(obj any) error {
	s.wait()
	one, version, err := s.entry(obj)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before, there := s.put(one)
	s.version = version
	news := !there || before != one && !s.same(before, one)
	if news {
		s.date(s.newest, one.GetNamespace(), version)
	}
	s.mu.Unlock()
	if news {
		s.changed(before, one)
	}
	return nil
}

// Update is Add.
func (s *Store[T]) Update(obj any) error { return s.Add(obj) }

// put is for who has the lock. It returns what was stored before.
func (s *Store[T]) put(one T) (before T, there bool) {
	in, other := &s.others, &s.local
	if s.here(one) {
		in, other = other, in
	}
	if before, there = in.Get(one.GetNamespace(), one.GetName()); there {
		if !s.same(before, one) {
			*in = in.With(one)
		}
		return before, true
	}
	before, there = other.Get(one.GetNamespace(), one.GetName())
	*other = other.Without(one.GetNamespace(), one.GetName())
	*in = in.With(one)
	return before, there
}

// Delete takes an object out.
func (s *Store[T]) Delete(obj any) error {
	s.wait()
	gone, version, err := s.entry(obj)
	if err != nil {
		return err
	}
	namespace, name := gone.GetNamespace(), gone.GetName()
	before, there := s.Get(namespace, name)
	s.mu.Lock()
	s.local, s.others = s.local.Without(namespace, name), s.others.Without(namespace, name)
	s.version = version
	s.date(s.newest, namespace, version)
	s.mu.Unlock()
	if there {
		var none T
		s.changed(before, none)
	}
	return nil
}

// Replace stores a list in the place of all that there is.
func (s *Store[T]) Replace(list []any, resourceVersion string) error {
	here, others := make([]T, 0), make([]T, 0, len(list))
	newest := map[string]string{}
	for _, obj := range list {
		one, version, err := s.entry(obj)
		if err != nil {
			return err
		}
		s.date(newest, one.GetNamespace(), version)
		if before, there := s.Get(one.GetNamespace(), one.GetName()); there && s.same(before, one) {
			one = before
		}
		if s.here(one) {
			here = append(here, one)
		} else {
			others = append(others, one)
		}
	}
	s.mu.Lock()
	s.local, s.others, s.version = compile.ObjectsOf(here...), compile.ObjectsOf(others...), resourceVersion
	s.newest = newest
	first := !s.everSynced
	s.everSynced = true
	s.mu.Unlock()
	if first {
		close(s.synced)
	}
	var none T
	s.changed(none, none) // whatever has changed: a list comes at the start, and after a watch was lost
	return nil
}

// Bookmark notes how far the API has been seen.
func (s *Store[T]) Bookmark(resourceVersion string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = resourceVersion
	return nil
}

// Resync does nothing: there is no queue to put all objects in again.
func (s *Store[T]) Resync() error { return nil }
