package probe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/host"
)

// request is what a client sends over UDP. A server answers nothing else, so that two servers never answer
// each other's answers.
const request = "who?"

// dialTCP connects and reads the server's identity.
func dialTCP(ctx context.Context, h *host.Host, f Flow) (string, error) {
	var file *os.File
	err := h.Do(func() (err error) {
		file, err = startConnect(f)
		return err
	})
	if err != nil {
		return "", err
	}
	defer file.Close()
	defer interrupt(ctx, file)()
	if err := finishConnect(file); err != nil {
		return "", err
	}
	name, err := io.ReadAll(file)
	if err != nil {
		return "", fmt.Errorf("reading the server's identity: %w", err)
	}
	return string(name), nil
}

// startConnect sends the SYN and doesn't wait: net.Dial would keep the host's thread until the answer.
func startConnect(f Flow) (*os.File, error) {
	family, dst := sockaddr(f.dst())
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	if f.Src.IsValid() {
		_, src := sockaddr(netip.AddrPortFrom(f.Src, 0))
		if err := unix.Bind(fd, src); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("binding to %s: %w", f.Src, err)
		}
	}
	if err := unix.Connect(fd, dst); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.String()), nil
}

// finishConnect waits for the answer to the SYN.
func finishConnect(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		if errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			result = err
			return true
		} else if errno != 0 {
			result = unix.Errno(errno)
			return true
		}
		// No error yet and no peer yet: still on the way.
		_, err := unix.Getpeername(int(fd))
		return err == nil
	})
	if err != nil {
		return err
	}
	return result
}

// dialUDP sends one datagram and reads the server's identity.
func dialUDP(ctx context.Context, h *host.Host, f Flow) (string, error) {
	var local *net.UDPAddr
	if f.Src.IsValid() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.Src, 0))
	}
	var c *net.UDPConn
	err := h.Do(func() (err error) {
		c, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(f.dst()))
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer interrupt(ctx, c)()
	if _, err := c.Write([]byte(request)); err != nil {
		return "", err
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// interrupt ends reads and writes of c when ctx ends, until the returned function is called.
func interrupt(ctx context.Context, c interface{ SetDeadline(time.Time) error }) func() bool {
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

func sockaddr(a netip.AddrPort) (family int, sa unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
