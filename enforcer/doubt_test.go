package enforcer_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// inFar is a cluster with the pods a and b of this node, and c of another, where pods of the namespace far may have the address of d.
func inFar(d ...string) compile.Snapshot {
	s := elsewhere(snapshot([]string{"a", "b", "c"}, nil), 2)
	s.Policies = s.Policies.Without("ns", "p")
	s.Namespaces = s.Namespaces.With(&compile.Namespace{Name: "far", Labels: compile.Labels{{Key: "name", Value: "far"}}})
	s.Elsewhere.Partial = true
	for _, name := range d {
		s = s.WithPods(&compile.Pod{Namespace: "far", Name: name, UID: name, Node: "elsewhere", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, 4})}})
	}
	return s
}

// unknown is a snapshot in which the pods of far are not known.
func unknown(s compile.Snapshot) compile.Snapshot {
	s.Elsewhere.Unknown = []string{"far"}
	return s
}

var far = map[string]string{"name": "far"}

// letIn has a let in pods of far alone, and deny has it deny just those.
func letIn(s compile.Snapshot) compile.Snapshot {
	return with(s, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "far", UID: "far"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"name": "a"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: far},
			}}}},
		},
	})
}

func deny(s compile.Snapshot) compile.Snapshot {
	p := &v1alpha1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "far", UID: "far"}}
	p.Spec = v1alpha1.ClusterNetworkPolicySpec{
		Tier: v1alpha1.AdminTier,
		Subject: v1alpha1.Subject{Pods: &v1alpha1.NamespacedPod{
			PodSelector: v1alpha1.LabelSelector{MatchLabels: map[string]string{"name": "a"}},
		}},
		Ingress: []v1alpha1.IngressRule{{Action: v1alpha1.Deny, From: []v1alpha1.Peer{{Namespaces: &v1alpha1.LabelSelector{MatchLabels: far}}}}},
	}
	s.ClusterPolicies = append(slices.Clone(s.ClusterPolicies), p)
	return s
}

// A live connection is cut once it is certain that policy denies it, whatever pods there are that the node does not know. What is new is denied before.
func TestNoConnectionIsCutBecauseAPodIsNotKnown(t *testing.T) {
	const outside = 9
	live := []policy.Connection{from(c, a), from(d, a), from(outside, a), from(outside, b)}
	for _, tt := range []struct {
		name string
		// steps are snapshots, each with what is left of the connections to a by c, d and from outside.
		steps []compile.Snapshot
		left  [][]policy.Connection
	}{
		{"a policy lets in pods that come to be known",
			[]compile.Snapshot{unknown(letIn(inFar())), letIn(inFar("d"))}, [][]policy.Connection{live[1:], {live[1], live[3]}}},
		{"a policy lets in pods that there are none of",
			[]compile.Snapshot{unknown(letIn(inFar())), letIn(inFar())}, [][]policy.Connection{live[1:], live[3:]}},
		{"it is gone before they are known",
			[]compile.Snapshot{unknown(letIn(inFar())), unknown(inFar())}, [][]policy.Connection{live[1:], live[1:]}},
		{"another pod that is known comes to have the address",
			[]compile.Snapshot{unknown(letIn(inFar())), unknown(letIn(inFar())).WithPods(&compile.Pod{
				Namespace: "ns", Name: "heir", UID: "heir", Node: "elsewhere", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, d})},
			})}, [][]policy.Connection{live[1:], live[2:]}},
		{"a policy denies pods that come to be known",
			[]compile.Snapshot{unknown(deny(inFar())), deny(inFar("d"))}, [][]policy.Connection{live, {live[0], live[2], live[3]}}},
		{"a policy denies pods that there are none of",
			[]compile.Snapshot{unknown(deny(inFar())), deny(inFar())}, [][]policy.Connection{live, live}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kernel, e, connections := following()
			mustSync(t, e, inFar(), false)
			mustCut(t, connections)
			kernel.Track(nil, live...)
			for i, s := range tt.steps {
				mustSync(t, e, s, false)
				holds(t, kernel, s)
				mustCut(t, connections)
				var want []uint32
				for _, one := range tt.left[i] {
					want = append(want, one.ID)
				}
				if diff := cmp.Diff(want, left(t, kernel)); diff != "" {
					t.Fatalf("step %d: what lives on (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// A look that was due before something came to be in doubt judges by what is in doubt.
func TestALookKnowsOfDoubtsThatHaveComeSince(t *testing.T) {
	kernel, e, live := following()
	mustSync(t, e, inFar(), false)
	mustCut(t, live)
	kernel.Track(nil, from(c, a), from(d, a))
	mustSync(t, e, letIn(inFar()), false)
	if report := mustSync(t, e, unknown(letIn(inFar())), false); !report.Applied.Empty() {
		t.Fatalf("not what this test is about: %v", report.Applied.Counts())
	}
	mustCut(t, live)
	if diff := cmp.Diff([]uint32{from(d, a).ID}, left(t, kernel)); diff != "" {
		t.Errorf("what lives on (-want +got):\n%s", diff)
	}
}

// Policies that name pods which are not known are said to be so, as long as that lasts.
func TestWhatIsInDoubtIsReported(t *testing.T) {
	_, e, _ := following()
	mustSync(t, e, inFar(), false)
	for _, tt := range []struct {
		s       compile.Snapshot
		refused int
	}{{unknown(deny(letIn(inFar()))), 2}, {deny(letIn(inFar("d"))), 0}} {
		report := mustSync(t, e, tt.s, false)
		for _, r := range report.Refused {
			if !r.Unknown || r.TooLarge || r.Object.UID != "far" || r.Word == "" {
				t.Errorf("reported is %+v", r)
			}
		}
		if len(report.Refused) != tt.refused || len(report.Problems) != tt.refused || len(report.Concerns.InDoubt) != tt.refused/2 {
			t.Errorf("refused %v, problems %v, in doubt %v: want %d", report.Refused, report.Problems, report.Concerns.InDoubt, tt.refused)
		}
	}
}

// While something is in doubt, all connections are still checked now and then.
func TestConnectionsAreCheckedInDoubt(t *testing.T) {
	_, e, live := following()
	s := unknown(letIn(inFar()))
	mustSync(t, e, s, false)
	mustCut(t, live)
	mustSync(t, e, s, true)
	if got := mustCut(t, live); !got.Check || !got.All {
		t.Errorf("a look at the kernel asks for %+v", got)
	}
	mustSync(t, e, s, false)
	if due(live) && mustCut(t, live).Seen > 0 {
		t.Error("nothing has changed, and a look is due")
	}
}
