package compile

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Snapshot is the state of the cluster, as one node has seen it, at one moment. The objects in it are shared with
// caches: nobody writes to them.
type Snapshot struct {
	// Node is the name of the node to compile for.
	Node string
	// Local are the pods of this node, and Remote all others: those of other nodes, and of none yet.
	Local      []*Pod
	Remote     Objects[*Pod]
	Elsewhere  Elsewhere
	Namespaces Objects[*Namespace]
	// Nodes are all nodes, or none as long as no policy has nodes for a peer, and pods of other nodes do not contest an address.
	Nodes    []*Node
	Policies Objects[*networkingv1.NetworkPolicy]
	// ClusterPolicies are our own and the SIG's, which are converted and keep their APIVersion.
	ClusterPolicies []*v1alpha1.ClusterNetworkPolicy
	Isolations      []*v1alpha1.NamespaceIsolation
	DNS             DNS
	// Closed are the address ranges of the node's pods in which an address that no local pod is known to hold gets nothing through; none, by default.
	Closed []netip.Prefix
	// Ranges are all that are known to be of this node's pods, closed or not.
	Ranges []netip.Prefix
	Network
}

// Elsewhere says which pods of other nodes a snapshot has. The zero value is all of them.
type Elsewhere struct {
	// Partial is set where pods are left out which the node's policies cannot name. Nothing follows from the absence of a pod then.
	Partial bool
	// Unknown are the namespaces, sorted, that the node's policies can name, and whose pods are missing all the same, or some of them. What policies say of
	// these pods fails closed (doubt.go).
	Unknown []string
}

// isAll reports whether an address that no pod of the snapshot has is no pod's.
func (e Elsewhere) isAll() bool { return !e.Partial && len(e.Unknown) == 0 }

// WithPods is the snapshot with more pods, each in its place.
func (s Snapshot) WithPods(pods ...*Pod) Snapshot {
	var remote []*Pod
	s.Local = slices.Clone(s.Local)
	for _, p := range pods {
		if p.Node == s.Node {
			s.Local = append(s.Local, p)
		} else {
			remote = append(remote, p)
		}
	}
	if s.Remote.Len() == 0 {
		s.Remote = ObjectsOf(remote...)
		return s
	}
	for _, p := range remote {
		s.Remote = s.Remote.With(p)
	}
	return s
}

// Pods are all pods, in no order.
func (s Snapshot) Pods() iter.Seq[*Pod] {
	return func(yield func(*Pod) bool) {
		for _, p := range s.Local {
			if !yield(p) {
				return
			}
		}
		s.Remote.All()(yield)
	}
}

// Network is how a node is wired to its pods and to other nodes.
type Network struct {
	// Links are the host's ends of interfaces in other network namespaces, pods' among them.
	Links []Link
	// Unread is set as long as they could not be read, not once.
	Unread bool
	// SourceCheck says what becomes of what comes from a pod's link with a source that is not the pod's.
	SourceCheck SourceCheck
	// Own are the addresses that the node has itself, those in its status and others, such as a bridge's.
	Own []netip.Addr
	// Tunnels are by which the node and others send each other pods' packets, and Broadcasts the addresses that are for all who are in one of its networks.
	Tunnels    []policy.Tunnel
	Broadcasts []netip.Addr
}

// DNS is where pods ask for names.
type DNS struct {
	// Services are those of the cluster's DNS.
	Services []*corev1.Service
	// Addresses are those at which nodes answer themselves, on port 53.
	Addresses []netip.Addr
}

// Pod is what policy needs to know of a pod. A cluster has many: it is small, and an [Interner] has them share what they have in common.
type Pod struct {
	Namespace, Name, UID string
	// Created is the creation time in Unix seconds.
	Created int64
	Node    string
	Labels  Labels
	// Addrs are the addresses that it has, by what Source says.
	Addrs []netip.Addr
	// Ports are the named ports of all containers, init and sidecar containers included.
	Ports       []NamedPort
	HostNetwork bool
	// Finished is set for a pod in phase Succeeded or Failed: its addresses may belong to another pod already.
	Finished bool
	// Terminating is set for a pod with a deletion timestamp: it is enforced until it is gone.
	Terminating bool
	// Impossible is set if the API shows it with an address that no pod can have, which is not among Addrs.
	Impossible bool
	Source     Source
	// Beside is what few pods have, nil of all others.
	Beside *Beside
}

