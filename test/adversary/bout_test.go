package adversary

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
)

// patience is how long a packet may take that is allowed. Only a wrong denial is slow.
const patience = 10 * time.Second

// bout is one attack, once, by one party on another. Its methods send; they are called with the attacker's rights, in its namespace, and what goes
// wrong is kept until the end.
type bout struct {
	*world
	from, to *party
	// marker is what the sniffer looks for: random bytes of the payload, or the two ports of a connection.
	marker []byte
	filler int // bytes behind the marker

	link    *probe.Link // of the attacker, where it has NET_RAW
	sockets []int
	err     error
}

func newBout(w *world, from, to string, long bool) *bout {
	b := &bout{world: w, from: w.parties[from], to: w.parties[to], marker: random(8), filler: 8}
	if long {
		b.filler = 8 + mathrand.IntN(1000)
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// fail keeps the first error.
func (b *bout) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// send runs an attack's way of sending.
func (b *bout) send(r probe.Rights, way func(*bout)) error {
	defer func() {
		for _, fd := range b.sockets {
			b.fail(unix.Close(fd))
		}
	}()
	return probe.As(b.from.host, r, b.processor, func() error {
		if r == probe.NetRaw {
			var err error
			if b.link, err = probe.OpenLink("eth0"); err != nil {
				return err
			}
			defer b.link.Close()
		}
		way(b)
		return errors.Join(b.err, b.resolved())
	})
}

// payload is what an attack wants to bring to its victim.
func (b *bout) payload() []byte {
	return append(append([]byte(nil), b.marker...), make([]byte, b.filler)...)
}

// src and dst are the addresses of the attacker and of its victim.
func (b *bout) src() netip.Addr { return b.in(b.from.addr) }
func (b *bout) dst() netip.Addr { return b.in(b.to.addr) }

// srcLL and dstLL are their link-local addresses, as they are on the attacker's link.
func (b *bout) srcLL() netip.Addr { return b.linkLocalOf(b.from.host, "eth0") }
func (b *bout) dstLL() netip.Addr {
	if b.to.pod != nil {
		return b.linkLocalOf(b.to.host, "eth0")
	}
	return b.linkLocalOf(b.to.host, b.top.GatewayLink(b.from.pod))
}

func (b *bout) linkLocalOf(h *host.Host, link string) netip.Addr {
	a, err := h.LinkLocal(link)
	b.fail(err)
	return a
}

// via is the hardware address that the victim's packets go to.
func (b *bout) via() net.HardwareAddr {
	if b.kind == topology.Bridged && b.to.pod != nil && b.to.node == b.from.node {
		return b.to.mac
	}
	return b.from.gateway
}

// frame sends a frame from the attacker's own hardware address.
func (b *bout) frame(dst net.HardwareAddr, kind uint16, payload []byte, tags ...probe.Tag) {
	b.raw(probe.Frame{Dst: dst, Src: b.from.mac, Tags: tags, Type: kind, Payload: payload})
}

func (b *bout) raw(f probe.Frame) {
	if b.err == nil {
		b.fail(b.link.Send(f))
	}
}

// packet sends a packet the usual way to the victim, whatever its addresses are.
func (b *bout) packet(p probe.Packet) { b.packetTo(b.via(), p) }

func (b *bout) packetTo(dst net.HardwareAddr, p probe.Packet, tags ...probe.Tag) {
	if b.err == nil {
		b.frame(dst, p.EtherType(), p.Marshal(), tags...)
	}
}

// udp is a datagram to the port that is closed.
func (b *bout) udp(src, dst netip.Addr) probe.Packet {
	return probe.UDP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(dst, attackPort), b.payload())
}

// sendTo sends what is given from a socket.
func (b *bout) sendTo(payload []byte, dst netip.AddrPort) {
	fd := b.socket(unix.SOCK_DGRAM, 0, dst.Addr(), nil)
	if b.err == nil {
		b.fail(wrapped(unix.Sendto(fd, payload, 0, address(dst)), "sending to %s", dst))
	}
}

// datagram sends the payload from a socket, from a source that the kernel chooses unless one is given.
func (b *bout) datagram(src netip.Addr, dst netip.AddrPort, set ...option) {
	fd := b.socket(unix.SOCK_DGRAM, 0, dst.Addr(), set)
	if src.IsValid() {
		b.bind(fd, netip.AddrPortFrom(src, 0))
	}
	if b.err == nil {
		b.fail(wrapped(unix.Sendto(fd, b.payload(), 0, address(dst)), "sending to %s", dst))
	}
}

// connect opens a TCP connection and does not wait for an answer. The marker is its ports.
func (b *bout) connect(src netip.Addr, dst netip.AddrPort, set ...option) {
	fd := b.socket(unix.SOCK_STREAM, 0, dst.Addr(), set)
	if !src.IsValid() {
		src = netip.IPv4Unspecified()
		if dst.Addr().Is6() {
			src = netip.IPv6Unspecified()
		}
	}
	port := uint16(20000 + mathrand.IntN(12000)) // below those that the kernel gives away
	b.bind(fd, netip.AddrPortFrom(src, port))
	b.marker = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, port), dst.Port())
	if b.err == nil {
		if err := unix.Connect(fd, address(dst)); !errors.Is(err, unix.EINPROGRESS) {
			b.fail(wrapped(err, "connecting to %s", dst))
		}
	}
}

