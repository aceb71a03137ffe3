package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterNetworkPolicy sets rules for the pods of many namespaces, by tier and priority. It has every field of the
// ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2, with the same meaning, and adds mode, log, and nodes and networks as
// sources.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=rfcnp,categories=ringfence
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterNetworkPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +required
	Spec ClusterNetworkPolicySpec `json:"spec"`
	// +optional
	Status ClusterNetworkPolicyStatus `json:"status,omitempty"`
}

// ClusterNetworkPolicyList is a list of ClusterNetworkPolicies.
//
// +kubebuilder:object:root=true
type ClusterNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterNetworkPolicy `json:"items"`
}

// ClusterNetworkPolicySpec is what a ClusterNetworkPolicy demands.
type ClusterNetworkPolicySpec struct {
	// mode says whether the rules are enforced, or only shown: with Audit no verdict changes, and what the policy's Deny rules would
	// have denied is counted and sampled into the log of each node's enforcer.
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode Mode `json:"mode,omitempty"`

	// tier is where the rules stand. For each pod and direction the tiers are asked in the order Admin, NetworkPolicy, Baseline. Admin
	// rules come before all NetworkPolicies, which cannot change what they decide; Baseline rules decide about what no NetworkPolicy
	// has decided.
	//
	// +required
	Tier Tier `json:"tier"`

	// priority orders the policies of a tier: lower numbers come first. Policies of equal priority are asked in the order of their
	// creation, then of their names.
	//
	// +required
	Priority int32 `json:"priority"`

	// subject selects the pods that the rules are for. Pods on the host network are never among them.
	//
	// +required
	Subject Subject `json:"subject"`

	// ingress are the rules for connections to the subject, in the order in which they are asked: the first that matches decides. A
	// policy without ingress rules does not affect ingress.
	//
	// +optional
	Ingress []IngressRule `json:"ingress,omitempty"`

	// egress are the rules for connections from the subject, in the order in which they are asked: the first that matches decides. A
	// policy without egress rules does not affect egress.
	//
	// +optional
	Egress []EgressRule `json:"egress,omitempty"`
}

// Tier is a place in the order in which policies are asked.
//
// +kubebuilder:validation:Enum=Admin;Baseline
type Tier string

// The tiers that cluster-wide objects stand in.
const (
	AdminTier    Tier = "Admin"
	BaselineTier Tier = "Baseline"
)

// Action is what happens to a connection that a rule matches.
//
// +kubebuilder:validation:Enum=Accept;Deny;Pass
type Action string

// The actions.
const (
	// Accept allows the connection in this direction. Nothing else is asked.
	Accept Action = "Accept"
	// Deny drops the connection. Nothing else is asked.
	Deny Action = "Deny"
	// Pass leaves the tier: its other rules are not asked, the next tier decides.
	Pass Action = "Pass"
)

// Subject selects pods. Exactly one field is set.
type Subject struct {
	// namespaces selects all pods of the namespaces that match; empty selects every namespace.
	//
	// +optional
	Namespaces *LabelSelector `json:"namespaces,omitempty"`
	// pods selects the pods that match in the namespaces that match.
	//
	// +optional
	Pods *NamespacedPod `json:"pods,omitempty"`
}

// NamespacedPod selects pods by their namespace's and their own labels.
type NamespacedPod struct {
	// namespaceSelector selects namespaces; empty selects all.
	//
	// +optional
	NamespaceSelector LabelSelector `json:"namespaceSelector,omitempty"`
	// podSelector selects pods in them; empty selects all.
	//
	// +required
	PodSelector LabelSelector `json:"podSelector"`
}

// IngressRule decides about connections to the subject.
type IngressRule struct {
	// name is for people: it stands in logs and messages.
	//
	// +optional
	Name string `json:"name,omitempty"`
	// action is what happens to a connection that comes from one of from and goes to one of protocols.
	//
	// +required
	Action Action `json:"action"`
	// log writes samples of the connections that the rule denies into the log of the node's enforcer. Only a Deny can be logged.
	//
	// +optional
	Log bool `json:"log,omitempty"`
	// from are the sources that the rule is for.
	//
	// +required
	From []Peer `json:"from"`
	// protocols are the protocols and ports that the rule is for; without them it is for all, ICMP included.
	//
	// +optional
	Protocols []Protocol `json:"protocols,omitempty"`
}

