package controllers

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// watches are what is watched besides the manager's cache: kinds that are in the API only as long as their CustomResourceDefinition (CRD) is,
// the Services of the cluster's DNS, and all nodes as long as a policy has nodes for a peer. Start begins them; after that only the one worker
// uses them.
//
// A kind counts, and is in a snapshot, once it has synced: before, it would be there by halves.
type watches struct {
	watcher     *watcher
	definitions []*definition
	services    []*watch
	nodes       *watch // nil while nobody asks for nodes

	dns   []target
	begin func(target) (*watch, error)
	since time.Time // start
	said  string    // what the log says is waited for
	alone bool      // the log says that nodes are missing from what is enforced
	asked time.Time // when pods of several other nodes were last found to contest an address
}

// Where the cluster's DNS is looked for, unless flags say otherwise. config/rbac gives the right to read just these Services.
var (
	DefaultDNSServices = []types.NamespacedName{
		{Namespace: "kube-system", Name: "kube-dns"},
		{Namespace: "kube-system", Name: "rke2-coredns-rke2-coredns"},
		{Namespace: "openshift-dns", Name: "dns-default"},
	}
	DefaultDNSAddresses = []netip.Addr{netip.MustParseAddr("169.254.20.10")}
)

// definition is a CRD, whether it is there or not, and the kind that it defines.
type definition struct {
	name    string // the CRD's
	objects target
	remedy  string // against versions that we do not know
	crd     *watch
	watch   *watch // of the objects; nil while the API does not have them
	said    bool   // that it serves no version that we know
}

// allNodes are watched only on demand: kubelets write their status all the time, and thousands of enforcers would be told.
var allNodes = target{
	kind: "Node", versions: newVersions(corev1.SchemeGroupVersion), resource: "nodes", example: &corev1.Node{}, transform: nodeToEntry,
}

func definitions() []*definition {
	const (
		policy  = "ClusterNetworkPolicy"
		ours    = "apply the CustomResourceDefinitions of the enforcer's release, or run the enforcer of theirs"
		theSIGs = "install the CustomResourceDefinition of network-policy-api v0.2 or v0.3, or an enforcer that knows one of the versions"
	)
	return []*definition{
		{name: "clusternetworkpolicies." + v1alpha1.GroupVersion.Group, remedy: ours, objects: target{
			kind: policy, versions: newVersions(v1alpha1.GroupVersion), resource: "clusternetworkpolicies",
			example: &v1alpha1.ClusterNetworkPolicy{}, transform: stripOurs,
		}},
		{name: "namespaceisolations." + v1alpha1.GroupVersion.Group, remedy: ours, objects: target{
			kind: "NamespaceIsolation", versions: newVersions(v1alpha1.GroupVersion), resource: "namespaceisolations",
			example: &v1alpha1.NamespaceIsolation{}, transform: stripOurs,
		}},
		{name: sigPolicies, remedy: theSIGs, objects: target{
			kind: policy, versions: newVersions(sigVersions...), resource: "clusternetworkpolicies",
			example: &signetv1beta1.ClusterNetworkPolicy{}, transform: convertSIGs,
		}},
	}
}

// crdTarget is the one CRD of a name. Three watches of one object each cost an API server less than one watch of all: a CRD holds the whole
// schema of its kind, a cluster may have hundreds, and each enforcer would fetch and decode all of them, again on each relist. The API server
// hands events of a watch by name to nobody else, and such a watch needs no right to read the other CRDs.
func crdTarget(name string) target {
	return target{
		kind: "CustomResourceDefinition", versions: newVersions(apiextensionsv1.SchemeGroupVersion), resource: "customresourcedefinitions",
		only:    types.NamespacedName{Name: name},
		example: &apiextensionsv1.CustomResourceDefinition{}, transform: crdToEntry,
	}
}

// dnsTarget is the one Service of a name, for the same reasons.
func dnsTarget(name types.NamespacedName) target {
	return target{
		kind: "Service", versions: newVersions(corev1.SchemeGroupVersion), resource: "services", only: name,
		example: &corev1.Service{}, transform: stripService,
	}
}

