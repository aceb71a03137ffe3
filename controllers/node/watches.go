package node

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// watches are what is watched besides the manager's cache: kinds that are in the API only as long as their CustomResourceDefinition is,
// the Services of the cluster's DNS, and all nodes as long as a policy has nodes for a peer. Start begins them; after that only the one worker
// uses them.
//
// A kind counts, and is in a snapshot, once it has synced: before, it would be there by halves.
type watches struct {
	stores   *stores
	kinds    *cached.Kinds
	services []*cached.Watch
	nodes    *cached.Watch // nil while nobody asks for nodes

	dns    []cached.Target
	begin  func(cached.Target) (*cached.Watch, error)
	since  time.Time // start
	logged string    // what it waits for, as logged
	alone  bool      // the log says that nodes are missing from what is enforced
	asked  time.Time // when pods of several other nodes were last found to contest an address

	unheard unheard // pods that policies name
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

// allNodes are watched only on demand: kubelets write their status all the time, and thousands of enforcers would be told.
var allNodes = cached.Target{
	Kind: "Node", Versions: cached.NewVersions(corev1.SchemeGroupVersion), Resource: "nodes",
	Example: &corev1.Node{}, Transform: cached.NodeToEntry,
}

// dnsTarget is the one Service of a name: like a CRD, it is watched by its name, which costs an API server less and needs no right to read others.
func dnsTarget(name types.NamespacedName) cached.Target {
	return cached.Target{
		Kind: "Service", Versions: cached.NewVersions(corev1.SchemeGroupVersion), Resource: "services", Only: name,
		Example: &corev1.Service{}, Transform: cached.StripService,
	}
}

func newWatches(config *rest.Config, client *http.Client, dns []types.NamespacedName, stores *stores) (*watches, error) {
	w := &watches{stores: stores}
	for _, name := range dns {
		w.dns = append(w.dns, dnsTarget(name))
	}
	var err error
	w.kinds, err = cached.NewKinds(config, client, append(slices.Concat(w.dns, stores.targets()), allNodes)...)
	return w, err
}

// start begins to watch CRDs and Services, and whatever follows from them, by begin.
func (w *watches) start(begin func(cached.Target) (*cached.Watch, error)) error {
	w.since = time.Now()
	w.begin = begin
	for _, t := range w.dns {
		service, err := w.begin(t)
		if err != nil {
			return err
		}
		w.services = append(w.services, service)
	}
	return w.kinds.Start(begin)
}

// patience is how long changes wait for the nodes, when the first policy appears that has nodes for a peer, and for pods that policies name. It is also how
// long nothing is logged about waiting.
const patience = 10 * time.Second

// gather adds to a snapshot what is watched here. It returns how long the snapshot is not to be enforced yet, for want of what has not
// synced; an event ends the wait sooner. A node that has not enforced anything waits for everything: from half a picture it would open what
// is closed in its kernel. Later a new kind must not hold up the others. Nodes and pods may, for a while: a Deny that has nodes for a peer would match
// less than it says, and one that has pods, more.
func (w *watches) gather(ctx context.Context, s *compile.Snapshot, enforcing bool) (time.Duration, error) {
	if err := w.kinds.Follow(ctx); err != nil {
		return 0, err
	}
	// Before anything is taken: what syncs in between is missing from s.
	missing := slices.Concat(w.stores.missing(), cached.Missing(w.services), w.kinds.Missing())
	w.fill(s)
	var unheard []string
	if len(w.stores.missing()) == 0 { // before, nobody knows what policies name
		unheard = w.stores.pods.reach(s, time.Now())
	}
	late, err := w.fillNodes(s)
	if err != nil {
		return 0, err
	}
	if enforcing {
		return max(w.holdForPods(ctx, s, unheard), w.holdForNodes(ctx, late)), nil
	}
	missing = append(missing, unheard...)
	if late {
		missing = append(missing, allNodes.String())
	}
	if len(missing) > 0 {
		w.sayMissing(ctx, missing)
		return patience, nil
	}
	return 0, nil
}

// fill adds what is watched here to a snapshot, but for nodes.
func (w *watches) fill(s *compile.Snapshot) {
	w.kinds.Fill(s)
	for _, service := range w.services {
		s.DNS.Services = append(s.DNS.Services, cached.List(service.Informer, cached.Itself[*corev1.Service])...)
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
// one, or a rule asks for their ranges, and no longer. It reports whether they are missing from a policy.
func (w *watches) fillNodes(s *compile.Snapshot) (late bool, err error) {
	peers := hasNodes(s)
	if !peers && time.Since(w.asked) >= rangesKept {
		if w.nodes != nil {
			w.nodes.Stop()
			w.nodes = nil
		}
		return false, nil
	}
	if err := w.watchNodes(); err != nil {
		return false, err
	}
	if !w.nodes.Synced() {
		return peers, nil
	}
	s.Nodes = cached.List(w.nodes.Informer, func(e *cached.NodeEntry) *compile.Node { return e.Node })
	return false, nil
}

// holdForNodes is how long a node that enforces already waits for nodes.
func (w *watches) holdForNodes(ctx context.Context, late bool) time.Duration {
	if late && time.Since(w.nodes.Since) < patience {
		return max(patience-time.Since(w.nodes.Since), time.Millisecond)
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
	if text == w.logged || time.Since(w.since) < patience {
		return
	}
	w.logged = text
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