// Beside is what is known of a pod besides what the API shows.
type Beside struct {
	// Given are addresses that CNI plugins have given the pod beside Addrs: it may send from them, and policy is about them too. The API shows none of them.
	Given []netip.Addr

	reported *Pod // as the API has it, of a copy with other addresses
}

// given are the addresses that CNI plugins have given the pod beside its own.
func (p *Pod) given() []netip.Addr {
	if p.Beside == nil {
		return nil
	}
	return p.Beside.Given
}

// asReported is the pod as the API has it.
func (p *Pod) asReported() *Pod {
	if p.Beside == nil || p.Beside.reported == nil {
		return p
	}
	return p.Beside.reported
}

// withAddrs is a copy of the pod with these addresses.
func (p *Pod) withAddrs(addrs []netip.Addr) *Pod {
	q := *p
	q.Addrs, q.Beside = addrs, &Beside{Given: p.given(), reported: p.asReported()}
	return &q
}

// GetNamespace and GetName are by what [Objects] know a pod.
func (p *Pod) GetNamespace() string { return p.Namespace }

// GetName is its name.
func (p *Pod) GetName() string { return p.Name }

// Source is whence it is known which addresses a pod has.
type Source uint8

const (
	// Shown are those in status.podIPs that could be parsed, which may be none.
	Shown Source = iota
	// Announced are those that the enforcer of the pod's node has announced, as long as status.podIPs has none.
	Announced
	// Arrived are those that the CNI plugins of this node have given the pod, as long as status.podIPs has none of them.
	Arrived
)

// NamedPort is a container port that a policy can refer to by name.
type NamedPort struct {
	Name     string
	Protocol policy.Protocol
	Port     uint16
}

// Namespace is what policy needs to know of a namespace.
type Namespace struct {
	Name   string
	Labels Labels
	// Mode is the namespace's [v1alpha1.ModeAnnotation], empty if it has none.
	Mode string
	// Logged is set if what is denied to and by its pods is sampled: see [v1alpha1.ConnectionsAnnotation].
	Logged bool
	// Watched is set if connections of its pods that are allowed are looked for too, likewise.
	Watched bool
	// SourceCheckOff is set if pods of the namespace may send from any address: see [v1alpha1.SourceCheckAnnotation].
	SourceCheckOff bool
}

// GetNamespace is empty: a namespace is in none.
func (n *Namespace) GetNamespace() string { return "" }

// GetName is its name.
func (n *Namespace) GetName() string { return n.Name }

// Node is what policy needs to know of a node.
type Node struct {
	Name   string
	Labels Labels
	// Addrs are the addresses in its status that are IP addresses, and that a node can have.
	Addrs []netip.Addr
	// Impossible is set if its status has an IP address that no node can have.
	Impossible bool
	// Ranges are those that its spec names for its pods, none if it names none. In each, the first address and the one after it are never a pod's, but the
	// node's: of a tunnel, such as Flannel's, and of the pods' bridge.
	Ranges []netip.Prefix
}

// NewPod takes from p what policy needs. An address that does not parse, or that no pod can have, is left out: a set cannot hold it, and no
// packet of the pod can carry it.
func NewPod(p *corev1.Pod) *Pod {
	name := p.Name + string(p.UID) // one text for both, which takes less than two
	pod := &Pod{
		Namespace:   intern(p.Namespace),
		Name:        name[:len(p.Name)],
		UID:         name[len(p.Name):],
		Created:     p.CreationTimestamp.Unix(),
		Node:        intern(p.Spec.NodeName),
		Labels:      NewLabels(p.Labels),
		HostNetwork: p.Spec.HostNetwork,
		Finished:    p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		Terminating: p.DeletionTimestamp != nil,
	}
	texts := []string{p.Status.PodIP}
	for _, ip := range p.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	if pod.Addrs, pod.Impossible = parseAddrs(texts, IsPossible); len(pod.Addrs) == 0 {
		if pod.Addrs = announced(p); len(pod.Addrs) > 0 {
			pod.Source = Announced
		}
	}
	pod.Ports = namedPorts(p)
	return pod
}

