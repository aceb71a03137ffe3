package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NamespaceIsolation denies by default, for every namespace that a selector matches, what comes from or goes to outside of the
// namespace's tenant. Nothing is copied into the namespaces: one that is created with matching labels is isolated from its first
// pod, one that loses them is free at once.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=nsiso,categories=ringfence
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Tenant label",type=string,JSONPath=`.spec.tenantLabel`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.nodes.ready`,description="nodes that enforce it, of those that run a selected pod"
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`,priority=1
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NamespaceIsolation struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// spec is what the isolation demands.
	//
	// +required
	Spec NamespaceIsolationSpec `json:"spec"`
	// status is what has become of it.
	//
	// +optional
	Status EnforcementStatus `json:"status,omitempty"`
}

// NamespaceIsolationList is a list of NamespaceIsolations.
//
// +kubebuilder:object:root=true
type NamespaceIsolationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NamespaceIsolation `json:"items"`
}

// NamespaceIsolationSpec is what a NamespaceIsolation demands.
//
// +kubebuilder:validation:XValidation:rule="!has(self.allow.ingress) || size(self.allow.ingress) == 0 || size(self.directions) == 0 || 'Ingress' in self.directions",message="allow.ingress needs Ingress in directions: without it ingress is not isolated, and there is nothing to allow",fieldPath=".allow.ingress"
// +kubebuilder:validation:XValidation:rule="!has(self.allow.egress) || size(self.allow.egress) == 0 || size(self.directions) == 0 || 'Egress' in self.directions",message="allow.egress needs Egress in directions: without it egress is not isolated, and there is nothing to allow",fieldPath=".allow.egress"
type NamespaceIsolationSpec struct {
	// mode is Enforce or Audit. In Audit (a dry run) the isolation changes no verdict: nodes count what it would deny, and log samples of it, except where
	// an enforced isolation of the same tier decides.
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode Mode `json:"mode,omitempty"`

	// tier is Baseline or Admin. In Baseline, a NetworkPolicy of an isolated namespace may allow more. In Admin it may not: what the isolation does not
	// allow is denied before any NetworkPolicy is asked, and what it allows still needs their consent. Within its tier an isolation comes after all
	// ClusterNetworkPolicies: what they accept or deny is decided, and what they pass skips it. Several isolations of a tier add up: what one of them allows
	// is allowed.
	//
	// +optional
	// +kubebuilder:default=Baseline
	Tier Tier `json:"tier,omitempty"`

	// namespaceSelector selects the namespaces to isolate; empty selects all, those of the system too. Pods on the host network are
	// never isolated.
	//
	// +required
	NamespaceSelector LabelSelector `json:"namespaceSelector"`

	// tenantLabel is the key of a namespace label. Namespaces with the same value, selected or not, are one tenant. A namespace without the label is a
	// tenant of its own. Without tenantLabel each namespace is.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:XValidation:rule="self.indexOf('/') <= 253 && self.matches('^(([a-z0-9]+(-+|[.]))*[a-z0-9]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')",message="write the key of a label, such as tenant or example.com/tenant"
	TenantLabel string `json:"tenantLabel,omitempty"`

	// directions are those that are isolated: Ingress (connections to the pods) and Egress (connections from them). Without it both are.
	//
	// +optional
	// +kubebuilder:default={Ingress,Egress}
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write Ingress, Egress or both, or leave directions out to mean both"
	Directions []Direction `json:"directions,omitempty"`

	// allow is what is not denied. Without it, that is all within a tenant, and DNS.
	//
	// +optional
	// +kubebuilder:default={}
	Allow IsolationAllow `json:"allow,omitempty"`
}

// Direction is the way a connection runs, seen from the isolated pod.
//
// +kubebuilder:validation:Enum=Ingress;Egress
type Direction string

// The directions.
const (
	Ingress Direction = "Ingress"
	Egress  Direction = "Egress"
)

// IsolationAllow is what an isolation does not deny.
type IsolationAllow struct {
	// sameTenant allows all connections between the pods of a tenant. If it is false, tenantLabel changes nothing.
	//
	// +optional
	// +kubebuilder:default=true
	SameTenant *bool `json:"sameTenant,omitempty"`
	// dns allows connections to the cluster's DNS: the pods and addresses of its Service at the Service's ports, and the node-local DNS
	// addresses at UDP and TCP 53. It matters where Egress is isolated.
	//
	// +optional
	// +kubebuilder:default=true
	DNS *bool `json:"dns,omitempty"`
	// ingress are connections to isolated pods that are allowed besides. At most 25.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	Ingress []IsolationIngress `json:"ingress,omitempty"`
	// egress are connections from isolated pods that are allowed besides. At most 25.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	Egress []IsolationEgress `json:"egress,omitempty"`
}

// IsolationIngress allows connections to isolated pods.
type IsolationIngress struct {
	// from are the sources, at most 25.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one peer; namespaces: {} is every pod"
	From []Peer `json:"from"`
	// protocols are the protocols and ports, at most 25; without them all are allowed, ICMP included.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one protocol, or leave protocols out to mean all"
	Protocols []Protocol `json:"protocols,omitempty"`
}

// IsolationEgress allows connections from isolated pods.
//
// +kubebuilder:validation:XValidation:rule="!has(self.protocols) || !self.protocols.exists(p, has(p.destinationNamedPort)) || !self.to.exists(p, has(p.networks) || has(p.nodes))",message="destinationNamedPort does not go with networks or nodes, whose ports have no names: write tcp, udp or sctp with a number, or a rule of its own",fieldPath=".protocols"
type IsolationEgress struct {
	// to are the destinations, at most 25. Service addresses are seen as the pods behind them.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one peer; namespaces: {} is every pod"
	To []Peer `json:"to"`
	// protocols are the protocols and ports, at most 25; without them all are allowed, ICMP included.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=25
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="write at least one protocol, or leave protocols out to mean all"
	Protocols []Protocol `json:"protocols,omitempty"`
}
