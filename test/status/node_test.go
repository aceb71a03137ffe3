package status

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
)

// node is one that says of itself what it is told to.
type node struct {
	s      *story
	name   string
	object *corev1.Node
	status v1alpha1.NodeEnforcementStatus
}

// newNode makes a Node. Its name begins with the story's.
func (s *story) newNode(name string) *node {
	s.t.Helper()
	n := &node{s: s, name: s.namespace + "-" + name, object: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "-" + name}}}
	n.status = v1alpha1.NodeEnforcementStatus{Families: []v1alpha1.Family{v1alpha1.IPv4, v1alpha1.IPv6}, HeartbeatSeconds: 3600}
	s.create(n.object)
	return n
}

// kinds are the resources of policies, as reports name them.
var kinds = []string{
	"networkpolicies.networking.k8s.io", "clusternetworkpolicies.policy.ringfence.io", "namespaceisolations.policy.ringfence.io",
	"clusternetworkpolicies.policy.networking.k8s.io",
}

// enforces makes the node have all that the API says now, and report it.
func (n *node) enforces() {
	n.s.t.Helper()
	n.applies()
	n.fares(metav1.ConditionTrue, v1alpha1.EnforcingReason, "")
	n.reports()
}

// fails makes the node report that it could not do what the API says now.
func (n *node) fails(reason, message string) {
	n.s.t.Helper()
	n.fares(metav1.ConditionFalse, reason, message)
	n.reports()
}

func (n *node) fares(status metav1.ConditionStatus, reason, message string) {
	n.status.Conditions = []metav1.Condition{{
		Type: v1alpha1.EnforcingCondition, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Now(),
	}}
}

// applies makes the node have all that the API says now.
func (n *node) applies() {
	s := n.s
	s.t.Helper()
	var policies networkingv1.NetworkPolicyList // its resource version is that of everything
	kit.Must(s.t, s.c.List(s.t.Context(), &policies, client.InNamespace(s.namespace)))
	n.status.Applied = &v1alpha1.Applied{ResourceVersions: map[string]string{}, PodDigests: n.digests()}
	for _, kind := range kinds {
		n.status.Applied.ResourceVersions[kind] = policies.ResourceVersion
	}
}

// digests are those of the story's pods on the node.
func (n *node) digests() []byte {
	s := n.s
	s.t.Helper()
	var pods corev1.PodList
	ns := &corev1.Namespace{}
	kit.Must(s.t, s.c.List(s.t.Context(), &pods, client.InNamespace(s.namespace)))
	kit.Must(s.t, s.c.Get(s.t.Context(), client.ObjectKey{Name: s.namespace}, ns))
	var packed []byte
	for i := range pods.Items {
		if pods.Items[i].Spec.NodeName == n.name {
			d := compile.NewPod(&pods.Items[i]).Digest(compile.NewNamespace(ns))
			for shift := 56; shift >= 0; shift -= 8 {
				packed = append(packed, byte(d>>shift))
			}
		}
	}
	return packed
}

// reports writes what the node has to say, at the time that its clock shows.
func (n *node) reports(clock ...time.Time) {
	s := n.s
	s.t.Helper()
	n.status.HeartbeatTime = metav1.NowMicro()
	if len(clock) > 0 {
		n.status.HeartbeatTime = metav1.NewMicroTime(clock[0])
	}
	o := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
	err := s.c.Get(s.t.Context(), client.ObjectKeyFromObject(o), o)
	kit.Must(s.t, client.IgnoreNotFound(err))
	o.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.name, UID: n.object.UID}}
	o.Status = *n.status.DeepCopy()
	if err != nil {
		s.create(o)
		return
	}
	kit.Must(s.t, s.c.Update(s.t.Context(), o))
}
