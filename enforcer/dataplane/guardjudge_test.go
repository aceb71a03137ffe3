package dataplane

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// How many guards are judged, and how many packets go through each.
const judgedGuards, judgedPackets = 16, 250

// judged is a bridge with the link of a pod and a port behind it: whatever passes the guard of the link arrives there, of any form.
type judged struct {
	t       *testing.T
	random  *rand.Rand
	index   int // of the pod's link
	pod     *probe.Link
	behind  *probe.Sniffer
	mac     net.HardwareAddr
	counter uint32
}

const judgedLink = "pod1"

func newJudged(t *testing.T, seed uint64) *judged {
	t.Helper()
	enterNamespace(t)
	prefix := host.RunPrefix(hostPrefix)
	var hosts []*host.Host
	for _, name := range []string{"bridge", "pod", "behind"} {
		h, err := host.New(prefix + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		hosts = append(hosts, h)
	}
	node, pod, behind := hosts[0], hosts[1], hosts[2]
	err := errors.Join(
		host.Veth(host.End{Host: node, Link: judgedLink}, host.End{Host: pod, Link: "eth0"}),
		host.Veth(host.End{Host: node, Link: "out1"}, host.End{Host: behind, Link: "eth0"}),
		enter(node),
	)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "nf_call_iptables", "0", "nf_call_ip6tables", "0", "nf_call_arptables", "0")
	for _, file := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"} {
		if err := os.WriteFile("/proc/sys/net/bridge/"+file, []byte("0"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for _, port := range []string{judgedLink, "out1"} {
		run(t, "ip", "link", "set", port, "master", "br0")
	}
	run(t, "ip", "link", "set", "br0", "up")
	j := &judged{t: t, random: rand.New(rand.NewPCG(seed, 1))}
	if j.mac, err = pod.HardwareAddr("eth0"); err != nil {
		t.Fatal(err)
	}
	i, err := net.InterfaceByName(judgedLink)
	if err != nil {
		t.Fatal(err)
	}
	j.index = i.Index
	if j.behind, err = probe.SniffLink(behind, "eth0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.behind.Close() })
	err = pod.Do(func() (err error) {
		j.pod, err = probe.OpenLink("eth0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.pod.Close() })
	return j
}

// enter moves the thread, which is locked, into a host.
func enter(h *host.Host) error {
	ns, err := netns.GetFromPath(h.Path())
	if err != nil {
		return err
	}
	defer ns.Close()
	return netns.Set(ns)
}

// TestGuardsAgreeWithTheReference: the kernel lets those packets past a link's guard, and no others, of which policy says so. RINGFENCE_SEED repeats a run.
func TestGuardsAgreeWithTheReference(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("RINGFENCE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	j := newJudged(t, seed)
	passed, dropped := 0, 0
	for range judgedGuards {
		n := j.node()
		guard := iptables.Render(n, iptables.Options{Families: iptables.Families[:], Table: securityTable, Guards: true}).Guards[judgedLink]
		if err := withGuards(func(g *guards) error { return g.write(t.Context(), []iptables.Guard{guard}) }); err != nil {
			t.Fatal(err)
		}
		for range judgedPackets / 50 {
			p, d := j.batch(n, 50)
			passed, dropped = passed+p, dropped+d
		}
		if t.Failed() {
			t.Fatalf("RINGFENCE_SEED=%d; the guard is\n%s%+v", seed, guard, n)
		}
	}
	if passed < 500 || dropped < 500 {
		t.Errorf("%d packets passed and %d did not: the packets are of one kind", passed, dropped)
	}
}

// batch sends packets, and compares which of them have passed. Frames keep their order: behind them goes one that passes for certain, to a guard that has an
// address.
func (j *judged) batch(n policy.Node, packets int) (passed, dropped int) {
	j.t.Helper()
	j.behind.Forget()
	type sent struct {
		flow  policy.Flow
		frame probe.Frame
	}
	var all []sent
	for range packets {
		flow, p := j.packet(n.Links[0].Addrs)
		f := j.frame(p)
		all = append(all, sent{flow, f})
		if err := j.pod.Send(f); err != nil {
			j.t.Fatal(err)
		}
	}
	j.settle(n)
	for _, s := range all {
		why := n.ForbidsSource(s.flow)
		wanted, got := why == "" || n.AuditSources, len(j.behind.Carrying(s.frame.Marshal())) > 0
		if got != wanted {
			j.t.Errorf("passed: %t, want %t (%s): %+v\n%x", got, wanted, why, s.flow, s.frame.Marshal())
		}
		if got {
			passed++
		} else {
			dropped++
		}
	}
	return passed, dropped
}

// settle waits until what was sent has passed, or has not. A link that is shut lets nothing through: it is opened for the one frame that says so.
func (j *judged) settle(n policy.Node) {
	j.t.Helper()
	src := netip.MustParseAddr("10.99.0.1")
	if addrs := n.Links[0].Addrs; len(addrs) > 0 && !n.AuditSources {
		src = addrs[0]
	} else if !n.AuditSources {
		if err := withGuards(func(g *guards) error { return g.remove([]string{judgedLink}) }); err != nil {
			j.t.Fatal(err)
		}
		defer func() {
			guard := iptables.Render(n, iptables.Options{Families: iptables.Families[:], Table: securityTable, Guards: true}).Guards[judgedLink]
			if err := withGuards(func(g *guards) error { return g.write(j.t.Context(), []iptables.Guard{guard}) }); err != nil {
				j.t.Fatal(err)
			}
		}()
	}
	last := j.frame(probe.TCP(netip.AddrPortFrom(src, 1), netip.AddrPortFrom(src, 2), probe.SYN, 1, 0, j.marker()))
	ctx, cancel := context.WithTimeout(j.t.Context(), 20*time.Second)
	defer cancel()
	for { // the opening of a link is not ordered with what has been sent
		if err := j.pod.Send(last); err != nil {
			j.t.Fatal(err)
		}
		wait, end := context.WithTimeout(ctx, 200*time.Millisecond)
		err := j.behind.Wait(wait, last.Marshal())
		end()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			j.t.Fatal("a packet that is allowed does not arrive")
		}
	}
}

// frame is what a pod sends to a hardware address that nobody has, so that the bridge sends it everywhere.
func (j *judged) frame(p probe.Packet) probe.Frame {
	return probe.Frame{Dst: net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, Src: j.mac, Type: p.EtherType(), Payload: p.Marshal()}
}

// marker tells two packets apart.
func (j *judged) marker() []byte {
	j.counter++
	return fmt.Appendf(nil, "%08x", j.counter)
}

// node is a random node with one link, which is shut now and then.
func (j *judged) node() policy.Node {
	l := policy.Link{Name: judgedLink, Index: j.index, Namespace: "ns", Pod: "a", Bridged: j.random.IntN(2) == 0}
	for _, a := range kit.Addrs("10.0.0.1", "169.254.172.2", "fd00::1", "fd00::2") {
		if j.random.IntN(3) > 0 {
			l.Addrs = append(l.Addrs, a)
		}
	}
	if l.Bridged {
		l.MAC = string(j.mac)
	}
	n := policy.Node{Links: []policy.Link{l}, AuditSources: j.random.IntN(8) == 0}
	for _, tunnel := range []policy.Tunnel{{Protocol: policy.UDP, Port: 8472}, {Protocol: unix.IPPROTO_IPIP}, {Protocol: unix.IPPROTO_GRE}} {
		if j.random.IntN(2) == 0 {
			n.Tunnels = append(n.Tunnels, tunnel)
		}
	}
	return n
}

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// packet is a random packet, of the form that a packet of its kind has, with what a [policy.Flow] says of it.
func (j *judged) packet(own []netip.Addr) (policy.Flow, probe.Packet) {
	r := j.random
	sources := kit.Addrs("10.0.0.1", "10.0.0.2", "0.0.0.0", "127.0.0.1", "169.254.172.2", "169.254.9.9", "fd00::1", "fd00::2", "fd00::3", "::", "fe80::1", "::1")
	src := one(r, append(sources, own...)...)
	dst := one(r, kit.Addrs("10.0.0.9", "10.0.0.1", "224.0.0.251", "255.255.255.255")...)
	if src.Is6() {
		dst = one(r, kit.Addrs("fd00::9", "fd00::1", "ff02::1", "fe80::9")...)
	}
	flow := policy.Flow{From: judgedLink, Src: src, Dst: dst}
	ports := func() (from, to netip.AddrPort) {
		flow.SrcPort, flow.DstPort = one[uint16](r, 68, 67, 546, 547, 4000, uint16(r.Uint32())), one[uint16](r, 67, 68, 547, 546, 80, 8472, uint16(r.Uint32()))
		return netip.AddrPortFrom(src, flow.SrcPort), netip.AddrPortFrom(dst, flow.DstPort)
	}
	var p probe.Packet
	switch r.IntN(8) {
	case 0, 1:
		from, to := ports()
		p = probe.TCP(from, to, one(r, probe.SYN, probe.ACK, probe.RST), r.Uint32(), 0, j.marker())
	case 2, 3:
		from, to := ports()
		p = probe.UDP(from, to, j.marker())
	case 4:
		from, to := ports()
		p = probe.INIT(from, to, r.Uint32())
	case 5, 6:
		p = j.icmp(&flow, own)
	default:
		protocol := one[policy.Protocol](r, unix.IPPROTO_IPIP, unix.IPPROTO_GRE, unix.IPPROTO_UDPLITE, 89, probe.Experimental)
		p = probe.Packet{Src: src, Dst: dst, Protocol: protocol, Payload: append(make([]byte, 8), j.marker()...)}
	}
	flow.Protocol = p.Protocol
	return flow, p
}

// icmp is a message of ICMP or ICMPv6. An error is about a packet to the pod: what another is about stands in no flow.
func (j *judged) icmp(flow *policy.Flow, own []netip.Addr) probe.Packet {
	r := j.random
	kinds := []uint8{8, 0, 3, 11, 13}
	if flow.Src.Is6() {
		kinds = []uint8{128, 129, 1, 3, 130, 131, 132, 143, 133, 134, 135, 136, 137}
	}
	flow.ICMPType = one(r, kinds...)
	body := append(make([]byte, 16), j.marker()...)
	if flow.ICMPType == 3 || flow.ICMPType == 11 || flow.Src.Is6() && flow.ICMPType < firstQuery6 {
		if i := slices.IndexFunc(own, func(a netip.Addr) bool { return a.Is4() == flow.Src.Is4() }); i >= 0 {
			about := probe.UDP(netip.AddrPortFrom(flow.Dst, 1), netip.AddrPortFrom(own[i], 2), j.marker())
			body = about.Marshal()
		}
	}
	target := netip.MustParseAddr("fe80::")
	unique := target.As16()
	copy(unique[8:], j.marker())
	target = netip.AddrFrom16(unique)
	switch kind := flow.ICMPType; {
	case flow.Src.Is4():
		return probe.ICMP(flow.Src, flow.Dst, kind, 0, r.Uint32(), body)
	case kind == routerSolicitation:
		j.counter++
		p := probe.ICMP(flow.Src, flow.Dst, kind, 0, j.counter, nil)
		p.HopLimit = 255
		return p
	case kind >= firstOfNeighbours && kind <= lastOfNeighbours:
		return probe.Discovery(flow.Src, flow.Dst, kind, 0, target)
	case kind == 143:
		p := probe.ICMP(flow.Src, flow.Dst, kind, 0, 0, body)
		p.HopLimit = 1
		return p
	default:
		return probe.ICMP(flow.Src, flow.Dst, kind, 0, r.Uint32(), body)
	}
}