// namedPorts are the ports with a name of all containers of p.
func namedPorts(p *corev1.Pod) []NamedPort {
	var ports []NamedPort
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range containers {
			ports = appendNamed(ports, c.Ports)
		}
	}
	return ports
}

func appendNamed(to []NamedPort, ports []corev1.ContainerPort) []NamedPort {
	for _, p := range ports {
		protocol, ok := protocolOf(p.Protocol)
		if p.Name != "" && ok && p.ContainerPort > 0 && p.ContainerPort <= 65535 {
			to = append(to, NamedPort{p.Name, protocol, uint16(p.ContainerPort)})
		}
	}
	return to
}

// NewNamespace takes from n what policy needs.
func NewNamespace(n *corev1.Namespace) *Namespace {
	connections := n.Annotations[v1alpha1.ConnectionsAnnotation]
	return &Namespace{
		Name: n.Name, Labels: NewLabels(n.Labels).interned(), Mode: n.Annotations[v1alpha1.ModeAnnotation],
		Logged:         connections == v1alpha1.ConnectionsDenied || connections == v1alpha1.ConnectionsAll,
		Watched:        connections == v1alpha1.ConnectionsAll,
		SourceCheckOff: n.Annotations[v1alpha1.SourceCheckAnnotation] == v1alpha1.SourceCheckOff,
	}
}

// NewNode takes from n what policy needs. Names among its addresses are left out.
func NewNode(n *corev1.Node) *Node {
	texts := make([]string, 0, len(n.Status.Addresses))
	for _, a := range n.Status.Addresses {
		texts = append(texts, a.Address)
	}
	node := &Node{Name: n.Name, Labels: NewLabels(n.Labels).interned(), Ranges: PodRanges(n)}
	node.Addrs, node.Impossible = parseAddrs(texts, isPossibleOfNode)
	return node
}

// PodRanges are those that a node names for its pods. What does not parse is left out.
func PodRanges(n *corev1.Node) []netip.Prefix {
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 {
		texts = []string{n.Spec.PodCIDR}
	}
	var ranges []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, p.Masked())
		}
	}
	return ranges
}

// parseAddrs are the texts that are addresses and possible, sorted, each once. It reports whether others were addresses too.
func parseAddrs(texts []string, possible func(netip.Addr) bool) (parsed []netip.Addr, impossible bool) {
	var room [4]netip.Addr // status.podIP is also the first of status.podIPs: what is kept is smaller than what is parsed
	addrs := room[:0]
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		if a = a.Unmap().WithZone(""); possible(a) {
			addrs = append(addrs, a)
		} else {
			impossible = true
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	if len(addrs) == 0 {
		return nil, impossible
	}
	return slices.Clone(slices.Compact(addrs)), impossible
}

// protocolOf is the number of the API's protocol name; the empty name is TCP, as the API defaults it.
func protocolOf(p corev1.Protocol) (policy.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return policy.TCP, true
	case corev1.ProtocolUDP:
		return policy.UDP, true
	case corev1.ProtocolSCTP:
		return policy.SCTP, true
	}
	return 0, false
}

// Labels are an object's labels, sorted by key: a third of the size of a map. Pods with the same labels share them, so nobody writes to
// them.
type Labels []Label

// Label is one label.
type Label struct{ Key, Value string }

// NewLabels is m as Labels.
func NewLabels(m map[string]string) Labels {
	l := make(Labels, 0, len(m))
	for k, v := range m {
		l = append(l, Label{k, v})
	}
	slices.SortFunc(l, func(a, b Label) int { return strings.Compare(a.Key, b.Key) })
	return l
}

// interned is l with strings that other objects have too. Namespaces and nodes have no list of labels in common: each is labelled with its name.
func (l Labels) interned() Labels {
	for i := range l {
		l[i] = internLabel(l[i])
	}
	return l
}

// Lookup is the value of a key, and whether the key is there. With Has and Get it makes Labels a labels.Labels.
func (l Labels) Lookup(key string) (string, bool) {
	for i := range l {
		if l[i].Key == key {
			return l[i].Value, true
		}
	}
	return "", false
}

// Has reports whether the key is there.
func (l Labels) Has(key string) bool {
	_, ok := l.Lookup(key)
	return ok
}

// Get is the value of a key, empty if it is not there.
func (l Labels) Get(key string) string {
	value, _ := l.Lookup(key)
	return value
}
