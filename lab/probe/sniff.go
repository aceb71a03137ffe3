package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
)

// Link sends frames on an interface, which needs NET_RAW.
type Link struct{ fd int }

// OpenLink opens an interface of the thread's namespace, with the thread's rights: it is to be called in [As] or in host.Host.Do.
func OpenLink(link string) (*Link, error) {
	fd, err := packetSocket(link, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s to send frames: %w", link, err)
	}
	return &Link{fd}, nil
}

// Send sends one frame, on the thread's processor.
func (l *Link) Send(f Frame) error {
	if _, err := unix.Write(l.fd, f.Marshal()); err != nil {
		return fmt.Errorf("sending a frame of type %#04x: %w", f.Type, err)
	}
	return nil
}

// Close ends the sending.
func (l *Link) Close() error { return unix.Close(l.fd) }

// packetSocket opens an AF_PACKET socket on an interface. Protocol 0 receives nothing.
func packetSocket(link string, protocol uint16) (int, error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening a packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol), Ifindex: i.Index}),
	)
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// networkOrder is a number as it stands in a structure that the kernel reads byte by byte.
func networkOrder(n uint16) uint16 {
	var b [2]byte
	be.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// Sniffer keeps what arrives at a host, so that a packet is known by a marker that it carries, wherever that stands. It reads only when it is
// asked: between questions packets wait in its sockets, and what arrived before a packet that is seen is seen too. It may be used by
// several goroutines at once.
type Sniffer struct {
	mu     sync.Mutex
	fds    []unix.PollFd
	frames [][]byte
}

// SniffLink keeps every frame that comes in on an interface of h, of any type, tagged or not, for whichever address. What h sends is left out.
func SniffLink(h *host.Host, link string) (*Sniffer, error) {
	s := &Sniffer{}
	err := h.Do(func() error {
		fd, err := packetSocket(link, unix.ETH_P_ALL)
		if err != nil {
			return err
		}
		return s.add(fd)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sniffing on %s in %s: %w", link, h.Name(), err), s.Close())
	}
	return s, nil
}

// SniffSockets keeps what sockets of h could receive: every packet of the protocols given, over both families, that has passed the firewall of h.
func SniffSockets(h *host.Host, protocols ...policy.Protocol) (*Sniffer, error) {
	s := &Sniffer{}
	err := h.Do(func() error {
		for _, p := range protocols {
			for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
				fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(p))
				if err != nil {
					return fmt.Errorf("protocol %s: %w", p, err)
				}
				if err := s.add(fd); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening raw sockets in %s: %w", h.Name(), err), s.Close())
	}
	return s, nil
}

// add makes room for what arrives between two questions.
func (s *Sniffer) add(fd int) error {
	s.fds = append(s.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
}

// pull reads all that waits in the sockets; the mutex is held.
func (s *Sniffer) pull() {
	buf := make([]byte, 1<<16)
	for i := range s.fds {
		for failed := 0; failed < 3; { // an error that the socket kept for its reader, as of an interface that was down, is no packet
			n, err := unix.Read(int(s.fds[i].Fd), buf)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				failed++
				continue
			}
			s.frames = append(s.frames, bytes.Clone(buf[:n]))
		}
	}
}

// Forget drops what has arrived so far.
func (s *Sniffer) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pull()
	s.frames = nil
}

// Carrying are the packets that have arrived, since the last Forget, with the marker somewhere in them.
func (s *Sniffer) Carrying(marker []byte) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pull()
	var all [][]byte
	for _, f := range s.frames {
		if bytes.Contains(f, marker) {
			all = append(all, f)
		}
	}
	return all
}

// Wait waits until a packet with the marker has arrived.
func (s *Sniffer) Wait(ctx context.Context, marker []byte) error {
	for len(s.Carrying(marker)) == 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := unix.Poll(s.polled(), 20); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for a packet: %w", err)
		}
	}
	return nil
}

func (s *Sniffer) polled() []unix.PollFd {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]unix.PollFd(nil), s.fds...)
}

// Close ends the sniffing.
func (s *Sniffer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, p := range s.fds {
		errs = append(errs, unix.Close(int(p.Fd)))
	}
	s.fds = nil
	return errors.Join(errs...)
}
