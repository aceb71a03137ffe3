package status

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	signetv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
)

// story is a namespace of its own, with nodes of its own.
type story struct {
	t         *testing.T
	c         client.WithWatch
	namespace string
	node      *node // the one that most stories need
}

func begin(t *testing.T) *story { return beginAt(t, server) }

func beginAt(t *testing.T, c client.WithWatch) *story {
	t.Helper()
	s := &story{t: t, c: c}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "story-"}}
	s.create(ns)
	s.namespace = ns.Name
	s.patch(ns, `{"metadata":{"labels":{"story":"`+s.namespace+`"}}}`)
	s.node = s.newNode("a")
	return s
}

func (s *story) create(o client.Object) {
	s.t.Helper()
	kit.Must(s.t, s.c.Create(s.t.Context(), o))
}

func (s *story) delete(o client.Object) {
	s.t.Helper()
	kit.Must(s.t, s.c.Delete(s.t.Context(), o, client.GracePeriodSeconds(0)))
}

func (s *story) patch(o client.Object, patch string) {
	s.t.Helper()
	kit.Must(s.t, s.c.Patch(s.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))))
}

// parse reads what a test says of an object. NAMESPACE stands for the story's own, also in names of objects of the cluster.
func (s *story) parse(text string, into any) {
	s.t.Helper()
	text = strings.ReplaceAll(strings.ReplaceAll(text, "NAMESPACE", s.namespace), "\t", " ")
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		s.t.Fatalf("%v in %s", err, text)
	}
}

// lastAddress makes the addresses of pods, of which none come twice.
var lastAddress atomic.Uint32

// pod runs a pod on a node.
func (s *story) pod(name string, on *node) *corev1.Pod {
	s.t.Helper()
	n := lastAddress.Add(1)
	ip := fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{NodeName: on.name, Containers: []corev1.Container{
			{Name: "c", Image: "none", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}},
		}, TerminationGracePeriodSeconds: new(int64)},
	}
	s.create(p)
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}
	kit.Must(s.t, s.c.Status().Update(s.t.Context(), p))
	return p
}

// everyPod is the spec of a NetworkPolicy that isolates all pods of its namespace.
const everyPod = `{podSelector: {}, policyTypes: [Ingress]}`

// policy makes a NetworkPolicy.
func (s *story) policy(name, spec string) *networkingv1.NetworkPolicy {
	s.t.Helper()
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
	s.parse(spec, &np.Spec)
	s.create(np)
	return np
}

// clusterPolicy makes a ClusterNetworkPolicy, the SIG's policy, or a NamespaceIsolation, as the type of o says. Its name begins with the story's.
func (s *story) clusterPolicy(name, spec string, o client.Object) {
	s.t.Helper()
	s.parse("{metadata: {name: NAMESPACE-"+name+"}, spec: "+spec+"}", o)
	s.create(o)
	s.t.Cleanup(func() { _ = s.c.Delete(context.Background(), o) }) // also if the story ends before it does
}

