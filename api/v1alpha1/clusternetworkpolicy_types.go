package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterNetworkPolicy sets rules for the pods of many namespaces, by tier and priority. It has every field of the
// ClusterNetworkPolicy of policy.networking.k8s.io/v1beta1, with the same meaning, and adds mode, log, and nodes and networks as
// sources.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=rfcnp,categories=ringfence
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.nodes.ready`,description="nodes that enforce it, of those that run a selected pod"
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`,priority=1
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterNetworkPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// spec is what the policy demands.
	//
	// +required
	Spec ClusterNetworkPolicySpec `json:"spec"`
	// status is what has become of it.
	//
	// +optional
	Status EnforcementStatus `json:"status,omitempty"`
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
	// mode is Enforce or Audit. In Audit (a dry run) the policy changes no verdict: nodes count what its Deny rules would deny, and log samples of it. Later
	// rules are asked as if the policy did not exist.
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode Mode `json:"mode,omitempty"`

	// tier is where the rules stand. For each pod and direction the tiers are asked in the order Admin, NetworkPolicy, Baseline. Admin
	// rules come before all NetworkPolicies, which cannot change what they decide; Baseline rules are asked where no NetworkPolicy
	// isolates the pod in that direction. What no tier decides is allowed. A connection between two pods needs the consent of both:
	// the egress of its source, then the ingress of its destination.
	//
	// +required
	Tier Tier `json:"tier"`

	// priority orders the policies of a tier, from 0 to 1000: lower numbers come first. Policies of equal priority are asked in the
	// order of their creation, then of their names.
	//
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Priority int32 `json:"priority"`

	// subject selects the pods that the rules are for. Pods on the host network are never among them.
	//
	// +required
	Subject Subject `json:"subject"`

	// ingress are the rules for connections to the subject, in the order in which they are asked: the first that matches decides. A
	// policy without ingress rules does not affect ingress. At most 25.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	Ingress []IngressRule `json:"ingress,omitempty"`

	// egress are the rules for connections from the subject, in the order in which they are asked: the first that matches decides. A
	// policy without egress rules does not affect egress. At most 25.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
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
//
// +kubebuilder:validation:XValidation:rule="has(self.namespaces) != has(self.pods)",message="write exactly one of namespaces, pods"
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
//
// +kubebuilder:validation:XValidation:rule="!has(self.log) || !self.log || self.action == 'Deny'",message="log needs action Deny",fieldPath=".log"
type IngressRule struct {
	// name is for people: logs and messages show it. At most 100 characters.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=100
	Name string `json:"name,omitempty"`
	// action decides about connections from a source in from to a port in protocols. Accept lets them in, and no further policy is asked about that. Deny
	// drops them. Pass skips the rest of the tier, and the next tier decides.
	//
	// +required
	Action Action `json:"action"`
	// log writes samples of the connections that the rule denies into the log of the node's enforcer. Only a Deny can be logged.
	//
	// +optional
	Log bool `json:"log,omitempty"`
	// from are the sources that the rule is for, at most 25.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one peer; namespaces: {} is every pod"
	From []Peer `json:"from"`
	// protocols are the protocols and ports that the rule is for, at most 25. Without them it is for all traffic, ICMP included.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one protocol, or leave protocols out to mean all"
	Protocols []Protocol `json:"protocols,omitempty"`
}

// EgressRule decides about connections from the subject.
//
// +kubebuilder:validation:XValidation:rule="!has(self.log) || !self.log || self.action == 'Deny'",message="log needs action Deny",fieldPath=".log"
// +kubebuilder:validation:XValidation:rule="!has(self.protocols) || !self.protocols.exists(p, has(p.destinationNamedPort)) || !self.to.exists(p, has(p.networks) || has(p.nodes))",message="destinationNamedPort does not go with networks or nodes, whose ports have no names: write tcp, udp or sctp with a number, or a rule of its own",fieldPath=".protocols"
type EgressRule struct {
	// name is for people: logs and messages show it. At most 100 characters.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=100
	Name string `json:"name,omitempty"`
	// action decides about connections to a destination in to, at a port in protocols. Accept lets them out, and no further policy is asked about that. Deny
	// drops them. Pass skips the rest of the tier, and the next tier decides.
	//
	// +required
	Action Action `json:"action"`
	// log writes samples of the connections that the rule denies into the log of the node's enforcer. Only a Deny can be logged.
	//
	// +optional
	Log bool `json:"log,omitempty"`
	// to are the destinations that the rule is for, at most 25. Service addresses are seen as the pods behind them.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one peer; namespaces: {} is every pod"
	To []Peer `json:"to"`
	// protocols are the protocols and ports that the rule is for, at most 25. Without them it is for all traffic, ICMP included.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one protocol, or leave protocols out to mean all"
	Protocols []Protocol `json:"protocols,omitempty"`
}

