package probe_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/netns"
)

// network is a client and a server with a router between them, whose FORWARD chain drops what connection
// tracking doesn't understand and new connections to port 81.
type network struct {
	client, router, server *host.Host
}

var families = []struct {
	name                     string
	client, server           netip.Addr
	toClient, toServer       netip.Addr // the router's
	bits                     int
	iptables, denyEcho, echo string
}{
	{"IPv4", addr("10.0.1.1"), addr("10.0.2.1"), addr("10.0.1.254"), addr("10.0.2.254"), 24, "iptables", "10.0.2.2", "icmp"},
	{"IPv6", addr("fd00:1::1"), addr("fd00:2::1"), addr("fd00:1::fe"), addr("fd00:2::fe"), 64, "ip6tables", "fd00:2::2", "ipv6-icmp"},
}

func newNetwork(t *testing.T) network {
	t.Helper()
	kit.NeedNetfilter(t)
	n := network{client: netns.New(t, "rf-probetest", "client"), router: netns.New(t, "rf-probetest", "router"), server: netns.New(t, "rf-probetest", "server")}
	kit.Must(t, host.Veth(host.End{Host: n.client, Link: "eth0"}, host.End{Host: n.router, Link: "client"}))
	kit.Must(t, host.Veth(host.End{Host: n.server, Link: "eth0"}, host.End{Host: n.router, Link: "server"}))
	kit.Must(t, n.router.Sysctl("net/ipv4/ip_forward", "1"))
	kit.Must(t, n.router.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	for _, f := range families {
		all := netip.PrefixFrom(f.client, 0).Masked()
		kit.Must(t, n.client.Address("eth0", netip.PrefixFrom(f.client, f.bits)))
		kit.Must(t, n.server.Address("eth0", netip.PrefixFrom(f.server, f.bits)))
		kit.Must(t, n.server.Address("eth0", netip.PrefixFrom(addr(f.denyEcho), f.bits)))
		kit.Must(t, n.router.Address("client", netip.PrefixFrom(f.toClient, f.bits)))
		kit.Must(t, n.router.Address("server", netip.PrefixFrom(f.toServer, f.bits)))
		kit.Must(t, n.client.Route(all, f.toClient, ""))
		kit.Must(t, n.server.Route(all, f.toServer, ""))
		rules := [][]string{
			{"-P", "FORWARD", "DROP"},
			{"-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"},
			{"-A", "FORWARD", "-d", f.denyEcho, "-j", "DROP"},
			{"-A", "FORWARD", "-p", f.echo, "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"},
			{"-A", "FORWARD", "-p", "253", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"},
			{"-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"},
		}
		for _, p := range []string{"tcp", "udp", "sctp"} {
			rules = append(rules, []string{"-A", "FORWARD", "-p", p, "--dport", "82:83", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"})
		}
		for _, r := range rules {
			run(t, n.router, f.iptables, append([]string{"-w"}, r...)...)
		}
		c, err := probe.Listen(n.server, probe.Experimental, netip.AddrPortFrom(f.server, 0))
		kit.Must(t, err)
		t.Cleanup(func() { kit.Must(t, c.Close()) })
		for _, p := range ported {
			for _, port := range []uint16{81, 82} {
				c, err := probe.Listen(n.server, p, netip.AddrPortFrom(f.server, port))
				kit.Must(t, err)
				t.Cleanup(func() { kit.Must(t, c.Close()) })
			}
		}
	}
	return n
}

var ported = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

func TestDial(t *testing.T) {
	n := newNetwork(t)
	reached := probe.Result{Outcome: probe.Reached, Identity: n.server.Name()}
	timedOut := probe.Result{Outcome: probe.TimedOut}
	refused := probe.Result{Outcome: probe.Refused}
	type row struct {
		flow probe.Flow
		want probe.Result
	}
	for _, f := range families {
		rows := []row{
			{probe.Flow{Protocol: probe.Experimental, Src: f.client, Dst: f.server}, reached},
			{probe.Flow{Protocol: probe.Experimental, Src: f.client, Dst: addr(f.denyEcho)}, timedOut},
			{probe.Flow{Protocol: policy.ICMP, Src: f.client, Dst: f.server}, probe.Result{Outcome: probe.Reached}},
			{probe.Flow{Protocol: policy.ICMP, Src: f.client, Dst: addr(f.denyEcho)}, timedOut},
			{probe.Flow{Protocol: policy.TCP, Src: f.client, Dst: f.server, Port: 83}, refused},
			{probe.Flow{Protocol: policy.UDP, Src: f.client, Dst: f.server, Port: 83}, refused},
			{probe.Flow{Protocol: policy.SCTP, Src: f.client, Dst: f.server, Port: 83}, timedOut},
		}
		for _, p := range ported {
			rows = append(rows,
				row{probe.Flow{Protocol: p, Src: f.client, Dst: f.server, Port: 81}, timedOut},
				row{probe.Flow{Protocol: p, Src: f.client, Dst: f.server, Port: 82}, reached},
				row{probe.Flow{Protocol: p, Dst: f.server, Port: 82}, reached},
			)
		}
		for _, r := range rows {
			t.Run(r.flow.String(), func(t *testing.T) {
				t.Parallel()
				got := probe.Dial(n.client, r.flow, probe.Expect(r.want.Outcome != probe.TimedOut))
				if d := cmp.Diff(r.want, got); d != "" {
					t.Errorf("-want +got:\n%s", d)
				}
			})
		}
	}
}

func TestDialSaysWhyItFailed(t *testing.T) {
	kit.NeedNetfilter(t)
	lonely := netns.New(t, "rf-probetest", "lonely")
	got := probe.Dial(lonely, probe.Flow{Protocol: policy.TCP, Dst: addr("192.0.2.1"), Port: 80}, probe.Expect(false))
	if got.Outcome != probe.Failed || got.Err == nil {
		t.Errorf("a flow without a route: %s, want failed with an error", got)
	}
}

func TestHundredsOfDialsAtOnce(t *testing.T) {
	n := newNetwork(t)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range 600 {
		f := families[i%2]
		flow := probe.Flow{Protocol: ported[i%3], Src: f.client, Dst: f.server, Port: uint16(81 + i/3%2)}
		want := probe.TimedOut
		if flow.Port == 82 {
			want = probe.Reached
		}
		wg.Go(func() {
			if got := probe.Dial(n.client, flow, probe.Expect(want == probe.Reached)); got.Outcome != want {
				t.Errorf("%s: %s, want %s", flow, got, want)
			}
		})
	}
	wg.Wait()
	t.Logf("600 probes in %s", time.Since(start))
}

func TestWatch(t *testing.T) {
	n := newNetwork(t)
	var flows []probe.Watched
	for _, f := range families {
		c, err := probe.Listen(n.server, probe.Experimental, netip.AddrPortFrom(f.server, 0))
		kit.Must(t, err)
		t.Cleanup(func() { kit.Must(t, c.Close()) })
		for _, p := range ported {
			for _, port := range []uint16{81, 82} {
				flows = append(flows, probe.Watched{
					Host: n.client, Flow: probe.Flow{Protocol: p, Src: f.client, Dst: f.server, Port: port}, Allowed: port == 82,
				})
			}
		}
		flows = append(flows,
			probe.Watched{Host: n.client, Flow: probe.Flow{Protocol: policy.ICMP, Src: f.client, Dst: f.server}, Allowed: true},
			probe.Watched{Host: n.client, Flow: probe.Flow{Protocol: policy.ICMP, Src: f.client, Dst: addr(f.denyEcho)}})
	}
	watch := func(flows []probe.Watched, meanwhile func()) probe.Report {
		w, err := probe.Watch(flows, 2000)
		kit.Must(t, err)
		meanwhile()
		r, err := w.Stop(2 * time.Second)
		kit.Must(t, err)
		if got := r.Answered + r.Silent + len(r.Wrong); got != r.Probes {
			t.Errorf("%d probes, but %d verdicts", r.Probes, got)
		}
		t.Log(r)
		return r
	}

	if r := watch(flows, func() { time.Sleep(time.Second) }); len(r.Wrong) > 0 || r.Rate() < 1900 {
		t.Errorf("a firewall that keeps to its rules: %s", r)
	}
	// A hole and an outage, each of a few milliseconds, are both seen.
	r := watch(flows, func() {
		for _, rule := range []string{"-p tcp --dport 81 -j ACCEPT", "-p udp --dport 82 -j DROP"} {
			run(t, n.router, "sh", "-c", fmt.Sprintf("iptables -I FORWARD 1 %s && sleep 0.02 && iptables -D FORWARD 1", rule))
		}
	})
	var holes, outages int
	for _, w := range r.Wrong {
		switch {
		case w.Flow.Protocol == policy.TCP && w.Flow.Dst.Is4() && w.Flow.Port == 81 && !w.Allowed:
			holes++
		case w.Flow.Protocol == policy.UDP && w.Flow.Dst.Is4() && w.Flow.Port == 82 && w.Allowed:
			outages++
		default:
			t.Errorf("unexpected: %s", w)
		}
	}
	if holes == 0 || outages == 0 {
		t.Errorf("saw %d probes through the hole and %d lost in the outage, want some of both", holes, outages)
	}
	r, err := probe.Once(flows, 2000, 2*time.Second)
	kit.Must(t, err)
	if r.Probes != len(flows) || r.Answered+r.Silent != len(flows) {
		t.Errorf("%d flows probed once: %s", len(flows), r)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func run(t *testing.T, h *host.Host, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if out, err := h.Command(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
