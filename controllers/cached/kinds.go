package cached

import (
	"context"
	"net/http"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Kinds are the kinds of policies that are in the API only as long as their CustomResourceDefinition (CRD) is: which of them there are, and their
// objects. A kind counts once it has synced: before, it would be there by halves.
//
// Its methods are called by one goroutine at a time.
type Kinds struct {
	// Watcher has the clients of their groups, and of those of the other targets.
	Watcher     *Watcher
	definitions []*definition
	begin       func(Target) (*Watch, error)
}

// NewKinds makes the clients of the kinds, and of other targets.
func NewKinds(config *rest.Config, client *http.Client, others ...Target) (*Kinds, error) {
	k := &Kinds{definitions: definitions()}
	for _, d := range k.definitions {
		others = append(others, d.objects, crdTarget(d.name))
	}
	var err error
	k.Watcher, err = NewWatcher(config, client, others)
	return k, err
}

// KeepStatus has the caches keep the status of each object, for who writes it.
func (k *Kinds) KeepStatus() {
	for _, d := range k.definitions {
		d.objects.Transform = oursWithStatus
		if d.name == SIGPolicies {
			d.objects.Transform = sigsWithStatus
		}
	}
}

// Start begins to watch the CRDs, and whatever follows from them, by begin.
func (k *Kinds) Start(begin func(Target) (*Watch, error)) error {
	k.begin = begin
	for _, d := range k.definitions {
		var err error
		if d.crd, err = k.begin(crdTarget(d.name)); err != nil {
			return err
		}
	}
	return nil
}

// Follow starts and stops the watches of kinds, as their CRDs come and go.
func (k *Kinds) Follow(ctx context.Context) error {
	for _, d := range k.definitions {
		served := d.served(ctx)
		if served && d.watch == nil {
			var err error
			if d.watch, err = k.begin(d.objects); err != nil {
				return err
			}
		}
		if !served && d.watch != nil {
			d.watch.Stop()
			d.watch = nil
		}
	}
	return nil
}

// Missing are the watches of CRDs and kinds that have not synced.
func (k *Kinds) Missing() []string {
	var all []*Watch
	for _, d := range k.definitions {
		all = append(all, d.crd, d.watch)
	}
	return Missing(all)
}

// Missing are those of the watches that there are and that have not synced.
func Missing(all []*Watch) []string {
	var names []string
	for _, w := range all {
		if w != nil && !w.Synced() {
			names = append(names, w.Target.String())
		}
	}
	return names
}

// ResourceVersions are, by resource.group, how far the caches have seen the kinds that have synced.
func (k *Kinds) ResourceVersions() map[string]string {
	versions := map[string]string{}
	for _, d := range k.definitions {
		if d.watch != nil && d.watch.Synced() {
			versions[d.objects.GroupResource().String()] = d.watch.Informer.GetStore().LastStoreSyncResourceVersion()
		}
	}
	return versions
}

// Fill adds the objects of the kinds that have synced to a snapshot.
func (k *Kinds) Fill(s *compile.Snapshot) {
	for _, d := range k.definitions {
		if d.watch == nil || !d.watch.Synced() {
			continue
		}
		s.ClusterPolicies = append(s.ClusterPolicies, List(d.watch.Informer, Itself[*v1alpha1.ClusterNetworkPolicy])...)
		s.Isolations = append(s.Isolations, List(d.watch.Informer, Itself[*v1alpha1.NamespaceIsolation])...)
	}
}

// Versions are the API versions of the kinds, by their resource, as resource.group.
func (k *Kinds) Versions() map[string]*Versions {
	all := map[string]*Versions{}
	for _, d := range k.definitions {
		all[d.objects.GroupResource().String()] = d.objects.Versions
	}
	return all
}

// Absent are the resources, as resource.group, of the kinds that the API does not have.
func (k *Kinds) Absent() []string {
	var resources []string
	for _, d := range k.definitions {
		if d.watch == nil {
			resources = append(resources, d.objects.GroupResource().String())
		}
	}
	return resources
}

// Object is the object of a resource, as resource.group, that the cache has under a key; nil if it has none, or the API does not have the kind.
func (k *Kinds) Object(resource, key string) metav1.Object {
	for _, d := range k.definitions {
		if d.watch != nil && d.objects.GroupResource().String() == resource {
			return Get[metav1.Object](d.watch.Informer, key)
		}
	}
	return nil
}

// SIGPolicies are the SIG's ClusterNetworkPolicies, as resource.group.
const SIGPolicies = "clusternetworkpolicies.policy.networking.k8s.io"

// definition is a CRD, whether it is there or not, and the kind that it defines.
type definition struct {
	name    string // the CRD's
	objects Target
	remedy  string // against versions that we do not know
	crd     *Watch
	watch   *Watch // of the objects; nil while the API does not have them
	logged  bool   // that it serves no version that we know
}

func definitions() []*definition {
	const (
		policy  = "ClusterNetworkPolicy"
		ours    = "apply the CustomResourceDefinitions of the enforcer's release, or run the enforcer of theirs"
		theSIGs = "install the CustomResourceDefinition of network-policy-api v0.2 or v0.3, or an enforcer that knows one of the versions"
	)
	return []*definition{
		{name: "clusternetworkpolicies." + v1alpha1.GroupVersion.Group, remedy: ours, objects: Target{
			Kind: policy, Versions: NewVersions(v1alpha1.GroupVersion), Resource: "clusternetworkpolicies",
			Example: &v1alpha1.ClusterNetworkPolicy{}, Transform: stripOurs,
		}},
		{name: "namespaceisolations." + v1alpha1.GroupVersion.Group, remedy: ours, objects: Target{
			Kind: "NamespaceIsolation", Versions: NewVersions(v1alpha1.GroupVersion), Resource: "namespaceisolations",
			Example: &v1alpha1.NamespaceIsolation{}, Transform: stripOurs,
		}},
		{name: SIGPolicies, remedy: theSIGs, objects: Target{
			Kind: policy, Versions: NewVersions(sigVersions...), Resource: "clusternetworkpolicies",
			Example: &signetv1beta1.ClusterNetworkPolicy{}, Transform: convertSIGs,
		}},
	}
}

// crdTarget is the one CRD of a name. Three watches of one object each cost an API server less than one watch of all: a CRD holds the whole
// schema of its kind, a cluster may have hundreds, and each enforcer would fetch and decode all of them, again on each relist. The API server
// hands events of a watch by name to nobody else, and such a watch needs no right to read the other CRDs.
func crdTarget(name string) Target {
	return Target{
		Kind: "CustomResourceDefinition", Versions: NewVersions(apiextensionsv1.SchemeGroupVersion), Resource: "customresourcedefinitions",
		Only:    types.NamespacedName{Name: name},
		Example: &apiextensionsv1.CustomResourceDefinition{}, Transform: crdToEntry,
	}
}

// served reports whether the API has the kind in a version that we know, and has the newest of those used from now on. It logs, once, if the API has
// other versions only.
func (d *definition) served(ctx context.Context) bool {
	var crd crdEntry
	for _, e := range List(d.crd.Informer, func(e *crdEntry) *crdEntry { return e }) {
		crd = *e
	}
	before := d.objects.Versions.Newest()
	served := crd.established && d.objects.Versions.serve(crd.served)
	if now := d.objects.Versions.Newest(); served && d.watch != nil && now != before {
		log.FromContext(ctx).Info("the cluster has a kind of policy in another version now: its objects stay in force, and are read in that one",
			"customResourceDefinition", d.name, "before", before.Version, "now", now.Version)
	}
	unknown := crd.established && !served
	if unknown && !d.logged {
		log.FromContext(ctx).Info("the cluster has a kind of policy in versions only that this enforcer does not know, so none of its objects are "+
			"enforced", "customResourceDefinition", d.name, "served", crd.served, "known", d.objects.Versions.names(), "remedy", d.remedy)
	}
	d.logged = unknown
	return served
}
