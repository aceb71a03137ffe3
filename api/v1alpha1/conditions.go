package v1alpha1

// The types of the conditions on ClusterNetworkPolicy, NamespaceIsolation and PolicyEnforcement. Both are good when True, and both
// carry in observedGeneration the generation of the policy that they speak of: a condition of an older generation says nothing of the
// present one.
const (
	// AcceptedCondition says whether the policy is understood in full. If it is False, the message names each field that is not, and what
	// is enforced instead, which never opens traffic. If it is True, the reason may still point to something that its author may not have
	// meant.
	AcceptedCondition = "Accepted"
	// ProgrammedCondition says whether the policy is in the kernel of every node that runs a pod which it selects. True is a promise: a packet
	// that is sent after it is decided by this generation of the policy on all of these nodes.
	ProgrammedCondition = "Programmed"
	// ReadyCondition is True where both of the others are, and else has the reason of the one that is not. It says nothing more than they do: it is
	// there for tools that know this type and no other. The SIG's ClusterNetworkPolicy does not get it.
	ReadyCondition = "Ready"
)

// Reasons of [AcceptedCondition], the most serious first: a policy to which several apply has the first for its reason, and all of them in
// its message.
const (
	// NotUnderstoodReason goes with False: a field cannot be understood, and what it belongs to fails closed.
	NotUnderstoodReason = "NotUnderstood"
	// TooLargeReason goes with False: the policy asks for more than one object, or the policies of one namespace, may have. It allows nothing then.
	TooLargeReason = "TooLarge"
	// ConflictingReason goes with True: another ClusterNetworkPolicy has the same tier and priority, and selects some of the same pods. Which
	// is asked first is decided by their age, then their names.
	ConflictingReason = "Conflicting"
	// ContestedAddressReason goes with True: another pod is shown with an address of a pod that is selected. The pod's own node enforces the policy on it all
	// the same; other nodes may take the address for the other pod's, where these pods are peers.
	ContestedAddressReason = "ContestedAddress"
	// ImpossibleAddressReason goes with True: a pod that is selected is shown with an address that no pod can have, such as 0.0.0.0, on which nothing can be
	// enforced.
	ImpossibleAddressReason = "ImpossibleAddress"
	// NeverMatchesReason goes with True: a rule can match no packet, because of what stands in it or before it.
	NeverMatchesReason = "NeverMatches"
	// UnknownPortReason goes with True: no pod that a rule is about has a port of the name that it gives.
	UnknownPortReason = "UnknownPort"
	// SelectsNothingReason goes with True: no pod that runs is selected. This is what a policy is like that waits for its pods.
	SelectsNothingReason = "SelectsNothing"
	// AcceptedReason goes with True: there is nothing to say.
	AcceptedReason = "Accepted"
)

// Reasons of [ProgrammedCondition].
const (
	// ProgrammedReason goes with True: every node that runs a selected pod enforces this generation.
	ProgrammedReason = "Programmed"
	// NoPodsReason goes with True: no node runs a selected pod, so that there is nothing to enforce.
	NoPodsReason = "NoPods"
	// PendingReason goes with False: some nodes have not reported this generation yet; nothing is known to be wrong with them.
	PendingReason = "Pending"
	// NodesFailingReason goes with False: some nodes tried, and their kernel refused. The message names them.
	NodesFailingReason = "NodesFailing"
	// NodesUnknownReason goes with False: some nodes have no enforcer, or one that has not been heard of for too long. The message names them.
	NodesUnknownReason = "NodesUnknown"
)

// The conditions of a NodeEnforcement.
const (
	// EnforcingCondition says whether the node's last sync brought its kernel to what the API says.
	EnforcingCondition = "Enforcing"
	// UnknownPodsDroppedCondition is there where the enforcer runs with --unknown-pods=drop: True if just those addresses of the node's pods that no known
	// pod holds get nothing through, as of the last sync that succeeded.
	UnknownPodsDroppedCondition = "UnknownPodsDropped"
)

// SourcesCheckedCondition of a NodeEnforcement is there where the enforcer runs with --source-check=enforce or audit: True if each pod of the node can send
// from its own addresses alone, or what it sends from others is counted.
const SourcesCheckedCondition = "SourcesChecked"

// Reasons of [SourcesCheckedCondition], beside [KernelLacksReason].
const (
	// SourcesCheckedReason and SourcesAuditedReason go with True.
	SourcesCheckedReason = "Checked"
	SourcesAuditedReason = "Audited"
	// LinksUnknownReason: nobody knows which of the host's interfaces some pods have.
	LinksUnknownReason = "LinksUnknown"
)

// BridgesPolicedCondition is a condition of a NodeEnforcement that is there once packets within a bridge have been found to pass iptables by: False while pods
// that policies select are on such a bridge. Policies that select these pods are not programmed then, and podDigests does not have the pods.
const BridgesPolicedCondition = "BridgesPoliced"

