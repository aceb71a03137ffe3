package adversary

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
)

// right is what goes on beside the attacks.
type right struct {
	name    string
	without []exception
	check   func(*testing.T, *world)
}

var onABridge = absent("there is no bridge", func(c combination, _ duel) bool { return c.kind == topology.Routed })

// rights is the table.
var rights = []right{{
	name: "who may reaches whom it may, and is answered",
	check: func(t *testing.T, w *world) {
		w.acquainted(t)
	},
}, {
	name: "the same, when all neighbours are forgotten",
	check: func(t *testing.T, w *world) {
		w.forgetNeighbours(t)
		w.acquainted(t)
	},
}, {
	name: "a pod that comes later reaches and is reached",
	check: func(t *testing.T, w *world) {
		p, err := w.top.AddPod(w.top.Nodes[0], "late")
		kit.Must(t, err)
		w.addPod(t, p, "late", "n1")
		w.readLinks(t)
		w.forgetNeighbours(t) // a bridge takes over a lower hardware address, if the new pod brings one
		c := w.cluster(t)
		c.remove("gone")
		w.sync(t, c)
		w.listen(t, "late", 80)
		for _, other := range []string{"open", "friend", "remote"} {
			w.reaches(t, other, "late", 80, all...)
			w.reaches(t, "late", other, 80, all...)
		}
		w.reaches(t, "guarded", "late", 80, all...)
	},
}, {
	name: "who has an address now has it, whoever had it before",
	check: func(t *testing.T, w *world) {
		w.reaches(t, "heir", "guarded", 80, all...)
		w.reaches(t, "heir", "far", 80, all...)
		w.reaches(t, "friend", "heir", 80, all...)
	},
}, {
	name: "a Service, a node's port, and a pod's own Service",
	check: func(t *testing.T, w *world) {
		for _, p := range []policy.Protocol{policy.TCP, policy.UDP} {
			w.dial(t, "friend", w.in(webVIP), servicePort, "guarded", p)
			w.dial(t, "guarded", w.in(webVIP), servicePort, "guarded", p)
			for _, node := range []string{"n1", "n2"} {
				w.dial(t, "open", w.in(w.parties[node].addr), nodePort+1, "bare", p)
			}
		}
		w.dial(t, "friend", w.in(w.parties["n1"].addr), nodePort, "guarded", policy.UDP)
	},
}, {
	name: "a hostPort, from outside",
	check: func(t *testing.T, w *world) {
		w.dial(t, "outside", w.in(w.parties["n1"].addr), nodePort+1, "bare", policy.TCP)
		w.dial(t, "outside", w.in(w.parties["n1"].addr), nodePort+1, "bare", policy.UDP)
	},
}, {
	name: "a pod asks its node for an address by DHCP", without: []exception{withoutIPv4},
	check: func(t *testing.T, w *world) {
		for _, from := range []string{"open", "shut"} {
			w.frameArrives(t, from, "n1", func(b *bout) {
				b.packetTo(probe.BroadcastMAC, probe.UDP(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), b.payload()))
			})
		}
	},
}, {
	name: "names are asked for",
	check: func(t *testing.T, w *world) {
		w.dial(t, "open", w.in(elsewhere), 53, "outside", policy.UDP)
		w.dial(t, "guarded", w.in(elsewhere), 53, "outside", policy.UDP)
		w.dial(t, "guarded", w.in(elsewhere), 53, "outside", policy.TCP)
	},
}, {
	name: "a node reaches its pods",
	check: func(t *testing.T, w *world) {
		for _, to := range []string{"guarded", "shut", "bare", "second", "ward", "kept"} {
			w.reaches(t, "n1", to, 80, all...)
		}
		w.reaches(t, "n2", "bare", 80, all...)
	},
}, {
	name: "pods reach their node, and the control port of all",
	check: func(t *testing.T, w *world) {
		w.reaches(t, "open", "n1", 80, all...)
		w.reaches(t, "guarded", "n1", 80, all...)
		w.reaches(t, "ward", "n1", 80, all...)
		for _, from := range []string{"shut", "open", "second"} {
			for _, to := range []string{"n1", "n2", "bare", "guarded", "far", "outside"} {
				w.pass(t, w.parties[from], w.parties[to])
			}
		}
	},
}, {
	name: "a second address that the CNI plugin gave is the pod's",
	check: func(t *testing.T, w *world) {
		second := w.in(secondAddr)
		b := newBout(w, "second", "outside", false)
		b.to.sniffer.Forget()
		kit.Must(t, b.send(probe.Sockets, func(b *bout) { b.datagram(second, netip.AddrPortFrom(b.dst(), controlPort)) }))
		w.arrives(t, b.to, b.marker)
		w.passTo(t, w.parties["open"], w.parties["second"], netip.AddrPortFrom(second, controlPort))
		w.dial(t, "n1", second, 80, "second", policy.TCP)
	},
}, {
	name: "groups are joined, and pods without policy hear them", without: []exception{onABridge},
	check: func(t *testing.T, w *world) {
		group, network, listed := group4, "udp4", group4.String()
		if w.six() {
			group, network, listed = group6, "udp6", group6.String()
		}
		if w.stack == linkLocal {
			network = "udp4"
		}
		kit.Must(t, w.parties["bare"].host.Do(func() error {
			i, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			c, err := net.ListenMulticastUDP(network, i, net.UDPAddrFromAddrPort(netip.AddrPortFrom(group, 5000)))
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		}))
		w.bridgeKnows(t, listed)
		b := newBout(w, "open", "bare", false)
		kit.Must(t, b.send(probe.Sockets, func(b *bout) { b.datagram(b.src(), netip.AddrPortFrom(group, 5000)) }))
		w.arrives(t, b.to, b.marker)
	},
}, {
	name: "another node sends from its tunnel's address",
	check: func(t *testing.T, w *world) {
		for _, src := range []netip.Addr{w.parties["n2"].addr, w.top.Nodes[1].Pods.Addr()} {
			b := newBout(w, "n2", "kept", false)
			b.to.sniffer.Forget()
			kit.Must(t, b.send(probe.Sockets, func(b *bout) { b.datagram(b.in(src), netip.AddrPortFrom(b.dst(), attackPort)) }))
			w.arrives(t, b.to, b.marker)
		}
	},
}, {
	name: "a pod says that nobody listens",
	check: func(t *testing.T, w *world) {
		for _, p := range []policy.Protocol{policy.UDP, policy.TCP} {
			for _, to := range []string{"guarded", "bare", "far"} {
				f := probe.Flow{Protocol: p, Src: w.in(w.parties["friend"].addr), Dst: w.in(w.parties[to].addr), Port: 99}
				if got := probe.Dial(w.parties["friend"].host, f, probe.Expect(true)); got.Outcome != probe.Refused {
					t.Errorf("%s: %s, want refused", f, got)
				}
			}
		}
	},
}, {
	name: "a datagram in fragments",
	check: func(t *testing.T, w *world) {
		for _, to := range []string{"guarded", "far", "bare"} {
			b := newBout(w, "friend", to, false)
			b.to.sniffer.Forget()
			kit.Must(t, b.send(probe.Sockets, func(b *bout) {
				b.sendTo(append(make([]byte, 4000), b.marker...), netip.AddrPortFrom(b.dst(), attackPort))
			}))
			w.arrives(t, b.to, b.marker)
		}
	},
}, {
	name: "a pod looks whether its address is another's already", without: []exception{onABridge, sameAsIPv6},
	check: func(t *testing.T, w *world) {
		w.frameArrives(t, "open", "bare", func(b *bout) {
			own := b.srcLL()
			b.marker = own.AsSlice()
			target := probe.SolicitedNode(own)
			b.packetTo(probe.MulticastMAC(target), probe.Discovery(netip.IPv6Unspecified(), target, probe.NeighbourSolicitation, 0, own, probe.Option(14, random(6))))
		})
	},
}, {
	name: "a pod says by ARP which address it has, and looks whether it is free", without: []exception{onABridge, withoutIPv4},
	check: func(t *testing.T, w *world) {
		for _, sender := range []netip.Addr{w.parties["open"].addr, netip.IPv4Unspecified()} {
			w.frameArrives(t, "open", "bare", func(b *bout) {
				f := probe.ARP{Operation: probe.ARPRequest, Sender: b.from.mac, SenderAddr: sender, Target: make([]byte, 6), TargetIP: b.from.addr}.Frame(probe.BroadcastMAC)
				b.marker = f.Payload
				b.raw(f)
			})
		}
	},
}, {
	name: "a pod asks its router to say who it is", without: []exception{withoutIPv6},
	check: func(t *testing.T, w *world) {
		w.frameArrives(t, "open", "n1", func(b *bout) {
			all := netip.MustParseAddr("ff02::2")
			p := probe.ICMP(b.srcLL(), all, probe.RouterSolicitation, 0, 0, probe.LinkLayer(1, b.from.mac))
			p.HopLimit = 255
			b.marker = p.Payload
			b.packetTo(probe.MulticastMAC(all), p)
		})
	},
}}

