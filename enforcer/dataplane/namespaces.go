package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// namespaces asks the kernel about network namespaces by the numbers that they have in this one.
type namespaces struct {
	socket *nl.NetlinkSocket
	// strict is set if the kernel reads of a request which namespace it is about (NETLINK_GET_STRICT_CHK); otherwise it would answer for this one.
	strict bool
	ends   map[int]map[int]farEnd // by namespace, and by number of the interface there
}

// farEnd is the other end of a link.
type farEnd struct {
	mac   string
	addrs []netip.Addr
}

func openNamespaces() (*namespaces, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink for links: %w", err)
	}
	strict := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) == nil
	return &namespaces{socket: s, strict: strict, ends: map[int]map[int]farEnd{}}, nil
}

func (n *namespaces) close() { n.socket.Close() }

// end is an interface of a namespace. One that goes meanwhile, or that nobody may ask about, has nothing.
func (n *namespaces) end(namespace, index int) farEnd {
	if !n.strict {
		return farEnd{}
	}
	ends, ok := n.ends[namespace]
	if !ok {
		ends = map[int]farEnd{}
		_ = n.dump(unix.RTM_GETADDR, namespace, func(header *nl.IfAddrmsg, attrs []syscall.NetlinkRouteAttr) {
			if a, ok := localAddress(attrs); ok {
				e := ends[int(header.Index)]
				e.addrs = sortedWith(e.addrs, a)
				ends[int(header.Index)] = e
			}
		})
		_ = n.links(namespace, func(index int, mac string) {
			e := ends[index]
			e.mac = mac
			ends[index] = e
		})
		n.ends[namespace] = ends
	}
	return ends[index]
}

// own reads this namespace's own addresses.
func (n *namespaces) own(into *Links) error {
	err := n.dump(unix.RTM_GETADDR, -1, func(_ *nl.IfAddrmsg, attrs []syscall.NetlinkRouteAttr) {
		a, ok := localAddress(attrs)
		if !ok {
			return
		}
		into.Own = sortedWith(into.Own, a)
		if b, ok := netip.AddrFromSlice(attribute(attrs, unix.IFA_BROADCAST)); ok && b.Is4() && b != a {
			into.Broadcasts = sortedWith(into.Broadcasts, b)
		}
	})
	if err != nil {
		return fmt.Errorf("listing the node's own addresses: %w", err)
	}
	return nil
}

func sortedWith(list []netip.Addr, a netip.Addr) []netip.Addr {
	i, found := slices.BinarySearchFunc(list, a, netip.Addr.Compare)
	if found {
		return list
	}
	return slices.Insert(list, i, a)
}

// dump asks for a namespace's addresses, -1 for this one's.
func (n *namespaces) dump(command, namespace int, visit func(*nl.IfAddrmsg, []syscall.NetlinkRouteAttr)) error {
	r := nl.NewNetlinkRequest(command, unix.NLM_F_DUMP)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: n.socket}}
	r.AddData(&nl.IfAddrmsg{IfAddrmsg: unix.IfAddrmsg{Family: unix.AF_UNSPEC}})
	if namespace >= 0 {
		r.AddData(nl.NewRtAttr(unix.IFA_TARGET_NETNSID, binary.NativeEndian.AppendUint32(nil, uint32(namespace))))
	}
	return answers(r, unix.RTM_NEWADDR, func(m []byte) error {
		header := nl.DeserializeIfAddrmsg(m)
		attrs, err := nl.ParseRouteAttr(m[header.Len():])
		if err == nil {
			visit(header, attrs)
		}
		return err
	})
}

// links asks for the hardware addresses of a namespace's interfaces.
func (n *namespaces) links(namespace int, visit func(index int, mac string)) error {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: n.socket}}
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, binary.NativeEndian.AppendUint32(nil, uint32(namespace))))
	return answers(r, unix.RTM_NEWLINK, func(m []byte) error {
		header := nl.DeserializeIfInfomsg(m)
		attrs, err := nl.ParseRouteAttr(m[header.Len():])
		if err == nil {
			visit(int(header.Index), string(attribute(attrs, unix.IFLA_ADDRESS)))
		}
		return err
	})
}

// answers visits the messages of a dump. One that was cut short by a change is as good as none of it missing: the next look is soon.
func answers(r *nl.NetlinkRequest, kind uint16, visit func([]byte) error) error {
	messages, err := r.Execute(unix.NETLINK_ROUTE, kind)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	for _, m := range messages {
		if err := visit(m); err != nil {
			return err
		}
	}
	return nil
}

// localAddress is the address that an interface has, of the attributes that say so: IFA_LOCAL, or else IFA_ADDRESS. One of a single link is left out.
func localAddress(attrs []syscall.NetlinkRouteAttr) (netip.Addr, bool) {
	value := attribute(attrs, unix.IFA_LOCAL)
	if value == nil {
		value = attribute(attrs, unix.IFA_ADDRESS)
	}
	a, ok := netip.AddrFromSlice(value)
	a = a.Unmap()
	return a, ok && !a.IsLoopback() && !(a.Is6() && a.IsLinkLocalUnicast())
}

// attribute is the value of the first attribute of a kind, nil if there is none.
func attribute(attrs []syscall.NetlinkRouteAttr, kind uint16) []byte {
	for i := range attrs {
		if attrs[i].Attr.Type == kind {
			return attrs[i].Value
		}
	}
	return nil
}
