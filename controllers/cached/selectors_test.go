package cached

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEqualSelectorsAreOneAndPoliciesStayTheSame(t *testing.T) {
	made := func() *networkingv1.NetworkPolicy {
		matching := func(key, value string) *metav1.LabelSelector {
			return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
		}
		return &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *matching("app", "web"),
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: matching("app", "web")}, {NamespaceSelector: &metav1.LabelSelector{}},
			}}},
			Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{
				{PodSelector: matching("app", "db"), NamespaceSelector: matching("team", "a")}, {IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}},
			}}},
		}}
	}
	var stored [2]*networkingv1.NetworkPolicy
	var cached Transforms
	for i := range stored {
		obj, err := cached.StripPolicy(made())
		if err != nil {
			t.Fatal(err)
		}
		stored[i] = obj.(*networkingv1.NetworkPolicy)
		if diff := cmp.Diff(made().Spec, stored[i].Spec); diff != "" {
			t.Errorf("what is stored of policy %d (-want +got):\n%s", i, diff)
		}
	}
	address := func(m map[string]string) uintptr { return reflect.ValueOf(m).Pointer() }
	one := address(stored[0].Spec.PodSelector.MatchLabels)
	for i, m := range []map[string]string{
		stored[0].Spec.Ingress[0].From[0].PodSelector.MatchLabels, stored[1].Spec.PodSelector.MatchLabels,
		stored[1].Spec.Ingress[0].From[0].PodSelector.MatchLabels,
	} {
		if address(m) != one {
			t.Errorf("selector %d takes memory of its own", i)
		}
	}
}
