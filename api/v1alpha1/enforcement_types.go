package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EnforcementStatus says of a policy whether it is understood, and where it is enforced. The controller writes it.
type EnforcementStatus struct {
	// conditions are Accepted: whether the policy is understood; Programmed: whether each node that runs a pod which it selects enforces it; and Ready:
	// whether both are True.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// observedGeneration is the generation of the policy that this status is about. A PolicyEnforcement has policyGeneration instead.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// observedSince is the resource version at which the controller first saw this generation, in this mode. A node that has enforced all
	// changes up to it enforces this generation.
	//
	// +optional
	ObservedSince string `json:"observedSince,omitempty"`
	// mode is the policy's: Enforce or Audit. In Audit it is programmed like any other, and denies nothing.
	//
	// +optional
	Mode Mode `json:"mode,omitempty"`
	// pods is how many running pods the policy selects.
	//
	// +optional
	Pods int32 `json:"pods"`
	// nodes says on how many nodes these pods run, and how many of them enforce the policy.
	//
	// +optional
	Nodes NodeCounts `json:"nodes"`
}

// NodeCounts says how many nodes have a policy programmed. Every desired node is counted once more: as programmed, failed, unknown, or, if
// none of these, as waited for.
type NodeCounts struct {
	// ready is for people: how many of the desired nodes have this generation programmed, such as "3/3".
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Ready string `json:"ready,omitempty"`
	// desired is the number of nodes that run a selected pod.
	//
	// +optional
	Desired int32 `json:"desired"`
	// programmed is how many of them enforce this generation.
	//
	// +optional
	Programmed int32 `json:"programmed"`
	// failed is how many have tried and failed.
	//
	// +optional
	Failed int32 `json:"failed"`
	// unknown is how many have no enforcer, or one that has been silent for too long.
	//
	// +optional
	Unknown int32 `json:"unknown"`
	// notProgrammed names some of the nodes that do not enforce this generation, at most ten: first the nodes that fail, then the unknown ones, then those
	// that are waited for.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	NotProgrammed []NodeTrouble `json:"notProgrammed,omitempty"`
}

// NodeTrouble is a node that does not enforce a policy, and why.
type NodeTrouble struct {
	// name is the node's.
	//
	// +required
	Name string `json:"name"`
	// standing is the node's state: Failing, Unknown or Pending.
	//
	// +required
	Standing NodeStanding `json:"standing"`
	// message says what is wrong, and what to do.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// PolicyEnforcement says of the NetworkPolicy of its name whether it is enforced, and where. The controller makes it, the NetworkPolicy
// owns it, and nobody else need write it: a NetworkPolicy has no status of its own.
//
// It is always a moment behind: after a change of the NetworkPolicy, compare status.policyGeneration with the NetworkPolicy's
// metadata.generation before reading further.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=polenf,categories=ringfence
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.status.mode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.nodes.ready`,description="nodes that enforce it, of those that run a selected pod"
// +kubebuilder:printcolumn:name="Generation",type=integer,JSONPath=`.status.policyGeneration`,priority=1
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PolicyEnforcement struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// status is what has become of the NetworkPolicy.
	//
	// +optional
	Status PolicyEnforcementStatus `json:"status,omitempty"`
}

// PolicyEnforcementStatus is what has become of a NetworkPolicy.
type PolicyEnforcementStatus struct {
	EnforcementStatus `json:",inline"`
	// policyGeneration is the generation of the NetworkPolicy that this status is about. If its name were observedGeneration, tools would compare it with
	// the PolicyEnforcement's own generation, which is always 1.
	//
	// +optional
	PolicyGeneration int64 `json:"policyGeneration,omitempty"`
}

// PolicyEnforcementList is a list of PolicyEnforcements.
//
// +kubebuilder:object:root=true
type PolicyEnforcementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PolicyEnforcement `json:"items"`
}
