package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/lab/twin"
)

// Family is an IP family.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Cluster is what the API server holds, and who is there.
type Cluster struct {
	oracle.Cluster
	// Name is that of who is there: clusters of one name have the same actors.
	Name string
	// Family is the one that is looked at.
	Family Family
	// Actors are the ends of lines. They stay where they are, whatever the API server holds of them.
	Actors []Actor

	literal bool // blocks are meant as they stand
}

// Actor is an end of lines.
type Actor struct {
	Name   string
	Role   Role
	V4, V6 netip.Addr
	// Node is where a pod is, or which node has the address.
	Node string
	// Backend is the pod behind a service.
	Backend string
}

// Role is what an actor is.
type Role int

// The roles.
const (
	Nobody  Role = iota // an address that nobody has
	Pod                 // a pod with a network of its own
	Node                // a node, a pod on its network, or another address of it
	Outside             // an address outside of the cluster
	Virtual             // a service's address, which is translated
)

// A service is at ServicePort, and its backend at TargetPort, over TCP, UDP and SCTP.
const (
	ServicePort = 8080
	TargetPort  = 80
)

// In is the actor's address of a family.
func (a Actor) In(f Family) netip.Addr {
	if f == IPv6 {
		return a.V6
	}
	return a.V4
}

// Actor finds an actor by its name.
func (c *Cluster) Actor(name string) (Actor, bool) {
	i := slices.IndexFunc(c.Actors, func(a Actor) bool { return a.Name == name })
	if i < 0 {
		return Actor{}, false
	}
	return c.Actors[i], true
}

// v4 is the IPv4 address of an actor.
func (c *Cluster) v4(name string) netip.Addr {
	a, _ := c.Actor(name)
	return a.V4
}

// actor is an actor, or an address.
func (c *Cluster) actor(name string) (Actor, error) {
	if a, ok := c.Actor(name); ok {
		return a, nil
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return Actor{}, fmt.Errorf("%q is neither an actor nor an address", name)
	}
	if addr.Is6() {
		return Actor{Name: name, V6: addr}, nil
	}
	return Actor{Name: name, V4: addr, V6: twin.Of(addr)}, nil
}

// NodeNames are the names of the nodes that are there.
func (c *Cluster) NodeNames() []string {
	var names []string
	for _, a := range c.Actors {
		if a.Role == Node && a.Name == a.Node {
			names = append(names, a.Name)
		}
	}
	return names
}

// NodeAddrs are the addresses that a node has itself.
func (c *Cluster) NodeAddrs(node string) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range c.Actors {
		if a.Role == Node && a.Node == node {
			addrs = append(addrs, a.V4, a.V6)
		}
	}
	return addrs
}

// Pod finds a pod to change, by its name alone.
func (c *Cluster) Pod(name string) *corev1.Pod {
	return c.Pods[slices.IndexFunc(c.Pods, func(p *corev1.Pod) bool { return p.Name == name })]
}

// Namespace finds a namespace to change.
func (c *Cluster) Namespace(name string) *corev1.Namespace {
	return c.Namespaces[slices.IndexFunc(c.Namespaces, func(n *corev1.Namespace) bool { return n.Name == name })]
}

// Node finds a node to change.
func (c *Cluster) Node(name string) *corev1.Node {
	return c.Nodes[slices.IndexFunc(c.Nodes, func(n *corev1.Node) bool { return n.Name == name })]
}

// Remove removes a pod.
func (c *Cluster) Remove(pod string) {
	c.Pods = slices.DeleteFunc(c.Pods, func(p *corev1.Pod) bool { return p.Name == pod })
}

// Add adds a pod at the address of the actor of its name.
func (c *Cluster) Add(p *corev1.Pod) *corev1.Pod {
	a, _ := c.Actor(p.Name)
	c.Pods = append(c.Pods, atBoth(p, a.V4, a.V6))
	return p
}

// CloseUnknown has nodes drop what no known pod of theirs holds, in the /24 of their pods.
func (c *Cluster) CloseUnknown() {
	c.Closed = map[string][]netip.Prefix{}
	for i, node := range c.NodeNames() {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 0}), 24)
		c.Closed[node] = []netip.Prefix{p, twin.OfPrefix(p)}
	}
}

// Withdraw removes all policies.
func (c *Cluster) Withdraw() { c.Policies, c.ClusterPolicies, c.Isolations = nil, nil, nil }

func newNamespace(name string, labels ...string) *corev1.Namespace {
	m := labelMap(labels)
	m[corev1.LabelMetadataName] = name
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: m}}
}

// newNode is a node with an address and its twin, and with its name for a host name.
func newNode(name string, a netip.Addr, labels ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelMap(labels)}}
	addAddresses(n, a.String(), twin.Of(a).String(), name)
	return n
}

func addAddresses(n *corev1.Node, addrs ...string) {
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
}

// NewPod is a running pod "namespace/name" without addresses, with labels such as "app=web".
func NewPod(path, node string, labels ...string) *corev1.Pod {
	ns, name, _ := strings.Cut(path, "/")
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: name, UID: types.UID(path), Labels: labelMap(labels), CreationTimestamp: metav1.Unix(1000, 0),
		},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// At gives the pod an address and its twin.
func At(p *corev1.Pod, a netip.Addr) *corev1.Pod { return atBoth(p, a, twin.Of(a)) }

func atBoth(p *corev1.Pod, v4, v6 netip.Addr) *corev1.Pod {
	p.Status.PodIP, p.Status.PodIPs = v4.String(), []corev1.PodIP{{IP: v4.String()}, {IP: v6.String()}}
	return p
}

// created sets the creation time.
func created(p *corev1.Pod, seconds int64) *corev1.Pod {
	p.CreationTimestamp = metav1.NewTime(time.Unix(seconds, 0))
	return p
}

func terminate(p *corev1.Pod) *corev1.Pod {
	now := metav1.NewTime(time.Unix(3000, 0))
	p.DeletionTimestamp = &now
	return p
}

func finish(p *corev1.Pod, phase corev1.PodPhase) *corev1.Pod {
	p.Status.Phase = phase
	return p
}

func labelMap(labels []string) map[string]string {
	m := map[string]string{}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		m[k] = v
	}
	return m
}

// AddPorts adds a container with named ports such as "http=TCP/80".
func AddPorts(to *[]corev1.Container, named ...string) {
	c := corev1.Container{Name: fmt.Sprintf("c%d", len(*to))}
	for _, n := range named {
		p := corev1.ContainerPort{}
		name, rest, _ := strings.Cut(n, "=")
		protocol, number, _ := strings.Cut(rest, "/")
		if _, err := fmt.Sscan(number, &p.ContainerPort); err != nil {
			panic(fmt.Sprintf("port %q: %v", n, err))
		}
		p.Name, p.Protocol = name, corev1.Protocol(protocol)
		c.Ports = append(c.Ports, p)
	}
	*to = append(*to, c)
}
