// Package v1alpha1 holds the objects of the API group policy.ringfence.io.
//
//   - [ClusterNetworkPolicy] sets rules in front of and behind the NetworkPolicies of namespaces.
//   - [NamespaceIsolation] isolates whole namespaces, or tenants that consist of several.
//   - [PolicyEnforcement] says of a NetworkPolicy whether it is enforced; the two above say it in their status.
//   - [NodeEnforcement] says what one node enforces.
//
// What the API server can refuse, the schemas refuse; what it lets through and is not understood never opens traffic, and is
// reported.
//
// +kubebuilder:object:generate=true
// +groupName=policy.ringfence.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of the objects here.
var GroupVersion = schema.GroupVersion{Group: "policy.ringfence.io", Version: "v1alpha1"}

// AddToScheme makes the objects known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&ClusterNetworkPolicy{}, &ClusterNetworkPolicyList{},
		&NamespaceIsolation{}, &NamespaceIsolationList{},
		&PolicyEnforcement{}, &PolicyEnforcementList{},
		&NodeEnforcement{}, &NodeEnforcementList{},
		&NodeConnections{}, &NodeConnectionsList{},
		&ConnectionReport{}, &ConnectionReportList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// ModeAnnotation on a NetworkPolicy, or on a namespace for all NetworkPolicies in it, sets their [Mode]. The policy's own counts
// before its namespace's.
const ModeAnnotation = "policy.ringfence.io/mode"

// SourceCheckAnnotation on a namespace, with the value [SourceCheckOff], lets its pods send from addresses that are not theirs, as those do that route for
// others: VPN and subnet routers, virtual machines, egress gateways. It is the cluster's administrator who may write namespaces; on a pod it means nothing.
const SourceCheckAnnotation = "policy.ringfence.io/source-check"

// SourceCheckOff is the one value of [SourceCheckAnnotation] that means something.
const SourceCheckOff = "off"

// Mode says whether an object denies, or only shows what it would deny.
//
// +kubebuilder:validation:Enum=Enforce;Audit
type Mode string

// The modes.
const (
	// Enforce applies the object. It is the default.
	Enforce Mode = "Enforce"
	// Audit changes no verdict: what the object would deny is counted, and sampled into the log of the node's enforcer.
	Audit Mode = "Audit"
)
