package dataplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Link is the host's end of a pair of interfaces whose other end is in another network namespace.
type Link struct {
	Name  string
	Index int
	// Bridged is set for a port of a bridge.
	Bridged bool
	// Guarded is set if it has a guard.
	Guarded bool
	// MAC is the other end's hardware address, and Addrs are the addresses that it has, but for those of its link alone, sorted. Whoever may configure
	// interfaces there (NET_ADMIN in that namespace) can change them.
	MAC   string
	Addrs []netip.Addr
}

// Links are a network namespace's links to others, sorted by name, and what of its own is worth knowing beside them.
type Links struct {
	Links []Link
	// Own are the addresses that this namespace has, but for loopback's and those of one link, sorted.
	Own []netip.Addr
	// Broadcasts are the IPv4 addresses that are for all of a network that it is in, but 255.255.255.255, sorted.
	Broadcasts []netip.Addr
	// Tunnels are those that are up.
	Tunnels []policy.Tunnel
}

// listLinks are the links of the node's own network namespace. After nl.ErrDumpInterrupted they are what was shown of them at last.
func listLinks() (links []netlink.Link, err error) {
	err = whole(func() (err error) {
		links, err = netlink.LinkList()
		return err
	})
	return links, err
}

// Links reads which links lead to other network namespaces. The kernel answers for another namespace whoever has NET_ADMIN over it (IFA_TARGET_NETNSID,
// Linux 4.20); an older one knows links alone.
func (d *Dataplane) Links() (Links, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := listLinks()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return Links{}, fmt.Errorf("listing the links: %w", err)
	}
	guarded, err := d.guarded()
	if err != nil {
		return Links{}, err
	}
	n, err := openNamespaces()
	if err != nil {
		return Links{}, err
	}
	defer n.close()
	var found Links
	if err := n.own(&found); err != nil {
		return Links{}, err
	}
	for _, l := range all {
		a := l.Attrs()
		if t, ok := tunnelOf(l); ok && !slices.Contains(found.Tunnels, t) {
			found.Tunnels = append(found.Tunnels, t)
		}
		if a.NetNsID < 0 {
			continue
		}
		end, ok := d.seen.recent(a.Index)
		if !ok {
			end = n.end(a.NetNsID, a.ParentIndex)
		}
		d.seen.note(a.Index, end, !ok)
		found.Links = append(found.Links, Link{
			Name: a.Name, Index: a.Index, Bridged: a.MasterIndex > 0, Guarded: guarded[entryChain(a.Name)], MAC: end.mac, Addrs: end.addrs,
		})
	}
	d.seen.forget()
	slices.SortFunc(found.Links, func(a, b Link) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(found.Tunnels, func(a, b policy.Tunnel) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return found, nil
}

// tunnelOf is the way of a link that leads through a tunnel, if it is up.
func tunnelOf(l netlink.Link) (policy.Tunnel, bool) {
	if l.Attrs().Flags&net.FlagUp == 0 {
		return policy.Tunnel{}, false
	}
	switch t := l.(type) {
	case *netlink.Vxlan:
		return policy.Tunnel{Protocol: policy.UDP, Port: uint16(t.Port)}, true
	case *netlink.Geneve:
		return policy.Tunnel{Protocol: policy.UDP, Port: t.Dport}, true
	case *netlink.Iptun:
		return policy.Tunnel{Protocol: unix.IPPROTO_IPIP}, true
	case *netlink.Sittun, *netlink.Ip6tnl:
		return policy.Tunnel{Protocol: unix.IPPROTO_IPV6}, true
	case *netlink.Gretun, *netlink.Gretap:
		return policy.Tunnel{Protocol: unix.IPPROTO_GRE}, true
	}
	return policy.Tunnel{}, false
}

// WatchLinks calls changed whenever a link that leads to another network namespace comes or goes, until ctx ends, and for each that is there at the start. An
// error says that nobody watches.
func (d *Dataplane) WatchLinks(ctx context.Context, changed func()) error {
	events, failed := make(chan netlink.LinkUpdate, 64), make(chan string, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer func() { // whoever sends ends only when the rest is taken
		cancel()
		go func() {
			for range events {
			}
		}()
	}()
	err := netlink.LinkSubscribeWithOptions(events, ctx.Done(), netlink.LinkSubscribeOptions{
		ListExisting: true,
		ErrorCallback: func(err error) { // the last is why it ends; of a message that means nothing to us the others are as good
			select {
			case <-failed:
			default:
			}
			failed <- err.Error()
		},
	})
	if err != nil {
		close(events)
		return fmt.Errorf("watching links: %w", err)
	}
	known := map[int32]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok && ctx.Err() != nil {
				return nil
			}
			if !ok {
				return fmt.Errorf("watching links: %s", <-failed)
			}
			// The last message about a link does not say any more where it led (veth_get_link_net).
			if gone := e.Header.Type == unix.RTM_DELLINK; gone && known[e.Index] {
				delete(known, e.Index)
				changed()
			} else if !gone && !known[e.Index] && e.Link.Attrs().NetNsID >= 0 {
				known[e.Index] = true
				changed()
			}
		}
	}
}

// guarded are the names of guards' chains.
func (d *Dataplane) guarded() (names map[string]bool, err error) {
	if !d.Capabilities().Guards {
		return nil, nil
	}
	err = withGuards(func(g *guards) error {
		names, err = g.chains(netdevTable)
		return err
	})
	return names, err
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
	end          farEnd
	present      bool
}

// recent are the addresses of a link's other end, if nothing is likely to have changed since it was asked.
func (s *seen) recent(index int) (farEnd, bool) {
	l := s.links[index]
	if l == nil || len(l.end.addrs) == 0 || l.asked.Sub(l.first) < settledAfter || time.Since(l.asked) > believedFor {
		return farEnd{}, false
	}
	return l.end, true
}

// note takes in what a link has, and whether it was asked just now.
func (s *seen) note(index int, e farEnd, asked bool) {
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
		l.asked, l.end = time.Now(), e
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
