package topology

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/twin"
)

// AddPod attaches a new pod to a node, with the node's next address.
func (t *Topology) AddPod(n *Node, name string) (*Pod, error) {
	t.mu.Lock()
	a := n.next
	n.next = a.Next()
	t.mu.Unlock()
	return t.AddPodAt(n, name, a)
}

// AddPodAt attaches a new pod with an address from the node's prefix, such as one that a removed pod had.
func (t *Topology) AddPodAt(n *Node, name string, a netip.Addr) (*Pod, error) {
	h, err := t.newHost(name)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.links++
	p := &Pod{Host: h, Node: n, Addr: a, link: fmt.Sprintf("pod%d", t.links)}
	t.mu.Unlock()
	if err := host.Veth(host.End{Host: h, Link: "eth0"}, host.End{Host: n.Host, Link: p.link}); err != nil {
		return nil, err
	}
	if t.options.Kind == Bridged {
		err = t.bridge(p)
	} else {
		err = t.route(p)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("adding pod %s: %w", name, err), h.Close())
	}
	return p, nil
}

func (t *Topology) bridge(p *Pod) error {
	return errors.Join(
		p.Node.Enslave(p.link, podBridge, true),
		t.addBoth(p.Host, "eth0", p.Addr, p.Node.Pods.Bits()),
		t.routeBoth(p.Host, everything, p.Node.Pods.Addr().Next(), ""),
	)
}

func (t *Topology) route(p *Pod) error {
	err := errors.Join(
		p.Node.Address(p.link, netip.PrefixFrom(routedGateway, 32)),
		t.routeBoth(p.Node.Host, netip.PrefixFrom(p.Addr, 32), netip.Addr{}, p.link),
		t.addBoth(p.Host, "eth0", p.Addr, 32),
		p.Host.Route(everything, routedGateway, "eth0"),
	)
	if t.options.IPv4Only {
		return err
	}
	return errors.Join(err,
		p.Node.Address(p.link, routedGatewayV6),
		p.Host.Route(twin.OfPrefix(everything), routedGatewayV6.Addr(), "eth0"),
	)
}

// AddAddress gives the pod a further address, and its twin, as a CNI plugin that knows of more than the API shows. The pod's node routes
// to it; other nodes don't.
func (t *Topology) AddAddress(p *Pod, a netip.Addr) error {
	link := p.link
	if t.options.Kind == Bridged {
		link = podBridge
	}
	return errors.Join(
		t.addBoth(p.Host, "eth0", a, 32),
		t.routeBoth(p.Node.Host, netip.PrefixFrom(a, 32), netip.Addr{}, link),
	)
}

// Link is the node's end of the pod's link; the pod's end is eth0.
func (p *Pod) Link() string { return p.link }

// HardwareAddr is the address of the pod's end of its link.
func (p *Pod) HardwareAddr() (net.HardwareAddr, error) { return p.Host.HardwareAddr("eth0") }

// GatewayLink is the interface of the node that the pod's packets to other networks go to: the bridge, or the node's end of its link.
func (t *Topology) GatewayLink(p *Pod) string {
	if t.options.Kind == Bridged {
		return podBridge
	}
	return p.link
}

// RemovePod takes the pod's link and its host away.
func (t *Topology) RemovePod(p *Pod) error {
	return errors.Join(p.Node.DeleteLink(p.link), p.Close())
}

// ForgetNeighbours empties the neighbour caches of the pod and of its node: the next packet needs ARP or neighbour
// discovery first.
func (p *Pod) ForgetNeighbours() error {
	for _, h := range []*host.Host{p.Host, p.Node.Host} {
		nl, err := h.Netlink()
		if err != nil {
			return err
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			list, err := nl.NeighList(0, family)
			for again := 0; errors.Is(err, netlink.ErrDumpInterrupted) && again < 5; again++ { // cut short by a change
				list, err = nl.NeighList(0, family)
			}
			if err != nil {
				return fmt.Errorf("listing the neighbours of %s: %w", h.Name(), err)
			}
			for i := range list {
				if list[i].State&(netlink.NUD_NOARP|netlink.NUD_PERMANENT) != 0 {
					continue
				}
				if err := nl.NeighDel(&list[i]); err != nil {
					return fmt.Errorf("forgetting neighbour %s of %s: %w", list[i].IP, h.Name(), err)
				}
			}
		}
	}
	return nil
}

// Service makes every node send what comes for a virtual address, or for its twin, to a pod: destination NAT before
// the forwarding hook, and masquerading of what the pod sends to itself that way, as kube-proxy does it.
func (t *Topology) Service(vip netip.Addr, protocol policy.Protocol, port uint16, backend *Pod, targetPort uint16) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, n := range t.Nodes {
		families := []struct {
			program  string
			vip, pod netip.Addr
		}{
			{"iptables-" + t.options.Backend, vip, backend.Addr},
			{"ip6tables-" + t.options.Backend, twin.Of(vip), twin.Of(backend.Addr)},
		}
		if t.options.IPv4Only {
			families = families[:1]
		}
		for _, f := range families {
			target := netip.AddrPortFrom(f.pod, targetPort).String()
			for _, args := range [][]string{
				{"-A", "PREROUTING", "-d", f.vip.String(), "-p", protocol.String(), "--dport", fmt.Sprint(port), "-j", "DNAT", "--to-destination", target},
				{"-A", "POSTROUTING", "-s", f.pod.String(), "-d", f.pod.String(), "-p", protocol.String(), "-j", "MASQUERADE"},
			} {
				out, err := n.Command(ctx, f.program, append([]string{"-w", "-t", "nat"}, args...)...).CombinedOutput()
				if err != nil {
					return fmt.Errorf("making service %s in %s: %w: %s", f.vip, n.Name(), err, out)
				}
			}
		}
	}
	return nil
}
