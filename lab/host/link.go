package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a veth pair.
type End struct {
	Host *Host
	Link string // the interface's name, at most 15 bytes
}

// Veth joins two hosts by a pair of interfaces, sets both up, and waits until packets pass.
func Veth(a, b End) error {
	err := a.Host.netlink(func(nl *netlink.Handle) error {
		return nl.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: a.Link},
			PeerName:      b.Link,
			PeerNamespace: netlink.NsFd(int(b.Host.ns)),
		})
	})
	if err != nil {
		return fmt.Errorf("joining %s in %s with %s in %s: %w", a.Link, a.Host.name, b.Link, b.Host.name, err)
	}
	err = errors.Join(a.Host.Up(a.Link), b.Host.Up(b.Link))
	if err != nil {
		return err
	}
	return errors.Join(a.settle(), b.settle())
}

// settle waits for the link-local address. The kernel adds it when it has noticed that the link is up, which may take it a
// second, and without it a router asks for no IPv6 neighbour (ndisc_send_ns).
func (e End) settle() error {
	_, err := e.linkLocal()
	return err
}

func (e End) linkLocal() (found netip.Addr, err error) {
	err = e.Host.link(e.Link, func(nl *netlink.Handle, l netlink.Link) error {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			addrs, err := nl.AddrList(l, netlink.FAMILY_V6)
			if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what was shown until then counts, and it is asked again
				return fmt.Errorf("listing the addresses of %s in %s: %w", e.Link, e.Host.name, err)
			}
			for _, a := range addrs {
				if a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 {
					found, _ = netip.AddrFromSlice(a.IP)
					return nil
				}
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("waiting for the link-local address of %s in %s: %w", e.Link, e.Host.name, os.ErrDeadlineExceeded)
			}
		}
	})
	return found, err
}

// Up sets an interface up.
func (h *Host) Up(link string) error {
	err := h.link(link, func(nl *netlink.Handle, l netlink.Link) error { return nl.LinkSetUp(l) })
	return wrap(err, "setting %s up in %s", link, h.name)
}

// Bridge adds a bridge and sets it up.
func (h *Host) Bridge(name string) error {
	err := h.netlink(func(nl *netlink.Handle) error {
		return nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}})
	})
	return errors.Join(wrap(err, "adding bridge %s in %s", name, h.name), h.Up(name))
}

// Enslave makes link a port of bridge. With hairpin, frames may leave by the port they came in by, as a
// pod needs it that reaches itself through a service.
func (h *Host) Enslave(link, bridge string, hairpin bool) error {
	err := h.link(bridge, func(nl *netlink.Handle, br netlink.Link) error {
		l, err := nl.LinkByName(link)
		if err != nil {
			return err
		}
		return errors.Join(nl.LinkSetMaster(l, br), nl.LinkSetHairpin(l, hairpin))
	})
	return wrap(err, "adding port %s to bridge %s in %s", link, bridge, h.name)
}

// Address gives an interface an address with the length of its on-link prefix.
func (h *Host) Address(link string, addr netip.Prefix) error {
	err := h.link(link, func(nl *netlink.Handle, l netlink.Link) error {
		a := &netlink.Addr{IPNet: ipNet(addr)}
		if addr.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		return nl.AddrAdd(l, a)
	})
	return wrap(err, "adding address %s to %s in %s", addr, link, h.name)
}

// Route sends dst to the gateway via, or straight to the link if via is the zero address. With a gateway
// that no route covers, a link makes the gateway on-link. An empty link leaves the choice to the kernel.
func (h *Host) Route(dst netip.Prefix, via netip.Addr, link string) error {
	err := h.netlink(func(nl *netlink.Handle) error {
		r := &netlink.Route{Dst: ipNet(dst)}
		if link != "" {
			l, err := nl.LinkByName(link)
			if err != nil {
				return err
			}
			r.LinkIndex = l.Attrs().Index
		}
		switch {
		case via.IsValid() && link != "":
			r.Gw, r.Flags = via.AsSlice(), int(netlink.FLAG_ONLINK)
		case via.IsValid():
			r.Gw = via.AsSlice()
		default:
			r.Scope = netlink.SCOPE_LINK
		}
		return nl.RouteReplace(r)
	})
	return wrap(err, "routing %s in %s", dst, h.name)
}

// DeleteRoute removes the routes to dst.
func (h *Host) DeleteRoute(dst netip.Prefix) error {
	err := h.netlink(func(nl *netlink.Handle) error { return nl.RouteDel(&netlink.Route{Dst: ipNet(dst)}) })
	return wrap(err, "removing the route to %s in %s", dst, h.name)
}

// DeleteLink removes an interface, and with it the other end of a veth pair.
func (h *Host) DeleteLink(link string) error {
	err := h.link(link, func(nl *netlink.Handle, l netlink.Link) error { return nl.LinkDel(l) })
	return wrap(err, "removing %s in %s", link, h.name)
}

// HardwareAddr is an interface's MAC address.
func (h *Host) HardwareAddr(link string) (net.HardwareAddr, error) {
	var mac net.HardwareAddr
	err := h.link(link, func(_ *netlink.Handle, l netlink.Link) error {
		mac = l.Attrs().HardwareAddr
		return nil
	})
	return mac, wrap(err, "reading the address of %s in %s", link, h.name)
}

// LinkLocal is an interface's IPv6 link-local address, for which it waits.
func (h *Host) LinkLocal(link string) (netip.Addr, error) {
	return End{Host: h, Link: link}.linkLocal()
}

// Sysctl writes a setting of the host's, whose name is given with slashes ("net/ipv4/ip_forward"):
// interface names contain dots. Only settings under net/ belong to a network namespace.
func (h *Host) Sysctl(name, value string) error {
	if !strings.HasPrefix(name, "net/") {
		return fmt.Errorf("writing sysctl %s: it is not the namespace's own", name)
	}
	// The kernel looks at the namespace of the thread that opens the file.
	return h.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
			return fmt.Errorf("writing sysctl %s in %s: %w", name, h.name, err)
		}
		return nil
	})
}

func (h *Host) netlink(f func(*netlink.Handle) error) error {
	nl, err := h.Netlink()
	if err != nil {
		return err
	}
	return f(nl)
}

func (h *Host) link(name string, f func(*netlink.Handle, netlink.Link) error) error {
	return h.netlink(func(nl *netlink.Handle) error {
		l, err := nl.LinkByName(name)
		if err != nil {
			return err
		}
		return f(nl, l)
	})
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
