package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/kit"
)

// shown are policies of our three kinds for the servers of namespace shown.
const shown = `
apiVersion: policy.ringfence.io/v1alpha1
kind: ClusterNetworkPolicy
metadata: {name: wall}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shown}}, podSelector: {matchLabels: {app: server}}}}
  ingress: [{action: Deny, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: nowhere}}}]}]
---
apiVersion: policy.ringfence.io/v1alpha1
kind: NamespaceIsolation
metadata: {name: alone}
spec: {mode: Audit, tier: Baseline, tenantLabel: tenant, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shown}}}
`

// whatKubectlShows asserts what a person sees who asks for the kinds by their names, by their category, and for one of them.
func (l *told) whatKubectlShows(t *testing.T) {
	newLane(t, l.Lab, "shown")
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("shown", "servers")+"---"+shown)))
	l.says(t, "shown", "servers", on(3, 3))
	const ours = ".policy.ringfence.io"
	kubectl(t, l.Lab, "wait", "--for=condition=Programmed", "clusternetworkpolicies"+ours+"/wall", "namespaceisolations/alone", "--timeout=30s")

	for _, c := range []struct {
		args string
		want []string // header, and the first row that begins with the word after it; a column that changes with time is "~"
	}{
		{"networkpolicies -n shown", []string{"NAME POD-SELECTOR AGE", "servers app=server ~"}},
		{"policyenforcements -n shown", []string{
			"NAME MODE ACCEPTED PROGRAMMED PODS READY AGE", "servers Enforce True True 3 3/3 ~"}},
		{"clusternetworkpolicies" + ours, []string{
			"NAME TIER PRIORITY MODE ACCEPTED PROGRAMMED READY AGE", "wall Admin 10 Enforce True True 3/3 ~"}},
		{"namespaceisolations", []string{
			"NAME TIER MODE TENANT LABEL ACCEPTED PROGRAMMED READY AGE", "alone Baseline Audit tenant True True 3/3 ~"}},
		{"nodeenforcements", []string{
			"NAME ENFORCING BACKEND POLICIES PODS FAILING HEARD AGE", "n1 True ~ 3 2 0 ~ ~"}},
		{"policyenforcements -n shown -o wide", []string{
			"NAME MODE ACCEPTED PROGRAMMED PODS READY GENERATION WHY AGE",
			"servers Enforce True True 3 3/3 1 enforced on 3 pods, on 3 nodes ~"}},
		{"namespaceisolations -o wide", []string{
			"NAME TIER MODE TENANT LABEL ACCEPTED PROGRAMMED READY PODS WHY AGE",
			"alone Baseline Audit tenant True True 3/3 4 audited on 4 pods, on 3 nodes: nothing is denied by it ~"}},
	} {
		kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error { // a node's counts come with its next heartbeat
			got := table(kubectl(t, l.Lab, append([]string{"get"}, strings.Fields(c.args)...)...), c.want)
			if diff := cmp.Diff(c.want, got); diff != "" {
				return fmt.Errorf("kubectl get %s (-want +got):\n%s", c.args, diff)
			}
			return nil
		}))
	}

	// In one command, and by the category of what is said of policies, which has no row for each node.
	node := "nodeenforcement" + ours + "/n1"
	for _, args := range []string{"networkpolicies,policyenforcements,clusternetworkpolicies" + ours + ",namespaceisolations,nodeenforcements", "ringfence"} {
		out := kubectl(t, l.Lab, "get", args, "-A")
		kit.Must(t, holds("kubectl get "+args, out, "policyenforcement"+ours+"/servers", "clusternetworkpolicy"+ours+"/wall", "namespaceisolation"+ours+"/alone"))
		if got, want := strings.Contains(out, node), args != "ringfence"; got != want {
			t.Errorf("kubectl get %s has %s: %t, want %t", args, node, got, want)
		}
	}

	wall := &v1alpha1.ClusterNetworkPolicy{}
	kit.Must(t, l.client.Get(kit.Context(t, patience), client.ObjectKey{Name: "wall"}, wall))
	l.events(t, wall, "Normal Programmed")
	l.events(t, l.policy(t, "shown", "servers"), "Normal Programmed")
	kit.Must(t, holds("kubectl describe", kubectl(t, l.Lab, "describe", "clusternetworkpolicies"+ours, "wall"),
		"Events:", "Programmed", "enforced on 3 pods, on 3 nodes"))
	// Of a NetworkPolicy kubectl describe shows no Events.
	kit.Must(t, holds("kubectl events", kubectl(t, l.Lab, "events", "-n", "shown", "--for", "networkpolicy/servers"),
		"Normal", "Programmed", "NetworkPolicy/servers", "enforced on 3 pods, on 3 nodes"))
	kit.Must(t, l.Delete(kit.Context(t, patience), []byte(shown)))
}

