package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bounds of what a NodeEnforcement lists, so that its size does not depend on the number of policies.
const (
	MaxFailingPolicies = 10
	MaxFindings        = 20
	MaxPodDigests      = 1024
	MaxAddressTroubles = 10
	MaxRefused         = 1024
)

// NodeEnforcement says what one node enforces. The node's enforcer writes the object of the node's name, and no other; the Node owns it.
// It is written when something that concerns the node has changed, and as a sign of life now and then.
//
// It has no status subresource: one apply makes or changes all of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nodeenf
// +kubebuilder:printcolumn:name="Enforcing",type=string,JSONPath=`.status.conditions[?(@.type=="Enforcing")].status`
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.status.backend`
// +kubebuilder:printcolumn:name="Policies",type=integer,JSONPath=`.status.applied.counts.policies`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.applied.counts.pods`
// +kubebuilder:printcolumn:name="Failing",type=integer,JSONPath=`.status.failing`
// +kubebuilder:printcolumn:name="Heard",type=date,JSONPath=`.status.heartbeatTime`
// +kubebuilder:printcolumn:name="Healthy",type=string,JSONPath=`.status.conditions[?(@.type=="Healthy")].status`,priority=1
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`,priority=1
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.conditions[?(@.type=="Enforcing")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeEnforcement struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// status is what the node enforces.
	//
	// +optional
	Status NodeEnforcementStatus `json:"status,omitempty"`
}

// NodeEnforcementList is a list of NodeEnforcements.
//
// +kubebuilder:object:root=true
type NodeEnforcementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeEnforcement `json:"items"`
}

// NodeEnforcementStatus is what a node enforces, and how that is going.
type NodeEnforcementStatus struct {
	// conditions hold Enforcing: whether the last sync brought the kernel to what the API says; and Healthy: whether all else works that the
	// enforcer does. Where unknown pods are to be dropped, they hold UnknownPodsDropped: whether just these are. Where packets within a bridge
	// have been found to pass no rule, they hold BridgesPoliced: whether no pod that a policy selects is concerned.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// heartbeatTime is when the enforcer wrote this, by the node's clock. Who judges it by another clock looks at whether it changes, not at
	// what it is.
	//
	// +optional
	HeartbeatTime metav1.MicroTime `json:"heartbeatTime,omitempty"`
	// heartbeatSeconds is after how long the enforcer writes again even if nothing has changed. One that is silent for three times as long is
	// not heard of any more.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	HeartbeatSeconds int32 `json:"heartbeatSeconds,omitempty"`
	// before is the resource version of the report before this one, by the same process. This one's is higher, unless the API server has gone
	// back to older data between the two: then nothing follows from how far the enforcer had seen.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Before string `json:"before,omitempty"`
	// bootID is that of the node's kernel since its last boot, by which all else here is known to be of this boot. The Node has it too, in
	// status.nodeInfo.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	BootID string `json:"bootID,omitempty"`
	// version is the enforcer's.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`
	// backend is that of iptables: legacy or nft.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Backend string `json:"backend,omitempty"`
	// iptablesVersion is that of the iptables programs.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	IPTablesVersion string `json:"iptablesVersion,omitempty"`
	// table is the iptables table that holds the chains: security, or mangle where the kernel has no other.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Table string `json:"table,omitempty"`
	// families are those that policy is enforced in: IPv4, IPv6.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	Families []Family `json:"families,omitempty"`
	// applied is what the kernel holds since the last sync that succeeded. It stays as it is when a later one fails.
	//
	// +optional
	Applied *Applied `json:"applied,omitempty"`
	// failing is how many policies that concern this node are not enforced here as they are now. While Enforcing is True these are the policies of which
	// a part is refused: by the kernel, or by a budget.
	//
	// +optional
	Failing int32 `json:"failing"`
	// failingPolicies are some of these, at most ten.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	FailingPolicies []FailingPolicy `json:"failingPolicies,omitempty"`
	// refused are digests of the policies of which the node's kernel refuses a part, or which ask for more than a budget allows that depends on the node, 8
	// bytes each, sorted, at most 1,024 of them. That part is closed, and the rest of the node's policies are in force. A namespace that has very many of
	// them is named as a whole. So is one whose policies have changed so much that they are in force as they were, until all is ready.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=10924
	Refused []byte `json:"refused,omitempty"`
	// findings are what the enforcer finds missing on the node, at most 20, and what that costs. It looks again with each resync.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Findings []Finding `json:"findings,omitempty"`
	// sourceCheck says how the enforcer holds what pods send to the pods' own addresses.
	//
	// +optional
	SourceCheck *SourceCheckStatus `json:"sourceCheck,omitempty"`
	// addresses are those that cannot all be as the API says, as of the last sync: several pods are shown with one, or an owner with one that none can have.
	// There is none while all is well. A change of it alone is written with the next report, unless a pod of this node begins or ceases to have such an
	// address.
	//
	// +optional
	Addresses *AddressTroubles `json:"addresses,omitempty"`
	// repairs are changes that others have made to our chains, jumps and sets, and that were undone, since the enforcer started.
	//
	// +optional
	Repairs Repairs `json:"repairs,omitempty"`
}

// SourceCheckMode says what becomes of what a pod sends from an address that is not its own.
//
// +kubebuilder:validation:Enum=Enforce;Audit;Off
type SourceCheckMode string