func newWatches(config *rest.Config, client *http.Client, dns []types.NamespacedName) (*watches, error) {
	w := &watches{definitions: definitions(), dns: each(dns, dnsTarget)}
	all := append(slices.Clone(w.dns), allNodes)
	for _, d := range w.definitions {
		all = append(all, d.objects, crdTarget(d.name))
	}
	var err error
	w.watcher, err = newWatcher(config, client, all)
	return w, err
}

// start begins to watch CRDs and Services, and whatever follows from them, by begin.
func (w *watches) start(begin func(target) (*watch, error)) error {
	w.since = time.Now()
	w.begin = begin
	for _, t := range w.dns {
		service, err := w.begin(t)
		if err != nil {
			return err
		}
		w.services = append(w.services, service)
	}
	for _, d := range w.definitions {
		var err error
		if d.crd, err = w.begin(crdTarget(d.name)); err != nil {
			return err
		}
	}
	return nil
}

// follow starts and stops the watches of kinds, as their CRDs come and go.
func (w *watches) follow(ctx context.Context) error {
	for _, d := range w.definitions {
		served := d.served(ctx)
		if served && d.watch == nil {
			var err error
			if d.watch, err = w.begin(d.objects); err != nil {
				return err
			}
		}
		if !served && d.watch != nil {
			d.watch.stop()
			d.watch = nil
		}
	}
	return nil
}

// served reports whether the API has the kind in a version that we know, and has the newest of those used from now on. It logs, once, if the API has
// other versions only.
func (d *definition) served(ctx context.Context) bool {
	var crd crdEntry
	for _, e := range list(d.crd.informer, func(e *crdEntry) *crdEntry { return e }) {
		crd = *e
	}
	before := d.objects.versions.newest()
	served := crd.established && d.objects.versions.serve(crd.served)
	if now := d.objects.versions.newest(); served && d.watch != nil && now != before {
		log.FromContext(ctx).Info("the cluster has a kind of policy in another version now: its objects stay in force, and are read in that one",
			"customResourceDefinition", d.name, "before", before.Version, "now", now.Version)
	}
	unknown := crd.established && !served
	if unknown && !d.said {
		log.FromContext(ctx).Info("the cluster has a kind of policy in versions only that this enforcer does not know, so none of its objects are "+
			"enforced", "customResourceDefinition", d.name, "served", crd.served, "known", d.objects.versions.names(), "remedy", d.remedy)
	}
	d.said = unknown
	return served
}

// patience is how long changes wait for the nodes, when the first policy appears that has nodes for a peer. It is also how long nothing is
// said about waiting.
const patience = 10 * time.Second

// gather adds to a snapshot what is watched here. It returns how long the snapshot is not to be enforced yet, for want of what has not
// synced; an event ends the wait sooner. A node that has not enforced anything waits for everything: from half a picture it would open what
// is closed in its kernel. Later a new kind must not hold up the others. Nodes may, for a while: a Deny that has them for a peer would match
// less than it says.
func (w *watches) gather(ctx context.Context, s *compile.Snapshot, enforcing bool) (time.Duration, error) {
	if err := w.follow(ctx); err != nil {
		return 0, err
	}
	missing := w.missing() // before anything is taken: what syncs in between is missing from s
	w.fill(s)
	late, err := w.fillNodes(s)
	if err != nil {
		return 0, err
	}
	if enforcing {
		return w.holdForNodes(ctx, late), nil
	}
	if late {
		missing = append(missing, allNodes.String())
	}
	if len(missing) > 0 {
		w.sayMissing(ctx, missing)
		return patience, nil
	}
	return 0, nil
}

// resourceVersions are how far the caches have seen the kinds of policies that a snapshot taken now has objects of.
func (w *watches) resourceVersions() map[string]string {
	versions := map[string]string{}
	for _, d := range w.definitions {
		if d.watch != nil && d.watch.synced() {
			versions[d.objects.groupResource().String()] = d.watch.informer.GetStore().LastStoreSyncResourceVersion()
		}
	}
	return versions
}

// missing are the watches that have not synced, but for nodes.
func (w *watches) missing() []string {
	all := slices.Clone(w.services)
	for _, d := range w.definitions {
		all = append(all, d.crd, d.watch)
	}
	var names []string
	for _, one := range all {
		if one != nil && !one.synced() {
			names = append(names, one.target.String())
		}
	}
	return names
}

