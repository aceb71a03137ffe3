// Package policy states what one node must enforce, as plain data, and what that data means.
//
// A [Node] lists the local pods that some policy applies to, the policies, and the pod sets that the policies' rules refer to.
// [Node.Allows] is the reference semantics: whatever is rendered from a Node must give every packet the verdict that Allows gives it.
//
// Invariants, kept by whoever builds a Node and relied on by whoever reads it:
//   - an address belongs to at most one endpoint and, in a set, to the pods that hold it now;
//   - every [SetID] that a rule names is a key of [Node.Sets];
//   - lists are sorted, so that equal policies make equal Nodes;
//   - a policy of the stage NetworkPolicies applies to endpoints of one namespace alone;
//   - nobody writes to what stands in a Node, so that the next may have parts of it, and whoever sees the same memory again need not look into it;
//   - the sets are a [Map]: the next node's are made of them by what differs;
//   - a zero Peer or Ports matches nothing: forgetting to fill one closes, it never opens.
//
// The package knows nothing of Kubernetes objects, of ipsets or of iptables.
package policy

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Direction is the way a connection runs, seen from the pod that a policy isolates.
type Direction uint8

// The directions of networking.k8s.io/v1 PolicyType.
const (
	Ingress Direction = iota
	Egress
)

// Directions lists both, in the order in which they index [Endpoint.IsolatedBy] and [Policy.Rules].
var Directions = [...]Direction{Ingress, Egress}

// String is the name that the API gives the direction's rules: "ingress" or "egress".
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Protocol is an IP protocol number, as IANA assigns it.
type Protocol uint8

// The protocols that the API names, and those whose packets have a rule of their own.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// String is the name that iptables and ipset print for the protocol, its number if they have none.
func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "ipv6-icmp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprint(uint8(p))
}

// Node is all that one node must enforce.
type Node struct {
	// Endpoints are the local pods that at least one policy applies to, sorted by namespace and name.
	Endpoints []Endpoint
	// Policies are those that apply to at least one endpoint, by stage, and within a stage in the order in which they are asked.
	Policies []Policy
	// Closed are the addresses of this node's pods that get nothing through, whatever policies say, because no pod is known to hold them.
	Closed Closed
	// Links are the host's ends of local pods' interfaces, as far as it is known whose they are, sorted by name.
	Links []Link
	// LinksUnread is set as long as nobody knows which links there are: whatever holds some stays as it is.
	LinksUnread bool
	// Tunnels are the node's: nothing that comes from a link goes into them.
	Tunnels []Tunnel
	// Broadcasts are addresses that are for all pods of a bridge, beside those that IPv4 has for that.
	Broadcasts []netip.Addr
	// AuditSources is set where what a link forbids is noted, and goes on.
	AuditSources bool
	// LinkLocalHeld is set where nothing is forwarded to an IPv6 address of one link alone. No pod is known by such an address, so that no policy
	// would be asked.
	LinkLocalHeld bool
	// Shut is the set of the addresses of pods that are gone from the API while their links are still there: they get nothing through. Empty if there are
	// none, and where sources are only audited.
	Shut SetID
	// Sets are the pod sets that the policies' rules name, and those of Closed and Shut.
	Sets Map[SetID, Set]
	// Held are the addresses that known pods have: only where a rule is in doubt ([Rule.InDoubt]), and none everywhere else. Any other address may be
	// that of a pod which is not known.
	Held Members
	// Concerns says of what the rest is made. It is for reports: nothing is enforced by it.
	Concerns Concerns
}

// Closed are address ranges of one node's pods. An address in them that is not known gets nothing through, in either direction, with one exception: those
// that the node has itself.
type Closed struct {
	// Ranges are masked and sorted, and none lies within another. Without any, nothing is closed.
	Ranges []netip.Prefix
	// Known is the set of the addresses in Ranges that local pods hold, whether a policy applies to these or not.
	Known SetID
}

// Concerns are the policies and pods that a node enforces something for, or would but for others.
type Concerns struct {
	// Objects are the API objects that select a local pod, sorted by Ref; those too that change nothing, as an audited object beside an
	// enforced one.
	Objects []Object
	// Pods are the digests of the local pods that they select, ascending; those too whose addresses other pods hold.
	Pods []uint64
	// Addrs are the addresses of each of Pods, by its digest.
	Addrs map[uint64][]netip.Addr
	// Outside are addresses of local pods that lie in none of the closed ranges, and Strange those in them that pods of other nodes hold: with either, the
	// ranges are not this node's. Both are empty where nothing is closed.
	Outside, Strange Some
	// Links says how many of the node's links are tied to their pods, and how.
	Links LinkCounts
	// Contested are the addresses that the API gives to several pods.
	Contested Contests
	// Impossible are the pods and nodes that the API gives an address which none can have.
	Impossible Impossible
	// InDoubt are the addresses of endpoints that an enforced policy with a rule in doubt applies to, sorted.
	InDoubt []netip.Addr
}

