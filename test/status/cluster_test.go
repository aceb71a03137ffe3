package status

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/apiserver"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/sig"
)

// ours and the SIG's take this spec; the placeholder is the priority.
const denyAll = `{tier: Admin, priority: %d, subject: {namespaces: {matchLabels: {story: NAMESPACE}}},
	ingress: [{action: Deny, from: [{namespaces: {}}]}]}`

func clusterNetworkPolicy(s *story) {
	s.pod("one", s.node)
	p := &v1alpha1.ClusterNetworkPolicy{}
	s.clusterPolicy("p", fmt.Sprintf(denyAll, 20), p)
	s.lives(p, `{"spec":{"mode":"Audit"}}`, "True Programmed at 2: audited on 1 pod, on 1 node: nothing is denied by it")
}

func namespaceIsolation(s *story) {
	s.pod("one", s.node)
	p := &v1alpha1.NamespaceIsolation{}
	s.clusterPolicy("p", `{namespaceSelector: {matchLabels: {story: NAMESPACE}}, tier: Baseline}`, p)
	s.lives(p, `{"spec":{"tier":"Admin"}}`, programmed(2, 1, 1))
}

// lives goes through a policy's life: waited for, programmed, changed, without pods.
func (s *story) lives(p client.Object, change, changed string) {
	s.t.Helper()
	s.node.fares(metav1.ConditionTrue, v1alpha1.EnforcingReason, "")
	s.node.reports()
	s.says(p, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a", "1 pods, 1 nodes: 0 programmed, 0 failed, 0 unknown")
	s.node.enforces()
	s.says(p, programmed(1, 1, 1), "1 pods, 1 nodes: 1 programmed, 0 failed, 0 unknown")
	s.patch(p, change)
	s.says(p, "False Pending at 2: 1 of 1 node does not enforce generation 2: NODE-a")
	s.node.enforces()
	s.says(p, changed)
	s.saysOf(p, v1alpha1.AcceptedCondition, "True Accepted at 2: the policy is understood in full")
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	s.patch(ns, `{"metadata":{"labels":{"story":"over"}}}`)
	s.says(p, "True NoPods at 2: "+noPods, "0 pods, 0 nodes: 0 programmed, 0 failed, 0 unknown")
	kit.EventuallySucceeds(s.t, patience, "an Event", func(ctx context.Context) error {
		all, err := s.events(ctx, inDefault(p))
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("there is none")
		}
		return err
	})
}

// inDefault is the policy where Events about objects of the cluster are.
func inDefault(p client.Object) client.Object {
	o := p.DeepCopyObject().(client.Object)
	o.SetNamespace(metav1.NamespaceDefault)
	return o
}

