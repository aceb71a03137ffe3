package dataplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// inNode moves the test into a node of its own, and makes other network namespaces beside it.
func inNode(t *testing.T, others ...string) (node *host.Host, pods []*host.Host) {
	t.Helper()
	enterNamespace(t)
	var hosts []*host.Host
	for _, name := range append([]string{"node"}, others...) {
		h, err := host.New(host.RunPrefix(hostPrefix) + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		hosts = append(hosts, h)
	}
	if err := enter(hosts[0]); err != nil {
		t.Fatal(err)
	}
	return hosts[0], hosts[1:]
}

// wire makes a link whose other end is in another namespace, with these addresses there.
func wire(t *testing.T, link string, to *host.Host, iface string, addrs ...string) {
	t.Helper()
	run(t, "ip", "link", "add", link, "type", "veth", "peer", "name", iface, "netns", to.Name())
	for _, a := range addrs {
		run(t, "ip", "-n", to.Name(), "addr", "add", a, "dev", iface)
	}
	run(t, "ip", "-n", to.Name(), "link", "set", iface, "up")
	run(t, "ip", "link", "set", link, "up")
}

// said are links as a person would note them: "pod1 bridged guarded 10.0.0.1 fd00::1".
func said(found Links) (all []string) {
	for _, l := range found.Links {
		parts := []string{l.Name}
		if l.Bridged {
			parts = append(parts, "bridged")
		}
		if l.Guarded {
			parts = append(parts, "guarded")
		}
		for _, a := range l.Addrs {
			parts = append(parts, a.String())
		}
		all = append(all, strings.Join(parts, " "))
	}
	return all
}

func mustLinks(t *testing.T, d *Dataplane) Links {
	t.Helper()
	found, err := d.Links()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestLinksOfANode(t *testing.T) {
	_, pods := inNode(t, "a", "b", "c")
	d := newDataplane(t, NFT)
	wire(t, "pod-a", pods[0], "eth0", "10.0.0.1/32", "fd00::1/128", "169.254.172.2/22")
	wire(t, "pod-b", pods[1], "eth0", "10.1.0.1/24")
	wire(t, "pod-b2", pods[1], "net1", "10.2.0.1/24")
	wire(t, "pod-c", pods[2], "eth0")
	run(t, "ip", "link", "add", "br0", "type", "bridge")
	run(t, "ip", "link", "set", "pod-b", "master", "br0")
	run(t, "ip", "addr", "add", "10.1.0.254/24", "brd", "+", "dev", "br0")
	run(t, "ip", "link", "add", "own1", "type", "veth", "peer", "name", "own2") // both ends are the node's
	run(t, "ip", "addr", "add", "192.0.2.1/24", "brd", "192.0.2.255", "dev", "own1")
	run(t, "ip", "addr", "add", "2001:db8::1/64", "dev", "own1")
	run(t, "ip", "addr", "add", "127.0.0.9/8", "dev", "lo")

	found := mustLinks(t, d)
	if diff := cmp.Diff([]string{"pod-a 10.0.0.1 169.254.172.2 fd00::1", "pod-b bridged 10.1.0.1", "pod-b2 10.2.0.1", "pod-c"}, said(found)); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(kit.Addrs("10.1.0.254", "192.0.2.1", "2001:db8::1"), found.Own, sameAddr); diff != "" {
		t.Errorf("the node's own addresses (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(kit.Addrs("10.1.0.255", "192.0.2.255"), found.Broadcasts, sameAddr); diff != "" {
		t.Errorf("broadcasts (-want +got):\n%s", diff)
	}
	for i, name := range []string{"pod-a", "pod-b"} {
		mac, err := pods[i].HardwareAddr("eth0")
		if err != nil {
			t.Fatal(err)
		}
		l := found.Links[slices.IndexFunc(found.Links, func(l Link) bool { return l.Name == name })]
		here, err := net.InterfaceByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if l.MAC != string(mac) || l.Index != here.Index {
			t.Errorf("%s has number %d and leads to %x, want %d and %s", name, l.Index, l.MAC, here.Index, mac)
		}
	}
	run(t, "ip", "link", "del", "pod-b2")
	run(t, "ip", "-n", pods[2].Name(), "addr", "add", "10.3.0.1/32", "dev", "eth0") // not seen before, so that it is asked for at each look
	if diff := cmp.Diff([]string{"pod-a 10.0.0.1 169.254.172.2 fd00::1", "pod-b bridged 10.1.0.1", "pod-c 10.3.0.1"}, said(mustLinks(t, d))); diff != "" {
		t.Errorf("links later (-want +got):\n%s", diff)
	}
}

// TestNetkitIsALinkToo, where the kernel has it (Linux 6.7).
func TestNetkitIsALinkToo(t *testing.T) {
	_, pods := inNode(t, "a")
	err := netlink.LinkAdd(&netlink.Netkit{LinkAttrs: netlink.LinkAttrs{Name: "nk1"}, Mode: netlink.NETKIT_MODE_L3})
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Log("the kernel has no netkit: there is nothing that could be missed")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.Type() == "netkit" && l.Attrs().Name != "nk1" {
			run(t, "ip", "link", "set", l.Attrs().Name, "netns", pods[0].Name(), "name", "eth0")
		}
	}
	run(t, "ip", "-n", pods[0].Name(), "addr", "add", "10.0.0.1/32", "dev", "eth0")
	if diff := cmp.Diff([]string{"nk1 10.0.0.1"}, said(mustLinks(t, newDataplane(t, NFT)))); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
}

func TestTunnelsOfANode(t *testing.T) {
	inNode(t)
	d := newDataplane(t, NFT)
	run(t, "ip", "link", "add", "base", "type", "veth", "peer", "name", "base2")
	run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "base")
	run(t, "ip", "link", "set", "base", "up")
	run(t, "ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "local", "192.0.2.1", "dev", "base", "dstport", "8472")
	look := func(when string, want ...policy.Tunnel) {
		t.Helper()
		if diff := cmp.Diff(want, mustLinks(t, d).Tunnels); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	look("one that is down")
	run(t, "ip", "link", "set", "flannel.1", "up")
	vxlan := policy.Tunnel{Protocol: policy.UDP, Port: 8472}
	look("one that is up", vxlan)
	run(t, "ip", "link", "add", "other", "type", "vxlan", "id", "2", "local", "192.0.2.1", "dev", "base", "dstport", "8472")
	run(t, "ip", "link", "set", "other", "up")
	run(t, "ip", "link", "add", "plain", "type", "vxlan", "id", "3", "local", "192.0.2.1", "dev", "base", "dstport", "4789")
	run(t, "ip", "link", "set", "plain", "up")
	look("several", policy.Tunnel{Protocol: policy.UDP, Port: 4789}, vxlan)
	for _, name := range []string{"flannel.1", "plain"} {
		run(t, "ip", "link", "set", name, "down")
	}
	look("some are down again", vxlan)
	run(t, "ip", "link", "del", "other")
	look("none")
}

// TestOtherTunnelsOfANode: those that the kernel of this machine knows.
func TestOtherTunnelsOfANode(t *testing.T) {
	local := net.IPv4(192, 0, 2, 1)
	for name, c := range map[string]struct {
		link netlink.Link
		want policy.Tunnel
	}{
		"geneve": {&netlink.Geneve{LinkAttrs: netlink.LinkAttrs{Name: "t1"}, ID: 1, Remote: local, Dport: 6081}, policy.Tunnel{Protocol: policy.UDP, Port: 6081}},
		"ipip":   {&netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "t1"}, Local: local}, policy.Tunnel{Protocol: unix.IPPROTO_IPIP}},
		"sit":    {&netlink.Sittun{LinkAttrs: netlink.LinkAttrs{Name: "t1"}, Local: local, Remote: net.IPv4(192, 0, 2, 2)}, policy.Tunnel{Protocol: unix.IPPROTO_IPV6}},
		"gre":    {&netlink.Gretun{LinkAttrs: netlink.LinkAttrs{Name: "t1"}, Local: local, Remote: net.IPv4(192, 0, 2, 2)}, policy.Tunnel{Protocol: unix.IPPROTO_GRE}},
	} {
		t.Run(name, func(t *testing.T) {
			inNode(t)
			d := newDataplane(t, NFT)
			before := mustLinks(t, d).Tunnels
			if err := netlink.LinkAdd(c.link); errors.Is(err, unix.EOPNOTSUPP) {
				t.Logf("the kernel has no tunnel of the type %s: nothing comes out of one", name)
				return
			} else if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, mustLinks(t, d).Tunnels); diff != "" {
				t.Errorf("one that is down (-want +got):\n%s", diff)
			}
			run(t, "ip", "link", "set", "t1", "up")
			if got := mustLinks(t, d).Tunnels; !slices.Contains(got, c.want) {
				t.Errorf("tunnels are %v, want %v among them", got, c.want)
			}
		})
	}
}

