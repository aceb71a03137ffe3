package source

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// cluster answers lists as an API server does.
type cluster struct {
	client.Reader
	forbidden bool  // of all that is in no namespace
	broken    error // of pods
	sig       string
	asked     []string
}

func (c *cluster) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(options)
	c.asked = append(c.asked, o.Namespace)
	switch l := list.(type) {
	case *corev1.PodList:
		l.Items = []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: "pod"}, Status: corev1.PodStatus{PodIP: "10.244.0.1"}}}
		return c.broken
	case *networkingv1.NetworkPolicyList:
		l.Items = []networkingv1.NetworkPolicy{{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: "p"}}}
	case *v1alpha1.PolicyEnforcementList:
		l.Items = []v1alpha1.PolicyEnforcement{{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: "p"}}}
		l.Items[0].Status.Conditions = []metav1.Condition{{Type: v1alpha1.ProgrammedCondition, Status: metav1.ConditionFalse, Message: "n1 waits"}}
	case *unstructured.UnstructuredList:
		return c.listSIG(l)
	case *corev1.NodeList, *corev1.NamespaceList, *v1alpha1.ClusterNetworkPolicyList, *v1alpha1.NamespaceIsolationList:
		if c.forbidden {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "any"}, "", errors.New("no right"))
		}
	}
	return nil
}

// listSIG answers in the only version of the SIG's kind that the cluster has.
func (c *cluster) listSIG(l *unstructured.UnstructuredList) error {
	if l.GetAPIVersion() != c.sig {
		return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "ClusterNetworkPolicy"}}
	}
	l.Items = []unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": c.sig, "kind": "ClusterNetworkPolicy", "metadata": map[string]any{"name": "wall"},
		"spec": map[string]any{"tier": "Admin", "priority": int64(7), "egress": []any{map[string]any{
			"action": "Deny", "to": []any{map[string]any{"networks": []any{"10.0.0.0/8"}}},
		}}},
		"status": map[string]any{"conditions": []any{map[string]any{"type": v1alpha1.ProgrammedCondition, "status": "False", "message": "n2 waits"}}},
	}}}
	return nil
}

// The SIG's policies are read in whichever version a cluster has.
func TestLiveReadsEachVersionOfTheSIGs(t *testing.T) {
	for _, version := range cached.SIGVersions() {
		g, err := Live(t.Context(), &cluster{sig: version.String()}, "a")
		if err != nil || len(g.ClusterPolicies) != 1 {
			t.Fatalf("%s: %v, there are %v", version, err, g.ClusterPolicies)
		}
		p := g.ClusterPolicies[0]
		if p.Name != "wall" || p.Spec.Priority != 7 || string(p.Spec.Egress[0].To[0].Networks[0]) != "10.0.0.0/8" ||
			g.Pending["ClusterNetworkPolicy.policy.networking.k8s.io wall"] != "n2 waits" {
			t.Errorf("%s: %+v, pending are %v", version, p, g.Pending)
		}
	}
}

func TestLive(t *testing.T) {
	c := &cluster{}
	g, err := Live(t.Context(), c, "b", "a", "b")
	if err != nil || len(g.Missing) > 0 {
		t.Fatalf("%v, missing are %q", err, g.Missing)
	}
	if len(g.Pods) != 2 || len(g.Policies) != 2 || g.Pending["NetworkPolicy a/p"] != "n1 waits" || slices.Contains(c.asked[:8], "") {
		t.Errorf("of two namespaces there is %+v, asked for were %q", g, c.asked)
	}
}

// Where pods may not be listed, it is known that none may be.
func TestLiveSaysWherePodsMayNotBeListed(t *testing.T) {
	denied := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no right"))
	g, err := Live(t.Context(), &cluster{broken: denied}, "b", "a")
	if err != nil || !slices.Equal(g.Unlisted, []string{"a", "b"}) {
		t.Errorf("%v, pods are not listed in %q", err, g.Unlisted)
	}
	if g, err = Live(t.Context(), &cluster{}, "a"); err != nil || len(g.Unlisted) > 0 {
		t.Errorf("%v, pods are not listed in %q", err, g.Unlisted)
	}
}

// What the caller may not read is missing, with what follows from that; any other trouble is an error.
func TestLiveWithoutRights(t *testing.T) {
	g, err := Live(t.Context(), &cluster{forbidden: true})
	if err != nil || len(g.Pods) != 1 || len(g.Missing) != 4 {
		t.Fatalf("%v, missing are %q", err, g.Missing)
	}
	if all := strings.Join(g.Missing, "\n"); !strings.Contains(all, "clusternetworkpolicies.policy.ringfence.io: you may not list them: they may deny what is said to be allowed") {
		t.Errorf("missing are\n%s", all)
	}
	gone := errors.New("connection refused")
	if _, err := Live(t.Context(), &cluster{broken: gone}, "a"); !errors.Is(err, gone) || !strings.Contains(err.Error(), "pods of namespace a") {
		t.Errorf("the error is %v", err)
	}
}