// ping sends an echo request from the kind of socket that needs no right.
func (b *bout) ping(dst netip.Addr) {
	protocol, kind := unix.IPPROTO_ICMP, byte(8)
	if dst.Is6() {
		protocol, kind = unix.IPPROTO_ICMPV6, 128
	}
	fd := b.socket(unix.SOCK_DGRAM, protocol, dst, nil)
	if b.err == nil {
		body := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, b.payload()...)
		b.fail(wrapped(unix.Sendto(fd, body, 0, address(netip.AddrPortFrom(dst, 0))), "pinging %s", dst))
	}
}

// option sets something on a socket.
type option func(fd int) error

func set(level, name, value int) option {
	return func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) }
}

func setBytes(level, name int, value []byte) option {
	return func(fd int) error { return unix.SetsockoptString(fd, level, name, string(value)) }
}

func (b *bout) socket(kind, protocol int, dst netip.Addr, options []option) int {
	family := unix.AF_INET
	if dst.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		b.fail(fmt.Errorf("opening a socket: %w", err))
		return -1
	}
	b.sockets = append(b.sockets, fd)
	for _, o := range options {
		b.fail(wrapped(o(fd), "setting an option"))
	}
	return fd
}

func (b *bout) bind(fd int, a netip.AddrPort) {
	if b.err == nil {
		b.fail(wrapped(unix.Bind(fd, address(a)), "binding to %s", a))
	}
}

// address is that of a socket; one that is link-local is on the thread's eth0.
func address(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	out := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if a.Addr().IsLinkLocalUnicast() || a.Addr().IsLinkLocalMulticast() {
		if i, err := net.InterfaceByName("eth0"); err == nil {
			out.ZoneId = uint32(i.Index)
		}
	}
	return out
}

func wrapped(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// resolved waits until nobody who could hold the attack's packets back looks for a neighbour any more.
func (b *bout) resolved() error {
	for _, name := range []string{b.from.name, "n1", "n2"} {
		nl, err := b.parties[name].host.Netlink()
		if err != nil {
			return err
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			busy, err := resolving(nl)
			if err != nil {
				return fmt.Errorf("listing the neighbours of %s: %w", name, err)
			}
			if !busy {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s still looks for a neighbour after %s", name, patience)
			}
		}
	}
	return nil
}

func resolving(nl *netlink.Handle) (bool, error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := nl.NeighList(0, family)
		if err != nil {
			return false, err
		}
		for i := range list {
			if list[i].State&netlink.NUD_INCOMPLETE != 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

// pass sends a datagram that is allowed and waits until it has arrived.
func (w *world) pass(t *testing.T, from, to *party) {
	t.Helper()
	w.passTo(t, from, to, netip.AddrPortFrom(w.in(to.addr), controlPort))
}

func (w *world) passTo(t *testing.T, from, to *party, dst netip.AddrPort) {
	t.Helper()
	w.deliver(t, from, to, dst, to)
}

// deliver sends a datagram again and again, until it has arrived at one of the parties given, and returns its marker.
func (w *world) deliver(t *testing.T, from, to *party, dst netip.AddrPort, at ...*party) []byte {
	t.Helper()
	b := &bout{world: w, from: from, to: to, marker: random(8)}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err := b.send(probe.Sockets, func(b *bout) { b.datagram(netip.Addr{}, dst) }); err != nil {
			t.Fatalf("%s sends to %s at %s: %v", from.name, to.name, dst, err)
		}
		b.sockets = nil
		for _, p := range at {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			err := p.sniffer.Wait(ctx, b.marker)
			cancel()
			if err == nil {
				return b.marker
			}
		}
	}
	t.Fatalf("what %s may send to %s at %s has not arrived within %s", from.name, to.name, dst, patience)
	return nil
}
