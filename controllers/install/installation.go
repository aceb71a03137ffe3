package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// Installation puts objects there and keeps them as they are given, for an installer that cannot: a bundle of the Operator Lifecycle Manager
// carries neither DaemonSets nor admission policies (docs/adr/0016). It does so while this process leads.
//
// Each write is a server-side apply of all that is given: what another writer has changed of that is undone, what is not given any more goes, and
// what others have added stays. An object that another owner has put there is left alone and reported.
//
// Nothing is ever deleted here. Objects in a namespace are owned by the Deployment that runs this program; cluster-scoped ones, which nothing in a
// namespace can own, by the CRD of the NodeEnforcements. The garbage collector removes them with their owners.
type Installation struct {
	Objects    []*unstructured.Unstructured
	Deployment types.NamespacedName

	objects  dynamic.Interface
	owners   metadata.Interface
	recorder events.EventRecorder
}

var _ reconcile.Reconciler = (*Installation)(nil)

// owner is what an object is there for: it goes when its owner does.
type owner struct {
	kind schema.GroupVersionKind
	name types.NamespacedName
}

func (r *Installation) deployment() owner {
	return owner{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, r.Deployment}
}

func nodeEnforcementCRD() owner {
	return owner{
		schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
		types.NamespacedName{Name: "nodeenforcements." + v1alpha1.GroupVersion.Group},
	}
}

// SetupWithManager starts the watches and the worker.
func (r *Installation) SetupWithManager(m ctrl.Manager) error {
	var err error
	if r.objects, err = dynamic.NewForConfigAndClient(m.GetConfig(), m.GetHTTPClient()); err != nil {
		return fmt.Errorf("setting up the installation: %w", err)
	}
	if r.owners, err = metadata.NewForConfigAndClient(m.GetConfig(), m.GetHTTPClient()); err != nil {
		return fmt.Errorf("setting up the installation: %w", err)
	}
	r.recorder = m.GetEventRecorder("ringfence-controller")
	c, err := controller.New("installation", m, controller.Options{Reconciler: r, RateLimiter: cached.Retries[reconcile.Request](cached.LongestPause)})
	if err != nil {
		return fmt.Errorf("setting up the installation: %w", err)
	}
	if err := c.Watch(source.Func(r.watch)); err != nil {
		return fmt.Errorf("setting up the installation: %w", err)
	}
	return nil
}

// watch watches each object by its name, which needs no right to see others of its kind, and begins.
func (r *Installation) watch(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	look := func() { queue.Add(reconcile.Request{NamespacedName: r.Deployment}) }
	for _, o := range r.Objects {
		byName := func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector("metadata.name", o.GetName()).String()
		}
		informer := metadatainformer.NewFilteredMetadataInformer(r.owners, resourceOf(o.GroupVersionKind()), o.GetNamespace(), 0,
			toolscache.Indexers{}, byName).Informer()
		_, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { look() },
			UpdateFunc: func(before, after any) {
				if installedOtherwise(before, after) {
					look()
				}
			},
			DeleteFunc: func(any) { look() },
		})
		if err != nil {
			return fmt.Errorf("watching %s: %w", nameOf(o), err)
		}
		go informer.RunWithContext(ctx)
	}
	look()
	return nil
}

// installedOtherwise reports whether anything has changed but the status, which changes with every pod.
func installedOtherwise(before, after any) bool {
	b, _ := before.(metav1.Object)
	a, _ := after.(metav1.Object)
	if a == nil || b == nil {
		return true
	}
	return a.GetUID() != b.GetUID() || a.GetGeneration() != b.GetGeneration() || !maps.Equal(a.GetLabels(), b.GetLabels()) ||
		!maps.Equal(a.GetAnnotations(), b.GetAnnotations()) || !equality.Semantic.DeepEqual(a.GetOwnerReferences(), b.GetOwnerReferences())
}

