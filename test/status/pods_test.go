package status

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
)

// TestStories have one controller for all, and go on beside each other.
func TestStories(t *testing.T) {
	by := startController(t, restConfig)
	t.Run("all", func(t *testing.T) { // ends before the controller does
		for _, one := range []struct {
			name string
			tell func(*story)
		}{
			{"nothing happens", func(s *story) { nothingHappens(s, by) }},
			{"a policy selects no pod, then one comes", aPodComes},
			{"a pod moves to another node", aPodMoves},
			{"a node is deleted", aNodeIsDeleted},
			{"a node never reports", aNodeNeverReports},
			{"a node falls silent and comes back", aNodeFallsSilent},
			{"a kernel refuses a policy, then takes it", aKernelRefuses},
			{"a kernel cannot be read", aKernelCannotBeRead},
			{"clocks differ", clocksDiffer},
			{"a hundred nodes fail", aHundredNodesFail},
			{"an address is contested", anAddressIsContested},
			{"an address is impossible", anAddressIsImpossible},
			{"a policy is made anew under its name", aPolicyIsMadeAnew},
			{"somebody deletes what is said", whatIsSaidIsDeleted},
			{"somebody writes something else", whatIsSaidIsOverwritten},
			{"a new generation", aNewGeneration},
			{"modes", modes},
			{"pods that come and go do not turn a condition", podsComeAndGo},
			{"ClusterNetworkPolicy", clusterNetworkPolicy},
			{"NamespaceIsolation", namespaceIsolation},
			{"the SIG's ClusterNetworkPolicy", theSIGs},
			{"what is said of how a policy is understood", accepted},
		} {
			t.Run(one.name, func(t *testing.T) {
				t.Parallel()
				one.tell(begin(t))
			})
		}
	})
}

func aPodComes(s *story) {
	np := s.policy("web", everyPod)
	s.says(np, "True NoPods at 1: "+noPods, "0 pods, 0 nodes: 0 programmed, 0 failed, 0 unknown")
	s.saysOf(np, v1alpha1.AcceptedCondition, "True SelectsNothing at 1: spec.podSelector: no pod that runs in the namespace matches: nothing is enforced until one does")
	s.node.enforces()
	s.pod("one", s.node)
	s.says(np, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a", "1 pods, 1 nodes: 0 programmed, 0 failed, 0 unknown")
	s.saysOf(np, v1alpha1.AcceptedCondition, "True Accepted at 1: the policy is understood in full")
	s.node.enforces()
	s.says(np, programmed(1, 1, 1), "1 pods, 1 nodes: 1 programmed, 0 failed, 0 unknown")
}

func aPodMoves(s *story) {
	b := s.newNode("b")
	old := s.pod("one", s.node)
	np := s.policy("web", everyPod)
	s.node.enforces()
	b.enforces()
	s.says(np, programmed(1, 1, 1))
	s.delete(old)
	s.pod("one", b)
	s.says(np, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-b", "1 pods, 1 nodes: 0 programmed, 0 failed, 0 unknown")
	s.node.enforces() // it has nothing to do with it any more
	b.enforces()
	s.says(np, programmed(1, 1, 1), "1 pods, 1 nodes: 1 programmed, 0 failed, 0 unknown")
}

func aNodeIsDeleted(s *story) {
	b := s.newNode("b")
	s.pod("one", s.node)
	s.pod("two", b)
	np := s.policy("web", everyPod)
	s.node.enforces()
	b.fails(v1alpha1.RefusedReason, "no")
	s.says(np, "False NodesFailing at 1: 1 of 2 nodes do not enforce generation 1: NODE-b; NODE-b: "+refused, "2 pods, 2 nodes: 1 programmed, 1 failed, 0 unknown")
	s.delete(b.object) // its pod and what it has said stay for a while
	s.says(np, programmed(1, 1, 1), "1 pods, 1 nodes: 1 programmed, 0 failed, 0 unknown")
	s.delete(&v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: b.name}})
	b = s.newNode("b")
	s.says(np, "False NodesUnknown at 1: 1 of 2 nodes do not enforce generation 1: NODE-b; NODE-b: no enforcer has reported from this node: see that a pod of the DaemonSet runs there")
	b.enforces()
	s.says(np, programmed(1, 2, 2))
}

