package dataplane

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

const (
	// copyRange is how much of a packet is copied: the headers.
	copyRange = 128
	// logBuffer is what the kernel keeps for us while we are busy: some thousands of packets.
	logBuffer = 1 << 20
	// The kernel hands packets over when it has logBatch of them, or after logDelay. One by one, each would fill a page of logBuffer.
	logBatch = 32
	logDelay = 10 // hundredths of a second
)

// LogGroupError says that another program reads the NFLOG group that ours is to read: the kernel gives a group to one only.
type LogGroupError struct {
	Group uint16
	Owner string // the netlink port of the other program's socket, in most cases its process ID
	Err   error
}

func (e *LogGroupError) Error() string {
	return fmt.Sprintf("NFLOG group %d belongs to another program (process or netlink port %s): "+
		"choose another group with --nflog-group, or 0 to log no packets: %v", e.Group, e.Owner, e.Err)
}

func (e *LogGroupError) Unwrap() error { return e.Err }

// Denied reads the packets of both families that rules of ours sample into an NFLOG group, in the network namespace of the calling
// thread, and gives them to handle, one after the other, from the calling goroutine. It returns nil when ctx has ended, and an error when the group
// cannot be read, or no longer: a *LogGroupError if it is another program's. Once it has returned, handle is not called again.
// Packets that other programs send to the group are passed over.
func (d *Dataplane) Denied(ctx context.Context, group uint16, handle func(Packet)) error {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE) // which stays in this namespace, whatever thread uses it
	if err != nil {
		return fmt.Errorf("reading NFLOG group %d: opening netlink: %w", group, err)
	}
	defer links.Close()
	socket, err := openLog()
	if err != nil {
		return fmt.Errorf("reading NFLOG group %d: %w", group, err)
	}
	defer func() { _ = socket.conn.Close() }() // which gives the group back
	if err := socket.conn.SetReadBuffer(logBuffer); err != nil {
		return fmt.Errorf("reading NFLOG group %d: making room for packets: %w", group, err)
	}
	if err := socket.bind(group); err != nil {
		if owner, ok := groupOwner(group); ok {
			return &LogGroupError{Group: group, Owner: owner, Err: err}
		}
		return fmt.Errorf("reading NFLOG group %d (the kernel module nfnetlink_log has to be there): %w", group, err)
	}
	r := &logReader{handle: handle, links: links}
	if err := socket.read(ctx, r.take); err != nil {
		return fmt.Errorf("reading NFLOG group %d: %w", group, err)
	}
	return nil
}

// groupOwner is the netlink port of the socket that a group of this thread's network namespace belongs to.
func groupOwner(group uint16) (string, bool) {
	text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_log")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == fmt.Sprint(group) {
			return f[1], true
		}
	}
	return "", false
}

// logReader takes packets from one NFLOG socket.
type logReader struct {
	handle func(Packet)
	links  *netlink.Handle
	next   uint32 // the sequence number of the next packet, if none is lost
	lost   uint64 // since the last packet that was handled
}

// take handles one message of the kernel's.
func (r *logReader) take(l sampled) {
	r.lost += uint64(l.sequence - r.next) // which wraps around as the kernel's does
	r.next = l.sequence + 1
	id, ours := strings.CutPrefix(l.prefix, iptables.LogPrefix)
	if !ours {
		return
	}
	p := Packet{ID: id, At: l.at, Lost: r.lost, In: r.link(l.in), Out: r.link(l.out)}
	r.lost = 0
	if l.at.IsZero() {
		p.At = time.Now()
	}
	p.parse(l.payload)
	r.handle(p)
}

// link is an interface's name, or its number if it is gone.
func (r *logReader) link(index uint32) string {
	if index == 0 {
		return ""
	}
	l, err := r.links.LinkByIndex(int(index))
	if err != nil {
		return fmt.Sprintf("if%d", index)
	}
	return l.Attrs().Name
}