// all are the protocols that servers are made for.
var all = []policy.Protocol{policy.TCP, policy.UDP, policy.ICMP}

// TestWhatIsLegitimateGoesOn runs the table where policy is enforced.
func TestWhatIsLegitimateGoesOn(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations(dataplane.Legacy, dataplane.NFT) {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			w.makeServices(t)
			w.enforce(t)
			for name := range w.parties {
				if name != "old" && name != "gone" && name != "done" {
					w.listen(t, name, 80, attackPort, 53)
				}
			}
			for _, r := range rights {
				if (attack{without: r.without}).exception(c, duel{}) != nil {
					continue
				}
				t.Run(r.name, func(t *testing.T) { r.check(t, w) })
			}
		})
	}
}

// listen serves TCP and UDP on a party's address.
func (w *world) listen(t *testing.T, name string, ports ...uint16) {
	t.Helper()
	p := w.parties[name]
	addrs := []netip.Addr{w.in(p.addr)}
	if name == "second" {
		addrs = append(addrs, w.in(secondAddr))
	}
	if name == "outside" {
		addrs = append(addrs, w.in(elsewhere))
	}
	for _, a := range addrs {
		for _, port := range ports {
			for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP} {
				c, err := probe.Listen(p.host, protocol, netip.AddrPortFrom(a, port))
				kit.Must(t, err)
				t.Cleanup(func() { kit.Must(t, c.Close()) })
			}
		}
	}
}