func aNodeNeverReports(s *story) {
	s.pod("one", s.node)
	np := s.policy("web", everyPod)
	s.says(np, "False NodesUnknown at 1: 1 of 1 node does not enforce generation 1: NODE-a; NODE-a: no enforcer has reported from this node: see that a pod of the DaemonSet runs there",
		"1 pods, 1 nodes: 0 programmed, 0 failed, 1 unknown")
}

const notHeard = "its enforcer has not been heard of for too long: see what its pod says; what it enforced is still in force"

func aNodeFallsSilent(s *story) {
	s.pod("one", s.node)
	np := s.policy("web", everyPod)
	s.node.status.HeartbeatSeconds = 1
	s.node.enforces()
	s.says(np, programmed(1, 1, 1))
	s.says(np, "False NodesUnknown at 1: 1 of 1 node does not enforce generation 1: NODE-a; NODE-a: "+notHeard, "1 pods, 1 nodes: 0 programmed, 0 failed, 1 unknown")
	s.node.status.HeartbeatSeconds = 3600
	s.node.reports()
	s.says(np, programmed(1, 1, 1), "1 pods, 1 nodes: 1 programmed, 0 failed, 0 unknown")
}

// refused is what is said of a node whose kernel refuses something, whatever the node's own words are.
const refused = "it cannot put a change in force, and keeps what it had: its NodeEnforcement and its enforcer's log have the reason, for administrators"

