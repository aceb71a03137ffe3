package adversary

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/kit"
)

// stack is which addresses a cluster has.
type stack string

const (
	ipv4 stack = "IPv4"
	ipv6 stack = "IPv6"
	// linkLocal is a cluster of IPv4 on hosts whose kernel gives each link an IPv6 address.
	linkLocal stack = "IPv4+fe80"
)

// combination is one kind of kernel state, addresses and network.
type combination struct {
	backend string
	stack   stack
	kind    topology.Kind
}

func (c combination) String() string { return fmt.Sprintf("%s/%s/%s", c.backend, c.stack, c.kind) }

// six reports whether attacks go over IPv6 where both families would do.
func (c combination) six() bool { return c.stack == ipv6 }

func combinations(backends ...string) []combination {
	var all []combination
	for _, b := range backends {
		for _, s := range []stack{ipv4, ipv6, linkLocal} {
			for _, k := range topology.Kinds {
				all = append(all, combination{b, s, k})
			}
		}
	}
	return all
}

// party is an end: a pod, a node or the host outside of the cluster.
type party struct {
	name string
	host *host.Host
	addr netip.Addr // IPv4
	node string     // of a pod, and of a node itself

	itself  *topology.Node // nil for all but nodes
	pod     *topology.Pod  // nil for all but pods
	mac     net.HardwareAddr
	gateway net.HardwareAddr // where a pod's packets to other networks go

	sniffer *probe.Sniffer
}

// world is the network of one combination, its parties and, where something is enforced, the enforcers.
type world struct {
	combination
	top       *topology.Topology
	parties   map[string]*party
	nodes     []*node
	processor int
	services  bool // are made
}

// The pods, by node. What policy says of them is in cluster_test.go.
var podsOf = map[string][]string{
	"n1": {"open", "shut", "guarded", "bare", "friend", "gone", "done", "heir", "second", "ward", "kept"},
	"n2": {"far", "remote"},
}

var (
	// elsewhere is an address outside of the cluster, metadata one that clouds answer at.
	elsewhere = netip.MustParseAddr("203.0.113.7")
	metadata  = netip.MustParseAddr("169.254.169.254")
	// secondAddr is the address of the pod second that its status does not name.
	secondAddr = netip.MustParseAddr("169.254.172.2")
	dockerAddr = netip.MustParseAddr("172.17.0.1")
	nobody     = netip.MustParseAddr("10.244.1.200")
	webVIP     = netip.MustParseAddr("10.96.0.1")
)

const (
	// controlPort is open for everybody, over UDP.
	controlPort = 7777
	// attackPort is open for nobody but friend.
	attackPort  = 4444
	kubeletPort = 10250
	nodePort    = 30080
	servicePort = 8080
)

// observed are the protocols that a node's sockets are looked at for. What comes over others cannot reach a program there.
var observed = []policy.Protocol{
	policy.ICMP, unix.IPPROTO_IGMP, unix.IPPROTO_IPIP, policy.TCP, policy.UDP, unix.IPPROTO_IPV6, unix.IPPROTO_GRE, policy.ICMPv6, policy.SCTP,
	unix.IPPROTO_UDPLITE, probe.Experimental,
}

var worlds atomic.Int32

// newWorld is a network on which nothing is enforced.
func newWorld(t *testing.T, c combination) *world {
	t.Helper()
	i := int(worlds.Add(1))
	top, err := topology.New(topology.Options{
		Prefix: fmt.Sprintf("%s%d-", host.RunPrefix(hostPrefix), i), Kind: c.kind, Nodes: 2, Backend: c.backend, IPv4Only: c.stack == linkLocal,
	})
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, top.Close()) })
	w := &world{combination: c, top: top, parties: map[string]*party{}, processor: i}
	for i, n := range top.Nodes {
		w.addNode(t, n, fmt.Sprintf("n%d", i+1))
	}
	for _, a := range []netip.Addr{elsewhere, metadata} {
		kit.Must(t, top.AddOutside(a))
		if c.six() {
			kit.Must(t, top.AddOutside(twin.Of(a)))
		}
	}
	w.add(t, &party{name: "outside", host: top.Outside, addr: topology.OutsideAddr})
	kit.Must(t, top.AddAddress(w.parties["second"].pod, secondAddr))
	// The container of an object that is gone runs on, and heir has its address by now.
	old, err := top.AddPodAt(top.Nodes[0], "old", w.parties["heir"].addr)
	kit.Must(t, err)
	w.addPod(t, old, "old", "n1")
	if c.kind == topology.Routed {
		heir := w.parties["heir"].pod
		for _, p := range w.prefixes(heir.Addr) {
			kit.Must(t, heir.Node.Route(p, netip.Addr{}, heir.Link()))
		}
	}
	w.readLinks(t)
	return w
}

// prefixes are those of an IPv4 address and of its twin, where there are twins.
func (w *world) prefixes(a netip.Addr) []netip.Prefix {
	all := []netip.Prefix{netip.PrefixFrom(a, 32)}
	if w.stack != linkLocal {
		all = append(all, netip.PrefixFrom(twin.Of(a), 128))
	}
	return all
}

