package probe

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/host"
)

// Rights are what a program in a pod may do.
type Rights uint8

const (
	// Sockets is no capability at all.
	Sockets Rights = iota
	// NetRaw is CAP_NET_RAW alone, which container runtimes give by default: raw sockets, and any frame on the pod's link.
	NetRaw
)

// String is the rights' name.
func (r Rights) String() string { return [...]string{"sockets", "NET_RAW"}[r] }

// As runs f inside h with no other rights than those given, on one processor: packets that are sent on it one after the other stay in their
// order, because veth links queue them by processor. Processors are counted from 0, and those that there are take turns.
func As(h *host.Host, r Rights, processor int, f func() error) error {
	return h.Do(func() error {
		if err := pin(processor); err != nil {
			return err
		}
		if err := drop(r); err != nil {
			return err
		}
		return f()
	})
}

// pin keeps the thread on one of the processors that it may use.
func pin(processor int) error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return fmt.Errorf("reading the thread's processors: %w", err)
	}
	left := processor % may.Count()
	for i := 0; ; i++ {
		if !may.IsSet(i) {
			continue
		}
		if left == 0 {
			one.Set(i)
			break
		}
		left--
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("keeping the thread on one processor: %w", err)
	}
	return nil
}

// drop takes all other capabilities from the thread, which ends with what it does.
func drop(r Rights) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if r == NetRaw {
		data[0].Effective = 1 << unix.CAP_NET_RAW
		data[0].Permitted = 1 << unix.CAP_NET_RAW
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}
