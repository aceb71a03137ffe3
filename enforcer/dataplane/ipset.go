package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The requests for ipsets are built here on the netlink library's own request and attribute types. Its functions for ipsets
// do not serve us, as of v1.3.1, because
//   - an entry's flags are neither written nor read (IPSET_ATTR_CADT_FLAGS), and with them nomatch;
//   - one entry takes one message, one system call and one socket: an ADT attribute holds hundreds;
//   - the size of the hash table cannot be given (IPSET_ATTR_HASHSIZE);
//   - a dump is held in memory whole, sets that are not ours included, with a goroutine per attribute, and only the first
//     of a set's messages says its type; an entry with flags goes to the standard logger;
//   - an IPv6 entry that maps an IPv4 address is sent as IPv4, which the kernel refuses.

const (
	// maxElements caps every set, beyond any number of pods: it is only a cap, memory follows the content. The kernel's
	// own 65,536 would one day refuse an entry that a policy needs.
	maxElements = 1 << 24
	// The kernel takes no smaller table, and grows it by doubling when entries need it.
	minHashSize = 64
	maxHashSize = 1 << 20
	// messageSize bounds a netlink message. An attribute's length has 16 bits, and the kernel holds the lock of all sets
	// for one message.
	messageSize = 32 << 10
	// socketTimeout ends the wait for a kernel that does not answer.
	socketTimeout = 60
	// busyPatience is how long a set may stay referenced after its last rule went. With nf_tables the kernel releases a
	// deleted rule's sets only later, from a work queue.
	busyPatience = 2 * time.Second
)

// revisions are the lowest of each type that do what we need, which every kernel since 3.x has: 1 knows IPv6 and, in
// the types with ports, SCTP; 2 of hash:net brought nomatch.
var revisions = map[iptables.SetType]uint8{iptables.HashIP: 0, iptables.HashNet: 2, iptables.HashIPPort: 1, iptables.HashIPPortIP: 1}

// ipsets is a netlink socket to the kernel's ipsets, in the network namespace in which it was opened.
type ipsets struct {
	socket   *nl.NetlinkSocket
	handle   *nl.SocketHandle
	exchange exchange
	room     []byte // for the entries of one message
}

func openIPSets(x exchange) (*ipsets, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening netlink for ipsets: %w", err)
	}
	timeout := &unix.Timeval{Sec: socketTimeout}
	if err := errors.Join(s.SetSendTimeout(timeout), s.SetReceiveTimeout(timeout)); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening netlink for ipsets: %w", err)
	}
	return &ipsets{socket: s, handle: &nl.SocketHandle{Socket: s}, exchange: x}, nil
}

func (c *ipsets) close() { c.socket.Close() }

// request begins a message that carries command, about the set of that name if there is one.
func (c *ipsets) request(command int, name string) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(command|unix.NFNL_SUBSYS_IPSET<<8, nl.GetIpsetFlags(command))
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: c.handle}
	r.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	if name != "" {
		r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(name)))
	}
	return r
}

// dumpAttempts bounds how often a dump that was not shown in whole is begun anew.
const dumpAttempts = 5

// whole calls dump, which opens a socket of its own, until it has been shown all of what it asks for. A dump is cut short when what it shows comes and goes
// (NLM_F_DUMP_INTR), when messages are lost for want of room (ENOBUFS), or by a signal (EINTR): half of the truth is an error.
func whole(dump func() error) error {
	for attempt := 1; ; attempt++ {
		err := dump()
		short := errors.Is(err, nl.ErrDumpInterrupted) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR)
		if !short {
			return err
		}
		if attempt == dumpAttempts {
			return fmt.Errorf("begun %d times, and never shown in whole: %w", attempt, err)
		}
	}
}

func execute(r *nl.NetlinkRequest) error {
	_, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	return kernelError(err)
}

// kernelError names ipset's own error numbers. What they say depends on the command: an entry that exists and a set that
// differs share one.
func kernelError(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) || errno < nl.IPSET_ERR_PRIVATE {
		return err
	}
	switch errno {
	case nl.IPSET_ERR_BUSY, nl.IPSET_ERR_REFERENCED:
		return ErrSetInUse
	case nl.IPSET_ERR_FIND_TYPE:
		return errNoSetType
	case nl.IPSET_ERR_MAX_SETS:
		return ErrTooManySets
	case nl.IPSET_ERR_TYPE_SPECIFIC:
		return ErrSetFull
	}
	return nl.IPSetError(errno)
}