// theSIGs: its status has conditions and nothing else, and other controllers' conditions stay. Its kind goes and comes.
func theSIGs(s *story) {
	dir, err := sig.V03.Bases("experimental")
	kit.Must(s.t, err)
	kit.Must(s.t, apiserver.InstallCRDs(restConfig, dir))
	s.pod("one", s.node)
	s.node.enforces()
	p := &signetv1beta1.ClusterNetworkPolicy{}
	s.clusterPolicy("p", fmt.Sprintf(denyAll, 30), p)
	s.says(p, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a")
	theirs := `{"type":"Somebodys","status":"True","reason":"Else","message":"stays","observedGeneration":1,"lastTransitionTime":"2020-01-01T00:00:00Z"}`
	kit.Must(s.t, s.c.Status().Patch(s.t.Context(), p, client.RawPatch(types.ApplyPatchType, []byte(
		fmt.Sprintf(`{"apiVersion":"policy.networking.k8s.io/v1beta1","kind":"ClusterNetworkPolicy","metadata":{"name":%q},"status":{"conditions":[%s]}}`,
			p.Name, theirs))), client.FieldOwner("somebody")))
	s.node.enforces()
	s.says(p, programmed(1, 1, 1))
	s.patch(p, `{"spec":{"priority":31}}`)
	s.says(p, "False Pending at 2: 1 of 1 node does not enforce generation 2: NODE-a")
	s.saysOf(p, v1alpha1.AcceptedCondition, "True Accepted at 2: the policy is understood in full")
	s.node.enforces()
	s.says(p, programmed(2, 1, 1))
	if c := meta.FindStatusCondition(p.Status.Conditions, "Somebodys"); c == nil || c.Message != "stays" || len(p.Status.Conditions) != 3 {
		s.t.Errorf("the conditions are %v", p.Status.Conditions)
	}

	s.patch(p, `{"spec":{"egress":[{"action":"Accept","to":[{"domainNames":["example.com."]}]}]}}`)
	kit.EventuallySucceeds(s.t, patience, "what is not understood", func(ctx context.Context) error {
		status, err := s.statusOf(ctx, p)
		if err != nil {
			return err
		}
		if line := told(status, v1alpha1.AcceptedCondition); !strings.HasPrefix(line, "False NotUnderstood at 3: spec.egress[0].to[0]: domainNames are not enforced; ") {
			return fmt.Errorf("it says %s", line)
		}
		return nil
	})

	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "clusternetworkpolicies.policy.networking.k8s.io"}}
	s.delete(crd)
	kit.EventuallySucceeds(s.t, patience, "the SIG's kind to go", func(ctx context.Context) error {
		if err := s.c.Get(ctx, client.ObjectKeyFromObject(crd), crd); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
	np := s.policy("meanwhile", everyPod)
	s.node.enforces()
	s.says(np, programmed(1, 1, 1))
	kit.Must(s.t, apiserver.InstallCRDs(restConfig, dir))
	p = &signetv1beta1.ClusterNetworkPolicy{}
	kit.EventuallySucceeds(s.t, patience, "the SIG's kind to come again", func(context.Context) error { // the API server takes a moment
		s.parse("{metadata: {name: NAMESPACE-p}, spec: "+fmt.Sprintf(denyAll, 30)+"}", p)
		return s.c.Create(s.t.Context(), p)
	})
	s.says(p, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a")
	s.node.enforces()
	s.says(p, programmed(1, 1, 1))
	s.delete(p)
}

// accepted: what the API server lets through and its author may not have meant.
func accepted(s *story) {
	s.pod("one", s.node)
	for _, tt := range []struct {
		name, spec, want string
		mode             string
	}{
		{"sideways", everyPod, "False NotUnderstood at 1: metadata.annotations[policy.ringfence.io/mode]: ", "Sideways"},
		{"port", `{podSelector: {}, ingress: [{ports: [{port: nope}]}]}`, `True UnknownPort at 1: spec.ingress[0].ports[0].port: no pod that is selected has a TCP port of the name "nope"`, ""},
		{"never", `{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: Exists}, {key: a, operator: DoesNotExist}]}}]}]}`,
			"True NeverMatches at 1: spec.ingress[0]", ""},
	} {
		np := s.policy(tt.name, tt.spec)
		if tt.mode != "" {
			s.patch(np, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.ModeAnnotation, tt.mode))
		}
		s.begins(np, tt.want)
	}
	first, second := &v1alpha1.ClusterNetworkPolicy{}, &v1alpha1.ClusterNetworkPolicy{}
	s.clusterPolicy("1", fmt.Sprintf(denyAll, 40), first)
	s.saysOf(first, v1alpha1.AcceptedCondition, "True Accepted at 1: the policy is understood in full")
	s.clusterPolicy("2", fmt.Sprintf(denyAll, 40), second)
	for i, p := range []client.Object{first, second} {
		s.begins(p, fmt.Sprintf("True Conflicting at 1: spec.priority: ClusterNetworkPolicy %s-%d has the same tier and priority, and both select the pod %s/one: ",
			s.namespace, 2-i, s.namespace))
	}
	s.patch(second, `{"spec":{"priority":41}}`)
	s.saysOf(first, v1alpha1.AcceptedCondition, "True Accepted at 1: the policy is understood in full")
	s.begins(second, "True NeverMatches at 2: ", "True Accepted at 2: ")
}

// begins waits until the policy's condition Accepted begins in one of these ways.
func (s *story) begins(policy client.Object, ways ...string) {
	s.t.Helper()
	kit.EventuallySucceeds(s.t, patience, "what is said of "+policy.GetName(), func(ctx context.Context) error {
		status, err := s.statusOf(ctx, policy)
		if err != nil {
			return err
		}
		line := told(status, v1alpha1.AcceptedCondition)
		for _, want := range ways {
			if strings.HasPrefix(line, want) {
				return nil
			}
		}
		return fmt.Errorf("it says %s\nwant %s", line, strings.Join(ways, "\nor "))
	})
}

// TestAStatusIsOfOnePolicyAlone: what is being written about a policy that is deleted meanwhile does not come to stand in another one of its name.
func TestAStatusIsOfOnePolicyAlone(t *testing.T) {
	s := begin(t)
	s.pod("one", s.node)
	c := startController(t, restConfig)
	p := &v1alpha1.ClusterNetworkPolicy{}
	s.clusterPolicy("p", fmt.Sprintf(denyAll, 50), p)
	s.says(p, "False NodesUnknown at 1: 1 of 1 node does not enforce generation 1: NODE-a; NODE-a: no enforcer has reported from this node: see that a pod of the DaemonSet runs there")
	c.Hold(statusWrites)
	s.node.enforces()
	kit.Eventually(t, patience, "a write that is held", func() bool { return c.Held() > 0 })
	s.delete(p)
	next := &v1alpha1.ClusterNetworkPolicy{}
	s.clusterPolicy("p", fmt.Sprintf(denyAll, 50), next)
	v := s.follow(&v1alpha1.ClusterNetworkPolicyList{}, "")
	c.Release()
	s.says(next, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a")
	for _, o := range v.all(next) {
		if line := told(statusIn(o), v1alpha1.ProgrammedCondition); o.GetUID() == next.UID && strings.HasPrefix(line, "True") {
			t.Errorf("of the new policy it was said, before any node had it: %s", line)
		}
	}
}