// EgressRule decides about connections from the subject.
type EgressRule struct {
	// name is for people: it stands in logs and messages.
	//
	// +optional
	Name string `json:"name,omitempty"`
	// action is what happens to a connection that goes to one of to and to one of protocols.
	//
	// +required
	Action Action `json:"action"`
	// log writes samples of the connections that the rule denies into the log of the node's enforcer. Only a Deny can be logged.
	//
	// +optional
	Log bool `json:"log,omitempty"`
	// to are the destinations that the rule is for. Service addresses are seen as the pods behind them.
	//
	// +required
	To []Peer `json:"to"`
	// protocols are the protocols and ports that the rule is for; without them it is for all, ICMP included.
	//
	// +optional
	Protocols []Protocol `json:"protocols,omitempty"`
}

// Peer selects remote ends of connections. Exactly one field is set.
type Peer struct {
	// namespaces selects all pods of the namespaces that match; empty selects every namespace. Pods on the host network are not
	// among them.
	//
	// +optional
	Namespaces *LabelSelector `json:"namespaces,omitempty"`
	// pods selects the pods that match in the namespaces that match. Pods on the host network are not among them.
	//
	// +optional
	Pods *NamespacedPod `json:"pods,omitempty"`
	// nodes selects nodes by their labels, and stands for all addresses in their status; empty selects every node. A node's own traffic
	// to its pods is always allowed.
	//
	// +optional
	Nodes *LabelSelector `json:"nodes,omitempty"`
	// networks are IP blocks, as in 10.0.0.0/8 or fd00::/8. Pods whose addresses lie in them are meant too.
	//
	// +optional
	// +listType=set
	Networks []CIDR `json:"networks,omitempty"`
	// domainNames are not enforced: the field is here so that a policy of the SIG's experimental channel that has it is refused
	// with a reason.
	//
	// +optional
	// +listType=set
	DomainNames []string `json:"domainNames,omitempty"`
}

// CIDR is an IP block, as in 10.0.0.0/8 or fd00::/8.
type CIDR string

// Protocol selects protocols and ports. Exactly one field is set.
type Protocol struct {
	// tcp matches TCP, at one or more destination ports.
	//
	// +optional
	TCP *PortMatch `json:"tcp,omitempty"`
	// udp matches UDP, at one or more destination ports.
	//
	// +optional
	UDP *PortMatch `json:"udp,omitempty"`
	// sctp matches SCTP, at one or more destination ports.
	//
	// +optional
	SCTP *PortMatch `json:"sctp,omitempty"`
	// destinationNamedPort matches the container ports of this name, of any protocol, on the destination pod.
	//
	// +optional
	DestinationNamedPort string `json:"destinationNamedPort,omitempty"`
}

// PortMatch is what must match of a protocol.
type PortMatch struct {
	// destinationPort is a port or a range of ports.
	//
	// +optional
	DestinationPort *Port `json:"destinationPort,omitempty"`
}

// Port is a port or a range of ports. Exactly one field is set.
type Port struct {
	// number is one port, 1 to 65535.
	//
	// +optional
	Number int32 `json:"number,omitempty"`
	// range is a range of ports, both ends included.
	//
	// +optional
	Range *PortRange `json:"range,omitempty"`
}

// PortRange is a range of ports, both ends included.
type PortRange struct {
	// start is the first port, 1 to 65535.
	//
	// +required
	Start int32 `json:"start"`
	// end is the last port, greater than start, up to 65535.
	//
	// +required
	End int32 `json:"end"`
}

// ClusterNetworkPolicyStatus is what has become of a policy.
type ClusterNetworkPolicyStatus struct {
	// conditions say whether the policy is understood, and enforced.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
