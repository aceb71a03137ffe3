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

// NodeEnforcement says what one node enforces. The node's enforcer writes the object of the node's name, and no other; the Node owns it. The enforcer
// writes it when something that concerns the node has changed, and otherwise once in a heartbeat.
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
	// conditions are Enforcing: whether the last sync brought the kernel to what the API demands; and Healthy: whether the enforcer's other tasks work.
	// UnknownPodsDropped is there if unknown pods are to be dropped: whether exactly these are. BridgesPoliced is there once packets within a bridge have
	// been found to pass no rule: whether any selected pod still has such traffic. SourcesChecked is there if sources are checked: whether pods can send
	// only from their own addresses.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// heartbeatTime is when the enforcer wrote this, by the node's clock. To judge it by another clock, watch whether it changes.
	//
	// +optional
	HeartbeatTime metav1.MicroTime `json:"heartbeatTime,omitempty"`
	// heartbeatSeconds is after how long the enforcer writes again if nothing has changed. An enforcer that is silent for three times as long counts as
	// lost.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	HeartbeatSeconds int32 `json:"heartbeatSeconds,omitempty"`
	// before is the resource version of the report before this one, by the same process. This report's is higher. If it is not, the API server has gone back
	// to older data, and nothing follows from how far the enforcer had seen.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Before string `json:"before,omitempty"`
	// bootID is that of the node's kernel since its last boot: all else here is of this boot. The Node has it in status.nodeInfo.
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
	// failing is how many policies that concern this node it does not enforce in their present version. While Enforcing is True, these are the policies that
	// the kernel or a budget refuses in part.
	//
	// +optional
	Failing int32 `json:"failing"`
	// failingPolicies are some of the failing policies, at most ten.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	FailingPolicies []FailingPolicy `json:"failingPolicies,omitempty"`
	// refused are digests of policies and of namespaces: 8 bytes each, sorted, at most 1,024 of them. A policy is here if the node's kernel refuses a part
	// of it, if it asks for more than a budget that depends on the node allows, or if it names pods that the API server has not shown the node yet. That
	// part is closed; the rest of the node's policies are in force. A namespace is here if it has very many such policies, or if its policies have changed
	// so much that the old ones stay in force until the new ones are ready.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=10924
	Refused []byte `json:"refused,omitempty"`
	// findings are what the node lacks, at most 20, and what each costs. The enforcer looks again with each resync.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Findings []Finding `json:"findings,omitempty"`
	// sourceCheck says how the enforcer makes pods send only from their own addresses.
	//
	// +optional
	SourceCheck *SourceCheckStatus `json:"sourceCheck,omitempty"`
	// addresses are those that the API cannot be right about, at the last sync: several pods have one, or a pod or node has one that none can have. Without
	// such addresses the field is absent. A change of it alone waits for the next report, unless a pod of this node gets or loses such an address.
	//
	// +optional
	Addresses *AddressTroubles `json:"addresses,omitempty"`
	// repairs are changes that other programs made to Ringfence's chains, jumps, sets and guards, and that were undone, since the enforcer started.
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
	// shut is how many belong to pods that are gone from the API, or have ended. Nothing that comes from them passes.
	//
	// +optional
	Shut int32 `json:"shut"`
	// unknown is how many pods have no known interface. These pods can use the addresses of others if they may send raw packets.
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
	// resourceVersions are, by resource.group, how far the enforcer had seen the changes of each kind of policy when that sync began. All changes up to
	// there are in the kernel, as far as they concern the node. A kind that the API does not have has no entry.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=8
	ResourceVersions map[string]string `json:"resourceVersions,omitempty"`
	// podDigests are the digests of the pods that policies are enforced on here: 8 bytes each, sorted, at most 1,024 of them. Pods whose traffic within
	// their bridge passes no rule have none. A pod's digest changes with its addresses, and with everything by which policies select it.
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

// SilentHeartbeats is how many times [NodeEnforcementStatus.HeartbeatSeconds] an enforcer may be silent before it counts as lost.
const SilentHeartbeats = 3

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
	// message says what the kernel refused, which field asks for how much more than a budget allows, or of which namespace pods are not known.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// AddressTroubles are addresses that cannot all be as the API says.
type AddressTroubles struct {
	// contested is how many addresses of this node's pods other pods have too. The node takes each for its own pod's, and enforces policy on it.
	//
	// +optional
	Contested int32 `json:"contested"`
	// contestedElsewhere is how many addresses belong to pods of several other nodes. Where such a pod is a peer, the node takes the address for that of one
	// of them.
	//
	// +optional
	ContestedElsewhere int32 `json:"contestedElsewhere"`
	// impossible is how many pods and nodes have an address that none can have, such as 0.0.0.0. Policies leave such an address out.
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
	// address that several pods have; empty for one that none can have.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Address string `json:"address,omitempty"`
	// message names the pods or nodes that have it, and what the node does about it.
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
