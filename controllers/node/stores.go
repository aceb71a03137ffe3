package node

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// CacheOptions are what the manager's cache keeps on a node: the node's own Node. All else is in stores and in watches.
func CacheOptions(node string) cache.Options {
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Node{}: {Field: fields.OneTermEqualSelector("metadata.name", node), Transform: cached.StripNode},
	}}
}

// stores are what a snapshot is taken from, whatever policies there are: of pods and namespaces only what policy needs, and of policies their spec.
type stores struct {
	pods       heard
	namespaces *cached.Store[*compile.Namespace]
	policies   *cached.Store[*networkingv1.NetworkPolicy]
	node       toolscache.SharedIndexInformer
}

func newStores(pods heard) *stores {
	t := new(cached.Transforms)
	return &stores{
		pods: pods,
		namespaces: cached.NewStore(cached.StoreOptions[*compile.Namespace]{
			Target: cached.Target{
				Kind: "Namespace", Versions: cached.NewVersions(corev1.SchemeGroupVersion), Resource: "namespaces",
				Example: &corev1.Namespace{}, Transform: cached.NamespaceToEntry,
			},
			Take: cached.TakeNamespace, Same: (*compile.Namespace).Equal,
		}),
		policies: cached.NewStore(cached.StoreOptions[*networkingv1.NetworkPolicy]{
			Target: cached.Target{
				Kind: "NetworkPolicy", Versions: cached.NewVersions(networkingv1.SchemeGroupVersion), Resource: "networkpolicies",
				Example: &networkingv1.NetworkPolicy{}, Transform: t.StripPolicy,
			},
			Take: cached.TakePolicy, Same: cached.IsSamePolicy,
		}),
	}
}

// targets are what the stores watch.
func (s *stores) targets() []cached.Target {
	return []cached.Target{s.pods.Target(), s.namespaces.Target(), s.policies.Target()}
}

// start follows the API until ctx ends.
func (s *stores) start(ctx context.Context, w *cached.Watcher) {
	go s.namespaces.Follow(ctx, w)
	go s.policies.Follow(ctx, w)
}

// missing are those that have not synced.
func (s *stores) missing() []string {
	var names []string
	for _, one := range []interface {
		HasSynced() bool
		String() string
	}{s.pods, s.namespaces, s.policies} {
		if !one.HasSynced() {
			names = append(names, one.String())
		}
	}
	return names
}

// snapshot is the state of the cluster as this node has seen it, and how far it has seen each kind, as it is named in cacheVersions.
func (s *stores) snapshot(node string) (compile.Snapshot, map[string]string) {
	to := compile.Snapshot{Node: node}
	seen := s.pods.ResourceVersions()
	local, remote := s.pods.Contents()
	to.Local, to.Remote = make([]*compile.Pod, 0, local.Len()), remote
	for p := range local.All() {
		to.Local = append(to.Local, p)
	}
	var namespaces, policies string
	_, to.Namespaces, namespaces = s.namespaces.Contents()
	_, to.Policies, policies = s.policies.Contents()
	seen["namespaces"], seen[cached.NetworkPolicies.String()] = namespaces, policies
	return to, seen
}

// pod is the pod of a name as the API shows it, nil if it does not.
func (s *stores) pod(namespace, name string) *compile.Pod {
	return s.pods.Get(namespace, name)
}

// hasNode reports whether the cluster has a node of the name.
func (s *stores) hasNode(name string) bool {
	return cached.Get[metav1.Object](s.node, name) != nil
}

// podRanges are those that a node names as its pods'.
func (s *stores) podRanges(node string) []netip.Prefix {
	n := cached.Get[*corev1.Node](s.node, node)
	if n == nil {
		return nil
	}
	return compile.PodRanges(n)
}

// nodesWith is how many nodes run known pods of a namespace, or any with the empty name. It walks over all of them.
func nodesWith(s compile.Snapshot, namespace string) int {
	nodes := map[string]bool{}
	for p := range s.Pods() {
		if namespace == "" || p.Namespace == namespace {
			nodes[p.Node] = true
		}
	}
	return len(nodes)
}

// Named has write called with the pods that hold the addresses, zero for an address that no pod holds: now, or a little later where
// the API server is to be asked. See [podnames.Names].
func (n *Reconciler) Named(write func(pods []policy.PodName), addrs ...netip.Addr) {
	n.names.Named(write, addrs...)
}

// PodsAt are the known pods that hold the addresses, zero for an address that none holds. It walks once over all pods: an index
// would take memory for every pod of the cluster, and only sampled packets and connections ask.
func (n *Reconciler) PodsAt(addrs ...netip.Addr) []policy.PodName {
	s, _ := n.stores.snapshot(n.Name)
	names := make([]policy.PodName, len(addrs))
	for i, p := range compile.Holders(s, addrs...) {
		if p != nil {
			names[i] = p.Named()
		}
	}
	return names
}
