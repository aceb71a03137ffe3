package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bounds of what reports of connections list, so that their sizes depend on nobody's traffic.
const (
	MaxNodeConnections   = 200 // of all namespaces that have pods on the node
	MaxReportConnections = 100
	MaxConnectionCounts  = 200 // policies with a count
	MaxConnectionNodes   = 5   // that a connection names
	MaxConnectionRests   = 200 // namespaces of which a node says what it lists no more
	MaxWatched           = 200 // namespaces of which a node says that it looks for allowed connections
)

// ConnectionReportName is the name of the ConnectionReport in each namespace that has one.
const ConnectionReportName = "connections"

// ConnectionsAnnotation on a namespace, with one of the values below, has a ConnectionReport be written for it, and the connections of its pods be sampled on
// their nodes.
const ConnectionsAnnotation = "policy.ringfence.io/connections"

// The values of [ConnectionsAnnotation] that mean something.
const (
	ConnectionsDenied = "denied" // those that are denied, or would be by policies in mode Audit
	ConnectionsAll    = "all"    // those that are allowed too
)

// ConnectionReport says which connections of a namespace's pods were denied, or would be if the policies in mode Audit were enforced, and where that is asked
// for, which were allowed. The controller writes it from what the nodes have seen, into each namespace that asks for it by the annotation
// policy.ringfence.io/connections, or into all if it is told so. It is always a moment behind.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,shortName=connreport,categories=ringfence
// +kubebuilder:printcolumn:name="Denied",type=integer,JSONPath=`.status.denied`,description="packets that were denied, as far as policies are counted"
// +kubebuilder:printcolumn:name="Would deny",type=integer,JSONPath=`.status.wouldDeny`,description="packets that policies in mode Audit would deny"
// +kubebuilder:printcolumn:name="Last",type=date,JSONPath=`.status.lastTime`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.since`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ConnectionReport struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// status is what was seen.
	//
	// +optional
	Status ConnectionReportStatus `json:"status,omitempty"`
}

// ConnectionReportList is a list of ConnectionReports.
//
// +kubebuilder:object:root=true
type ConnectionReportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ConnectionReport `json:"items"`
}

// ConnectionReportStatus is what the nodes have seen of a namespace's connections.
type ConnectionReportStatus struct {
	// denied is how many packets were denied by what counts lists.
	//
	// +optional
	Denied int64 `json:"denied"`
	// wouldDeny is how many packets the policies in mode Audit would have denied, likewise.
	//
	// +optional
	WouldDeny int64 `json:"wouldDeny"`
	// since is from when on packets are counted, by the clock of the node that has counted for longest.
	//
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// allowedSince is from when on nodes look for connections that are allowed, by the clock of the first that does; absent if none does.
	//
	// +optional
	AllowedSince *metav1.Time `json:"allowedSince,omitempty"`
	// lastTime is when the last packet was seen of a connection that is listed.
	//
	// +optional
	LastTime *metav1.Time `json:"lastTime,omitempty"`
	// connections are those that were seen, at most 100, the last that was seen first. They are made of samples: see counts for how many packets there were.
	// Where there were more, those that were allowed take half of the places, and so do the others.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Connections []ReportedConnection `json:"connections,omitempty"`
	// rest is what was seen, and is not listed any more.
	//
	// +optional
	Rest ConnectionRest `json:"rest,omitempty"`
	// counts say of each policy how many packets it denied, or would have, at most 200. All packets are counted, whether they were seen or not.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=200
	Counts []ConnectionCount `json:"counts,omitempty"`
}

// ConnectionVerdict is what becomes of a connection.
//
// +kubebuilder:validation:Enum=Denied;WouldDeny;Allowed
type ConnectionVerdict string

// The verdicts.
const (
	ConnectionDenied    ConnectionVerdict = "Denied"
	ConnectionWouldDeny ConnectionVerdict = "WouldDeny" // by a policy in mode Audit; it passes
	ConnectionAllowed   ConnectionVerdict = "Allowed"   // it is among those that the node's kernel tracks
)

// ConnectionDirection is that of which a policy speaks.
//
// +kubebuilder:validation:Enum=Ingress;Egress
type ConnectionDirection string

// The directions.
const (
	ConnectionIngress ConnectionDirection = "Ingress"
	ConnectionEgress  ConnectionDirection = "Egress"
)

// ReportedConnection is a connection that nodes have seen.
type ReportedConnection struct {
	ObservedConnection `json:",inline"`
	// nodes are some of those that have said so, at most five. What one says, nobody can check.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=5
	Nodes []string `json:"nodes,omitempty"`
}