// addNode adds a node as kube-proxy, Docker and flannel leave one, and its pods.
func (w *world) addNode(t *testing.T, n *topology.Node, name string) {
	t.Helper()
	kit.Must(t, n.Sysctl("net/ipv4/conf/all/route_localnet", "1"))
	hasten(t, n.Host, "eth0")
	if w.kind == topology.Bridged {
		hasten(t, n.Host, "pods")
	}
	kit.Must(t, n.Bridge("docker0"))
	kit.Must(t, n.Address("docker0", netip.PrefixFrom(dockerAddr, 16)))
	tunnel := n.Pods.Addr() // the first address of its pods, as flannel gives it
	nl, err := n.Netlink()
	kit.Must(t, err)
	kit.Must(t, nl.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1"}, VxlanId: 1, Port: vxlanPort, SrcAddr: n.Addr.AsSlice(), Learning: false}))
	kit.Must(t, n.Up("flannel.1"))
	for _, p := range w.prefixes(tunnel) {
		kit.Must(t, n.Address("flannel.1", p))
	}
	w.parties[name] = &party{name: name, host: n.Host, addr: n.Addr, node: name, itself: n}
	s, err := probe.SniffSockets(n.Host, observed...)
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, s.Close()) })
	w.parties[name].sniffer = s
	for _, pod := range podsOf[name] {
		p, err := w.top.AddPod(n, pod)
		kit.Must(t, err)
		w.addPod(t, p, pod, name)
	}
}

func (w *world) addPod(t *testing.T, p *topology.Pod, name, node string) {
	t.Helper()
	// containerd lets every pod ping.
	kit.Must(t, p.Sysctl("net/ipv4/ping_group_range", "0 2147483647"))
	// An ARP reply counts at once, as it would a second after the last one: no test needs to wait for that.
	kit.Must(t, p.Sysctl("net/ipv4/neigh/eth0/locktime", "-1"))
	hasten(t, p.Host, "eth0")
	hasten(t, p.Node.Host, p.Link())
	w.add(t, &party{name: name, host: p.Host, addr: p.Addr, node: node, pod: p})
}

// hasten has a host give up a neighbour that does not answer within 0.3 seconds rather than 3, and answer at once where it could wait: for the first
// address of a network, which is that of all its routers in IPv6, and flannel's.
func hasten(t *testing.T, h *host.Host, links ...string) {
	t.Helper()
	for _, link := range links {
		for _, family := range []string{"ipv4", "ipv6"} {
			kit.Must(t, h.Sysctl("net/"+family+"/neigh/"+link+"/retrans_time_ms", "100"))
			kit.Must(t, h.Sysctl("net/"+family+"/neigh/"+link+"/proxy_delay", "0"))
		}
	}
}

// add opens the sniffer of a party.
func (w *world) add(t *testing.T, p *party) {
	t.Helper()
	var err error
	p.sniffer, err = probe.SniffLink(p.host, "eth0")
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, p.sniffer.Close()) })
	w.parties[p.name] = p
}

// readLinks reads the hardware addresses. A bridge takes over the lowest of its ports', and so it is done when all pods are there.
func (w *world) readLinks(t *testing.T) {
	t.Helper()
	for _, p := range w.parties {
		var err error
		p.mac, err = p.host.HardwareAddr("eth0")
		kit.Must(t, err)
		if p.pod != nil {
			p.gateway, err = p.pod.Node.HardwareAddr(w.top.GatewayLink(p.pod))
			kit.Must(t, err)
		}
	}
}

// enforce starts the enforcers: first with gone in the API, then without it.
func (w *world) enforce(t *testing.T) {
	t.Helper()
	for i, n := range w.top.Nodes {
		w.nodes = append(w.nodes, newNode(t, w, n, fmt.Sprintf("n%d", i+1)))
	}
	before, after := w.cluster(t), w.cluster(t)
	after.remove("gone")
	w.sync(t, before)
	w.sync(t, after)
	kit.Must(t, w.top.ForgetConnections())
}

// sync makes every node enforce the cluster.
func (w *world) sync(t *testing.T, c *cluster) {
	t.Helper()
	for _, n := range w.nodes {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		kit.Must(t, n.Do(func() error {
			snapshot := c.snapshot(n.name)
			if err := tie(&snapshot, n); err != nil {
				return err
			}
			r, err := n.enforcer.Sync(ctx, snapshot, false)
			if len(r.Problems) > 0 {
				return fmt.Errorf("%s has problems with the policies: %v", n.name, r.Problems)
			}
			return err
		}))
	}
}

// makeServices makes the ways that lead elsewhere than they say: a Service, and a port of each node, of guarded and of bare.
func (w *world) makeServices(t *testing.T) {
	t.Helper()
	if w.services {
		return
	}
	w.services = true
	guarded, bare := w.parties["guarded"].pod, w.parties["bare"].pod
	for _, n := range w.top.Nodes {
		kit.Must(t, w.top.Service(n.Addr, policy.UDP, nodePort, guarded, attackPort))
		kit.Must(t, w.top.Service(n.Addr, policy.UDP, nodePort+1, bare, attackPort))
		kit.Must(t, w.top.Service(n.Addr, policy.TCP, nodePort+1, bare, attackPort))
	}
	kit.Must(t, w.top.Service(webVIP, policy.UDP, servicePort, guarded, attackPort))
	kit.Must(t, w.top.Service(webVIP, policy.TCP, servicePort, guarded, attackPort))
	kit.Must(t, w.top.Service(webVIP, policy.UDP, servicePort+1, bare, attackPort))
}

// in is an address in the family of the world.
func (w *world) in(a netip.Addr) netip.Addr {
	if w.six() {
		return twin.Of(a)
	}
	return a
}

// heal undoes what an attack on neighbours has done: all pods' neighbour caches are emptied, and each sends something, so that bridges learn anew.
func (w *world) heal(t *testing.T) {
	t.Helper()
	for _, p := range w.parties {
		if p.pod != nil {
			kit.Must(t, p.pod.ForgetNeighbours())
		}
	}
	for _, name := range []string{"open", "guarded", "friend", "bare", "shut"} {
		w.pass(t, w.parties[name], w.parties["remote"])
	}
}