// LinkCounts are of the links of one node, and of its pods.
type LinkCounts struct {
	ByResult, ByKernel int    // links that are tied to a pod: by the results of CNI plugins, by the addresses that the kernel shows at their other end
	Exempt             int    // links of pods that may send from any address
	Shut               int    // links whose pods are gone
	Untied             int    // pods whose link is not known
	First              string // one of those, "namespace/name"
}

// MaxNamed is how many contested addresses, and how many owners of impossible ones, are named; all are counted.
const MaxNamed = 10

// Contests are the addresses that the API gives to several pods, as far as that concerns a node.
type Contests struct {
	// Here is how many a pod of this node has, and Elsewhere how many pods of several other nodes.
	Here, Elsewhere int
	// First are at most [MaxNamed] of them, those of this node first.
	First []Contest
}

// Contest is an address that the API gives to several pods.
type Contest struct {
	Addr netip.Addr
	Here bool // a pod of this node has it
	Pods int
	// Holder is the pod whose address this node takes it for, zero if it is nobody's, and Other the first of the others.
	Holder, Other Owner
}

// Compare orders contests: those of this node first, then by address.
func (c Contest) Compare(o Contest) int {
	if c.Here != o.Here {
		if c.Here {
			return -1
		}
		return 1
	}
	return c.Addr.Compare(o.Addr)
}

// Impossible are the pods and nodes that the API gives an address which none can have.
type Impossible struct {
	// Here is how many of them are of this node, and Elsewhere how many of others.
	Here, Elsewhere int
	// First are at most [MaxNamed] of them, those of this node first.
	First []Owner
}

// Owner is a pod or a Node that the API gives an address.
type Owner struct {
	Ref  Ref
	Node string // that it is on, or is
}

// Some are addresses of which one says enough.
type Some struct {
	Count int
	First netip.Addr // the lowest
}

// Add takes in one more.
func (s *Some) Add(a netip.Addr) {
	if s.Count == 0 || a.Less(s.First) {
		s.First = a
	}
	s.Count++
}

// Object is one version of an API object.
type Object struct {
	Ref        Ref
	UID        string
	Generation int64
	Mode       string // that a NetworkPolicy says itself, in an annotation: those have no generation
	Audit      bool   // what comes of that, and of what its namespace says
}

// Stage is a place in the order in which policies are asked about a direction of an endpoint. The tiers of the API are Admin, NetworkPolicy and
// Baseline; within Admin and Baseline, rules come before isolation.
type Stage uint8

// The stages, in their order.
const (
	AdminRules Stage = iota
	AdminIsolation
	NetworkPolicies
	BaselineRules
	BaselineIsolation
)

// Stages lists all, in their order, in which they index [Endpoint.Applies].
var Stages = [...]Stage{AdminRules, AdminIsolation, NetworkPolicies, BaselineRules, BaselineIsolation}

// Tier is the API's name of the tier that a stage belongs to: Admin, NetworkPolicy or Baseline.
func (s Stage) Tier() string {
	switch s {
	case AdminRules, AdminIsolation:
		return "Admin"
	case NetworkPolicies:
		return "NetworkPolicy"
	}
	return "Baseline"
}

// String is what a person calls the stage.
func (s Stage) String() string {
	return [...]string{"Admin rules", "Admin isolation", "NetworkPolicies", "Baseline rules", "Baseline isolation"}[s]
}

// Isolates reports what a stage does with an endpoint that one of its policies applies to. In a stage that isolates, the policies of
// an endpoint add up: what no rule of any of them accepts is denied. In the others the first rule that matches decides, and what matches none goes
// on to the next stage.
func (s Stage) Isolates() bool {
	return s == AdminIsolation || s == NetworkPolicies || s == BaselineIsolation
}

// Endpoint is a local pod that at least one policy applies to.
type Endpoint struct {
	Namespace, Name string
	// Addrs are all addresses of the pod, of either family, sorted.
	Addrs []netip.Addr
	// Applies holds, per direction and stage, the indexes in [Node.Policies] of the policies that apply to the pod, ascending. In a
	// stage that isolates they are either all enforced or all audited: beside an enforced policy an audited one would only allow more.
	Applies [2][len(Stages)][]int
}

// IsSubject reports whether any policy applies to the endpoint in a direction.
func (e *Endpoint) IsSubject(d Direction) bool {
	for _, policies := range e.Applies[d] {
		if len(policies) > 0 {
			return true
		}
	}
	return false
}

// Ref names the API object that a policy came from. Where two API groups have a kind of the same name, that of the group which is not
// ours is qualified: "ClusterNetworkPolicy.policy.networking.k8s.io".
type Ref struct {
	Kind, Namespace, Name string
}