// aChangeIsWaitedFor follows the recipe of docs/status.md: the condition of the generation before is still there, and is not taken for the answer.
func (l *told) aChangeIsWaitedFor(t *testing.T) {
	l.says(t, "shown", "servers", on(3, 3))
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(strings.Replace(deny("shown", "servers"), "[Ingress]", "[Ingress, Egress]", 1))))
	generation := kubectl(t, l.Lab, "get", "-n", "shown", "networkpolicy", "servers", "-o=jsonpath={.metadata.generation}")
	if generation != "2" {
		t.Fatalf("the policy is at generation %s after a change", generation)
	}
	kubectl(t, l.Lab, "wait", "-n", "shown", "policyenforcement/servers", "--for=jsonpath={.status.policyGeneration}="+generation, "--timeout=30s")
	kubectl(t, l.Lab, "wait", "-n", "shown", "policyenforcement/servers", "--for=condition=Programmed", "--timeout=30s")
	said := &v1alpha1.PolicyEnforcement{}
	kit.Must(t, l.client.Get(kit.Context(t, patience), client.ObjectKey{Namespace: "shown", Name: "servers"}, said))
	c := meta.FindStatusCondition(said.Status.Conditions, v1alpha1.ProgrammedCondition)
	if c == nil || c.Status != metav1.ConditionTrue || c.ObservedGeneration != 2 {
		t.Errorf("after the wait, the condition is %+v", c)
	}

	np := l.policy(t, "shown", "servers")
	for _, mode := range []string{"Audit", "Enforce"} { // an annotation, which changes no generation
		kubectl(t, l.Lab, "annotate", "-n", "shown", "--overwrite", "networkpolicy", "servers", v1alpha1.ModeAnnotation+"="+mode)
		kubectl(t, l.Lab, "wait", "-n", "shown", "policyenforcement/servers", "--for=jsonpath={.status.mode}="+mode, "--timeout=30s")
		kubectl(t, l.Lab, "wait", "-n", "shown", "policyenforcement/servers", "--for=condition=Programmed", "--timeout=30s")
	}
	if now := l.policy(t, "shown", "servers"); now.Generation != np.Generation {
		t.Errorf("the mode has changed the generation from %d to %d", np.Generation, now.Generation)
	}
}

// table is a table's header and its row that begins as the wanted one does, each with one space between the columns. A word in the place of a "~"
// is one.
func table(out string, want []string) []string {
	got := []string{}
	first, _, _ := strings.Cut(want[1], " ")
	for i, line := range strings.Split(out, "\n") {
		fields := strings.Fields(line)
		if i > 0 && (len(fields) == 0 || fields[0] != first) {
			continue
		}
		if i > 0 {
			for k, word := range strings.Fields(want[1]) {
				if word == "~" && k < len(fields) {
					fields[k] = "~"
				}
			}
		}
		got = append(got, strings.Join(fields, " "))
	}
	return got
}

// podsComeAndMove follows one policy while it selects nobody, one pod, and that pod elsewhere.
func (l *told) podsComeAndMove(t *testing.T) {
	_, err := l.Client.CoreV1().Namespaces().Create(kit.Context(t, patience), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "moves"}}, metav1.CreateOptions{})
	kit.Must(t, err)
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("moves", "servers"))))
	nobody := standing{Programmed: "True/NoPods"}
	said := l.says(t, "moves", "servers", nobody, "no running pod is selected")
	accepted := meta.FindStatusCondition(said.Status.Conditions, v1alpha1.AcceptedCondition)
	if accepted == nil || accepted.Status != metav1.ConditionTrue || accepted.Reason != v1alpha1.SelectsNothingReason {
		t.Errorf("of a policy that selects nothing, Accepted is %+v", accepted)
	}

	run := func(name, node string, labels map[string]string) *lab.Pod {
		pod, err := l.RunPod(kit.Context(t, patience), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "moves", Name: name, Labels: labels},
			Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
				Name: "main", Image: "lab", Ports: []corev1.ContainerPort{port(corev1.ProtocolTCP, 8080)},
			}}},
		})
		kit.Must(t, err)
		return pod
	}
	own := &lane{lab: l.Lab, namespace: "moves", client: run("client", "n1", nil)}
	for _, node := range []string{"n2", "n3"} {
		own.servers = []*lab.Pod{run("server", node, map[string]string{"app": "server"})}
		l.says(t, "moves", "servers", on(1, 1), "enforced on 1 pod, on 1 node")
		own.closed(t, "with the pod on "+node)
		kit.Must(t, l.DeletePod(kit.Context(t, patience), "moves", "server"))
	}
	l.says(t, "moves", "servers", nobody)
	l.events(t, l.policy(t, "moves", "servers"), "Normal Programmed")
}

