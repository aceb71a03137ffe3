package controllers

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// target is what a watch of its own looks at: a kind's objects, all or the one of a name.
type target struct {
	kind      string
	versions  *versions
	resource  string
	only      types.NamespacedName // no name: all of the cluster
	example   runtime.Object
	transform toolscache.TransformFunc
}

// String is what the log calls it.
func (t target) String() string {
	switch {
	case t.only.Name == "":
		return t.resource + "." + t.versions.newest().String()
	case t.only.Namespace == "":
		return t.kind + " " + t.only.Name
	}
	return t.kind + " " + t.only.String()
}

func (t target) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: t.versions.newest().Group, Resource: t.resource}
}

// watch is an informer that comes and goes. The manager's cache cannot hold these: it keeps one informer, with one selector, for a kind,
// and its start waits, for good, for one that was removed before it had synced.
type watch struct {
	target   target
	informer toolscache.SharedIndexInformer
	handler  toolscache.ResourceEventHandlerRegistration
	since    time.Time
	stop     context.CancelFunc
}

// synced reports whether all objects have come, and the handler has been told of them.
func (w *watch) synced() bool { return w.handler.HasSynced() }

// watcher starts watches.
type watcher struct {
	clients map[schema.GroupVersion]rest.Interface
}

func newWatcher(config *rest.Config, client *http.Client, targets []target) (*watcher, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme, installSIG,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("making the API's kinds known: %w", err)
		}
	}
	codecs := serializer.NewCodecFactory(scheme)
	w := &watcher{clients: map[schema.GroupVersion]rest.Interface{}}
	for _, t := range targets {
		for _, version := range t.versions.known {
			if w.clients[version] != nil {
				continue
			}
			c, err := apiutil.RESTClientForGVK(version.WithKind(t.kind), false, false, config, codecs, client)
			if err != nil {
				return nil, fmt.Errorf("making a client of %s: %w", version, err)
			}
			w.clients[version] = c
		}
	}
	return w, nil
}

// start watches t until ctx ends or the watch is stopped. It calls dirty when the watch has synced, and on every later event that policy
// looks at.
func (w *watcher) start(ctx context.Context, t target, dirty func()) (*watch, error) {
	var informer toolscache.SharedIndexInformer
	changed := func() {
		if informer.HasSynced() { // before, one event for all of them follows
			dirty()
		}
	}
	var err error
	informer, err = w.informer(t)
	if err != nil {
		return nil, err
	}
	return w.run(ctx, t, informer, dirtyOnEvents(changed), dirty)
}

// follow watches t likewise, and tells handler of every event.
func (w *watcher) follow(ctx context.Context, t target, handler toolscache.ResourceEventHandler, synced func()) (*watch, error) {
	informer, err := w.informer(t)
	if err != nil {
		return nil, err
	}
	return w.run(ctx, t, informer, handler, synced)
}

func (w *watcher) informer(t target) (toolscache.SharedIndexInformer, error) {
	only := fields.Everything()
	if t.only.Name != "" {
		only = fields.OneTermEqualSelector("metadata.name", t.only.Name)
	}
	informer := toolscache.NewSharedIndexInformer(
		w.listWatch(t, only),
		t.example, 0, toolscache.Indexers{})
	if err := informer.SetTransform(t.transform); err != nil {
		return nil, fmt.Errorf("watching %s: %w", t, err)
	}
	if err := informer.SetWatchErrorHandlerWithContext(sayWatchError); err != nil {
		return nil, fmt.Errorf("watching %s: %w", t, err)
	}
	return informer, nil
}

// run starts an informer, and calls synced when it has synced.
func (w *watcher) run(ctx context.Context, t target, informer toolscache.SharedIndexInformer, handler toolscache.ResourceEventHandler,
	synced func()) (*watch, error) {
	told, err := informer.AddEventHandler(handler)
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", t, err)
	}
	ctx, stop := context.WithCancel(ctx)
	go informer.RunWithContext(ctx)
	go func() {
		select {
		case <-told.HasSyncedChecker().Done():
			synced() // also if there is not a single object
		case <-ctx.Done():
		}
	}()
	return &watch{target: t, informer: informer, handler: told, since: time.Now(), stop: stop}, nil
}

// sayWatchError is silent about a resource that does not exist: its CustomResourceDefinition has just been removed, or another API server
// has not heard of it yet, and its own watch tells which.
func sayWatchError(ctx context.Context, r *toolscache.Reflector, err error) {
	if apierrors.IsNotFound(err) {
		log.FromContext(ctx).V(1).Info("the API server does not have this resource now", "error", err.Error())
		return
	}
	toolscache.DefaultWatchErrorHandler(ctx, r, err)
}

// dirtyOnEvents calls dirty on every event that policy looks at.
func dirtyOnEvents(dirty func()) toolscache.ResourceEventHandlerFuncs {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { dirty() },
		UpdateFunc: func(before, after any) { dirtyIfChanged(before, after, dirty) },
		DeleteFunc: func(any) { dirty() },
	}
}