// enforcement is the PolicyEnforcement of a name.
func (s *story) enforcement(name string) *v1alpha1.PolicyEnforcement {
	return &v1alpha1.PolicyEnforcement{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
}

// statusOf is the status that is written for a policy.
func (s *story) statusOf(ctx context.Context, policy client.Object) (*v1alpha1.EnforcementStatus, error) {
	if np, ok := policy.(*networkingv1.NetworkPolicy); ok {
		e := s.enforcement(np.Name)
		err := s.c.Get(ctx, client.ObjectKeyFromObject(e), e)
		return enforcementStatus(e), err
	}
	if err := s.c.Get(ctx, client.ObjectKeyFromObject(policy), policy); err != nil {
		return nil, err
	}
	return statusIn(policy), nil
}

// enforcementStatus is the status in a PolicyEnforcement, whose name for the generation is its own.
func enforcementStatus(e *v1alpha1.PolicyEnforcement) *v1alpha1.EnforcementStatus {
	status := e.Status.EnforcementStatus
	status.ObservedGeneration = e.Status.PolicyGeneration
	return &status
}

// statusIn is the status in an object.
func statusIn(o client.Object) *v1alpha1.EnforcementStatus {
	switch o := o.(type) {
	case *v1alpha1.PolicyEnforcement:
		return enforcementStatus(o)
	case *v1alpha1.ClusterNetworkPolicy:
		return &o.Status
	case *v1alpha1.NamespaceIsolation:
		return &o.Status
	case *signetv1beta1.ClusterNetworkPolicy:
		return &v1alpha1.EnforcementStatus{Conditions: o.Status.Conditions}
	case *signetv1alpha2.ClusterNetworkPolicy:
		return &v1alpha1.EnforcementStatus{Conditions: o.Status.Conditions}
	}
	return nil
}

// told is what a status says of a kind of condition, in a line.
func told(s *v1alpha1.EnforcementStatus, kind string) string {
	c := meta.FindStatusCondition(s.Conditions, kind)
	if c == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s %s at %d: %s", c.Status, c.Reason, c.ObservedGeneration, c.Message)
}

// figures are the counts of a status.
func figures(s *v1alpha1.EnforcementStatus) string {
	return fmt.Sprintf("%d pods, %d nodes: %d programmed, %d failed, %d unknown", s.Pods, s.Nodes.Desired, s.Nodes.Programmed, s.Nodes.Failed, s.Nodes.Unknown)
}

// says waits until the policy's condition Programmed, and the counts if they are given, are as wanted. NODE stands for the beginning of the
// names of the story's nodes.
func (s *story) says(policy client.Object, want string, counts ...string) {
	s.t.Helper()
	s.saysOf(policy, v1alpha1.ProgrammedCondition, want, counts...)
}

func (s *story) saysOf(policy client.Object, kind, want string, counts ...string) {
	s.t.Helper()
	want = strings.Join(append([]string{strings.ReplaceAll(want, "NODE", s.namespace)}, counts...), "\n")
	kit.EventuallySucceeds(s.t, patience, "what is said of "+policy.GetName(), func(ctx context.Context) error {
		status, err := s.statusOf(ctx, policy)
		if err != nil {
			return err
		}
		got := told(status, kind)
		if len(counts) > 0 {
			got += "\n" + figures(status)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("%s (-want +got):\n%s", kind, diff)
		}
		return nil
	})
}

// programmed is what is said of a policy that is in force.
func programmed(generation, pods, nodes int) string {
	s := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	return fmt.Sprintf("True Programmed at %d: enforced on %s, on %s", generation, s(pods, "pod"), s(nodes, "node"))
}

const noPods = "no running pod is selected: there is nothing to enforce yet"

// events are the reasons of the Events about a policy, in their order.
func (s *story) events(ctx context.Context, policy client.Object) ([]string, error) {
	var list eventsv1.EventList
	if err := s.c.List(ctx, &list, client.InNamespace(policy.GetNamespace())); err != nil {
		return nil, err
	}
	var reasons []string
	for _, e := range list.Items {
		if e.Regarding.UID == policy.GetUID() && e.Regarding.Name == policy.GetName() {
			reasons = append(reasons, fmt.Sprintf("%s %s %s", e.Regarding.Kind, e.Type, e.Reason))
			if e.Series != nil {
				reasons = append(reasons, fmt.Sprintf("%s %s %s", e.Regarding.Kind, e.Type, e.Reason))
			}
		}
	}
	return reasons, nil
}

// versions are those that an object has had since it was asked.
type versions struct {
	t    *testing.T
	seen chan client.Object
	stop func()
}

// follow begins to watch the objects of a list's kind in the story's namespace.
func (s *story) follow(list client.ObjectList, in string) *versions {
	s.t.Helper()
	w, err := s.c.Watch(s.t.Context(), list, client.InNamespace(in))
	kit.Must(s.t, err)
	v := &versions{t: s.t, seen: make(chan client.Object, 10000), stop: w.Stop}
	go func() {
		defer close(v.seen)
		for e := range w.ResultChan() {
			if o, ok := e.Object.(client.Object); ok {
				v.seen <- o
			}
		}
	}()
	s.t.Cleanup(w.Stop)
	return v
}

// all ends the watch and returns what was seen until a version of an object, or until now if none is given.
func (v *versions) all(last client.Object) []client.Object {
	v.t.Helper()
	var all []client.Object
	late := time.After(patience)
	for {
		select {
		case o := <-v.seen:
			all = append(all, o)
			if o.GetName() == last.GetName() && o.GetResourceVersion() == last.GetResourceVersion() {
				v.stop()
				return all
			}
		case <-late:
			v.t.Fatalf("the watch has not shown %s at %s", last.GetName(), last.GetResourceVersion())
		}
	}
}
