package packets

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
)

// combination is one kind of kernel state, network and family to judge.
type combination struct {
	backend string
	kind    topology.Kind
	family  iptables.Family
}

func (c combination) String() string { return fmt.Sprintf("%s/%s/IPv%d", c.backend, c.kind, c.family) }

// combinations are all.
func combinations() []combination {
	var all []combination
	for _, b := range []string{dataplane.Legacy, dataplane.NFT} {
		for _, k := range topology.Kinds {
			for _, f := range iptables.Families {
				all = append(all, combination{b, k, f})
			}
		}
	}
	return all
}

// world is the standard cluster's network, with an enforcer on each node.
type world struct {
	combination
	top    *topology.Topology
	nodes  []*node
	pods   []*topology.Pod
	places map[string]place
}

// node is a node with its enforcer, which lives in the node's namespace: all its methods run there.
type node struct {
	*topology.Node
	name     string
	plane    *dataplane.Dataplane
	enforcer *enforcer.Enforcer
}

// The places outside of the cluster, and services.
var (
	outsideAddrs = []string{"10.0.1.5", "10.0.2.5", "10.9.0.1", "203.0.113.7"}
	// low is an IPv6 address in the lower half of all; the twins, and with them everything else here, are in the upper one.
	low = netip.MustParseAddr("2001:db8::7")

	services = []struct {
		name, vip, backend string
	}{
		{"service-web", "10.96.0.1", "web"},
		{"service-far", "10.96.0.2", "far"},
	}
)

const (
	servicePort = 8080
	targetPort  = 80
)

var worlds atomic.Int32

func newWorld(t *testing.T, c combination) *world {
	t.Helper()
	top, err := topology.New(topology.Options{
		Prefix: fmt.Sprintf("%s%d-", host.RunPrefix(hostPrefix), worlds.Add(1)), Kind: c.kind, Nodes: 2, Backend: c.backend,
	})
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, top.Close()) })
	w := &world{combination: c, top: top, places: map[string]place{}}
	for i, n := range top.Nodes {
		name := fmt.Sprintf("n%d", i+1)
		w.places[name] = place{host: n.Host, addr: n.Addr}
		for _, pod := range standardPods[name] {
			p, err := top.AddPod(n, pod)
			kit.Must(t, err)
			w.pods = append(w.pods, p)
			w.places[pod] = place{host: p.Host, addr: p.Addr}
			w.backends(t, p)
		}
	}
	w.places["host"] = w.places["n2"]
	w.addOutside(t)
	addrs := map[netip.Addr]*host.Host{} // some places are second names for an address
	for _, p := range w.places {
		addrs[p.in(w.family)] = p.host
	}
	for a, h := range addrs {
		listen(t, h, a)
	}
	for _, s := range services {
		w.places[s.name] = place{host: w.places[s.backend].host, addr: netip.MustParseAddr(s.vip)}
	}
	for i, n := range top.Nodes {
		w.nodes = append(w.nodes, newNode(t, n, fmt.Sprintf("n%d", i+1), c.backend))
	}
	return w
}

func newNode(t *testing.T, n *topology.Node, name, backend string) *node {
	t.Helper()
	out := &node{Node: n, name: name}
	kit.Must(t, n.Do(func() (err error) {
		out.plane, err = dataplane.New(t.Context(), dataplane.Options{Backend: backend})
		return err
	}))
	c := out.plane.Capabilities()
	if c.Table != "security" || len(c.Families) != 2 || !c.SelfMatch {
		t.Fatalf("%s lacks what the scenarios need: %+v", name, out.plane.Findings())
	}
	out.enforcer = enforcer.New(out.plane, iptables.Options{Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut})
	return out
}

// backends makes the services that the pod is behind. Clients outside of the cluster reach them through the pod's node.
func (w *world) backends(t *testing.T, p *topology.Pod) {
	t.Helper()
	for _, s := range services {
		if w.places[s.backend].host != p.Host {
			continue
		}
		vip := netip.MustParseAddr(s.vip)
		for _, name := range []string{"tcp", "udp", "sctp"} {
			kit.Must(t, w.top.Service(vip, protocolNames[name], servicePort, p, targetPort))
		}
		kit.Must(t, w.top.Outside.Route(netip.PrefixFrom(vip, 32), p.Node.Addr, ""))
		kit.Must(t, w.top.Outside.Route(netip.PrefixFrom(topology.Twin(vip), 128), topology.Twin(p.Node.Addr), ""))
	}
}

func (w *world) addOutside(t *testing.T) {
	t.Helper()
	w.places["outside"] = place{host: w.top.Outside, addr: topology.OutsideAddr}
	for _, text := range outsideAddrs {
		a := netip.MustParseAddr(text)
		kit.Must(t, w.top.AddOutside(a))
		kit.Must(t, w.top.AddOutside(topology.Twin(a)))
		w.places[text] = place{host: w.top.Outside, addr: a}
	}
	kit.Must(t, w.top.AddOutside(low))
	w.places["lower half"] = place{host: w.top.Outside, addr: netip.MustParseAddr("10.9.0.1"), v6: low}
	w.places["upper half"] = place{host: w.top.Outside, addr: netip.MustParseAddr("203.0.113.7")}
}

// listen serves every protocol.
func listen(t *testing.T, h *host.Host, a netip.Addr) {
	t.Helper()
	for name, protocol := range protocolNames {
		on := listening
		switch name {
		case "icmp": // the kernel answers
			continue
		case "other":
			on = []uint16{0}
		}
		for _, port := range on {
			c, err := probe.Listen(h, protocol, netip.AddrPortFrom(a, port))
			kit.Must(t, err)
			t.Cleanup(func() { kit.Must(t, c.Close()) })
		}
	}
}

// apply makes every node enforce the cluster, and holds the enforcer to what it says of itself: what it has written, it reads
// back as written.
func (w *world) apply(t *testing.T, c *cluster) []string {
	t.Helper()
	var problems []string
	for _, n := range w.nodes {
		r := n.sync(t, c, false)
		for _, p := range r.Problems {
			problems = append(problems, p.String())
		}
		again := n.sync(t, c, true)
		if !again.Applied.Empty() || !again.Repairs.Empty() {
			t.Errorf("%s reads back something else than it has written:\n%s", n.name, again.Applied)
		}
	}
	kit.Must(t, w.top.ForgetConnections())
	return problems
}

func (n *node) sync(t *testing.T, c *cluster, verify bool) enforcer.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), slower*time.Minute)
	defer cancel()
	var r enforcer.Report
	err := n.Do(func() (err error) {
		r, err = n.enforcer.Sync(ctx, c.snapshot(n.name), verify)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	return r
}