// Reasons of [BridgesPolicedCondition].
const (
	// BridgesPolicedReason goes with True.
	BridgesPolicedReason = "BridgesPoliced"
	// BridgeFilterOffReason goes with False: br_netfilter is not loaded, or its setting for the family is off.
	BridgeFilterOffReason = "BridgeFilterOff"
)

// Reasons of [UnknownPodsDroppedCondition].
const (
	// UnknownPodsDroppedReason goes with True.
	UnknownPodsDroppedReason = "Dropped"
	// NoPodRangeReason goes with False: nobody knows which addresses are those of the node's pods, so that none is dropped.
	NoPodRangeReason = "NoPodRange"
	// KernelLacksReason goes with False: the node's kernel lacks what it takes, and none is dropped.
	KernelLacksReason = "KernelLacks"
	// PodsOutsideReason goes with False: pods of the node have addresses outside of the ranges, where none is dropped.
	PodsOutsideReason = "PodsOutside"
	// PodsOfOthersReason goes with False: pods of other nodes have addresses in the ranges, and are dropped.
	PodsOfOthersReason = "PodsOfOthers"
)

// Reasons of [EnforcingCondition].
const (
	// EnforcingReason goes with True.
	EnforcingReason = "Enforcing"
	// RefusedReason goes with False: the kernel, or a program that writes to it, refused a step. What was enforced before stays.
	RefusedReason = "Refused"
	// UnreadableReason goes with False: what the kernel holds cannot be read, so that nobody knows whether anything is enforced.
	UnreadableReason = "Unreadable"
)

// AddressesCondition is the type of a condition that enforcers write into the status of pods which start on their node, long before the kubelet names the
// pod's addresses there: with True, its message is these addresses, in ascending order, separated by commas. Enforcers and controllers believe it of a pod
// none of whose containers has ever run, and only until status.podIPs says anything. With False, what was announced is the pod's no more.
const AddressesCondition = "policy.ringfence.io/AddressesAssigned"

// Reasons of [AddressesCondition].
const (
	// SandboxConnectedReason goes with True: the node's CNI plugins have given the addresses to the pod's sandbox.
	SandboxConnectedReason = "SandboxConnected"
	// SandboxGoneReason goes with False: the sandbox that had them is no more, or never came to be.
	SandboxGoneReason = "SandboxGone"
)

// HealthyCondition is the other condition of a NodeEnforcement: whether all works that the node's enforcer does besides the rules. False costs no policy
// its force on new connections. It turns False once something has failed for seconds, and True when nothing has for half a minute.
const HealthyCondition = "Healthy"

// Reasons of [HealthyCondition].
const (
	// HealthyReason goes with True.
	HealthyReason = "Healthy"
	// CutFailingReason goes with False: live connections that policy has come to deny cannot be listed or ended, and go on.
	CutFailingReason = "CutFailing"
	// NotInstalledReason goes with False: the CNI plugin is not in the network configuration, so that pods do not wait for their policy, or it is not as it
	// should be. The message says why: the container runtime would not find its program, for one.
	NotInstalledReason = "NotInstalled"
	// ArrivalsUnsavedReason goes with False: the addresses of pods that have just started cannot be written down. An enforcer that started now would not know
	// them until the API shows them.
	ArrivalsUnsavedReason = "ArrivalsUnsaved"
	// SetsLeftReason goes with False: sets that are needed no more stay, because rules of another program refer to them.
	SetsLeftReason = "SetsLeft"
	// ProbesNotServedReason goes with False: the enforcer cannot listen for the kubelet's probes, so that its pod is not ready.
	ProbesNotServedReason = "ProbesNotServed"
	// MetricsNotServedReason goes with False: the enforcer cannot listen for whoever reads its metrics.
	MetricsNotServedReason = "MetricsNotServed"
)

// TroubleReasons are the reasons for which Healthy is False, the gravest first. Where several apply it gives the reason, and the message has all.
var TroubleReasons = []string{CutFailingReason, NotInstalledReason, ArrivalsUnsavedReason, ProbesNotServedReason, MetricsNotServedReason, SetsLeftReason}

// NodeStanding says how a node stands to a policy that it should enforce.
//
// +kubebuilder:validation:Enum=Failing;Unknown;Pending
type NodeStanding string

// The ways for a node not to have a policy programmed, the worst first.
const (
	// NodeFailing is a node whose kernel refuses the policy, or what stands in its way.
	NodeFailing NodeStanding = "Failing"
	// NodeUnknown is a node that has no enforcer, or one that has not been heard of for too long.
	NodeUnknown NodeStanding = "Unknown"
	// NodePending is a node whose next report is waited for.
	NodePending NodeStanding = "Pending"
)