// ObservedConnection is a connection as a node has seen it: all packets of which the same is to be said.
type ObservedConnection struct {
	// verdict is what has become of it.
	//
	// +required
	Verdict ConnectionVerdict `json:"verdict"`
	// direction tells at which end it was decided, or seen: Ingress at that of to, Egress at that of from.
	//
	// +required
	Direction ConnectionDirection `json:"direction"`
	// from is the end that sent the packets.
	//
	// +required
	From ConnectionEnd `json:"from"`
	// to is the end that they were sent to, after what Services do to addresses.
	//
	// +required
	To ConnectionEnd `json:"to"`
	// protocol is TCP, UDP, SCTP, ICMP, ICMPv6, or a number.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Protocol string `json:"protocol,omitempty"`
	// port is that of to; 0 of protocols without ports.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
	// policy decided: a kind and a name, or several names with commas where policies isolate together, and none accepts it. In the report of the other end's
	// namespace it is the namespace alone.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Policy string `json:"policy,omitempty"`
	// rule is the index of the policy's rule that decided, absent if none of its rules accepted the connection.
	//
	// +optional
	Rule *int32 `json:"rule,omitempty"`
	// packets is how many were seen. There may have been more: few are looked at where many are denied. Of what was allowed it is how many connections were
	// seen, each of which counts once.
	//
	// +optional
	Packets int64 `json:"packets"`
	// firstTime is when the first was seen, by the node's clock.
	//
	// +optional
	FirstTime metav1.Time `json:"firstTime,omitzero"`
	// lastTime is when the last was seen.
	//
	// +optional
	LastTime metav1.Time `json:"lastTime,omitzero"`
}

// ConnectionEnd is one end of a connection.
type ConnectionEnd struct {
	// namespace of the pod; empty for what is no pod, or what nobody could find the name of.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// workload is what made the pod, such as deploy/web; the pod's own name if nothing did.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=300
	Workload string `json:"workload,omitempty"`
	// pod is the last one of the workload that was seen.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod,omitempty"`
	// address is the last one that was seen.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Address string `json:"address,omitempty"`
}

// ConnectionRest is what was seen, and is not listed.
type ConnectionRest struct {
	// connections is how many were listed before, or would have been.
	//
	// +optional
	Connections int64 `json:"connections"`
	// packets of these.
	//
	// +optional
	Packets int64 `json:"packets"`
}

// ConnectionCount is how many packets a policy has denied in a direction, or would have. What was denied while no enforcer ran is not counted.
type ConnectionCount struct {
	// namespace of the policy, empty of one of the whole cluster.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// policy is a kind and a name, or several names with commas where policies isolate together; others stands for those that are not
	// counted one by one.
	//
	// +required
	// +kubebuilder:validation:MaxLength=512
	Policy string `json:"policy"`
	// direction of the connections.
	//
	// +required
	Direction ConnectionDirection `json:"direction"`
	// verdict is WouldDeny if the policy is in mode Audit.
	//
	// +required
	Verdict ConnectionVerdict `json:"verdict"`
	// packets that were denied, or would have been.
	//
	// +optional
	Packets int64 `json:"packets"`
	// lastTime is when the count was last seen to have grown, by the node's clock.
	//
	// +optional
	LastTime metav1.Time `json:"lastTime,omitzero"`
}

// NodeConnections says what one node has seen of connections. The node's enforcer writes the object of the node's name, and no other; the Node owns it.
// From all of them the controller makes the ConnectionReports.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nodeconn
// +kubebuilder:printcolumn:name="Last",type=date,JSONPath=`.status.time`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.since`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeConnections struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// status is what was seen.
	//
	// +optional
	Status NodeConnectionsStatus `json:"status,omitempty"`
}

// NodeConnectionsList is a list of NodeConnections.
//
// +kubebuilder:object:root=true
type NodeConnectionsList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeConnections `json:"items"`
}

// NodeConnectionsStatus is what a node has seen.
type NodeConnectionsStatus struct {
	// watched are the namespaces whose allowed connections the node looks for, at most 200.
	//
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +kubebuilder:validation:MaxItems=200
	Watched []WatchedNamespace `json:"watched,omitempty"`
	// time is when the enforcer wrote this, by the node's clock.
	//
	// +optional
	Time metav1.Time `json:"time,omitzero"`
	// since is from when on this is counted.
	//
	// +optional
	Since metav1.Time `json:"since,omitzero"`
	// connections are those that were seen, at most 200. The namespaces of this node's pods share them: where that is too few, the one that has most has the
	// next one less.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=200
	Connections []ObservedConnection `json:"connections,omitempty"`
	// rests say of some namespaces what was seen and is not listed, at most 200.
	//
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +kubebuilder:validation:MaxItems=200
	Rests []NamespaceRest `json:"rests,omitempty"`
	// counts say of each policy how many packets it denied, or would have, at most 200: those with the most.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=200
	Counts []ConnectionCount `json:"counts,omitempty"`
}

// WatchedNamespace is one whose allowed connections a node looks for.
type WatchedNamespace struct {
	// namespace that asks for it, and has pods on the node.
	//
	// +required
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// since is from when on the node does, by its clock.
	//
	// +optional
	Since metav1.Time `json:"since,omitzero"`
}

// NamespaceRest is what a node saw of a namespace's pods and does not list.
type NamespaceRest struct {
	// namespace of the pods.
	//
	// +required
	// +kubebuilder:validation:MaxLength=63
	Namespace      string `json:"namespace"`
	ConnectionRest `json:",inline"`
}
