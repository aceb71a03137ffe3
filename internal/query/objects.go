package query

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Objects are all that answers are made of. Nobody writes to them.
type Objects struct {
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
	Nodes      []*corev1.Node
	Services   []*corev1.Service
	Policies   []*networkingv1.NetworkPolicy
	// ClusterPolicies are ours and the SIG's, which are converted and keep their APIVersion.
	ClusterPolicies []*v1alpha1.ClusterNetworkPolicy
	Isolations      []*v1alpha1.NamespaceIsolation
	// DNS is where pods ask for names, as the enforcers are told.
	DNS compile.DNS
}

// Snapshot is the cluster as a node sees it once it has seen everything. With an empty name it is the node of all pods that no node runs.
func (o Objects) Snapshot(node string) compile.Snapshot {
	s := newParts(o).snapshot(node)
	s.Policies = compile.ObjectsOf(o.Policies...) // all of them: a node knows the problems of those too that apply to none of its pods
	return s
}

// Complete are the objects with the namespaces that objects are in and that are not among them, as the API server labels them.
func (o Objects) Complete() Objects {
	known := map[string]bool{}
	for _, n := range o.Namespaces {
		known[n.Name] = true
	}
	o.Namespaces = slices.Clone(o.Namespaces)
	add := func(name string) {
		if !known[name] {
			known[name] = true
			n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			LabelNamespace(n)
			o.Namespaces = append(o.Namespaces, n)
		}
	}
	for _, p := range o.Pods {
		add(p.Namespace)
	}
	for _, p := range o.Policies {
		add(p.Namespace)
	}
	return o
}

// LabelNamespace adds the label that the API server gives each namespace.
func LabelNamespace(n *corev1.Namespace) {
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

// generated are the keys of labels that controllers write, which differ between the pods of one workload, or between its versions.
var generated = []string{
	"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
	"controller-uid", "job-name", "batch.kubernetes.io/", "job.kubernetes.io/",
}

// lasting are the labels of a pod by which its workload is known.
func lasting(labels map[string]string) map[string]string {
	kept := map[string]string{}
	for k, v := range labels {
		if !slices.ContainsFunc(generated, func(g string) bool { return k == g || strings.HasSuffix(g, "/") && strings.HasPrefix(k, g) }) {
			kept[k] = v
		}
	}
	return kept
}
