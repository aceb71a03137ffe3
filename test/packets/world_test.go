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
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/ladder"
	"github.com/ringfence-io/ringfence/test/scenario"
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

// world is the network of a scenarios' cluster, with an enforcer on each node.
type world struct {
	combination
	top    *topology.Topology
	nodes  []*node
	pods   []*topology.Pod
	places map[string]place

	newCluster func(scenario.Family) *scenario.Cluster
}

// node is a node with its enforcer, which lives in the node's namespace: all its methods run there.
type node struct {
	*topology.Node
	name     string
	plane    *dataplane.Dataplane
	enforcer *enforcer.Enforcer
}

var worlds atomic.Int32

// newWorld is the network of the standard cluster.
func newWorld(t *testing.T, c combination) *world {
	t.Helper()
	return newWorldOf(t, c, scenario.Standard)
}

func newWorldOf(t *testing.T, c combination, newCluster func(scenario.Family) *scenario.Cluster) *world {
	t.Helper()
	w := &world{combination: c, places: map[string]place{}, newCluster: newCluster}
	names := w.cluster().NodeNames()
	var err error
	w.top, err = topology.New(topology.Options{
		Prefix: fmt.Sprintf("%s%d-", host.RunPrefix(hostPrefix), worlds.Add(1)), Kind: c.kind, Nodes: len(names), Backend: c.backend,
	})
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, w.top.Close()) })
	w.settle(t)
	addrs := map[netip.Addr]*host.Host{} // some actors are second names for an address
	for _, p := range w.places {
		addrs[p.in(w.family)] = p.host
	}
	for a, h := range addrs {
		listen(t, h, a)
	}
	for _, a := range w.cluster().Actors {
		if a.Role == scenario.Virtual {
			w.places[a.Name] = place{a, w.places[a.Backend].host}
		}
	}
	for i, n := range w.top.Nodes {
		w.nodes = append(w.nodes, newNode(t, n, names[i], c.backend))
	}
	return w
}

// cluster is the cluster as it is before a scenario changes it.
func (w *world) cluster() *scenario.Cluster { return w.newCluster(scenario.Family(w.family)) }

// settle gives each actor its place.
func (w *world) settle(t *testing.T) {
	t.Helper()
	nodes := map[string]*topology.Node{}
	for i, name := range w.cluster().NodeNames() {
		nodes[name] = w.top.Nodes[i]
	}
	outside := map[netip.Addr]bool{topology.OutsideAddr: true, twin.Of(topology.OutsideAddr): true}
	for _, a := range w.cluster().Actors {
		switch a.Role {
		case scenario.Node:
			n := nodes[a.Node]
			if a.V4 != n.Addr && w.kind == topology.Routed { // a bridge has it
				kit.Must(t, n.Address("lo", netip.PrefixFrom(a.V4, 32)))
				kit.Must(t, n.Address("lo", netip.PrefixFrom(a.V6, 128)))
			}
			w.places[a.Name] = place{a, n.Host}
		case scenario.Pod:
			p, err := w.top.AddPodAt(nodes[a.Node], a.Name, a.V4)
			kit.Must(t, err)
			w.pods = append(w.pods, p)
			w.places[a.Name] = place{a, p.Host}
			w.backends(t, p, a.Name)
		case scenario.Outside:
			for _, addr := range []netip.Addr{a.V4, a.V6} {
				if !outside[addr] {
					kit.Must(t, w.top.AddOutside(addr))
					outside[addr] = true
				}
			}
			w.places[a.Name] = place{a, w.top.Outside}
		}
	}
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
func (w *world) backends(t *testing.T, p *topology.Pod, name string) {
	t.Helper()
	for _, a := range w.cluster().Actors {
		if a.Role != scenario.Virtual || a.Backend != name {
			continue
		}
		for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
			kit.Must(t, w.top.Service(a.V4, protocol, scenario.ServicePort, p, scenario.TargetPort))
		}
		kit.Must(t, w.top.Outside.Route(netip.PrefixFrom(a.V4, 32), p.Node.Addr, ""))
		kit.Must(t, w.top.Outside.Route(netip.PrefixFrom(a.V6, 128), twin.Of(p.Node.Addr), ""))
	}
}

// listen serves every protocol. The kernel answers ICMP echoes.
func listen(t *testing.T, h *host.Host, a netip.Addr) {
	t.Helper()
	listenOn(t, h, probe.Experimental, a, 0)
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		for _, port := range listening {
			listenOn(t, h, protocol, a, port)
		}
	}
}

func listenOn(t *testing.T, h *host.Host, protocol policy.Protocol, a netip.Addr, port uint16) {
	t.Helper()
	c, err := probe.Listen(h, protocol, netip.AddrPortFrom(a, port))
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, c.Close()) })
}

// apply makes every node enforce the cluster, and holds the enforcer to what it says of itself: what it has written, it reads
// back as written.
func (w *world) apply(t *testing.T, c *scenario.Cluster) []string {
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

func (n *node) sync(t *testing.T, c *scenario.Cluster, verify bool) enforcer.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), slower*time.Minute)
	defer cancel()
	var r enforcer.Report
	err := n.Do(func() (err error) {
		r, err = n.enforcer.Sync(ctx, ladder.Snapshot(c.Cluster, n.name), verify)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	return r
}
