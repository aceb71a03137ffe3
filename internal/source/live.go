package source

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Scheme has the kinds that answers are made of, but for the SIG's, which is read in whichever of its versions a cluster has.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, networkingv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("making the API's kinds known: %w", err)
		}
	}
	return s, nil
}

// Live reads the objects of some namespaces, or of all if none is named, and those that are in no namespace. What the caller may not read is missing.
func Live(ctx context.Context, c client.Reader, namespaces ...string) (Gathered, error) {
	g := newLive(ctx, c)
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	slices.Sort(namespaces)
	for _, namespace := range slices.Compact(namespaces) {
		g.inNamespace(namespace)
	}
	g.inNone()
	if g.err != nil {
		return Gathered{}, g.err
	}
	return g.all()
}

// Policies reads the policies of a namespace, or with the empty name of all, and those that are in no namespace, and what their status says of them. Of what
// the policies are about it reads nothing.
func Policies(ctx context.Context, c client.Reader, namespace string) (Gathered, error) {
	g := newLive(ctx, c)
	g.policiesIn(namespace)
	g.policiesInNone()
	return Gathered{Objects: g.objects, Missing: g.missing, Pending: g.pending, Unjudged: g.unjudged}, g.err
}

// live is a gathering from an API server. After the first error that is not about rights it asks nothing more.
type live struct {
	gathering
	ctx    context.Context
	client client.Reader
	err    error

	unjudged []string
}

func newLive(ctx context.Context, c client.Reader) *live {
	return &live{ctx: ctx, client: c, gathering: gathering{pending: map[string]string{}, taken: map[netip.Addr]bool{}}}
}

// decides is what follows if policies are missing.
const decides = "they may deny what is said to be allowed, and allow what is said to be denied"

func (g *live) inNamespace(namespace string) {
	in, where := client.InNamespace(namespace), whereIn(namespace)
	var pods corev1.PodList
	read := len(g.missing)
	g.list(&pods, "pods "+where, "connections from and to pods that are not there cannot be judged", in)
	if len(g.missing) > read {
		g.unlisted = append(g.unlisted, namespace)
	}
	g.objects.Pods = append(g.objects.Pods, pointers(pods.Items)...)
	g.policiesIn(namespace)
	var services corev1.ServiceList
	g.list(&services, "services "+where, "Services are not known", in)
	g.objects.Services = append(g.objects.Services, pointers(services.Items)...)
}

func whereIn(namespace string) string {
	if namespace == metav1.NamespaceAll {
		return "of all namespaces"
	}
	return "of namespace " + namespace
}

// policiesIn reads the NetworkPolicies of a namespace, and what becomes of them.
func (g *live) policiesIn(namespace string) {
	in, where := client.InNamespace(namespace), whereIn(namespace)
	var policies networkingv1.NetworkPolicyList
	g.list(&policies, "networkpolicies "+where, decides, in)
	g.objects.Policies = append(g.objects.Policies, pointers(policies.Items)...)
	var enforcements v1alpha1.PolicyEnforcementList
	g.list(&enforcements, "policyenforcements "+where, "it is not known whether all nodes enforce the policies yet", in)
	said := map[policy.Ref][]metav1.Condition{}
	for _, e := range enforcements.Items {
		said[policy.Ref{Kind: "NetworkPolicy", Namespace: e.Namespace, Name: e.Name}] = e.Status.Conditions
	}
	for _, p := range policies.Items {
		ref := policy.Ref{Kind: "NetworkPolicy", Namespace: p.Namespace, Name: p.Name}
		g.notePending(ref, said[ref])
	}
}

func (g *live) inNone() {
	var namespaces corev1.NamespaceList
	g.list(&namespaces, "namespaces", "policies that select namespaces by other labels than their names are judged as if they had none")
	g.objects.Namespaces = pointers(namespaces.Items)
	var nodes corev1.NodeList
	g.list(&nodes, "nodes", "addresses of nodes are taken for addresses outside of the cluster")
	g.objects.Nodes = pointers(nodes.Items)
	g.policiesInNone()
}

// policiesInNone reads the policies that are in no namespace.
func (g *live) policiesInNone() {
	var policies v1alpha1.ClusterNetworkPolicyList
	g.list(&policies, "clusternetworkpolicies."+v1alpha1.GroupVersion.Group, decides)
	g.objects.ClusterPolicies = pointers(policies.Items)
	for _, p := range g.objects.ClusterPolicies {
		p.TypeMeta = cached.OurType("ClusterNetworkPolicy")
		g.notePending(policy.Ref{Kind: "ClusterNetworkPolicy", Name: p.Name}, p.Status.Conditions)
	}
	g.ofSIG()
	var isolations v1alpha1.NamespaceIsolationList
	g.list(&isolations, "namespaceisolations."+v1alpha1.GroupVersion.Group, decides)
	g.objects.Isolations = pointers(isolations.Items)
	for _, i := range g.objects.Isolations {
		g.notePending(policy.Ref{Kind: "NamespaceIsolation", Name: i.Name}, i.Status.Conditions)
	}
}

// ofSIG reads the SIG's policies, in the newest version that the cluster has.
func (g *live) ofSIG() {
	for _, version := range cached.SIGVersions() {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(version.WithKind("ClusterNetworkPolicyList"))
		if !g.list(list, "clusternetworkpolicies."+version.Group, decides) {
			continue
		}
		for _, o := range list.Items {
			var p signetv1beta1.ClusterNetworkPolicy // all versions have the same fields
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &p); err != nil {
				g.err = errors.Join(g.err, fmt.Errorf("ClusterNetworkPolicy %s of %s: %w", o.GetName(), version, err))
				continue
			}
			g.objects.ClusterPolicies = append(g.objects.ClusterPolicies, cached.FromSIG(&p))
			g.notePending(policy.Ref{Kind: "ClusterNetworkPolicy." + version.Group, Name: p.Name}, p.Status.Conditions)
		}
		return
	}
}

// list reads objects of one kind. A kind that the cluster does not have has no objects; then it reports false.
func (g *live) list(into client.ObjectList, what, without string, options ...client.ListOption) (has bool) {
	if g.err != nil {
		return false
	}
	err := g.client.List(g.ctx, into, options...)
	switch {
	case err == nil:
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return false
	case apierrors.IsForbidden(err):
		g.missing = append(g.missing, fmt.Sprintf("%s: you may not list them: %s", what, without))
	default:
		g.err = fmt.Errorf("reading %s: %w", what, err)
	}
	return true
}

// notePending notes that not all nodes enforce a policy, or that nobody says whether they do, if it is so.
func (g *live) notePending(of policy.Ref, conditions []metav1.Condition) {
	c := meta.FindStatusCondition(conditions, v1alpha1.ProgrammedCondition)
	switch {
	case c == nil:
		g.unjudged = append(g.unjudged, of.String())
	case c.Status != metav1.ConditionTrue:
		g.pending[of.String()] = c.Message
	}
}

// pointers are the addresses of some objects.
func pointers[T any](items []T) []*T {
	var all []*T
	for i := range items {
		all = append(all, &items[i])
	}
	return all
}
