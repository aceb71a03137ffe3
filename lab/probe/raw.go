package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
)

// rawPorts counts the source ports and echo identifiers of raw probes, so that no two probes of a process
// share one until all have been used. Ports below firstRawPort are left to servers.
var rawPorts atomic.Uint32

const firstRawPort = 16384

func init() { rawPorts.Store(rand.Uint32()) }

func nextRawPort() uint16 { return rawPort(rawPorts.Add(1)) }

func rawPort(count uint32) uint16 { return firstRawPort + uint16(count%(1<<16-firstRawPort)) }

// dialRaw sends an SCTP INIT or an ICMP echo request and waits for its answer.
func dialRaw(ctx context.Context, h *host.Host, f Flow) (string, error) {
	var c *net.IPConn
	err := h.Do(func() (err error) {
		src := f.Src
		if !src.IsValid() {
			if src, err = sourceFor(f.Dst); err != nil {
				return err
			}
		}
		c, err = listenRaw(f.protocol(), src)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer interrupt(ctx, c)()
	port := nextRawPort()
	if _, err := c.WriteTo(firstPacket(f, port), &net.IPAddr{IP: f.Dst.AsSlice()}); err != nil {
		return "", err
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return "", err
		}
		if a, ok := parseAnswer(f.protocol(), buf[:n]); ok && a.matches(f, port) && isAddr(from, f.Dst) {
			if a.refused {
				return "", unix.ECONNREFUSED
			}
			return a.identity, nil
		}
	}
}

// listenRaw opens a raw socket in the namespace of the thread, which needs root.
func listenRaw(protocol policy.Protocol, addr netip.Addr) (*net.IPConn, error) {
	network := fmt.Sprintf("ip4:%d", protocol)
	if addr.Is6() {
		network = fmt.Sprintf("ip6:%d", protocol)
	}
	c, err := net.ListenIP(network, &net.IPAddr{IP: addr.AsSlice()})
	if err != nil {
		return nil, err
	}
	if err := growReceiveBuffer(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// growReceiveBuffer makes room for the packets of a second or more: a reader that gets no processor for a
// moment must lose none.
func growReceiveBuffer(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		result = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	})
	return cmp.Or(err, result)
}

// sourceFor is the address that the thread's namespace sends from.
func sourceFor(dst netip.Addr) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, 9)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

func isAddr(from net.Addr, want netip.Addr) bool {
	ip, ok := from.(*net.IPAddr)
	if !ok {
		return false
	}
	a, ok := netip.AddrFromSlice(ip.IP)
	return ok && a.Unmap() == want
}
