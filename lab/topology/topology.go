// Package topology wires small clusters out of hosts, without CNI plugins and without Kubernetes: nodes with pods, a
// wire between the nodes, and a host outside of the cluster.
//
//	pod  pod     pod  pod
//	  \  /         \  /
//	   n1 ── wire ── n2
//	          │
//	       outside
//
// Invariants:
//   - everything has an IPv4 address and its twin, so that a test written for one family holds for the other; where
//     [Options] say IPv4Only, links have the link-local addresses that the kernel gives them, and no other IPv6 address;
//   - pod addresses are seen by everybody as they are: only what a service sends back to its own client is masqueraded;
//   - a topology works when New returns: nothing needs to settle.
package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/twin"
)

// Kind is the way in which a node's pods are attached to it.
type Kind string

// The kinds. Between them lies the difference that matters to netfilter: on a bridge, packets between two pods of a node
// reach it only through br_netfilter, and neighbour discovery passes ip6tables.
const (
	Bridged Kind = "bridged" // ports of one bridge, as the bridge plugin makes them, with hairpin mode
	Routed  Kind = "routed"  // a link and a host route per pod, as ptp and the cloud plugins make them
)

// Kinds lists all.
var Kinds = [...]Kind{Bridged, Routed}

// Options say what to build.
type Options struct {
	// Prefix begins the names of all hosts.
	Prefix string
	Kind   Kind
	Nodes  int
	// Backend, "legacy" or "nft", is the iptables back end that services are made with.
	Backend string
	// IPv4Only leaves the twins out, as in a cluster of one family on hosts whose kernel knows both.
	IPv4Only bool
}

// Topology is a cluster's network. Its methods may be called from several goroutines at once.
type Topology struct {
	Nodes   []*Node
	Outside *host.Host

	options Options
	wire    *host.Host

	mu    sync.Mutex
	hosts []*host.Host // all, in the order in which they were made
	links int          // pod links made so far
}

// Node is a host that forwards for its pods.
type Node struct {
	*host.Host
	// Addr is the node's address on the wire, an IPv4 one; its twin is there too.
	Addr netip.Addr
	// Pods is the prefix of the pods' addresses.
	Pods netip.Prefix

	next netip.Addr // of the next pod
}

// Pod is a host behind a node.
type Pod struct {
	*host.Host
	Node *Node
	Addr netip.Addr

	link string // the node's end
}

// OutsideAddr is the outside host's address on the wire; its twin is there too.
var OutsideAddr = netip.MustParseAddr("172.18.0.250")

// The rest of the address plan. The twins follow it.
var (
	wireNet    = netip.MustParsePrefix("172.18.0.0/24")
	everything = netip.MustParsePrefix("0.0.0.0/0")

	// A routed pod's gateway is a link-local address that every link of the node has.
	routedGateway   = netip.MustParseAddr("169.254.1.1")
	routedGatewayV6 = netip.MustParsePrefix("fe80::1/64")
)

const (
	wireBridge = "wire"
	podBridge  = "pods"
)

// New builds a topology without pods.
func New(o Options) (*Topology, error) {
	t := &Topology{options: o}
	if err := t.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("building topology %s: %w", o.Prefix, err), t.Close())
	}
	return t, nil
}

func (t *Topology) build() error {
	var err error
	if t.wire, err = t.newHost("wire"); err != nil {
		return err
	}
	if err := errors.Join(t.wire.Bridge(wireBridge), setBridgeNetfilter(t.wire, "0")); err != nil {
		return err
	}
	if t.Outside, err = t.newHost("outside"); err != nil {
		return err
	}
	if err := t.plugIn(t.Outside, "outside", OutsideAddr); err != nil {
		return err
	}
	for i := range t.options.Nodes {
		n, err := t.newNode(i + 1)
		if err != nil {
			return err
		}
		if err := t.routeTo(n); err != nil {
			return err
		}
		t.Nodes = append(t.Nodes, n)
	}
	return nil
}

// Close removes all hosts.
func (t *Topology) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, h := range t.hosts {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}

func (t *Topology) newHost(name string) (*host.Host, error) {
	h, err := host.New(t.options.Prefix + name)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.hosts = append(t.hosts, h)
	t.mu.Unlock()
	return h, nil
}

