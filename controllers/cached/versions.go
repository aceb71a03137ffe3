package cached

import (
	"context"
	"io"
	"slices"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
)

// Versions are the API versions in which a kind can be read and written. The kind has the same fields in each of them.
//
// The API serves some of them, and others once the kind's CustomResourceDefinition (CRD) is upgraded or downgraded. A request takes the newest one
// that is served. An object is the same object in each version: it keeps its UID, its generation and its resource version. So one cache can be
// filled from one version after another, and has all objects at every moment: a watch that ends when the CRD changes goes on in the other version
// from the resource version where it was, and a new list replaces the cache's objects at once and is never older than they are.
//
// Several goroutines may use it.
type Versions struct {
	known []schema.GroupVersion                 // the newest first
	order atomic.Pointer[[]schema.GroupVersion] // all of them: those that the CRD serves first
}

// NewVersions are these versions, the newest first.
func NewVersions(known ...schema.GroupVersion) *Versions {
	v := &Versions{known: known}
	v.order.Store(&known)
	return v
}

// serve takes in the names of the versions that the CRD serves. It reports whether one of them is known.
func (v *Versions) serve(names []string) bool {
	unserved := func(version schema.GroupVersion) bool { return !slices.Contains(names, version.Version) }
	order := slices.DeleteFunc(slices.Clone(v.known), unserved)
	served := len(order) > 0
	for _, version := range v.known {
		if unserved(version) {
			order = append(order, version)
		}
	}
	v.order.Store(&order)
	return served
}

// Newest is the newest version that the CRD serves.
func (v *Versions) Newest() schema.GroupVersion { return (*v.order.Load())[0] }

// names are those of all versions that are known.
func (v *Versions) names() []string {
	return each(v.known, func(version schema.GroupVersion) string { return version.Version })
}

// InServed makes a request in the newest version that is served. API servers hear of another CRD in their own time, before or after this process: where
// one does not have the version, the request goes out in the next.
func InServed[T any](v *Versions, request func(schema.GroupVersion) (T, error)) (answer T, err error) {
	for _, version := range *v.order.Load() {
		if answer, err = request(version); !isUnserved(err) {
			return answer, err
		}
	}
	return answer, err
}

// isUnserved reports whether the API server lacks a resource in the version that was asked for. That an object is missing is another error: the
// resource's own handler says so, and an answer without a handler is no Status of the API.
func isUnserved(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// listWatch lists and watches a target in the versions that are served.
func (w *Watcher) listWatch(t Target, only fields.Selector) *toolscache.ListWatch {
	in := func(version schema.GroupVersion) *toolscache.ListWatch {
		return toolscache.NewListWatchFromClient(w.Clients[version], t.Resource, t.Only.Namespace, only)
	}
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return InServed(t.Versions, func(version schema.GroupVersion) (runtime.Object, error) {
				return in(version).ListWithContext(ctx, options)
			})
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			watch, err := InServed(t.Versions, func(version schema.GroupVersion) (apiwatch.Interface, error) {
				return in(version).WatchWithContext(ctx, options)
			})
			if err != nil && ctx.Err() != nil {
				err = io.EOF // it was stopped: client-go would log any other error
			}
			return watch, err
		},
	}
}
