package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
)

// maxNodes keeps the last byte of a node's address within a byte.
const maxNodes = 200

// wire is the bridge in the world that joins all nodes, uplink each node's interface at it.
const (
	wire   = "wire0"
	uplink = "eth0"
)

// worldAddress is the address, with its on-link prefix, of the world. The ranges are those for documentation.
func worldAddress(f iptables.Family) netip.Prefix {
	if f == iptables.IPv4 {
		return netip.MustParsePrefix("192.0.2.1/24")
	}
	return netip.MustParsePrefix("2001:db8::1/64")
}

// nodeAddress is that of the i-th node, counted from 1. It reads the same in both families: .11 and ::11.
func nodeAddress(f iptables.Family, i int) netip.Prefix {
	if f == iptables.IPv4 {
		return netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", 10+i))
	}
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8::%d/64", 10+i))
}

// podCIDR is the range of the i-th node's pods.
func podCIDR(f iptables.Family, i int) netip.Prefix {
	if f == iptables.IPv4 {
		return netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i))
	}
	return netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", i))
}

// WorldAddresses are those of the world, which is off-cluster, in the order of the lab's families.
func (l *Lab) WorldAddresses() []netip.Addr {
	var addrs []netip.Addr
	for _, f := range l.opts.Families {
		addrs = append(addrs, worldAddress(f).Addr())
	}
	return addrs
}

// buildNetwork makes the world, the nodes, and the routes between them.
func (l *Lab) buildNetwork() error {
	l.opts.Progress("building the network")
	if l.opts.CNI == cni.Bridge {
		// Without the module a bridge's frames never pass iptables. Where it is built in, there is nothing to load.
		_ = exec.Command("modprobe", "br_netfilter").Run()
	}
	var err error
	if l.World, err = host.New(l.prefix + "world"); err != nil {
		return err
	}
	if err := l.World.Bridge(wire); err != nil {
		return err
	}
	for _, f := range l.opts.Families {
		if err := l.World.Address(wire, worldAddress(f)); err != nil {
			return err
		}
		if err := forward(l.World, f); err != nil {
			return err
		}
	}
	for i := 1; i <= l.opts.Nodes; i++ {
		if err := l.addNode(i); err != nil {
			return err
		}
	}
	for _, to := range l.Nodes {
		for _, from := range l.Nodes {
			if from != to {
				if err := routeTo(to, from.Host); err != nil {
					return err
				}
			}
		}
		if err := routeTo(to, l.World); err != nil {
			return err
		}
	}
	return nil
}

// addNode makes the network namespace of the i-th node and plugs it into the wire.
func (l *Lab) addNode(i int) error {
	n := &Node{Name: fmt.Sprintf("n%d", i), lab: l}
	n.SetEnforcer(l.opts.EnforcerBinary, l.opts.Backend, l.opts.EnforcerArgs...)
	for _, f := range l.opts.Families {
		n.Addresses = append(n.Addresses, nodeAddress(f, i).Addr())
		n.PodCIDRs = append(n.PodCIDRs, podCIDR(f, i))
	}
	var err error
	if n.Host, err = host.New(l.prefix + n.Name); err != nil {
		return err
	}
	l.Nodes = append(l.Nodes, n)
	if err := host.Veth(host.End{Host: l.World, Link: n.Name}, host.End{Host: n.Host, Link: uplink}); err != nil {
		return err
	}
	if err := l.World.Enslave(n.Name, wire, false); err != nil {
		return err
	}
	for _, f := range l.opts.Families {
		if err := n.Host.Address(uplink, nodeAddress(f, i)); err != nil {
			return err
		}
		if err := n.Host.Route(anywhere(f), worldAddress(f).Addr(), ""); err != nil {
			return err
		}
		if err := forward(n.Host, f); err != nil {
			return err
		}
	}
	return n.policeBridge()
}

// routeTo has from send what is for to's pods to the node itself.
func routeTo(to *Node, from *host.Host) error {
	for i, cidr := range to.PodCIDRs {
		if err := from.Route(cidr, to.Addresses[i], ""); err != nil {
			return err
		}
	}
	return nil
}

// policeBridge has bridged frames pass iptables, as every node with a bridge plugin must. The settings are each network
// namespace's own since Linux 5.3.
func (n *Node) policeBridge() error {
	if n.lab.opts.CNI != cni.Bridge {
		return nil
	}
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		err := n.Host.Sysctl("net/bridge/"+name, "1")
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the kernel lacks br_netfilter, so that policies cannot reach bridged pods; try CNI plugin ptp: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func forward(h *host.Host, f iptables.Family) error {
	if f == iptables.IPv4 {
		return h.Sysctl("net/ipv4/ip_forward", "1")
	}
	return h.Sysctl("net/ipv6/conf/all/forwarding", "1")
}

func anywhere(f iptables.Family) netip.Prefix {
	if f == iptables.IPv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// nameMax is the longest file name, and with it host name, that Linux takes.
const nameMax = 255

// podHostName names a pod's network namespace. A namespace's name holds no dot, so that the first dot parts the two and
// no two pods share a name. Names that are too long are cut and told apart by a hash.
func (l *Lab) podHostName(namespace, name string) string {
	full := l.prefix + namespace + "." + name
	if len(full) <= nameMax {
		return full
	}
	tag := shortHash(full)
	return strings.TrimRight(full[:nameMax-len(tag)-1], ".-") + "~" + tag
}