func (t *Topology) newNode(i int) (*Node, error) {
	name := fmt.Sprintf("n%d", i)
	h, err := t.newHost(name)
	if err != nil {
		return nil, err
	}
	n := &Node{
		Host: h,
		Addr: netip.AddrFrom4([4]byte{172, 18, 0, byte(i)}),
		Pods: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24),
	}
	gateway := n.Pods.Addr().Next()
	n.next = gateway.Next()
	forwardIPv6 := "1"
	if t.options.IPv4Only {
		forwardIPv6 = "0"
	}
	err = errors.Join(
		h.Sysctl("net/ipv4/ip_forward", "1"),
		h.Sysctl("net/ipv4/conf/all/send_redirects", "0"),
		h.Sysctl("net/ipv4/conf/default/send_redirects", "0"),
		h.Sysctl("net/ipv6/conf/all/forwarding", forwardIPv6),
		setBridgeNetfilter(h, "1"),
		t.plugIn(h, name, n.Addr),
	)
	if err == nil && t.options.Kind == Bridged {
		err = errors.Join(h.Bridge(podBridge), t.addBoth(h, podBridge, gateway, n.Pods.Bits()))
	}
	return n, err
}

// setBridgeNetfilter says whether bridged packets pass iptables.
func setBridgeNetfilter(h *host.Host, value string) error {
	return errors.Join(
		h.Sysctl("net/bridge/bridge-nf-call-iptables", value),
		h.Sysctl("net/bridge/bridge-nf-call-ip6tables", value),
	)
}

// plugIn gives h an interface on the wire.
func (t *Topology) plugIn(h *host.Host, port string, a netip.Addr) error {
	err := host.Veth(host.End{Host: h, Link: "eth0"}, host.End{Host: t.wire, Link: port})
	if err != nil {
		return err
	}
	return errors.Join(t.wire.Enslave(port, wireBridge, false), t.addBoth(h, "eth0", a, wireNet.Bits()))
}

// routeTo tells the hosts on the wire where the new node's pods are, and the new node where theirs are.
func (t *Topology) routeTo(n *Node) error {
	errs := []error{t.routeBoth(t.Outside, n.Pods, n.Addr, "")}
	for _, other := range t.Nodes {
		errs = append(errs, t.routeBoth(other.Host, n.Pods, n.Addr, ""), t.routeBoth(n.Host, other.Pods, other.Addr, ""))
	}
	return errors.Join(errs...)
}

// AddOutside gives the outside host a further address of either family.
func (t *Topology) AddOutside(a netip.Addr) error {
	via := OutsideAddr
	if a.Is6() {
		via = twin.Of(via)
	}
	p := netip.PrefixFrom(a, a.BitLen())
	errs := []error{t.Outside.Address("eth0", p)}
	for _, n := range t.Nodes {
		errs = append(errs, n.Route(p, via, ""))
	}
	return errors.Join(errs...)
}

// ForgetConnections empties the connection tracking of all nodes: what was established before must prove itself anew.
func (t *Topology) ForgetConnections() error {
	var errs []error
	for _, n := range t.Nodes {
		nl, err := n.Netlink()
		if err == nil {
			err = nl.ConntrackTableFlush(netlink.ConntrackTable)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("flushing connection tracking: %w", err)
	}
	return nil
}

// addBoth adds a, with a prefix of the given length, and its twin where there are twins.
func (t *Topology) addBoth(h *host.Host, link string, a netip.Addr, bits int) error {
	p := netip.PrefixFrom(a, bits)
	if t.options.IPv4Only {
		return h.Address(link, p)
	}
	return errors.Join(h.Address(link, p), h.Address(link, netip.PrefixFrom(twin.Of(a), twin.OfPrefix(p).Bits())))
}

// routeBoth routes p, and its twin where there are twins; via may be the zero address.
func (t *Topology) routeBoth(h *host.Host, p netip.Prefix, via netip.Addr, link string) error {
	if t.options.IPv4Only {
		return h.Route(p, via, link)
	}
	var viaV6 netip.Addr
	if via.IsValid() {
		viaV6 = twin.Of(via)
	}
	return errors.Join(h.Route(p, via, link), h.Route(twin.OfPrefix(p), viaV6, link))
}
