package topology_test

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/kit"
)

var (
	elsewhere = netip.MustParseAddr("203.0.113.7")
	vip       = netip.MustParseAddr("10.96.0.10")
)

// TestEverybodyReachesEverybody holds the network to what policy takes for granted: without policy all pairs of pods, nodes
// and outside addresses reach each other, over every protocol, unmasqueraded.
func TestEverybodyReachesEverybody(t *testing.T) {
	for _, kind := range topology.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, kind)
			kit.Must(t, top.AddOutside(elsewhere))
			kit.Must(t, top.AddOutside(twin.Of(elsewhere)))
			ends := []end{{top.Outside, elsewhere}}
			for i, n := range top.Nodes {
				ends = append(ends, end{n.Host, n.Addr})
				for _, name := range []string{"a", "b"} {
					p, err := top.AddPod(n, fmt.Sprintf("%s%d", name, i+1))
					kit.Must(t, err)
					ends = append(ends, end{p.Host, p.Addr})
				}
			}
			for _, e := range ends {
				e.listen(t)
			}
			var wg sync.WaitGroup
			for _, src := range ends {
				for _, dst := range ends {
					for _, f := range flows(src.addr, dst.addr) {
						wg.Go(func() { wantReached(t, src, f, dst) })
					}
				}
			}
			wg.Wait()
		})
	}
}

// TestServices covers the three places where a service's backend can be, seen from its client.
func TestServices(t *testing.T) {
	for _, kind := range topology.Kinds {
		for _, backend := range []string{"legacy", "nft"} {
			t.Run(string(kind)+"/"+backend, func(t *testing.T) {
				t.Parallel()
				top := newTopologyOf(t, topology.Options{Kind: kind, Nodes: 2, Backend: backend})
				var pods []*topology.Pod
				for i, n := range []*topology.Node{top.Nodes[0], top.Nodes[0], top.Nodes[1]} {
					p, err := top.AddPod(n, fmt.Sprintf("p%d", i))
					kit.Must(t, err)
					pods = append(pods, p)
				}
				end{pods[0].Host, pods[0].Addr}.listen(t)
				for _, p := range protocols {
					kit.Must(t, top.Service(vip, p, 8080, pods[0], 80))
				}
				var wg sync.WaitGroup
				for _, src := range pods {
					for _, f := range flows(src.Addr, vip) {
						if f.Port != 0 {
							f.Port = 8080
							wg.Go(func() { wantReached(t, end{src.Host, src.Addr}, f, end{pods[0].Host, vip}) })
						}
					}
				}
				wg.Wait()
			})
		}
	}
}

func TestAnAddressCanBeReused(t *testing.T) {
	for _, kind := range topology.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, kind)
			client, err := top.AddPod(top.Nodes[1], "client")
			kit.Must(t, err)
			var a netip.Addr
			for i := range 2 {
				var p *topology.Pod
				if i == 0 {
					p, err = top.AddPod(top.Nodes[0], "first")
				} else {
					p, err = top.AddPodAt(top.Nodes[0], "second", a)
				}
				kit.Must(t, err)
				a = p.Addr
				end{p.Host, p.Addr}.listen(t)
				for _, f := range flows(client.Addr, p.Addr) {
					wantReached(t, end{client.Host, client.Addr}, f, end{p.Host, p.Addr})
				}
				kit.Must(t, p.ForgetNeighbours())
				kit.Must(t, top.ForgetConnections())
				for _, f := range flows(client.Addr, p.Addr) {
					wantReached(t, end{client.Host, client.Addr}, f, end{p.Host, p.Addr})
				}
				kit.Must(t, top.RemovePod(p))
			}
		})
	}
}

