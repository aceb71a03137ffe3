package cached

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// What stands in caches for the API's objects, and the transforms that make it, before anything is stored. A transform is also called with
// what it has made already, and with the tombstones of that.

// PodEntry stands in the cache for a pod. A Pod object takes some 2 KB even when everything in it is empty: with tens of thousands of
// them that is most of the enforcer's memory.
type PodEntry struct {
	*metav1.ObjectMeta // nothing, shared by all
	resourceVersion    string
	// Pod is the pod, as policy sees it.
	Pod *compile.Pod
}

// NewPodEntry is the entry of a pod at a resource version.
func NewPodEntry(resourceVersion string, pod *compile.Pod) *PodEntry {
	return &PodEntry{&noMeta, resourceVersion, pod}
}

// GetNamespace and the methods that follow are all that the cache itself asks an entry for.
func (e *PodEntry) GetNamespace() string { return e.Pod.Namespace }

// GetName is the pod's.
func (e *PodEntry) GetName() string { return e.Pod.Name }

// GetUID is the pod's.
func (e *PodEntry) GetUID() types.UID { return types.UID(e.Pod.UID) }

// GetResourceVersion is the pod's.
func (e *PodEntry) GetResourceVersion() string { return e.resourceVersion }

// GetObjectMeta is the entry itself, so that nobody reads past it to the metadata that all share.
func (e *PodEntry) GetObjectMeta() metav1.Object { return e }

func (e *PodEntry) sameAs(before any) bool {
	return same(e, before, func(a, b *PodEntry) bool { return samePod(a.Pod, b.Pod) })
}

// samePod leaves out whence the addresses are known: kubelets show what was announced a moment before, and would else have every node sync twice for
// each pod. See [CanWait].
func samePod(a, b *compile.Pod) bool {
	return a.UID == b.UID && a.Node == b.Node && a.HostNetwork == b.HostNetwork && a.Finished == b.Finished &&
		a.Terminating == b.Terminating && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Addrs, b.Addrs) &&
		slices.Equal(a.Ports, b.Ports) && a.Impossible == b.Impossible
}

// IsSamePod reports whether nobody can tell two versions of a pod apart, not even by [CanWait].
func IsSamePod(a, b *compile.Pod) bool {
	return samePod(a, b) && a.Source == b.Source && a.Created == b.Created
}

// noMeta is what entries have instead of a metadata of their own, a third of their size.
var noMeta metav1.ObjectMeta

// NamespaceEntry stands in the cache for a namespace.
type NamespaceEntry struct {
	metav1.ObjectMeta
	// Namespace is the namespace, as policy sees it.
	Namespace *compile.Namespace
}

func (e *NamespaceEntry) sameAs(before any) bool {
	return same(e, before, func(a, b *NamespaceEntry) bool { return a.Namespace.Equal(b.Namespace) })
}

// NodeEntry stands in the cache for a node that a policy may name as a peer.
type NodeEntry struct {
	metav1.ObjectMeta
	// Node is the node, as policy sees it.
	Node *compile.Node
}

// sameAs compares what is asked of nodes that are peers, or whose pods contest an address.
func (e *NodeEntry) sameAs(before any) bool {
	return same(e, before, func(a, b *NodeEntry) bool {
		return a.UID == b.UID && slices.Equal(a.Node.Labels, b.Node.Labels) && slices.Equal(a.Node.Addrs, b.Node.Addrs) &&
			a.Node.Impossible == b.Node.Impossible && slices.Equal(a.Node.Ranges, b.Node.Ranges)
	})
}

// crdEntry stands in the cache for a CustomResourceDefinition. Most of the object is its schema, which the entry leaves out.
type crdEntry struct {
	metav1.ObjectMeta
	established bool
	served      []string // versions
}

func (e *crdEntry) sameAs(before any) bool {
	return same(e, before, func(a, b *crdEntry) bool { return a.established == b.established && slices.Equal(a.served, b.served) })
}

// Transforms are those of one cache whose entries share what they have in common.
type Transforms struct {
	pods      compile.Interner
	selectors seenSelectors
}

// PodToEntry stores a PodEntry for a Pod.
func (t *Transforms) PodToEntry(obj any) (any, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	return NewPodEntry(p.ResourceVersion, t.pods.Pod(compile.NewPod(p))), nil
}

// NamespaceToEntry stores a NamespaceEntry for a Namespace.
func NamespaceToEntry(obj any) (any, error) {
	n, ok := obj.(*corev1.Namespace)
	if !ok {
		return obj, nil
	}
	return &NamespaceEntry{identity(n), compile.NewNamespace(n)}, nil
}

