package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/topology"
)

const (
	// batch is how many packets are sent at a time: some milliseconds' worth, so that most batches pass without the scheduler
	// taking notice, and few enough for any node's connection tracking.
	batch   = 2000
	payload = 32

	serverPort = 8080
	clientPort = 40_000
)

// road is a node with two pods on it, and packets from one to the other.
//
// A packet is carried all the way by the thread that sends it: out of the client's link, through the node, into the server's
// socket, whose buffer is full, so that it is dropped there at last and no other thread takes part. What a packet costs is
// therefore the time that this thread was on a processor (CLOCK_THREAD_CPUTIME_ID), and other programs disturb it only through
// the caches.
type road struct {
	top            *topology.Topology
	kind           topology.Kind
	node           *topology.Node
	client, server *topology.Pod
	enforcer       *enforcer.Enforcer // nil on a bare road
	inbox          int                // the server's socket
	established    int                // a client's socket, connected, whose flow has been answered
	raw            int                // a client's socket for packets of any source port
	connections    int                // opened so far
}

// roadOptions say what road to build. The pods take addresses of the node's prefix, 10.244.1.0/24.
type roadOptions struct {
	backend        string
	kind           topology.Kind
	client, server netip.Addr
	enforced       bool
	uncut          bool // long lists of rules are walked as they are
}

var roads int

func newRoad(ctx context.Context, o roadOptions) (_ *road, err error) {
	roads++
	r := &road{kind: o.kind, inbox: -1, established: -1, raw: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	prefix := fmt.Sprintf("%s%d-", host.RunPrefix(hostPrefix), roads)
	if r.top, err = topology.New(topology.Options{Prefix: prefix, Kind: o.kind, Nodes: 1, Backend: o.backend}); err != nil {
		return nil, err
	}
	r.node = r.top.Nodes[0]
	if r.client, err = r.top.AddPodAt(r.node, prefix+"client", o.client); err != nil {
		return nil, err
	}
	if r.server, err = r.top.AddPodAt(r.node, prefix+"server", o.server); err != nil {
		return nil, err
	}
	if err := r.masquerade(ctx, o.backend); err != nil {
		return nil, err
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	if o.enforced {
		return r, r.enforce(ctx, o)
	}
	return r, nil
}

// masquerade is what every node does to packets that leave the cluster, whatever enforces policy on it, and why every node tracks
// connections. Without it, a bare node would not, and tracking would look like a cost of ours.
func (r *road) masquerade(ctx context.Context, backend string) error {
	cmd := r.node.Command(ctx, "iptables-"+backend, "-w", "-t", "nat", "-A", "POSTROUTING",
		"-s", "10.244.0.0/16", "!", "-d", "10.244.0.0/16", "-j", "MASQUERADE")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("masquerading on %s: %w: %s", r.node.Name(), err, out)
	}
	return nil
}

func (r *road) enforce(ctx context.Context, o roadOptions) error {
	return r.node.Do(func() error {
		plane, err := dataplane.New(ctx, dataplane.Options{Backend: o.backend})
		if err != nil {
			return err
		}
		c := plane.Capabilities()
		options := iptables.Options{
			Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut, Guards: c.Guards, HopLimit: c.HopLimit,
		}
		if o.uncut {
			options.ListLength = math.MaxInt
		}
		r.enforcer = enforcer.New(plane, options)
		return nil
	})
}

// sync makes the node enforce a cluster.
func (r *road) sync(ctx context.Context, s compile.Snapshot) error {
	return r.node.Do(func() error {
		for { // what asks for very much comes with the syncs that follow
			report, err := r.enforcer.Sync(ctx, s, false)
			if err != nil || len(report.Waiting) == 0 {
				return err
			}
		}
	})
}

// open opens the sockets and establishes one flow.
func (r *road) open() error {
	err := r.server.Do(func() (err error) {
		r.inbox, err = socket(unix.SOCK_DGRAM, unix.IPPROTO_UDP, netip.AddrPortFrom(r.server.Addr, serverPort))
		return err
	})
	if err != nil {
		return err
	}
	err = r.client.Do(func() (err error) {
		if r.established, err = socket(unix.SOCK_DGRAM, unix.IPPROTO_UDP, netip.AddrPortFrom(r.client.Addr, clientPort)); err != nil {
			return err
		}
		if err := connect(r.established, netip.AddrPortFrom(r.server.Addr, serverPort)); err != nil {
			return err
		}
		if r.raw, err = socket(unix.SOCK_RAW, unix.IPPROTO_RAW, netip.AddrPortFrom(r.client.Addr, 0)); err != nil {
			return err
		}
		return connect(r.raw, netip.AddrPortFrom(r.server.Addr, 0))
	})
	if err != nil {
		return err
	}
	return r.establish()
}

// establish has the server answer the client once, so that connection tracking takes the flow for established, and then fills
// the server's buffer.
func (r *road) establish() error {
	hello := make([]byte, payload)
	if _, err := unix.Write(r.established, hello); err != nil {
		return fmt.Errorf("greeting the server: %w", err)
	}
	_, from, err := unix.Recvfrom(r.inbox, hello, 0)
	if err != nil {
		return fmt.Errorf("waiting for the client: %w", err)
	}
	if err := unix.Sendto(r.inbox, hello, 0, from); err != nil {
		return fmt.Errorf("answering the client: %w", err)
	}
	if _, err := unix.Read(r.established, hello); err != nil {
		return fmt.Errorf("waiting for the server: %w", err)
	}
	return nil
}

func (r *road) close() error {
	for _, fd := range []int{r.inbox, r.established, r.raw} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if r.top == nil {
		return nil
	}
	return r.top.Close()
}

// socket opens a socket that waits no longer than a few seconds, and whose receive buffer is as small as the kernel allows.
func socket(kind, protocol int, at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("opening a socket at %s: %w", at, err)
	}
	return fd, nil
}