// TestIPv4Only holds a cluster of one family to having that alone, besides the link-local addresses that the kernel gives.
func TestIPv4Only(t *testing.T) {
	for _, kind := range topology.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			top := newTopologyOf(t, topology.Options{Kind: kind, Nodes: 2, Backend: "nft", IPv4Only: true})
			var ends []end
			for i, n := range top.Nodes {
				p, err := top.AddPod(n, fmt.Sprintf("p%d", i))
				kit.Must(t, err)
				ends = append(ends, end{p.Host, p.Addr})
				if _, err := p.LinkLocal("eth0"); err != nil {
					t.Error(err)
				}
				nl, err := p.Netlink()
				kit.Must(t, err)
				addrs, err := nl.AddrList(nil, netlink.FAMILY_V6)
				kit.Must(t, err)
				for _, a := range addrs {
					if !a.IP.IsLinkLocalUnicast() && !a.IP.IsLoopback() {
						t.Errorf("%s has %s", p.Name(), a.IP)
					}
				}
			}
			kit.Must(t, top.Service(vip, policy.TCP, 8080, &topology.Pod{Host: ends[1].host, Node: top.Nodes[1], Addr: ends[1].addr}, 80))
			c, err := probe.Listen(ends[1].host, policy.TCP, netip.AddrPortFrom(ends[1].addr, 80))
			kit.Must(t, err)
			t.Cleanup(func() { kit.Must(t, c.Close()) })
			wantReached(t, ends[0], probe.Flow{Protocol: policy.TCP, Src: ends[0].addr, Dst: ends[1].addr, Port: 80}, ends[1])
			wantReached(t, ends[0], probe.Flow{Protocol: policy.TCP, Src: ends[0].addr, Dst: vip, Port: 8080}, ends[1])
		})
	}
}

// TestAFurtherAddressIsReached holds AddAddress to an address that pods of the node reach, over both families and every protocol.
func TestAFurtherAddressIsReached(t *testing.T) {
	for _, kind := range topology.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, kind)
			client, err := top.AddPod(top.Nodes[0], "client")
			kit.Must(t, err)
			p, err := top.AddPod(top.Nodes[0], "server")
			kit.Must(t, err)
			further := netip.MustParseAddr("169.254.172.2")
			kit.Must(t, top.AddAddress(p, further))
			end{p.Host, further}.listen(t)
			for _, f := range flows(client.Addr, further) {
				wantReached(t, end{client.Host, client.Addr}, f, end{p.Host, further})
			}
			for _, link := range []string{p.Link(), top.GatewayLink(p)} {
				if _, err := p.Node.HardwareAddr(link); err != nil {
					t.Errorf("the node has no link %s: %v", link, err)
				}
			}
		})
	}
}

type end struct {
	host *host.Host
	addr netip.Addr
}

var protocols = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

func (e end) listen(t *testing.T) {
	t.Helper()
	for _, p := range protocols {
		for _, a := range []netip.Addr{e.addr, twin.Of(e.addr)} {
			c, err := probe.Listen(e.host, p, netip.AddrPortFrom(a, 80))
			kit.Must(t, err)
			t.Cleanup(func() { kit.Must(t, c.Close()) })
		}
	}
}

// flows are one per family and protocol.
func flows(src, dst netip.Addr) []probe.Flow {
	var all []probe.Flow
	for _, a := range [][2]netip.Addr{{src, dst}, {twin.Of(src), twin.Of(dst)}} {
		all = append(all, probe.Flow{Protocol: policy.ICMP, Src: a[0], Dst: a[1]})
		for _, p := range protocols {
			all = append(all, probe.Flow{Protocol: p, Src: a[0], Dst: a[1], Port: 80})
		}
	}
	return all
}

func wantReached(t *testing.T, src end, f probe.Flow, dst end) {
	t.Helper()
	want := probe.Result{Outcome: probe.Reached, Identity: dst.host.Name()}
	if f.Port == 0 {
		want.Identity = ""
	}
	if got := probe.Dial(src.host, f, probe.Expect(true)); got != want {
		t.Errorf("%s: %s, want %s", f, got, want)
	}
}

func newTopology(t *testing.T, kind topology.Kind) *topology.Topology {
	t.Helper()
	return newTopologyOf(t, topology.Options{Kind: kind, Nodes: 2})
}

var made atomic.Int32

func newTopologyOf(t *testing.T, o topology.Options) *topology.Topology {
	t.Helper()
	kit.NeedNetfilter(t)
	o.Prefix = fmt.Sprintf("%s%d-", host.RunPrefix("rf-topologytest"), made.Add(1))
	top, err := topology.New(o)
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, top.Close()) })
	return top
}
