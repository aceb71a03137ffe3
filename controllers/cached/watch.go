package cached

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
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

// OnChange calls changed with what an object was and what it is; the zero value where it was not, or is not any more.
func OnChange[T any](changed func(before, after T)) toolscache.ResourceEventHandler {
	var none T
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { changed(none, o.(T)) },
		UpdateFunc: func(before, after any) { changed(before.(T), after.(T)) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if before, ok := o.(T); ok {
				changed(before, none)
			}
		},
	}
}

// Target is what a watch of its own looks at: a kind's objects, all, those of a namespace or the one of a name, or the pods of a node.
type Target struct {
	Kind      string
	Versions  *Versions
	Resource  string
	Only      types.NamespacedName // no name: all of the namespace; no namespace either: all of the cluster
	Node      string               // of pods: only those that are bound to it
	Listed    bool                 // what is there comes as a list first, not on the watch: see [listFirst]
	Example   runtime.Object
	Transform toolscache.TransformFunc
}

// String is what the log calls it.
func (t Target) String() string {
	switch {
	case t.Node != "":
		return t.Resource + " of node " + t.Node
	case t.Only.Name == "" && t.Only.Namespace != "":
		return t.Resource + " of namespace " + t.Only.Namespace
	case t.Only.Name == "":
		return t.Resource + "." + t.Versions.Newest().String()
	case t.Only.Namespace == "":
		return t.Kind + " " + t.Only.Name
	}
	return t.Kind + " " + t.Only.String()
}

// GroupResource is how reports name the kind.
func (t Target) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: t.Versions.Newest().Group, Resource: t.Resource}
}

// Watch is an informer that comes and goes. The manager's cache cannot hold these: it keeps one informer, with one selector, for a kind,
// and its start waits, for good, for one that was removed before it had synced.
type Watch struct {
	Target   Target
	Informer toolscache.SharedIndexInformer
	Handler  toolscache.ResourceEventHandlerRegistration
	// Since is when it was started.
	Since time.Time
	Stop  context.CancelFunc
}

// Synced reports whether all objects have come, and the handler has been told of them.
func (w *Watch) Synced() bool { return w.Handler.HasSynced() }

// Watcher starts watches.
type Watcher struct {
	// Clients are the clients of each group and version that it watches.
	Clients map[schema.GroupVersion]rest.Interface
}

// NewWatcher makes the clients that watches of these targets need.
func NewWatcher(config *rest.Config, client *http.Client, targets []Target) (*Watcher, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, networkingv1.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme, installSIG,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("making the API's kinds known: %w", err)
		}
	}
	codecs := serializer.NewCodecFactory(scheme)
	w := &Watcher{Clients: map[schema.GroupVersion]rest.Interface{}}
	for _, t := range targets {
		for _, version := range t.Versions.known {
			if w.Clients[version] != nil {
				continue
			}
			c, err := apiutil.RESTClientForGVK(version.WithKind(t.Kind), false, false, config, codecs, client)
			if err != nil {
				return nil, fmt.Errorf("making a client of %s: %w", version, err)
			}
			w.Clients[version] = c
		}
	}
	return w, nil
}

// Start watches t until ctx ends or the watch is stopped. It calls dirty when the watch has synced, and on every later event that policy
// looks at.
func (w *Watcher) Start(ctx context.Context, t Target, dirty func()) (*Watch, error) {
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
	return w.run(ctx, t, informer, OnEvents(changed), dirty)
}

// Follow watches t likewise, and tells handler of every event.
func (w *Watcher) Follow(ctx context.Context, t Target, handler toolscache.ResourceEventHandler, synced func()) (*Watch, error) {
	informer, err := w.informer(t)
	if err != nil {
		return nil, err
	}
	return w.run(ctx, t, informer, handler, synced)
}

// source is where the objects of a target come from.
func (w *Watcher) source(t Target) toolscache.ListerWatcher {
	only := fields.Everything()
	switch {
	case t.Only.Name != "":
		only = fields.OneTermEqualSelector("metadata.name", t.Only.Name)
	case t.Node != "":
		only = fields.OneTermEqualSelector("spec.nodeName", t.Node)
	}
	request := w.listWatch(t, only)
	if t.Listed {
		return listFirst{request}
	}
	return request
}

func (w *Watcher) informer(t Target) (toolscache.SharedIndexInformer, error) {
	informer := toolscache.NewSharedIndexInformer(w.source(t), t.Example, 0, toolscache.Indexers{})
	if err := informer.SetTransform(t.Transform); err != nil {
		return nil, fmt.Errorf("watching %s: %w", t, err)
	}
	if err := informer.SetWatchErrorHandlerWithContext(sayWatchError); err != nil {
		return nil, fmt.Errorf("watching %s: %w", t, err)
	}
	return informer, nil
}

// listFirst lists before it watches, where client-go would have all objects come on the watch (WatchList). To begin such a watch an API server copies and sorts
// all objects of the kind, of whatever namespace or node, while nothing else happens to its cache: kube-apiserver 1.36 takes eight times as long as for a
// list of one node's pods out of 10,000, which it finds by an index. For most of a kind the watch is the better way: it takes less memory there.
type listFirst struct{ *toolscache.ListWatch }

// IsWatchListSemanticsUnSupported is what client-go asks.
func (listFirst) IsWatchListSemanticsUnSupported() bool { return true }

// run starts an informer, and calls synced when it has synced.
func (w *Watcher) run(ctx context.Context, t Target, informer toolscache.SharedIndexInformer, handler toolscache.ResourceEventHandler,
	synced func()) (*Watch, error) {
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
	return &Watch{Target: t, Informer: informer, Handler: told, Since: time.Now(), Stop: stop}, nil
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

// OnEvents calls dirty on every event that policy looks at.
func OnEvents(dirty func()) toolscache.ResourceEventHandlerFuncs {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { dirty() },
		UpdateFunc: func(before, after any) { IfChanged(before, after, dirty) },
		DeleteFunc: func(any) { dirty() },
	}
}
