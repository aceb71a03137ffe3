package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// TestWhatIsSaidOfContestedAddresses: of those that concern the node, the first are named, its own before others.
func TestWhatIsSaidOfContestedAddresses(t *testing.T) {
	pods := []*corev1.Pod{
		shownPod("mine", "n1", 100, "10.0.0.9"), shownPod("theirs", "n2", 200, "10.0.0.9"), shownPod("others", "n3", 300, "10.0.0.9"),
		shownPod("a", "n2", 100, "10.0.0.1"), shownPod("b", "n3", 200, "10.0.0.1"),
		shownPod("c", "n2", 100, "10.0.0.2"), shownPod("d", "n2", 200, "10.0.0.2"), // which is n2's affair
		terminatingPod(shownPod("going", "n1", 100, "10.0.0.3")), shownPod("coming", "n1", 200, "10.0.0.3"), // a pod's end has not come yet
		shownPod("one", "n1", 100, "10.0.0.4"), shownPod("two", "n1", 200, "10.0.0.4"), // a node that gives an address twice
	}
	node, _ := Compile(shopAt("n1", "nobody", pods...))
	owner := func(name, on string) policy.Owner {
		return policy.Owner{Ref: policy.Ref{Kind: "Pod", Namespace: "shop", Name: name}, Node: on}
	}
	want := policy.Contests{Here: 2, Elsewhere: 1, First: []policy.Contest{
		{Addr: netip.MustParseAddr("10.0.0.4"), Here: true, Pods: 2, Holder: owner("two", "n1"), Other: owner("one", "n1")},
		{Addr: netip.MustParseAddr("10.0.0.9"), Here: true, Pods: 3, Holder: owner("mine", "n1"), Other: owner("others", "n3")},
		{Addr: netip.MustParseAddr("10.0.0.1"), Pods: 2, Holder: owner("a", "n2"), Other: owner("b", "n3")},
	}}
	if diff := cmp.Diff(want, node.Concerns.Contested, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var many []*corev1.Pod
	for i := range 200 {
		many = append(many, shownPod(fmt.Sprintf("x%d", i), "n1", 100, fmt.Sprintf("10.1.0.%d", i)), shownPod(fmt.Sprintf("y%d", i), "n2", 100, fmt.Sprintf("10.1.0.%d", i)))
	}
	if node, _ := Compile(shopAt("n1", "nobody", many...)); node.Concerns.Contested.Here != 200 || len(node.Concerns.Contested.First) != policy.MaxNamed {
		t.Errorf("of 200 contested addresses %d are counted and %d named", node.Concerns.Contested.Here, len(node.Concerns.Contested.First))
	}
}

// TestWhatIsSaidOfImpossibleAddresses: pods and nodes that are shown with one are named, those of this node first.
func TestWhatIsSaidOfImpossibleAddresses(t *testing.T) {
	onHost := shownPod("host", "n1", 100, "0.0.0.0")
	onHost.Spec.HostNetwork = true
	ended := shownPod("ended", "n1", 100, "0.0.0.0")
	ended.Status.Phase = corev1.PodFailed
	s := shopAt("n1", "nobody", shownPod("a", "n2", 100, "0.0.0.0"), shownPod("z", "n1", 100, "10.0.0.5", "::"), shownPod("good", "n1", 100, "fe80::1"), onHost, ended)
	s.Nodes = []*Node{NewNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "0.0.0.0"},
	}}})}
	node, _ := Compile(s)
	pod := func(name, on string) policy.Owner {
		return policy.Owner{Ref: policy.Ref{Kind: "Pod", Namespace: "shop", Name: name}, Node: on}
	}
	want := policy.Impossible{Here: 1, Elsewhere: 2, First: []policy.Owner{pod("z", "n1"), {Ref: policy.Ref{Kind: "Node", Name: "n2"}, Node: "n2"}, pod("a", "n2")}}
	if diff := cmp.Diff(want, node.Concerns.Impossible); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i := range 300 {
		s = s.WithPods(NewPod(shownPod(fmt.Sprint("p", i), "n3", 100, "0.0.0.0")))
	}
	if node, _ = Compile(s); node.Concerns.Impossible.Elsewhere != 302 || len(node.Concerns.Impossible.First) != policy.MaxNamed {
		t.Errorf("of 302 elsewhere %d are counted, and %d named in all", node.Concerns.Impossible.Elsewhere, len(node.Concerns.Impossible.First))
	}
}