// theControllerRestarts shows that enforcement does not wait for it: a policy that comes meanwhile is in force before anything is said of it. What
// has not changed is not written again.
func (l *told) theControllerRestarts(t *testing.T) {
	own := newLaneOn(t, l.Lab, "restart", "n1", "n2")
	before := l.says(t, "deleted", "servers", on(2, 2))
	gone := l.says(t, "deleted", "late", on(2, 2))
	l.StopController("c1")
	kit.Must(t, l.Delete(kit.Context(t, patience), []byte(deny("deleted", "late"))))
	l.unsaid(t, own)
	kit.Must(t, l.StartController("c1"))
	l.says(t, "restart", "meanwhile", on(2, 2))
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		err := l.client.Get(ctx, client.ObjectKeyFromObject(gone), &v1alpha1.PolicyEnforcement{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("something is said of a policy that was deleted meanwhile"))
	}))
	if after := l.says(t, "deleted", "servers", on(2, 2)); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the controller has written again what stood there: %+v", after.Status)
	}
	own.closed(t, "after the controller has restarted")
}

// unsaid has a new policy come into force while no controller leads, and nothing said of it.
func (l *told) unsaid(t *testing.T, own *lane) {
	t.Helper()
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny(own.namespace, "meanwhile"))))
	own.becomesClosed(t)
	err := l.client.Get(kit.Context(t, patience), client.ObjectKey{Namespace: own.namespace, Name: "meanwhile"}, &v1alpha1.PolicyEnforcement{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("who says that the policy is enforced? (%v)", err)
	}
}

// theLeaderIsKilled has a second controller wait for the lead, and kills the first one.
func (l *told) theLeaderIsKilled(t *testing.T) {
	own := newLaneOn(t, l.Lab, "leaders", "n1", "n2")
	kit.Must(t, l.StartController("c2"))
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error { return l.ControllerReady(ctx, "c2") }))
	leader := l.leader(t)
	l.KillController("c1")
	l.unsaid(t, own)
	l.says(t, "leaders", "meanwhile", on(2, 2))
	l.says(t, "restart", "meanwhile", on(2, 2))
	if now := l.leader(t); now == leader {
		t.Errorf("%s still leads", now)
	}
	own.closed(t, "once the second controller leads")
}

// leader is who holds the lease of the controllers.
func (l *told) leader(t *testing.T) string {
	t.Helper()
	lease, err := l.Client.CoordinationV1().Leases("ringfence-system").Get(kit.Context(t, patience), "ringfence-controller", metav1.GetOptions{})
	kit.Must(t, err)
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// theAPIServerIsAway takes the API server away from the enforcers and from the controller that leads.
func (l *told) theAPIServerIsAway(t *testing.T) {
	own := newLaneOn(t, l.Lab, "away", "n1", "n2")
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("away", "servers"))))
	l.says(t, "away", "servers", on(2, 2))
	l.API.Kill()
	own.closed(t, "while the API server is away")
	kit.Must(t, l.API.Resume(kit.Context(t, patience)))
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		// One that could not renew its lease for 10 s ends, so that there are never two. A cluster starts it again.
		if err := l.ControllerReady(ctx, "c2"); err != nil {
			return errors.Join(err, l.StartController("c2"))
		}
		return nil
	}))
	own.closed(t, "once the API server is back")
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("away", "late"))))
	l.says(t, "away", "late", on(2, 2))
	l.says(t, "away", "servers", on(2, 2))
	own.closed(t, "after a change")
}
