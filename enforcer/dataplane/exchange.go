package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// exchange sends a request to netfilter and shows each message of the answer to visit, until that returns false. What visit is shown is another message's when
// it returns: it keeps copies. It is [askKernel], but for tests of a kernel in trouble.
type exchange func(r *nl.NetlinkRequest, visit func([]byte) bool) error

// The netlink library takes 64 KB of new memory for each part of an answer, and as much again for what is in it. Connection tracking and sets come in
// hundreds of parts, again and again, so that this would be most of what the enforcer has to clear away. Answers are read here, into room that is used again.
var rooms = sync.Pool{New: func() any { return new([nl.RECEIVE_BUFFER_SIZE]byte) }}

func askKernel(r *nl.NetlinkRequest, visit func([]byte) bool) error {
	s := r.Sockets[unix.NETLINK_NETFILTER].Socket
	if err := s.Send(r); err != nil {
		return err
	}
	port, err := s.GetPid()
	if err != nil {
		return err
	}
	room := rooms.Get().(*[nl.RECEIVE_BUFFER_SIZE]byte)
	defer rooms.Put(room)
	a := answer{seq: r.Seq, port: port, visit: visit}
	for !a.ended {
		part, err := receive(s, room[:])
		if err != nil {
			return err
		}
		if err := a.read(part); err != nil {
			return err
		}
		runtime.Gosched() // as yieldEach does
	}
	if a.interrupted {
		return nl.ErrDumpInterrupted
	}
	return nil
}

// receive waits for the next part of an answer, for as long as the socket is to wait.
func receive(s *nl.NetlinkSocket, room []byte) ([]byte, error) {
	_, patience := s.GetTimeouts()
	for end := time.Now().Add(patience); ; {
		n, from, err := unix.Recvfrom(s.GetFd(), room, 0)
		if err == nil {
			if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != nl.PidKernel {
				return nil, errors.New("a netlink message is not from the kernel")
			}
			return room[:n], nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		left := time.Until(end)
		if left <= 0 {
			return nil, unix.EAGAIN
		}
		fds := []unix.PollFd{{Fd: int32(s.GetFd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
}

// answer is what the kernel says to one request, as it is read.
type answer struct {
	seq, port          uint32
	visit              func([]byte) bool
	ended, interrupted bool
}

// read takes in a part, which holds whole messages.
func (a *answer) read(part []byte) error {
	for len(part) >= unix.NLMSG_HDRLEN && !a.ended {
		length := int(binary.NativeEndian.Uint32(part))
		if length < unix.NLMSG_HDRLEN || length > len(part) {
			return fmt.Errorf("a netlink message says that it has %d bytes, of %d", length, len(part))
		}
		one := header{
			kind: binary.NativeEndian.Uint16(part[4:]), flags: binary.NativeEndian.Uint16(part[6:]),
			seq: binary.NativeEndian.Uint32(part[8:]), port: binary.NativeEndian.Uint32(part[12:]),
		}
		if err := a.message(one, part[unix.NLMSG_HDRLEN:length]); err != nil {
			return err
		}
		part = part[min((length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(part)):]
	}
	return nil
}

// header is that of a netlink message (struct nlmsghdr, linux/netlink.h).
type header struct {
	kind, flags uint16
	seq, port   uint32
}

func (a *answer) message(h header, data []byte) error {
	if h.seq != a.seq {
		return fmt.Errorf("a netlink message answers request %d, not %d", h.seq, a.seq)
	}
	if h.port != a.port {
		return nil
	}
	a.interrupted = a.interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
	if h.kind == unix.NLMSG_DONE || h.kind == unix.NLMSG_ERROR {
		a.ended = true
		if len(data) < 4 {
			return nil // the end of a dump may say nothing
		}
		if errno := int32(binary.NativeEndian.Uint32(data)); errno != 0 {
			return syscall.Errno(-errno)
		}
		return nil
	}
	if a.visit != nil && !a.visit(data) {
		a.visit = nil // the rest is read, so that it does not answer the next request
	}
	a.ended = h.flags&unix.NLM_F_MULTI == 0
	return nil
}