// Peer selects remote ends of connections. Exactly one field is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.namespaces), has(self.pods), has(self.nodes), has(self.networks), has(self.domainNames)].exists_one(x, x)",message="write exactly one of namespaces, pods, nodes, networks"
// +kubebuilder:validation:XValidation:rule="!has(self.domainNames)",message="domainNames is not enforced: write networks",fieldPath=".domainNames"
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
	// nodes selects nodes by their labels; empty selects every node. A node stands for the addresses in its status, and for those of its tunnels and bridges
	// to pods. The enforcer's own node stands for all of its addresses. A node's own traffic to its pods is always allowed.
	//
	// +optional
	Nodes *LabelSelector `json:"nodes,omitempty"`
	// networks are IP blocks such as 10.0.0.0/8 or fd00::/8, at most 25. Bits behind the prefix are zero. A block includes the pods whose addresses lie in
	// it. Without protocols it means all traffic, ICMP included.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one CIDR such as 10.0.0.0/8 or fd00::/8"
	Networks []CIDR `json:"networks,omitempty"`
	// domainNames are not enforced. The field exists so that a policy of the SIG's experimental channel that uses it is refused with a reason.
	//
	// +optional
	// +listType=atomic
	DomainNames []string `json:"domainNames,omitempty"`
}

// CIDR is an IP block such as 10.0.0.0/8 or fd00::/8. All bits behind the prefix are zero. Objects that were stored before this was asked for stay
// in force as if they were.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="write a CIDR such as 10.0.0.0/8 or fd00::/8"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="bits behind the prefix must be zero: write 10.0.0.0/8 for 10.1.2.3/8"
type CIDR string

// Protocol selects protocols and ports. Exactly one field is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.tcp), has(self.udp), has(self.sctp), has(self.destinationNamedPort)].exists_one(x, x)",message="write exactly one of tcp, udp, sctp, destinationNamedPort"
type Protocol struct {
	// tcp matches TCP to a port, or to a range of ports.
	//
	// +optional
	TCP *PortMatch `json:"tcp,omitempty"`
	// udp matches UDP to a port, or to a range of ports.
	//
	// +optional
	UDP *PortMatch `json:"udp,omitempty"`
	// sctp matches SCTP to a port, or to a range of ports.
	//
	// +optional
	SCTP *PortMatch `json:"sctp,omitempty"`
	// destinationNamedPort matches the container ports of this name, of any protocol, on the destination pod. A pod that has no port
	// of that name is not matched.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]+(-[a-z0-9]+)*$') && self.matches('[a-z]')",message="write the name of a container port, such as http: at most 15 of a-z, 0-9 and single hyphens inside, at least one letter"
	DestinationNamedPort string `json:"destinationNamedPort,omitempty"`
}

// PortMatch is what must match of a protocol. A PortMatch without fields is every port; admission refuses it, because it is also
// what remains of a misspelt field.
//
// +kubebuilder:validation:XValidation:rule="has(self.destinationPort)",message="write destinationPort; every port is range: {start: 1, end: 65535}"
type PortMatch struct {
	// destinationPort is a port or a range of ports at the destination.
	//
	// +optional
	DestinationPort *Port `json:"destinationPort,omitempty"`
}

// Port is a port or a range of ports. Exactly one field is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.number) != has(self.range)",message="write exactly one of number, range"
type Port struct {
	// number is one port, 1 to 65535.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Number int32 `json:"number,omitempty"`
	// range is a range of ports, both ends included.
	//
	// +optional
	Range *PortRange `json:"range,omitempty"`
}

// PortRange is a range of ports, both ends included.
//
// +kubebuilder:validation:XValidation:rule="self.start < self.end",message="start must be less than end; one port is number"
type PortRange struct {
	// start is the first port, 1 to 65535.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Start int32 `json:"start"`
	// end is the last port, greater than start, up to 65535.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	End int32 `json:"end"`
}