func connect(fd int, to netip.AddrPort) error {
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return fmt.Errorf("connecting to %s: %w", to, err)
	}
	return nil
}

// sendEstablished sends a batch of packets of the one established flow, and returns the nanoseconds that each took.
func (r *road) sendEstablished() (float64, error) {
	packet := make([]byte, payload)
	return r.timed(func() error {
		for range batch {
			if _, err := unix.Write(r.established, packet); err != nil {
				return err
			}
		}
		return nil
	})
}

// sendNew sends a batch of packets each of which opens a connection, and returns the nanoseconds that each took. Before it,
// the node forgets all connections.
func (r *road) sendNew() (float64, error) {
	if err := r.top.ForgetConnections(); err != nil {
		return 0, err
	}
	packet := datagram(netip.AddrPortFrom(r.client.Addr, 0), netip.AddrPortFrom(r.server.Addr, serverPort), make([]byte, payload))
	return r.timed(func() error {
		for range batch {
			r.connections++
			setSourcePort(packet, port(r.connections))
			if _, err := unix.Write(r.raw, packet); err != nil {
				return err
			}
		}
		return nil
	})
}

// datagram is a UDP packet with the IP header but for the length and the checksum, which the kernel fills in. The checksum of UDP may
// be left out over IPv4.
func datagram(src, dst netip.AddrPort, data []byte) []byte {
	p := make([]byte, 28, 28+len(data))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	s, d := src.Addr().As4(), dst.Addr().As4()
	copy(p[12:], s[:])
	copy(p[16:], d[:])
	setSourcePort(p, src.Port())
	binary.BigEndian.PutUint16(p[22:], dst.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(data)))
	return append(p, data...)
}

func setSourcePort(packet []byte, port uint16) { binary.BigEndian.PutUint16(packet[20:], port) }

// port is the source ports of the so-manieth connection.
func port(connection int) uint16 { return uint16(10_000 + connection%50_000) }

// timed runs the sending of a batch on a thread that stays on its processor, and makes sure that every packet of it has reached the server.
func (r *road) timed(send func() error) (perPacket float64, err error) {
	before, err := r.delivered()
	if err != nil {
		return 0, err
	}
	err = onOneProcessor(func() error {
		start, err := threadTime()
		if err != nil {
			return err
		}
		if err := send(); err != nil {
			return fmt.Errorf("sending: %w", err)
		}
		end, err := threadTime()
		perPacket = float64(end-start) / batch
		return err
	})
	if err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		after, err := r.delivered()
		if err != nil || after-before >= batch {
			return perPacket, err
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("of %d packets, %d have reached the server", batch, after-before)
		}
	}
}

// onOneProcessor runs f on a thread of its own, which ends with it, on the last processor: devices mostly interrupt the first.
func onOneProcessor(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := stayOnLastProcessor(); err != nil {
			done <- fmt.Errorf("staying on a processor: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

func stayOnLastProcessor() error {
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return err
	}
	last := 0
	for cpu := range 8 * int(unsafe.Sizeof(allowed)) {
		if allowed.IsSet(cpu) {
			last = cpu
		}
	}
	one.Set(last)
	return unix.SchedSetaffinity(0, &one)
}

func threadTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("reading the thread's clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// delivered is how many packets have reached a protocol of the server's so far.
func (r *road) delivered() (int, error) {
	var text []byte
	err := r.server.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	})
	if err != nil {
		return 0, err
	}
	var names [][]byte
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || string(fields[0]) != "Ip:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if string(name) == "InDelivers" {
				return strconv.Atoi(string(fields[i]))
			}
		}
	}
	return 0, errors.New("reading how many packets have arrived: /proc/net/snmp has no InDelivers")
}