// String is "Kind namespace/name", or "Kind name" for a cluster-scoped object.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Compare orders refs by kind, namespace and name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(
		cmp.Compare(r.Kind, o.Kind), cmp.Compare(r.Namespace, o.Namespace), cmp.Compare(r.Name, o.Name))
}

// Policy is one object's rules, or the part of them that is for one tenant. A direction without rules accepts nothing from or to the
// pods that the policy isolates in it.
type Policy struct {
	Ref Ref
	// Part tells apart the policies that one object became, empty if it became one.
	Part  string
	Stage Stage
	// Audit is set where the policy changes no verdict: what it would deny is noted.
	Audit bool
	// Log is set where all that the policy denies is logged, whatever its rules ask for.
	Log   bool
	Rules [2][]Rule // by Direction, in the order in which they are asked
}

// Action is what becomes of a flow that a rule matches.
type Action uint8

// The actions. A rule with the zero action matches nothing.
const (
	NoAction Action = iota
	// Accept allows the flow in the rule's direction, with two exceptions: what Admin isolation accepts has yet to pass the next
	// stages, and what an audited policy accepts is merely not noted.
	Accept
	// Deny drops the flow.
	Deny
	// Pass leaves the tier: NetworkPolicies are asked next after the Admin tier, nothing after the Baseline tier.
	Pass
)

// String is the action as the API writes it.
func (a Action) String() string { return [...]string{"nothing", "Accept", "Deny", "Pass"}[a] }

// Rule is about a flow whose remote end is in Peer and whose destination port is in Ports. One rule of an API object becomes several
// when its peers and ports need different matches; they stand together.
type Rule struct {
	Index  int    // of the rule in the API object's ingress or egress list, -1 for a rule that no list has
	Name   string // that the object gives the rule
	Action Action
	Log    bool // what the rule denies is logged
	// InDoubt is set while pods are not known that the rule may be about (doubt.go). A rule that accepts or passes then matches none of them. One that denies
	// stands behind a rule of the object that denies or passes, and denies what that one may be about.
	InDoubt bool
	Peer    Peer
	Ports   Ports
}

// PeerKind says which field of a Peer counts.
type PeerKind uint8

// The kinds of peers. The zero kind matches nothing.
const (
	NoPeer   PeerKind = iota
	AnyPeer           // every address
	InSet             // the addresses of Peer.Set
	InBlocks          // the union of Peer.Blocks
)

// Peer is the remote end of a connection: its source for ingress, its destination for egress.
type Peer struct {
	Kind PeerKind
	// Set are the addresses, of the kind InSet. Beside Blocks it is their name, by which they are told from others without being compared; it may be empty.
	Set    SetID
	Blocks []Block
}

// Block is an IP block of the API: the addresses in Prefix that are in none of Except. Prefixes are masked,
// and each exception lies strictly within Prefix.
type Block struct {
	Prefix netip.Prefix
	Except []netip.Prefix
}

// PortsKind says which field of a Ports counts.
type PortsKind uint8

// The kinds of ports. The zero kind matches nothing.
const (
	NoPorts  PortsKind = iota
	AnyPort            // every protocol and port, ICMP included
	InRanges           // the union of Ports.Ranges
	InPorts            // the (address, protocol, port) entries of Ports.Set, compared with the destination
)

// Ports restricts the destination port of a flow.
type Ports struct {
	Kind     PortsKind
	Ranges   []PortRange
	Set      SetID
	Protocol Protocol // of every entry of Set; 0 if they differ
}

// PortRange is an inclusive range of destination ports of one protocol.
type PortRange struct {
	Protocol Protocol
	First    uint16
	Last     uint16
}

// AllPorts is the range of every port of p.
func AllPorts(p Protocol) PortRange { return PortRange{Protocol: p, First: 0, Last: 65535} }

// SetID identifies what a set stands for, whatever its members are at the moment: two rules with the same
// selector share the set. It is built from length-prefixed parts, so that no two selectors share an ID.
type SetID string

// SetKind says what the members of a set are.
type SetKind uint8

// The kinds of sets.
const (
	Addresses    SetKind = iota + 1 // members are addresses
	AddressPorts                    // members are addresses with a protocol and a port
)

// Set is what a selector stands for now.
type Set struct {
	Kind    SetKind
	Members Members
}

// Member is one address of a set, with a protocol and a port in a set of AddressPorts.
type Member struct {
	Addr     Addr
	Protocol Protocol
	Port     uint16
}

// Ends tell most lists of members that differ from each other, without a look at all of them.
type Ends struct {
	Length      int
	First, Last Member
}

// IsOneSlice reports whether two slices are one, without a look at what is in them.
func IsOneSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Compare orders members by address, protocol and port.
func (m Member) Compare(o Member) int {
	return cmp.Or(m.Addr.Compare(o.Addr), cmp.Compare(m.Protocol, o.Protocol), cmp.Compare(m.Port, o.Port))
}