// NodeToEntry stores a NodeEntry for a Node.
func NodeToEntry(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	return &NodeEntry{identity(n), compile.NewNode(n)}, nil
}

func crdToEntry(obj any) (any, error) {
	c, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return obj, nil
	}
	e := &crdEntry{ObjectMeta: identity(c)}
	for _, condition := range c.Status.Conditions {
		if condition.Type == apiextensionsv1.Established {
			e.established = condition.Status == apiextensionsv1.ConditionTrue
		}
	}
	for _, version := range c.Spec.Versions {
		if version.Served {
			e.served = append(e.served, version.Name)
		}
	}
	return e, nil
}

// StripNode leaves of a Node its name, the ranges of its pods, its taints and its boot: kubelets write the rest of it all the time.
func StripNode(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	return &corev1.Node{
		ObjectMeta: identity(n),
		Spec:       corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs, Taints: n.Spec.Taints},
		Status:     corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: n.Status.NodeInfo.BootID}},
	}, nil
}

// StripPolicy leaves of a NetworkPolicy its spec and its mode.
func (t *Transforms) StripPolicy(obj any) (any, error) {
	p, ok := obj.(*networkingv1.NetworkPolicy)
	if !ok {
		return obj, nil
	}
	spec := p.Spec.DeepCopy() // p may be in the cache already, and read
	t.selectors.share(spec)
	stripped := &networkingv1.NetworkPolicy{ObjectMeta: versioned(p), Spec: *spec}
	if mode, ok := p.Annotations[v1alpha1.ModeAnnotation]; ok {
		stripped.Annotations = map[string]string{v1alpha1.ModeAnnotation: mode}
	}
	return stripped, nil
}

// stripOurs leaves of our own objects their spec, and says what they are, which decoding leaves open.
func stripOurs(obj any) (any, error) {
	switch o := obj.(type) {
	case *v1alpha1.ClusterNetworkPolicy:
		return &v1alpha1.ClusterNetworkPolicy{TypeMeta: OurType("ClusterNetworkPolicy"), ObjectMeta: versioned(o), Spec: o.Spec}, nil
	case *v1alpha1.NamespaceIsolation:
		return &v1alpha1.NamespaceIsolation{TypeMeta: OurType("NamespaceIsolation"), ObjectMeta: versioned(o), Spec: o.Spec}, nil
	}
	return obj, nil
}

// OurType is the type of one of our own kinds.
func OurType(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind}
}

// convertSIGs stores the SIG's policies as ours.
func convertSIGs(obj any) (any, error) {
	p, ok := obj.(*signetv1beta1.ClusterNetworkPolicy)
	if !ok {
		return obj, nil
	}
	return FromSIG(p), nil
}

// StripService leaves of a Service how it is reached, and whom it selects.
func StripService(obj any) (any, error) {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return obj, nil
	}
	return &corev1.Service{ObjectMeta: identity(s), Spec: corev1.ServiceSpec{
		Selector: s.Spec.Selector, Ports: s.Spec.Ports, ClusterIP: s.Spec.ClusterIP, ClusterIPs: s.Spec.ClusterIPs,
	}}, nil
}

// identity is what a cache needs of an object's metadata.
func identity(o metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
	}
}

// versioned is what policy, and what is reported of it, needs of an object's metadata.
func versioned(o metav1.Object) metav1.ObjectMeta {
	meta := identity(o)
	meta.Generation, meta.CreationTimestamp = o.GetGeneration(), o.GetCreationTimestamp()
	return meta
}

// oursWithStatus and sigsWithStatus are the transforms of policies where their status is written: they keep what stands there.
func oursWithStatus(obj any) (any, error) {
	stripped, err := stripOurs(obj)
	switch o := stripped.(type) {
	case *v1alpha1.ClusterNetworkPolicy:
		o.Status = obj.(*v1alpha1.ClusterNetworkPolicy).Status
	case *v1alpha1.NamespaceIsolation:
		o.Status = obj.(*v1alpha1.NamespaceIsolation).Status
	}
	return stripped, err
}

func sigsWithStatus(obj any) (any, error) {
	converted, err := convertSIGs(obj)
	if p, ok := obj.(*signetv1beta1.ClusterNetworkPolicy); ok {
		converted.(*v1alpha1.ClusterNetworkPolicy).Status.Conditions = p.Status.Conditions
	}
	return converted, err
}