func aKernelRefuses(s *story) {
	s.pod("one", s.node)
	s.node.enforces()
	np := s.policy("web", everyPod)
	s.node.enforces()
	s.says(np, programmed(1, 1, 1))
	s.patch(np, `{"spec":{"policyTypes":["Ingress","Egress"]}}`)
	s.node.fails(v1alpha1.RefusedReason, "restoring the chains: line 9: -m comment --comment \"NetworkPolicy another-tenant/secret ingress[0]\": the kernel says no")
	s.says(np, "False NodesFailing at 2: 1 of 1 node does not enforce generation 2: NODE-a; NODE-a: "+refused,
		"1 pods, 1 nodes: 0 programmed, 1 failed, 0 unknown")
	s.node.enforces()
	s.says(np, programmed(2, 1, 1), "1 pods, 1 nodes: 1 programmed, 0 failed, 0 unknown")
	kit.EventuallySucceeds(s.t, patience, "Events", func(ctx context.Context) error {
		got, err := s.events(ctx, np)
		if err != nil {
			return err
		}
		count := map[string]int{}
		for _, e := range got {
			count[e]++
		}
		if diff := cmp.Diff(map[string]int{"NetworkPolicy Normal Programmed": 2, "NetworkPolicy Warning NodesFailing": 1}, count); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

func aKernelCannotBeRead(s *story) {
	s.pod("one", s.node)
	np := s.policy("web", everyPod)
	s.node.enforces()
	s.says(np, programmed(1, 1, 1))
	s.node.fails(v1alpha1.UnreadableReason, "reading back what is enforced: no such table")
	s.says(np, "False NodesFailing at 1: 1 of 1 node does not enforce generation 1: NODE-a; NODE-a: it cannot tell what its kernel holds: its NodeEnforcement and "+
		"its enforcer's log have the reason, for administrators")
	s.node.enforces()
	s.says(np, programmed(1, 1, 1))
}

func clocksDiffer(s *story) {
	b := s.newNode("b")
	s.pod("one", s.node)
	s.pod("two", b)
	np := s.policy("web", everyPod)
	s.node.enforces()
	b.enforces()
	s.says(np, programmed(1, 2, 2))
	v := s.follow(&v1alpha1.PolicyEnforcementList{}, s.namespace)
	for i := range 3 {
		s.node.reports(time.Date(1990, 1, 1, 0, 0, i, 0, time.UTC))
		b.reports(time.Date(2090, 1, 1, 0, 0, 3-i, 0, time.UTC)) // and goes backwards
	}
	s.patch(np, `{"spec":{"policyTypes":["Egress"]}}`)
	s.says(np, "False Pending at 2: 2 of 2 nodes do not enforce generation 2: NODE-a, NODE-b")
	s.node.applies()
	s.node.reports(time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC))
	b.applies()
	b.reports(time.Date(2080, 1, 1, 0, 0, 0, 0, time.UTC))
	s.says(np, programmed(2, 2, 2))
	e := s.enforcement("web")
	s.get(e)
	for _, o := range v.all(e) {
		if line := told(statusIn(o), v1alpha1.ProgrammedCondition); strings.Contains(line, "Unknown") {
			s.t.Errorf("it was said: %s", line)
		}
	}
}

// anAddressIsContested: policies of both pods say so, and name only their own.
func anAddressIsContested(s *story) {
	b := s.newNode("b")
	one, two := s.pod("one", s.node), s.pod("two", b)
	web, db := s.policy("web", `{podSelector: {matchLabels: {app: one}}}`), s.policy("db", `{podSelector: {matchLabels: {app: two}}}`)
	s.node.enforces()
	b.enforces()
	understood := "True Accepted at 1: the policy is understood in full"
	s.saysOf(web, v1alpha1.AcceptedCondition, understood)
	was := two.Status.DeepCopy()
	shown := func(status *corev1.PodStatus) {
		s.get(two)
		two.Status = *status
		kit.Must(s.t, s.c.Status().Update(s.t.Context(), two))
	}
	shown(&one.Status)
	contested := func(pod, node string) string {
		return "True ContestedAddress at 1: another pod is shown with the address " + one.Status.PodIP + " of the pod " + s.namespace + "/" + pod + " too: the policy holds for " +
			"this pod all the same, but as a peer it may be taken for the other; the NodeEnforcement of node NODE-" + node + " names both, for administrators"
	}
	s.saysOf(web, v1alpha1.AcceptedCondition, contested("one", "a"))
	s.saysOf(db, v1alpha1.AcceptedCondition, contested("two", "b"))
	s.node.enforces()
	b.enforces()
	s.says(web, programmed(1, 1, 1))
	s.says(db, programmed(1, 1, 1))
	shown(was)
	s.saysOf(web, v1alpha1.AcceptedCondition, understood)
	s.saysOf(db, v1alpha1.AcceptedCondition, understood)
}

// anAddressIsImpossible: a virtual kubelet shows its pods so.
func anAddressIsImpossible(s *story) {
	one := s.pod("one", s.node)
	s.pod("two", s.node)
	np := s.policy("web", everyPod)
	s.node.enforces()
	s.says(np, programmed(1, 2, 1))
	one.Status.PodIP, one.Status.PodIPs = "0.0.0.0", []corev1.PodIP{{IP: "0.0.0.0"}}
	kit.Must(s.t, s.c.Status().Update(s.t.Context(), one))
	s.saysOf(np, v1alpha1.AcceptedCondition, "True ImpossibleAddress at 1: the pod "+s.namespace+"/one is shown with an address that no pod can have: nothing is enforced on "+
		"that address; see its status.podIPs, and what runs as the kubelet of node NODE-a")
	s.says(np, programmed(1, 1, 1))
}

func aHundredNodesFail(s *story) {
	for i := range 100 {
		n := s.newNode(fmt.Sprintf("n%02d", i))
		s.pod(fmt.Sprintf("pod%02d", i), n)
		n.fails(v1alpha1.RefusedReason, strings.Repeat("long ", 100))
	}
	np := s.policy("web", everyPod)
	s.enforcementSays("web", "100 pods, 100 nodes: 0 programmed, 100 failed, 0 unknown")
	status, err := s.statusOf(s.t.Context(), np)
	kit.Must(s.t, err)
	line := told(status, v1alpha1.ProgrammedCondition)
	if len(status.Nodes.NotProgrammed) != 10 || !strings.Contains(line, "-n09, 90 more; "+s.namespace+"-n00: "+refused) || len(line) > 2000 {
		s.t.Errorf("%d nodes are named, and the condition says %s", len(status.Nodes.NotProgrammed), line)
	}
}

// podsComeAndGo: each pod that starts waits for its node's report for a moment, which turns nothing.
func podsComeAndGo(s *story) {
	np := s.policy("web", everyPod)
	s.pod("first", s.node)
	s.node.enforces()
	s.says(np, programmed(1, 1, 1))
	v := s.follow(&v1alpha1.PolicyEnforcementList{}, s.namespace)
	pods := 1
	for round := range 3 {
		s.pod(fmt.Sprintf("more-%d", round), s.node)
		pods++
		s.node.enforces()
		s.says(np, programmed(1, pods, 1))
	}
	e := s.enforcement("web")
	s.get(e)
	for _, o := range v.all(e) {
		if line := told(statusIn(o), v1alpha1.ProgrammedCondition); !strings.HasPrefix(line, "True") {
			s.t.Errorf("it was said: %s", line)
		}
	}
}