// Reconcile brings all objects to what they should be.
func (r *Installation) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	deployment, err := r.uid(ctx, r.deployment())
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil // it is being uninstalled, and so is what it owns
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	crd, err := r.uid(ctx, nodeEnforcementCRD())
	errs := []error{err}
	for _, o := range r.ordered() {
		of, uid := r.deployment(), deployment
		if o.GetNamespace() == "" {
			of, uid = nodeEnforcementCRD(), crd
		}
		if uid != "" {
			errs = append(errs, r.put(ctx, o, of, uid))
		}
	}
	err = errors.Join(errs...)
	if err != nil {
		r.recorder.Eventf(r.reference(deployment), nil, corev1.EventTypeWarning, "NotInstalled", "Install", "%s", cached.Shortened(err.Error(), cached.MaxNote))
	}
	return reconcile.Result{}, err
}

// ordered are the objects with those of the cluster first: they limit enforcers, and are there before any enforcer is.
func (r *Installation) ordered() []*unstructured.Unstructured {
	namespaced := func(o *unstructured.Unstructured) bool { return o.GetNamespace() != "" }
	first := slices.DeleteFunc(slices.Clone(r.Objects), namespaced)
	then := slices.DeleteFunc(slices.Clone(r.Objects), func(o *unstructured.Unstructured) bool { return !namespaced(o) })
	return slices.Concat(first, then)
}

// uid is an owner's.
func (r *Installation) uid(ctx context.Context, of owner) (types.UID, error) {
	o, err := r.owners.Resource(resourceOf(of.kind)).Namespace(of.name.Namespace).Get(ctx, of.name.Name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("looking for %s %s, which is to own what is installed: %w", of.kind.Kind, of.name, err)
	}
	return o.GetUID(), nil
}

// put applies one object, unless it is there and has another owner.
func (r *Installation) put(ctx context.Context, o *unstructured.Unstructured, of owner, uid types.UID) error {
	resource := r.objects.Resource(resourceOf(o.GroupVersionKind())).Namespace(o.GetNamespace())
	there, err := resource.Get(ctx, o.GetName(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("looking at %s: %w", nameOf(o), err)
	}
	if err == nil && !r.ours(there) {
		return fmt.Errorf("%s is there and was installed otherwise: it is left as it is, and this installation is not complete. Delete it, if nobody "+
			"else needs it", nameOf(o))
	}
	o = o.DeepCopy()
	o.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: of.kind.GroupVersion().String(), Kind: of.kind.Kind, Name: of.name.Name, UID: uid,
	}})
	if _, err := resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: r.manager(), Force: true}); err != nil {
		return fmt.Errorf("applying %s: %w", nameOf(o), err)
	}
	return nil
}

// manager owns the fields that this installation writes. Another one, in another namespace, has another.
func (r *Installation) manager() string {
	return cached.ControllerManager + "/" + r.Deployment.Namespace
}

// ours reports whether this installation has put an object there.
func (r *Installation) ours(there *unstructured.Unstructured) bool {
	return slices.ContainsFunc(there.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == r.manager() && f.Operation == metav1.ManagedFieldsOperationApply
	})
}

// reference names the Deployment for an Event.
func (r *Installation) reference(uid types.UID) *corev1.ObjectReference {
	of := r.deployment()
	return &corev1.ObjectReference{
		APIVersion: of.kind.GroupVersion().String(), Kind: of.kind.Kind, Namespace: of.name.Namespace, Name: of.name.Name, UID: uid,
	}
}

// resourceOf is the resource of one of the built-in kinds, whose names are regular: asking the API server would need it at the start.
func resourceOf(kind schema.GroupVersionKind) schema.GroupVersionResource {
	plural, _ := meta.UnsafeGuessKindToResource(kind)
	return plural
}

func nameOf(o *unstructured.Unstructured) string {
	return o.GetKind() + " " + toolscache.NewObjectName(o.GetNamespace(), o.GetName()).String()
}
