package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Link is the host's end of a pair of interfaces whose other end is in another network namespace.
type Link struct {
	Name  string
	Index int
	// Bridged is set for a port of a bridge.
	Bridged bool
	// Guarded is set if it has a guard.
	Guarded bool
	// Addrs are the addresses that the other end has, but for those of its link alone, sorted. Whoever may configure interfaces there (NET_ADMIN in that
	// namespace) can add to them.
	Addrs []netip.Addr
}

// Links reads which links lead to other network namespaces, sorted by name, and which addresses this namespace has itself, loopback and those of one link
// left out.
//
// The kernel answers for another namespace whoever has NET_ADMIN over it (IFA_TARGET_NETNSID, Linux 4.20); an older one knows links alone.
func (d *Dataplane) Links() ([]Link, []netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("opening netlink for links: %w", err)
	}
	defer s.Close()
	all, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, nil, fmt.Errorf("listing the links: %w", err)
	}
	own, err := addresses(s, -1)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the node's own addresses: %w", err)
	}
	// Without it the kernel does not read what a request says of another namespace, and answers for this one.
	strict := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) == nil
	guarded, err := d.guarded()
	if err != nil {
		return nil, nil, err
	}
	inside := map[int]map[int][]netip.Addr{} // by namespace, and by number of the interface in it
	var links []Link
	for _, l := range all {
		a := l.Attrs()
		if a.NetNsID < 0 {
			continue
		}
		held, ok := d.seen.recent(a.Index)
		if !ok && strict {
			if _, asked := inside[a.NetNsID]; !asked {
				inside[a.NetNsID], _ = addresses(s, a.NetNsID) // one that goes meanwhile has none
			}
			held = inside[a.NetNsID][a.ParentIndex]
		}
		d.seen.note(a.Index, held, !ok)
		links = append(links, Link{Name: a.Name, Index: a.Index, Bridged: a.MasterIndex > 0, Guarded: guarded[entryChain(a.Name)], Addrs: held})
	}
	d.seen.forget()
	slices.SortFunc(links, func(a, b Link) int { return strings.Compare(a.Name, b.Name) })
	var self []netip.Addr
	for _, addrs := range own {
		self = append(self, addrs...)
	}
	slices.SortFunc(self, netip.Addr.Compare)
	return links, slices.Compact(self), nil
}

// WatchLinks calls changed whenever a link that leads to another network namespace comes or goes, until ctx ends. An error says that nobody watches.
func (d *Dataplane) WatchLinks(ctx context.Context, changed func()) error {
	events, failed := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	var once sync.Once
	err := netlink.LinkSubscribeWithOptions(events, ctx.Done(), netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) { once.Do(func() { close(failed) }) },
	})
	if err != nil {
		return fmt.Errorf("watching links: %w", err)
	}
	known := map[int32]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-failed:
			return errors.New("watching links: the kernel's messages were lost")
		case e, ok := <-events:
			if !ok {
				return errors.New("watching links: the kernel sends no more messages")
			}
			gone := e.Header.Type == unix.RTM_DELLINK
			if gone == known[e.Index] && e.Link.Attrs().NetNsID >= 0 {
				known[e.Index] = !gone
				changed()
			}
			if gone {
				delete(known, e.Index)
			}
		}
	}
}

// guarded are the names of guards' chains.
func (d *Dataplane) guarded() (names map[string]bool, err error) {
	if !d.capabilities.Guards {
		return nil, nil
	}
	err = withGuards(func(g *guards) error {
		names, err = g.chains(netdevTable)
		return err
	})
	return names, err
}

// addresses are those of a network namespace by its number in this one, -1 for this one itself, by the number of their interface.
func addresses(s *nl.NetlinkSocket, namespace int) (map[int][]netip.Addr, error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	r.AddData(&nl.IfAddrmsg{IfAddrmsg: unix.IfAddrmsg{Family: unix.AF_UNSPEC}})
	if namespace >= 0 {
		r.AddData(nl.NewRtAttr(unix.IFA_TARGET_NETNSID, binary.NativeEndian.AppendUint32(nil, uint32(namespace))))
	}
	messages, err := r.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	found := map[int][]netip.Addr{}
	for _, m := range messages {
		header := nl.DeserializeIfAddrmsg(m)
		attrs, err := nl.ParseRouteAttr(m[header.Len():])
		if err != nil {
			return nil, err
		}
		if a, ok := localAddress(attrs); ok {
			i := int(header.Index)
			found[i] = append(found[i], a)
			slices.SortFunc(found[i], netip.Addr.Compare)
			found[i] = slices.Compact(found[i])
		}
	}
	return found, nil
}

// localAddress is the address that an interface has, of the attributes that say so: IFA_LOCAL, or else IFA_ADDRESS. One of a single link is left out.
func localAddress(attrs []syscall.NetlinkRouteAttr) (netip.Addr, bool) {
	var value []byte
	for _, want := range []uint16{unix.IFA_ADDRESS, unix.IFA_LOCAL} {
		if i := slices.IndexFunc(attrs, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type == want }); i >= 0 {
			value = attrs[i].Value
		}
	}
	a, ok := netip.AddrFromSlice(value)
	a = a.Unmap()
	return a, ok && !a.IsLoopback() && !(a.Is6() && a.IsLinkLocalUnicast())
}

// isGone reports whether a link is not there any more, or another has its name.
func isGone(name string, index int) bool {
	l, err := net.InterfaceByName(name)
	return err != nil || l.Index != index
}

// How long the addresses at the other end of a link are believed: a pod's are made in the first moments of its link, and hardly ever change later.
const (
	settledAfter = 10 * time.Second
	believedFor  = 20 * time.Second
)

// seen is what other ends of links have had, so that not each sync asks for each pod.
type seen struct {
	links map[int]*seenLink // by number, which no other link gets as long as the namespace is there
}

type seenLink struct {
	first, asked time.Time
	addrs        []netip.Addr
	present      bool
}

// recent are the addresses of a link's other end, if nothing is likely to have changed since it was asked.
func (s *seen) recent(index int) ([]netip.Addr, bool) {
	l := s.links[index]
	if l == nil || len(l.addrs) == 0 || l.asked.Sub(l.first) < settledAfter || time.Since(l.asked) > believedFor {
		return nil, false
	}
	return l.addrs, true
}

// note takes in what a link has, and whether it was asked just now.
func (s *seen) note(index int, addrs []netip.Addr, asked bool) {
	if s.links == nil {
		s.links = map[int]*seenLink{}
	}
	l := s.links[index]
	if l == nil {
		l = &seenLink{first: time.Now()}
		s.links[index] = l
	}
	l.present = true
	if asked {
		l.asked, l.addrs = time.Now(), addrs
	}
}

// forget leaves out the links that have not been noted since it was called last.
func (s *seen) forget() {
	for index, l := range s.links {
		if !l.present {
			delete(s.links, index)
		}
		l.present = false
	}
}