// acquainted are those who may reach each other.
func (w *world) acquainted(t *testing.T) {
	t.Helper()
	for _, pair := range [][2]string{
		{"friend", "guarded"}, {"friend", "far"}, {"guarded", "friend"}, {"guarded", "bare"}, {"open", "bare"}, {"bare", "open"}, {"far", "open"},
		{"remote", "open"}, {"open", "remote"}, {"outside", "open"}, {"open", "outside"}, {"bare", "shut"}, {"remote", "shut"}, {"ward", "bare"},
	} {
		w.reaches(t, pair[0], pair[1], 80, all...)
	}
}

func (w *world) reaches(t *testing.T, from, to string, port uint16, protocols ...policy.Protocol) {
	t.Helper()
	for _, p := range protocols {
		w.dial(t, from, w.in(w.parties[to].addr), port, to, p)
	}
}

// dial connects to an address, at which the server of who answers.
func (w *world) dial(t *testing.T, from string, dst netip.Addr, port uint16, who string, protocol policy.Protocol) {
	t.Helper()
	f := probe.Flow{Protocol: protocol, Src: w.in(w.parties[from].addr), Dst: dst, Port: port}
	want := probe.Result{Outcome: probe.Reached, Identity: w.parties[who].host.Name()}
	if protocol == policy.ICMP {
		f.Port, want.Identity = 0, ""
	}
	if got := probe.Dial(w.parties[from].host, f, probe.Expect(true)); got != want {
		t.Errorf("%s to %s: %s: %s, want %s", from, who, f, got, want)
	}
}

// frameArrives sends frames with NET_RAW, which arrive.
func (w *world) frameArrives(t *testing.T, from, to string, way func(*bout)) {
	t.Helper()
	b := newBout(w, from, to, false)
	b.to.sniffer.Forget()
	kit.Must(t, b.send(probe.NetRaw, way))
	w.arrives(t, b.to, b.marker)
}

func (w *world) arrives(t *testing.T, at *party, marker []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := at.sniffer.Wait(ctx, marker); err != nil {
		t.Errorf("it has not arrived at %s: %v", at.name, err)
	}
}

func (w *world) forgetNeighbours(t *testing.T) {
	t.Helper()
	for _, p := range w.parties {
		if p.pod != nil {
			kit.Must(t, p.pod.ForgetNeighbours())
		}
	}
}

// bridgeKnows waits until the bridge of the first node knows of a listener.
func (w *world) bridgeKnows(t *testing.T, group string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		out, err := w.top.Nodes[0].Command(ctx, "bridge", "mdb", "show", "dev", "pods").CombinedOutput()
		switch {
		case err != nil:
			t.Fatalf("listing the groups of the bridge: %v: %s", err, out)
		case strings.Contains(string(out), group):
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the bridge does not know that somebody listens to %s:\n%s", group, out)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