// TestANamespaceThatGoesWhileItIsRead costs nobody else anything.
func TestANamespaceThatGoesWhileItIsRead(t *testing.T) {
	node, pods := inNode(t, "stays")
	d := newDataplane(t, NFT)
	wire(t, "stays", pods[0], "eth0", "10.0.0.1/32")
	reading, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- node.Do(func() error {
			for reading.Err() == nil {
				ns, err := netns.New() // which goes with its last link, as a pod's does
				if err != nil {
					return err
				}
				link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "goes"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
				if err := errors.Join(enter(node), netlink.LinkAdd(link), ns.Close()); err != nil {
					return err
				}
				if err := gone("goes"); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	for range 200 {
		found := mustLinks(t, d)
		if i := slices.IndexFunc(found.Links, func(l Link) bool { return l.Name == "stays" }); i < 0 || !slices.Equal(found.Links[i].Addrs, kit.Addrs("10.0.0.1")) {
			t.Fatalf("the link that stays is among %v", said(found))
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// gone removes a link, unless the end of the namespace at its other end has done so.
func gone(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// TestLinksAreWatched: whoever waits hears of a link that comes, once, and of its end.
func TestLinksAreWatched(t *testing.T) {
	node, pods := inNode(t, "a")
	wire(t, "first", pods[0], "eth0")
	d := newDataplane(t, NFT)
	ctx, cancel := context.WithCancel(t.Context())
	changes, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- node.Do(func() error { return d.WatchLinks(ctx, func() { changes <- struct{}{} }) }) }()
	hear := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case err := <-ended:
			t.Fatalf("the watch ended: %v", err)
		case <-time.After(20 * time.Second):
			t.Fatalf("nobody is told that %s", what)
		}
	}
	hear("a link is there")
	run(t, "ip", "link", "add", "own1", "type", "veth", "peer", "name", "own2") // leads nowhere
	run(t, "ip", "link", "set", "own1", "up")
	wire(t, "last", pods[0], "net1")
	hear("another has come")
	if n := len(changes); n > 0 {
		t.Errorf("somebody is told %d times more than something has changed", n)
	}
	run(t, "ip", "link", "del", "last")
	hear("it has gone")
	run(t, "ip", "link", "del", "first")
	hear("that which was there at the start has gone")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the watch ended with %v", err)
	}
}
