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
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NamespaceIsolation struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +required
	Spec NamespaceIsolationSpec `json:"spec"`
	// +optional
	Status NamespaceIsolationStatus `json:"status,omitempty"`
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
type NamespaceIsolationSpec struct {
	// mode says whether isolation is enforced, or only shown: with Audit no verdict changes, and what would have been denied is
	// counted and sampled into the log of each node's enforcer.
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode Mode `json:"mode,omitempty"`

	// tier is Baseline, where a NetworkPolicy of an isolated namespace may open more, or Admin, where nothing below may: what is not
	// allowed here is denied before any NetworkPolicy is asked, and what is allowed here still needs their consent. Within its tier an
	// isolation comes after all ClusterNetworkPolicies.
	//
	// +optional
	// +kubebuilder:default=Baseline
	Tier Tier `json:"tier,omitempty"`

	// namespaceSelector selects the namespaces to isolate; empty selects all, those of the system too.
	//
	// +required
	NamespaceSelector LabelSelector `json:"namespaceSelector"`

	// tenantLabel is the key of a namespace label. Namespaces that share its value, selected or not, are one tenant; a namespace
	// without the label is a tenant of its own. Without tenantLabel each namespace is.
	//
	// +optional
	TenantLabel string `json:"tenantLabel,omitempty"`

	// directions are those that are isolated: Ingress, connections to the pods, and Egress, connections from them.
	//
	// +optional
	// +kubebuilder:default={Ingress,Egress}
	// +listType=set
	Directions []Direction `json:"directions,omitempty"`

	// allow is what is not denied.
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
	// sameTenant allows connections between all pods of a tenant.
	//
	// +optional
	// +kubebuilder:default=true
	SameTenant *bool `json:"sameTenant,omitempty"`
	// dns allows connections to the cluster's DNS: the pods and addresses of its Service, and the node-local DNS address.
	//
	// +optional
	// +kubebuilder:default=true
	DNS *bool `json:"dns,omitempty"`
	// ingress are connections to isolated pods that are allowed besides.
	//
	// +optional
	Ingress []IsolationIngress `json:"ingress,omitempty"`
	// egress are connections from isolated pods that are allowed besides.
	//
	// +optional
	Egress []IsolationEgress `json:"egress,omitempty"`
}

// IsolationIngress allows connections to isolated pods.
type IsolationIngress struct {
	// from are the sources.
	//
	// +required
	From []Peer `json:"from"`
	// protocols are the protocols and ports; without them all are allowed, ICMP included.
	//
	// +optional
	Protocols []Protocol `json:"protocols,omitempty"`
}

// IsolationEgress allows connections from isolated pods.
type IsolationEgress struct {
	// to are the destinations.
	//
	// +required
	To []Peer `json:"to"`
	// protocols are the protocols and ports; without them all are allowed, ICMP included.
	//
	// +optional
	Protocols []Protocol `json:"protocols,omitempty"`
}

// NamespaceIsolationStatus is what has become of an isolation.
type NamespaceIsolationStatus struct {
	// conditions say whether the isolation is understood, and enforced.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
