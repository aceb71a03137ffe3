package probe

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
)

// Listen serves TCP, UDP, SCTP or Experimental inside h until it is closed. The server answers every client with the name
// of h. The unspecified address of a family stands for all of the host's.
func Listen(h *host.Host, protocol policy.Protocol, addr netip.AddrPort) (io.Closer, error) {
	var server io.Closer
	err := h.Do(func() (err error) {
		switch protocol {
		case policy.TCP:
			server, err = serveTCP(h.Name(), addr)
		case policy.UDP:
			server, err = serveUDP(h.Name(), addr)
		case policy.SCTP:
			server, err = serveSCTP(h.Name(), addr)
		case Experimental:
			server, err = serveExperimental(h.Name(), addr.Addr())
		default:
			err = fmt.Errorf("protocol %s has no server", protocol)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening on %s %s in %s: %w", protocol, addr, h.Name(), err)
	}
	return server, nil
}

func serveTCP(name string, addr netip.AddrPort) (io.Closer, error) {
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6"
	}
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			// The name fits into any socket's buffer: the write never waits for the client.
			_, _ = c.Write([]byte(name))
			_ = c.Close()
		}
	}()
	return l, nil
}

func serveUDP(name string, addr netip.AddrPort) (io.Closer, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	if err := growReceiveBuffer(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	go serve(c, func(buf []byte, _ net.Addr) []byte {
		if string(buf) != request {
			return nil
		}
		return []byte(name)
	})
	return c, nil
}

// serveSCTP answers the INITs for one port with INIT ACKs that carry the name in their state cookie. Other
// servers of the host get the same packets and leave them alone.
func serveSCTP(name string, addr netip.AddrPort) (io.Closer, error) {
	c, err := listenRaw(policy.SCTP, addr.Addr())
	if err != nil {
		return nil, err
	}
	go serve(c, func(buf []byte, _ net.Addr) []byte {
		in, ok := parseSCTP(buf)
		if !ok || in.kind != sctpInit || in.dstPort != addr.Port() {
			return nil
		}
		return sctp{
			srcPort: in.dstPort, dstPort: in.srcPort, kind: sctpInitAck,
			verificationTag: in.initiateTag, initiateTag: 1, cookie: name,
		}.marshal()
	})
	return c, nil
}

// serveExperimental answers requests with the name behind the identifier that they carry.
func serveExperimental(name string, addr netip.Addr) (io.Closer, error) {
	c, err := listenRaw(Experimental, addr)
	if err != nil {
		return nil, err
	}
	go serve(c, func(buf []byte, _ net.Addr) []byte {
		id, ok := parseExperimental(buf)
		if !ok || id.identity != request {
			return nil
		}
		return experimental(id.dstPort, name)
	})
	return c, nil
}

// serve sends answer's result back, if it is not nil, until c is closed.
func serve(c net.PacketConn, answer func(packet []byte, from net.Addr) []byte) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// An ICMP error that an earlier answer caused is reported here too, and means nothing.
			continue
		}
		if out := answer(buf[:n], from); out != nil {
			_, _ = c.WriteTo(out, from)
		}
	}
}