var (
	errNoIPSets  = errors.New("the kernel has no ip_set")
	errNoSetType = errors.New("the kernel has no such type of set")
)

// create makes a set with all its entries. A set that has the name already is not the one that is wanted, or the plan would not
// ask for it: it is destroyed first, which the kernel refuses if a rule refers to it.
func (c *ipsets) create(ctx context.Context, s iptables.Set) error {
	err := c.createEmpty(s)
	if errors.Is(err, unix.EEXIST) {
		if err := c.destroyAll(ctx, []string{s.Name}); err != nil {
			return err
		}
		err = c.createEmpty(s)
	}
	if err != nil {
		return &SetError{Set: s.Name, Op: fmt.Sprintf("creating it as %s of %s", s.Type, s.Family), Err: err}
	}
	return c.fill(ctx, s)
}

// atOnce is how many entries of a new set are made ready for messages at once: it may have every pod of the cluster.
const atOnce = 4096

// fill adds the entries of a new set.
func (c *ipsets) fill(ctx context.Context, s iptables.Set) error {
	some := iptables.SetEntries{Set: s.Name, Type: s.Type, Family: s.Family, Entries: make([]iptables.Entry, 0, min(s.Len(), atOnce))}
	for e := range s.All() {
		if some.Entries = append(some.Entries, e); len(some.Entries) < atOnce {
			continue
		}
		if err := c.add(ctx, some); err != nil {
			return err
		}
		some.Entries = some.Entries[:0]
	}
	return c.add(ctx, some)
}

func (c *ipsets) createEmpty(s iptables.Set) error {
	r := c.request(nl.IPSET_CMD_CREATE, s.Name)
	r.Flags |= unix.NLM_F_EXCL // without it the kernel takes a set that exists for the one that is asked for
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated(string(s.Type))))
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_REVISION, nl.Uint8Attr(revisions[s.Type])))
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(addressFamily(s.Family))))
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	data.AddChild(uint32Attr(nl.IPSET_ATTR_HASHSIZE, hashSize(s.Len())))
	if s.Type.Timed() {
		data.AddChild(uint32Attr(nl.IPSET_ATTR_MAXELEM, iptables.MaxHeld))
		// Its entries last for a time, each for its own: a set that begins without cannot have any.
		data.AddChild(uint32Attr(nl.IPSET_ATTR_TIMEOUT, uint32(policy.ShortestHold/time.Second)))
	} else {
		data.AddChild(uint32Attr(nl.IPSET_ATTR_MAXELEM, maxElements))
	}
	r.AddData(data)
	return execute(r)
}

func addressFamily(f iptables.Family) uint8 {
	if f == iptables.IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// hashSize is a table with room for n entries, so that filling a set does not have to grow it again and again.
func hashSize(n int) uint32 {
	size := uint32(1) << bits.Len(uint(max(n, 1)-1))
	return min(max(size, minHashSize), maxHashSize)
}

// add adds entries; one that is there already is no error, and takes on the new one's flags.
func (c *ipsets) add(ctx context.Context, s iptables.SetEntries) error {
	return c.change(ctx, nl.IPSET_CMD_ADD, "adding entries", s)
}

// del deletes entries; one that is missing is no error.
func (c *ipsets) del(ctx context.Context, s iptables.SetEntries) error {
	return c.change(ctx, nl.IPSET_CMD_DEL, "deleting entries", s)
}

// change sends the entries in as few messages as their size allows.
func (c *ipsets) change(ctx context.Context, command int, op string, s iptables.SetEntries) error {
	for rest := s.Entries; len(rest) > 0; {
		if err := context.Cause(ctx); err != nil {
			return &SetError{Set: s.Set, Op: op, Err: err}
		}
		n, err := c.send(command, s, rest)
		if err != nil {
			err = c.blame(command, s, rest[:n], err)
		}
		if err != nil {
			return &SetError{Set: s.Set, Op: op, Err: err}
		}
		rest = rest[n:]
	}
	return nil
}

// send puts as many of the entries as fit into one message, and says how many. Without NLM_F_EXCL the kernel passes over
// entries that exist, or are missing.
func (c *ipsets) send(command int, s iptables.SetEntries, entries []iptables.Entry) (int, error) {
	n := 0
	c.room = c.room[:0]
	for n < len(entries) && len(c.room) < messageSize {
		c.room = append(c.room, entryData(s.Type, entries[n]).Serialize()...)
		n++
	}
	return n, c.sendData(command, s.Set, c.room)
}

// sendData puts entries, as entryData makes them and one behind the other, into one message.
func (c *ipsets) sendData(command int, set string, entries []byte) error {
	r := c.request(command, set)
	// The kernel wants the attribute wherever there are several entries, to write into its answer which one failed; the
	// library passes that part of the answer by.
	r.AddData(uint32Attr(nl.IPSET_ATTR_LINENO, 0))
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_ADT|int(nl.NLA_F_NESTED), entries))
	return execute(r)
}