// fill adds what is watched here to a snapshot, but for nodes.
func (w *watches) fill(s *compile.Snapshot) {
	for _, d := range w.definitions {
		if d.watch == nil || !d.watch.synced() {
			continue
		}
		s.ClusterPolicies = append(s.ClusterPolicies, list(d.watch.informer, itself[*v1alpha1.ClusterNetworkPolicy])...)
		s.Isolations = append(s.Isolations, list(d.watch.informer, itself[*v1alpha1.NamespaceIsolation])...)
	}
	for _, service := range w.services {
		s.DNS.Services = append(s.DNS.Services, list(service.informer, itself[*corev1.Service])...)
	}
}

// rangesKept is how long nodes are watched after the last time that an address was contested between others: a list of all nodes for each time that a pod
// goes and its address comes to another node would be more than it is worth.
const rangesKept = 10 * time.Minute

// askRanges has nodes watched if pods of several other nodes contest an address now: the ranges that nodes name for their pods may say whose it is.
// Nothing waits for them.
func (w *watches) askRanges(contested bool, now time.Time) error {
	if !contested {
		return nil
	}
	w.asked = now
	return w.watchNodes()
}

func (w *watches) watchNodes() (err error) {
	if w.nodes == nil {
		w.nodes, err = w.begin(allNodes)
	}
	return err
}

// fillNodes adds all nodes to a snapshot with a policy that has nodes for a peer, and sees to it that they are watched as long as there is
// one, or somebody asks for their ranges, and no longer. It reports whether they are missing from a policy.
func (w *watches) fillNodes(s *compile.Snapshot) (late bool, err error) {
	peers := hasNodes(s)
	if !peers && time.Since(w.asked) >= rangesKept {
		if w.nodes != nil {
			w.nodes.stop()
			w.nodes = nil
		}
		return false, nil
	}
	if err := w.watchNodes(); err != nil {
		return false, err
	}
	if !w.nodes.synced() {
		return peers, nil
	}
	s.Nodes = list(w.nodes.informer, func(e *nodeEntry) *compile.Node { return e.node })
	return false, nil
}

// holdForNodes is how long a node that enforces already waits for nodes.
func (w *watches) holdForNodes(ctx context.Context, late bool) time.Duration {
	if late && time.Since(w.nodes.since) < patience {
		return max(patience-time.Since(w.nodes.since), time.Millisecond)
	}
	if late && !w.alone {
		log.FromContext(ctx).Info("a policy has nodes for a peer, and the API server does not tell which there are: enforcing without them, so "+
			"that no node matches", "waited", patience.String())
	}
	w.alone = late
	return 0
}

// incomplete says why what is enforced now is not all that the policies say, nil if it is.
func (w *watches) incomplete() error {
	if w.alone {
		return errors.New("a policy has nodes for a peer, and the API server does not tell which there are: no node matches")
	}
	return nil
}

// sayMissing logs what is waited for, when it takes long and whenever it has changed since.
func (w *watches) sayMissing(ctx context.Context, missing []string) {
	text := strings.Join(missing, ", ")
	if text == w.said || time.Since(w.since) < patience {
		return
	}
	w.said = text
	log.FromContext(ctx).Info("nothing is changed in the kernel before the API server has shown everything", "waiting for", missing)
}

// hasNodes reports whether a policy has nodes for a peer.
func hasNodes(s *compile.Snapshot) bool {
	nodes := func(p v1alpha1.Peer) bool { return p.Nodes != nil }
	for _, p := range s.ClusterPolicies {
		if slices.ContainsFunc(p.Spec.Ingress, func(r v1alpha1.IngressRule) bool { return slices.ContainsFunc(r.From, nodes) }) ||
			slices.ContainsFunc(p.Spec.Egress, func(r v1alpha1.EgressRule) bool { return slices.ContainsFunc(r.To, nodes) }) {
			return true
		}
	}
	for _, i := range s.Isolations {
		if slices.ContainsFunc(i.Spec.Allow.Ingress, func(r v1alpha1.IsolationIngress) bool { return slices.ContainsFunc(r.From, nodes) }) ||
			slices.ContainsFunc(i.Spec.Allow.Egress, func(r v1alpha1.IsolationEgress) bool { return slices.ContainsFunc(r.To, nodes) }) {
			return true
		}
	}
	return false
}
