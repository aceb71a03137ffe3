package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// routed is a node in the middle of two pods: the namespace of the test's own thread.
type routed struct {
	node, src, dst *host.Host
}

// ends are the addresses of the source and of the destination, by family.
var ends = map[iptables.Family][2]netip.Addr{
	iptables.IPv4: {netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2")},
	iptables.IPv6: {netip.MustParseAddr("fd00:1::2"), netip.MustParseAddr("fd00:2::2")},
}

func newRouted(t *testing.T) routed {
	t.Helper()
	enterNamespace(t) // for what it demands; the test's thread goes on to the node's
	prefix := host.RunPrefix(hostPrefix)
	newHost := func(name string) *host.Host {
		h, err := host.New(prefix + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	n := routed{node: newHost("node"), src: newHost("src"), dst: newHost("dst")}
	err := errors.Join(n.node.Sysctl("net/ipv4/ip_forward", "1"), n.node.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	for i, pod := range []*host.Host{n.src, n.dst} {
		link := []string{"src", "dst"}[i]
		err = errors.Join(err, host.Veth(host.End{Host: n.node, Link: link}, host.End{Host: pod, Link: "eth0"}))
		for _, f := range iptables.Families {
			addr, all := ends[f][i], netip.MustParsePrefix("0.0.0.0/0")
			gateway := addr.Prev()
			if f == iptables.IPv6 {
				all = netip.MustParsePrefix("::/0")
			}
			bits := addr.BitLen() - 8
			err = errors.Join(err, n.node.Address(link, netip.PrefixFrom(gateway, bits)), pod.Address("eth0", netip.PrefixFrom(addr, bits)),
				pod.Route(all, gateway, "eth0"))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.GetFromPath(n.node.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	return n
}

// police sends what is forwarded through the chains, in their order, and drops it then: nobody listens at the destination, and what arrived
// would be answered.
func (n routed) police(t *testing.T, d *Dataplane, rules map[string][]iptables.Rule, order ...string) {
	t.Helper()
	rules = maps.Clone(rules)
	for _, chain := range order {
		rules["RF-FORWARD"] = append(rules["RF-FORWARD"], iptables.Rule("-j "+chain))
	}
	rules["RF-FORWARD"] = append(rules["RF-FORWARD"], "-j DROP")
	table := d.Capabilities().Table
	input := chains(table, rules)
	p := iptables.Plan{Restore: map[iptables.Family]string{iptables.IPv4: input, iptables.IPv6: input}}
	for _, f := range iptables.Families {
		p.Jumps = append(p.Jumps, iptables.JumpFix{Family: f, Table: table, Chain: "FORWARD", Rule: iptables.JumpRule("FORWARD")})
	}
	mustApply(t, d, p)
}

// read reads the group until the test ends, or stop is called, and returns when packets are being read.
func (n routed) read(t *testing.T, d *Dataplane, group uint16, handle func(Packet)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.node.Do(func() error { return d.Denied(ctx, group, handle) }) }()
	for begun := false; !begun; time.Sleep(time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatalf("the reading ended: %v", err)
		default:
			_, begun = groupOwner(group)
		}
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("reading: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// send sends one packet from the source pod; protocol is TCP, UDP, or one that has a raw socket.
func (n routed) send(t *testing.T, f iptables.Family, protocol policy.Protocol, payload []byte) {
	t.Helper()
	n.sendMany(t, f, protocol, 1, payload)
}

func (n routed) sendMany(t *testing.T, f iptables.Family, protocol policy.Protocol, packets int, payload []byte) {
	t.Helper()
	src, dst := netip.AddrPortFrom(ends[f][0], 40000), netip.AddrPortFrom(ends[f][1], 80)
	err := n.src.Do(func() error {
		if protocol == policy.TCP {
			dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(src), Timeout: 100 * time.Millisecond}
			conn, err := dialer.Dial("tcp", dst.String())
			if err == nil {
				conn.Close()
				return errors.New("a denied connection was made")
			}
			return nil // it timed out, as it should
		}
		network, to := fmt.Sprintf("ip:%d", protocol), dst.Addr().String()
		dialer := net.Dialer{LocalAddr: &net.IPAddr{IP: src.Addr().AsSlice()}}
		if protocol == policy.UDP {
			network, to, dialer.LocalAddr = "udp", dst.String(), net.UDPAddrFromAddrPort(src)
		}
		conn, err := dialer.Dial(network, to)
		if err != nil {
			return err
		}
		defer conn.Close()
		for range packets {
			if _, err := conn.Write(payload); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// onBackends runs a test of real packets with either back end.
func onBackends(t *testing.T, test func(*testing.T, routed, *Dataplane)) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			n := newRouted(t)
			test(t, n, newDataplane(t, backend))
		})
	}
}

// next is the next packet that was read.
func next(t *testing.T, from <-chan Packet) Packet {
	t.Helper()
	select {
	case p := <-from:
		return p
	case <-time.After(20 * time.Second):
		t.Fatal("no packet was read for 20 s")
		panic("unreachable")
	}
}

func mustCount(t *testing.T, d *Dataplane) map[string]uint64 {
	t.Helper()
	counts, err := d.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return counts
}

// echo is an ICMP echo request without data. In IPv6 the kernel fills in the checksum.
var echo = map[policy.Protocol][]byte{policy.ICMP: {8, 0, 0xf7, 0xff, 0, 0, 0, 0}, policy.ICMPv6: {128, 0, 0, 0, 0, 0, 0, 0}}

func TestDeniedPacketsAreRead(t *testing.T) {
	const odd policy.Protocol = 253 // for experiments, RFC 3692
	icmp := map[iptables.Family]policy.Protocol{iptables.IPv4: policy.ICMP, iptables.IPv6: policy.ICMPv6}
	onBackends(t, func(t *testing.T, n routed, d *Dataplane) {
		n.police(t, d, pointChains(), "RF-v1-IW-"+audited, "RF-v1-IL-"+logged)
		packets := make(chan Packet, 100)
		n.read(t, d, iptables.DefaultNFLogGroup, func(p Packet) { packets <- p })
		begun := time.Now()
		for _, f := range iptables.Families {
			header := map[iptables.Family]int{iptables.IPv4: 20, iptables.IPv6: 40}[f]
			for _, c := range []struct {
				payload []byte
				want    Packet
			}{
				{[]byte("hello"), Packet{Protocol: policy.UDP, SrcPort: 40000, DstPort: 80, Length: header + 8 + 5}},
				{nil, Packet{Protocol: policy.TCP, SrcPort: 40000, DstPort: 80, Length: header + 40, TCPFlags: 2}},
				{echo[icmp[f]], Packet{Protocol: icmp[f], ICMPType: echo[icmp[f]][0], Length: header + 8}},
				{[]byte("hello"), Packet{Protocol: odd, Length: header + 5}},
				{make([]byte, 1000), Packet{Protocol: policy.UDP, SrcPort: 40000, DstPort: 80, Length: header + 8 + 1000}},
			} {
				n.send(t, f, c.want.Protocol, c.payload)
				for _, id := range []string{audited, logged} {
					want := c.want
					want.ID, want.Src, want.Dst, want.In, want.Out = id, ends[f][0], ends[f][1], "src", "dst"
					got := next(t, packets)
					if diff := cmp.Diff(want, got, equalAddrs, cmpopts.IgnoreFields(Packet{}, "At")); diff != "" {
						t.Errorf("%s, %s (-want +got):\n%s", f, c.want.Protocol, diff)
					}
					if got.At.Before(begun.Add(-time.Second)) || got.At.After(time.Now().Add(time.Second)) {
						t.Errorf("%s, %s: it is said to have passed at %s, between %s and now", f, c.want.Protocol, got.At, begun)
					}
				}
			}
		}
		if diff := cmp.Diff(map[string]uint64{audited: 10, logged: 10}, mustCount(t, d)); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
		counts, enforced, err := Counted(t.Context(), iptables.OwnLayout, d.log)
		if err != nil || !enforced {
			t.Fatalf("counted without a dataplane: enforced %v, %v", enforced, err)
		}
		if diff := cmp.Diff(mustCount(t, d), packetsByID(counts)); diff != "" {
			t.Errorf("counted without a dataplane (-want +got):\n%s", diff)
		}
	})
}

// sentinel are the rules of a chain that samples every packet of a protocol that nothing else has, to know that what was sent before has
// been read.
func sentinel(group uint16) []iptables.Rule {
	return []iptables.Rule{iptables.Rule(fmt.Sprintf(`-p 254 -j NFLOG --nflog-prefix "RF:end" --nflog-group %d`, group))}
}

func TestSamplingIsLimitedAndCountingIsNot(t *testing.T) {
	const sent, burst, perSecond = 100, 20, 10
	onBackends(t, func(t *testing.T, n routed, d *Dataplane) {
		rules := pointChains()
		rules["RF-END"] = sentinel(iptables.DefaultNFLogGroup)
		n.police(t, d, rules, "RF-END", "RF-v1-IW-"+audited)
		packets := make(chan Packet, sent+1)
		n.read(t, d, iptables.DefaultNFLogGroup, func(p Packet) { packets <- p })

		begun := time.Now()
		n.sendMany(t, iptables.IPv4, policy.UDP, sent, []byte("hello"))
		took := time.Since(begun)
		n.send(t, iptables.IPv4, 254, nil)
		lines := 0
		for p := next(t, packets); p.ID != "end"; p = next(t, packets) {
			lines++
		}
		if most := burst + 1 + int(perSecond*took.Seconds()); lines < burst || lines > most {
			t.Errorf("%d packets sent in %s were sampled %d times, want %d to %d", sent, took, lines, burst, most)
		}
		if got := mustCount(t, d)[audited]; got != sent+1 {
			t.Errorf("counted %d packets, want %d", got, sent+1)
		}
	})
}

// A reader that is too slow misses packets. The kernel tells it so (ENOBUFS), and it goes on.
func TestWhatNobodyWasQuickEnoughToReadIsCounted(t *testing.T) {
	const group, sent = 4211, 20_000
	onBackends(t, func(t *testing.T, n routed, d *Dataplane) {
		n.police(t, d, map[string][]iptables.Rule{
			"RF-A":   {`-p udp -j NFLOG --nflog-prefix "RF:flood" --nflog-group 4211`},
			"RF-B":   {`-p udp -j NFLOG --nflog-prefix "another program's" --nflog-group 4211`},
			"RF-END": sentinel(group),
		}, "RF-A", "RF-B", "RF-END")
		var read, lost uint64
		release, blocked, ended := make(chan struct{}), make(chan struct{}, 1), make(chan struct{}, sent)
		unblock := sync.OnceFunc(func() { close(release) })
		n.read(t, d, group, func(p Packet) {
			lost += p.Lost
			switch {
			case p.ID == "end":
				ended <- struct{}{}
				return
			case read == 0:
				blocked <- struct{}{}
				<-release
			}
			read++
		})
		t.Cleanup(unblock) // or a test that fails half-way would wait for ever
		n.sendMany(t, iptables.IPv4, policy.UDP, 1, nil)
		<-blocked
		n.sendMany(t, iptables.IPv4, policy.UDP, sent, make([]byte, 100))
		unblock()
		for arrived := false; !arrived; { // the first ones may still find no room
			n.send(t, iptables.IPv4, 254, nil)
			select {
			case <-ended:
				arrived = true
			case <-time.After(200 * time.Millisecond):
			}
		}
		if lost == 0 || read < 100 || read+lost < sent {
			t.Errorf("of %d packets %d were read and %d lost", 2*sent, read, lost)
		}
	})
}

func TestAGroupIsReadByOneProgram(t *testing.T) {
	one := func(t *testing.T, denied func(context.Context, uint16) error) {
		err := denied(t.Context(), 4212)
		var taken *LogGroupError
		if !errors.As(err, &taken) || taken.Group != 4212 {
			t.Fatalf("reading a group that is taken: %v", err)
		}
		for _, word := range []string{"4212", "--nflog-group", "another program"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the error does not say %q: %v", word, err)
			}
		}
	}
	t.Run("kernel", func(t *testing.T) {
		n := newRouted(t)
		d := newDataplane(t, NFT)
		stop := n.read(t, d, 4212, func(Packet) {})
		n.read(t, d, 4213, func(Packet) {})
		denied := func(ctx context.Context, group uint16) error { return d.Denied(ctx, group, func(Packet) {}) }
		one(t, denied)
		stop()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		// The kernel closes the socket in its own time.
		kit.EventuallySucceeds(t, 10*time.Second, "the group is free again", func(context.Context) error { return denied(ctx, 4212) })
	})
	t.Run("fake", func(t *testing.T) {
		f := NewFake(Capabilities{})
		ctx, cancel := context.WithCancel(t.Context())
		ended, got := make(chan error), make(chan Packet, 1)
		go func() { ended <- f.Denied(ctx, 4212, func(p Packet) { got <- p }) }()
		for !f.Emit(4212, Packet{ID: "x"}) {
			runtime.Gosched()
		}
		if p := next(t, got); p.ID != "x" {
			t.Errorf("read %v", p)
		}
		one(t, func(ctx context.Context, group uint16) error { return f.Denied(ctx, group, func(Packet) {}) })
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if f.Emit(4212, Packet{}) {
			t.Error("a packet was handled when nobody was reading")
		}
	})
}

func TestABrokenSocketEndsTheReading(t *testing.T) {
	enterNamespace(t)
	s, err := openLog()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.bind(7); err != nil {
		t.Fatal(err)
	}
	if err := s.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.read(t.Context(), func(sampled) {}); err == nil {
		t.Error("the reading goes on without a socket")
	}
}

// TestMessagesAboutPackets: of whatever family; what is not of their form is left out, and counts as lost.
func TestMessagesAboutPackets(t *testing.T) {
	prefix := append([]byte{7, 0, attrPrefix, 0}, "RF:\x00"...)
	binary.NativeEndian.PutUint16(prefix, 7)
	binary.NativeEndian.PutUint16(prefix[2:], attrPrefix)
	for name, c := range map[string]struct {
		message []byte
		want    string
		ok      bool
	}{
		"of IPv4":          {append([]byte{unix.AF_INET, 0, 0, 5}, prefix...), "RF:", true},
		"of netdev":        {append([]byte{unix.NFPROTO_NETDEV, 0, 0, 5}, prefix...), "RF:", true},
		"nothing said":     {[]byte{unix.AF_INET, 0, 0, 5}, "", true},
		"shorter":          {[]byte{unix.AF_INET, 0}, "", false},
		"an attribute cut": {append([]byte{unix.AF_INET, 0, 0, 5}, prefix[:5]...), "", false},
	} {
		if got, ok := parseSampled(c.message); ok != c.ok || got.prefix != c.want {
			t.Errorf("%s: %+v, %t", name, got, ok)
		}
	}
}