// blame finds the entry that the kernel refuses, by sending them one by one.
func (c *ipsets) blame(command int, s iptables.SetEntries, entries []iptables.Entry, err error) error {
	if len(entries) == 1 || errors.Is(err, unix.ENOENT) { // no such set: no entry's fault
		return fmt.Errorf("%s: %w", entries[0].Text(s.Type), err)
	}
	for _, e := range entries {
		if _, one := c.send(command, s, []iptables.Entry{e}); one != nil {
			return fmt.Errorf("%s: %w", e.Text(s.Type), one)
		}
	}
	return nil // one by one they went
}

// entryData is one entry as the kernel reads it.
func entryData(t iptables.SetType, e iptables.Entry) *nl.RtAttr {
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	data.AddChild(addressData(nl.IPSET_ATTR_IP, e.Prefix.Addr()))
	switch t {
	case iptables.HashNet:
		data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_CIDR, nl.Uint8Attr(uint8(e.Prefix.Bits()))))
		if e.NoMatch {
			data.AddChild(uint32Attr(nl.IPSET_ATTR_CADT_FLAGS, nl.IPSET_FLAG_NOMATCH))
		}
	case iptables.HashIPPort:
		data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_PROTO, nl.Uint8Attr(uint8(e.Protocol))))
		data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_PORT|int(nl.NLA_F_NET_BYTEORDER), nl.BEUint16Attr(e.Port)))
	}
	return data
}

func addressData(kind int, a netip.Addr) *nl.RtAttr {
	data := nl.NewRtAttr(kind|int(nl.NLA_F_NESTED), nil)
	data.AddChild(addressAttr(a))
	return data
}

func addressAttr(a netip.Addr) *nl.RtAttr {
	kind := nl.IPSET_ATTR_IPADDR_IPV6
	if a.Is4() {
		kind = nl.IPSET_ATTR_IPADDR_IPV4
	}
	return nl.NewRtAttr(kind|int(nl.NLA_F_NET_BYTEORDER), a.AsSlice())
}

func uint32Attr(kind int, v uint32) *nl.RtAttr {
	return nl.NewRtAttr(kind|int(nl.NLA_F_NET_BYTEORDER), binary.BigEndian.AppendUint32(nil, v))
}

// destroyAll destroys sets; one that is missing is no error. A set that is still referenced is tried again for a while.
func (c *ipsets) destroyAll(ctx context.Context, names []string) error {
	deadline := time.Now().Add(busyPatience)
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		var busy []string
		var errs []error
		for _, name := range names {
			err := execute(c.request(nl.IPSET_CMD_DESTROY, name))
			if err == nil || errors.Is(err, unix.ENOENT) {
				continue
			}
			if errors.Is(err, ErrSetInUse) {
				busy = append(busy, name)
			}
			errs = append(errs, &SetError{Set: name, Op: "destroying it", Err: err})
		}
		if len(busy) == 0 || len(busy) < len(errs) || time.Now().Add(pause).After(deadline) {
			return errors.Join(errs...)
		}
		select {
		case <-ctx.Done():
			return errors.Join(append(errs, context.Cause(ctx))...)
		case <-time.After(pause):
		}
		names = busy
	}
}
