// Package host makes hosts out of network namespaces: nodes, pods and clients that share one kernel and
// have nothing else in common. A host has a name under /run/netns, so that `ip netns exec NAME ...`
// enters it.
//
// Invariants:
//   - work inside a host runs on a thread of its own, which ends with the work: no other goroutine ever
//     finds itself in a foreign namespace;
//   - a host is usable as soon as New returns: the loopback interface is up, and new addresses need no
//     duplicate address detection;
//   - Close removes all that New made; what a killed run left behind, [Sweep] removes.
//
// The package knows nothing of Kubernetes and starts no program by itself.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dir is where iproute2 keeps named namespaces.
const dir = "/run/netns"

// Host is a network namespace with a name, owned by whoever called [New]. All methods may be called from
// several goroutines at once.
type Host struct {
	name string
	ns   netns.NsHandle

	mu     sync.Mutex
	handle *netlink.Handle // opened on first use
	closed bool
}

// New creates a network namespace and names it. A name that is taken is an error.
func New(name string) (*Host, error) {
	h := &Host{name: name}
	err := onOwnThread(func() error {
		ns, err := netns.NewNamed(name)
		if err != nil {
			// NewNamed makes the file before it mounts the namespace there. A file that another program
			// has mounted a namespace on is busy, and stays.
			if !errors.Is(err, os.ErrExist) {
				_ = os.Remove(h.Path())
			}
			return err
		}
		h.ns = ns
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("making network namespace %s: %w", name, err)
	}
	if err := h.prepare(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Host) prepare() error {
	for _, s := range []string{"all", "default"} {
		// An address under duplicate address detection can't be used for a second or two.
		if err := h.Sysctl("net/ipv6/conf/"+s+"/accept_dad", "0"); err != nil {
			return err
		}
	}
	return h.Up("lo")
}

// Name is the name given to [New].
func (h *Host) Name() string { return h.name }

// Path is the file that stands for the namespace.
func (h *Host) Path() string { return filepath.Join(dir, h.name) }

// Close removes the name. The namespace itself goes when nothing uses it any more, neither a process nor
// a socket. A second Close does nothing.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	if h.handle != nil {
		h.handle.Close()
	}
	err := errors.Join(h.ns.Close(), netns.DeleteNamed(h.name))
	if err != nil {
		return fmt.Errorf("removing network namespace %s: %w", h.name, err)
	}
	return nil
}

// Do runs f inside the host, on a thread that runs nothing else and ends with f. Sockets and netlink
// handles that f opens belong to the host wherever they are used later; programs that f starts run
// inside it. Goroutines that f starts don't.
func (h *Host) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := h.enter(); err != nil {
			return fmt.Errorf("entering network namespace %s: %w", h.name, err)
		}
		return f()
	})
}

// enter moves the thread into the namespace. Once the host is closed, the descriptor may stand for another one.
func (h *Host) enter() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return os.ErrClosed
	}
	return netns.Set(h.ns)
}

// onOwnThread never unlocks the thread, and so the runtime ends it with the goroutine: whatever f did to
// it is gone.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// DialContext is net.Dialer's, from inside the host, for addresses that need no DNS.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Command is exec.CommandContext for a program inside the host.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// nsenter could report a missing program by its exit status only.
	path, err := exec.LookPath(name)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + h.Path(), "--", path}, args...)...)
	if err != nil {
		cmd.Err = err
	}
	return cmd
}

// Netlink is a handle whose requests reach the host's interfaces, routes and ipsets from any thread. It is
// shared, and closed with the host.
func (h *Host) Netlink() (*netlink.Handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("opening netlink in %s: %w", h.name, os.ErrClosed)
	}
	if h.handle == nil {
		handle, err := netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
		if err != nil {
			return nil, fmt.Errorf("opening netlink in %s: %w", h.name, err)
		}
		h.handle = handle
	}
	return h.handle, nil
}

// RunPrefix begins the names of one run's hosts: "PREFIX-PID-". Two runs never share a name, and a run
// that is over is known by its process.
func RunPrefix(prefix string) string {
	return prefix + "-" + strconv.Itoa(os.Getpid()) + "-"
}

// Sweep removes the hosts that carry a [RunPrefix] made of prefix, by a process that is no more, and
// names those that it removed.
func Sweep(prefix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listing network namespaces: %w", err)
	}
	var swept []string
	var errs []error
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix+"-")
		if !ok {
			continue
		}
		id, _, ok := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(id)
		if !ok || err != nil || alive(pid) {
			continue
		}
		if err := remove(e.Name()); err != nil {
			errs = append(errs, err)
			continue
		}
		swept = append(swept, e.Name())
	}
	return swept, errors.Join(errs...)
}

func alive(pid int) bool {
	return unix.Kill(pid, 0) != unix.ESRCH
}

// remove also takes away a name on which nothing is mounted, as a process leaves it that dies inside New.
func remove(name string) error {
	err := netns.DeleteNamed(name)
	if errors.Is(err, unix.EINVAL) {
		err = os.Remove(filepath.Join(dir, name))
	}
	if err != nil {
		return fmt.Errorf("removing network namespace %s: %w", name, err)
	}
	return nil
}
