package controllers

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// What stands in caches for the API's objects, and the transforms that make it, before anything is stored. A transform is also called with
// what it has made already, and with the tombstones of that.

// podEntry stands in the cache for a pod. A Pod object takes some 2 KB even when everything in it is empty: with tens of thousands of
// them that is most of the enforcer's memory.
type podEntry struct {
	*metav1.ObjectMeta // nothing, shared by all
	resourceVersion    string
	pod                *compile.Pod
}

// GetNamespace and the methods that follow are all that the cache itself asks an entry for.
func (e *podEntry) GetNamespace() string { return e.pod.Namespace }

// GetName is the pod's.
func (e *podEntry) GetName() string { return e.pod.Name }

// GetUID is the pod's.
func (e *podEntry) GetUID() types.UID { return types.UID(e.pod.UID) }

// GetResourceVersion is the pod's.
func (e *podEntry) GetResourceVersion() string { return e.resourceVersion }

// GetObjectMeta is the entry itself, so that nobody reads past it to the metadata that all share.
func (e *podEntry) GetObjectMeta() metav1.Object { return e }

// noMeta is what entries have instead of a metadata of their own, a third of their size.
var noMeta metav1.ObjectMeta

// namespaceEntry stands in the cache for a namespace.
type namespaceEntry struct {
	metav1.ObjectMeta
	namespace *compile.Namespace
}

// nodeEntry stands in the cache for a node that is somebody's peer.
type nodeEntry struct {
	metav1.ObjectMeta
	node *compile.Node
}

// crdEntry stands in the cache for a CustomResourceDefinition, of which the most is its schema.
type crdEntry struct {
	metav1.ObjectMeta
	established bool
	served      []string // versions
}

func podToEntry(obj any) (any, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	return &podEntry{&noMeta, p.ResourceVersion, compile.NewPod(p)}, nil
}

func namespaceToEntry(obj any) (any, error) {
	n, ok := obj.(*corev1.Namespace)
	if !ok {
		return obj, nil
	}
	return &namespaceEntry{identity(n), compile.NewNamespace(n)}, nil
}

func nodeToEntry(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	return &nodeEntry{identity(n), compile.NewNode(n)}, nil
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

// stripNode leaves of a Node its name, the ranges of its pods, its taints and its boot: kubelets write the rest of it all the time.
func stripNode(obj any) (any, error) {
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

// stripPolicy leaves of a NetworkPolicy its spec and its mode.
func stripPolicy(obj any) (any, error) {
	p, ok := obj.(*networkingv1.NetworkPolicy)
	if !ok {
		return obj, nil
	}
	spec := p.Spec.DeepCopy() // p may be in the cache already, and read
	shareSelectors(spec)
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
		return &v1alpha1.ClusterNetworkPolicy{TypeMeta: ourType("ClusterNetworkPolicy"), ObjectMeta: versioned(o), Spec: o.Spec}, nil
	case *v1alpha1.NamespaceIsolation:
		return &v1alpha1.NamespaceIsolation{TypeMeta: ourType("NamespaceIsolation"), ObjectMeta: versioned(o), Spec: o.Spec}, nil
	}
	return obj, nil
}

func ourType(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind}
}

// convertSIGs stores the SIG's policies as ours.
func convertSIGs(obj any) (any, error) {
	p, ok := obj.(*signetv1beta1.ClusterNetworkPolicy)
	if !ok {
		return obj, nil
	}
	return fromSIG(p), nil
}

// stripService leaves of a Service how it is reached, and whom it selects.
func stripService(obj any) (any, error) {
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

// reportEntry stands in the controller's cache for a NodeEnforcement. It has none of the report's texts: a kernel's words name whatever stood in its way, a
// node that lies could write anything, and tenants read what the controller says of their policies.
type reportEntry struct {
	metav1.ObjectMeta
	heartbeat time.Time // by the node's clock
	interval  time.Duration
	families  []v1alpha1.Family
	failing   bool   // the node does not enforce what the API says
	unread    bool   // what the node's kernel holds is not known
	passed    bool   // packets of some pods pass no rule
	boot      string // of the node's kernel
	complete  bool   // all that the node is to enforce is in force
	versions  map[string]string
	digests   []uint64 // ascending
	refused   []uint64 // digests of the policies of which a part is refused, ascending

	// void is set if the node has seen data that the API server no longer has: how far it has come then says nothing.
	void bool
}

func reportToEntry(obj any) (any, error) {
	r, ok := obj.(*v1alpha1.NodeEnforcement)
	if !ok {
		return obj, nil
	}
	e := &reportEntry{
		ObjectMeta: identity(r), heartbeat: r.Status.HeartbeatTime.Time,
		interval: time.Duration(r.Status.HeartbeatSeconds) * time.Second, families: r.Status.Families,
		void: r.Status.Before != "" && reached(r.Status.Before, r.ResourceVersion),
	}
	if c := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.EnforcingCondition); c != nil && c.Status != metav1.ConditionTrue {
		e.failing, e.unread = true, c.Reason == v1alpha1.UnreadableReason
	}
	if c := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.BridgesPolicedCondition); c != nil && c.Status != metav1.ConditionTrue {
		e.passed = true
	}
	e.boot, e.complete = r.Status.BootID, isComplete(&r.Status)
	e.refused = unpackDigests(r.Status.Refused)
	if a := r.Status.Applied; a != nil {
		e.versions, e.digests = a.ResourceVersions, unpackDigests(a.PodDigests)
	}
	return e, nil
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

// stripEnforcement leaves of a PolicyEnforcement its status, and whose it is.
func stripEnforcement(obj any) (any, error) {
	p, ok := obj.(*v1alpha1.PolicyEnforcement)
	if !ok {
		return obj, nil
	}
	stripped := &v1alpha1.PolicyEnforcement{ObjectMeta: identity(p), Status: p.Status}
	stripped.Status.ObservedGeneration = p.Status.PolicyGeneration // as with the other kinds, from here on
	stripped.OwnerReferences = p.OwnerReferences
	return stripped, nil
}