// The modes.
const (
	SourceCheckModeEnforce SourceCheckMode = "Enforce" // it is dropped
	SourceCheckModeAudit   SourceCheckMode = "Audit"   // it is counted and sampled, and passes
	SourceCheckModeOff     SourceCheckMode = "Off"     // it passes
)

// SourceCheckStatus says which of the host's interfaces are known to be which pod's.
type SourceCheckStatus struct {
	// mode is the enforcer's --source-check.
	//
	// +optional
	Mode SourceCheckMode `json:"mode,omitempty"`
	// results is how many interfaces are tied to their pods by the results of CNI plugins.
	//
	// +optional
	Results int32 `json:"results"`
	// addresses is how many are tied by the addresses that their other ends have.
	//
	// +optional
	Addresses int32 `json:"addresses"`
	// exempt is how many belong to pods whose namespaces have the annotation policy.ringfence.io/source-check: "off".
	//
	// +optional
	Exempt int32 `json:"exempt"`
	// shut is how many belong to pods that are gone from the API, or have ended: nothing that comes from them gets through.
	//
	// +optional
	Shut int32 `json:"shut"`
	// unknown is how many pods have no interface that is known to be theirs. These can pass for others if they may send raw packets.
	//
	// +optional
	Unknown int32 `json:"unknown"`
}

// Family is an IP family.
//
// +kubebuilder:validation:Enum=IPv4;IPv6
type Family string

// The families.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// Applied is what a kernel holds.
type Applied struct {
	// time is when the sync ended that brought it there, by the node's clock.
	//
	// +optional
	Time metav1.MicroTime `json:"time,omitempty"`
	// resourceVersions are, by resource.group, how far the enforcer had seen the changes of each kind of policy when that sync began: all
	// changes up to these are in the kernel, as far as they concern the node. A kind that the API does not have is not among them.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=8
	ResourceVersions map[string]string `json:"resourceVersions,omitempty"`
	// podDigests are the digests of the pods that policies are enforced on here, 8 bytes each, sorted, at most 1,024 of them. A pod whose traffic within
	// its bridge passes no rule is not among them. A pod's digest
	// changes with everything by which policies select, and with its addresses.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=10924
	PodDigests []byte `json:"podDigests,omitempty"`
	// counts are sizes of what the kernel holds.
	//
	// +optional
	Counts Counts `json:"counts,omitempty"`
}

// Counts are sizes of what a kernel holds.
type Counts struct {
	// policies is how many policies concern the node.
	//
	// +optional
	Policies int32 `json:"policies"`
	// pods is how many pods of the node at least one of them selects.
	//
	// +optional
	Pods int32 `json:"pods"`
	// chains, of both families.
	//
	// +optional
	Chains int32 `json:"chains"`
	// rules in these chains.
	//
	// +optional
	Rules int32 `json:"rules"`
	// sets, of both families.
	//
	// +optional
	Sets int32 `json:"sets"`
	// entries in these sets.
	//
	// +optional
	Entries int32 `json:"entries"`
}

// FailingPolicy is a policy that a node does not enforce as it is now.
type FailingPolicy struct {
	// kind of the policy; the SIG's is ClusterNetworkPolicy.policy.networking.k8s.io.
	//
	// +required
	Kind string `json:"kind"`
	// namespace of a NetworkPolicy.
	//
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// name of the policy.
	//
	// +required
	Name string `json:"name"`
	// generation that is not enforced.
	//
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// message says what the kernel refused, or which field asks for how much more than a budget allows.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// AddressTroubles are addresses that cannot all be as the API says.
type AddressTroubles struct {
	// contested is how many addresses of this node's pods other pods are shown with too. The node takes each for its own pod's, and enforces policy on
	// it.
	//
	// +optional
	Contested int32 `json:"contested"`
	// contestedElsewhere is how many addresses pods of several other nodes are shown with. Where such a pod is a peer, the node takes each for that of one of
	// them.
	//
	// +optional
	ContestedElsewhere int32 `json:"contestedElsewhere"`
	// impossible is how many pods and nodes are shown with an address that none can have, such as 0.0.0.0. It is left out of everything.
	//
	// +optional
	Impossible int32 `json:"impossible"`
	// named are some of all these, at most ten: those of this node's pods first.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Named []AddressTrouble `json:"named,omitempty"`
}

// AddressTrouble is one address that cannot be as the API says.
type AddressTrouble struct {
	// address that several pods are shown with; empty for one that none can have.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Address string `json:"address,omitempty"`
	// message names who is shown with it, and what is made of that.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message"`
}

// Finding is something that a node lacks.
type Finding struct {
	// name of the kernel feature, program or setting.
	//
	// +required
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`
	// severity is what it means: degraded or fatal.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Severity string `json:"severity,omitempty"`
	// detail is what was found.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Detail string `json:"detail,omitempty"`
	// cost is what does not work without it.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Cost string `json:"cost,omitempty"`
	// remedy is how to mend it.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Remedy string `json:"remedy,omitempty"`
}

// Repairs are changes by others that were undone.
type Repairs struct {
	// count is how many syncs found something to repair.
	//
	// +optional
	Count int64 `json:"count"`
	// lastTime is when the last of them was, by the node's clock.
	//
	// +optional
	LastTime *metav1.Time `json:"lastTime,omitempty"`
	// last is what was repaired then.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Last string `json:"last,omitempty"`
}
