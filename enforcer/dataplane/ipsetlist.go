package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// listSets are our sets with their entries, which are those of known where it has the same; or the one of a name, if that is not empty.
func listSets(x exchange, layout iptables.Layout, known policy.Map[string, iptables.Set], name string) (map[string]iptables.Set, error) {
	var l listing
	err := whole(func() error {
		c, err := openIPSets(x)
		if err != nil {
			return err
		}
		defer c.close()
		l = listing{layout: layout, known: known, sets: map[string]iptables.Set{}}
		return c.dump(c.request(nl.IPSET_CMD_LIST, name), l.read)
	})
	if err != nil {
		return nil, fmt.Errorf("listing the ipsets: %w", err)
	}
	l.finish()
	return l.sets, nil
}

// listing is a dump of sets as it is read. The kernel shows one set after the other: its entries are collected in room that the next one uses
// again, and what known has too stands in the memory of that. Sets may hold every pod of the cluster, many times over. What sets of another layout hold is left
// unread: nothing of it will be kept, it would take as much memory again as the sets that replace them, and there is no knowing what it means.
type listing struct {
	layout  iptables.Layout
	known   policy.Map[string, iptables.Set]
	sets    map[string]iptables.Set
	current iptables.Set
	room    []iptables.Entry
}

// read takes one message of the dump.
func (l *listing) read(name string, m message) error {
	if !isOurs(name) {
		return nil
	}
	if name != l.current.Name {
		l.finish()
		s, ok := l.sets[name]
		if !ok {
			s = iptables.Set{Name: name, Type: m.setType, Family: m.family}
		}
		l.current, l.room = s, slices.AppendSeq(slices.Grow(l.room[:0], max(l.known.Get(name).Len(), s.Len())), s.All())
	}
	if l.current.Type.Timed() || l.layout.IsOther(name) {
		return nil // these entries are no part of a ruleset
	}
	return m.entries(func(e iptables.Entry) { l.room = append(l.room, e) })
}

// finish keeps the set that was read.
func (l *listing) finish() {
	if l.current.Name == "" {
		return
	}
	l.room = iptables.SortEntries(l.room) // a set that grows while it is listed repeats some
	l.sets[l.current.Name] = l.known.Get(l.current.Name).Now(l.current, l.room)
}

// setNames are those of our sets, without looking into them.
func setNames(x exchange) ([]string, error) {
	var names []string
	err := whole(func() error {
		c, err := openIPSets(x)
		if err != nil {
			return err
		}
		defer c.close()
		r := c.request(nl.IPSET_CMD_LIST, "")
		const listNames = 1 << 1 // IPSET_FLAG_LIST_SETNAME
		r.AddData(uint32Attr(nl.IPSET_ATTR_FLAGS, listNames))
		names = nil
		return c.dump(r, func(name string, _ message) error {
			if isOurs(name) {
				names = append(names, name)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("listing the names of the ipsets: %w", err)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// hasType asks the kernel for a type of set, which loads its module where that is needed.
func (c *ipsets) hasType(t iptables.SetType, f iptables.Family) error {
	r := c.request(nl.IPSET_CMD_TYPE, "")
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated(string(t))))
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(addressFamily(f))))
	var highest uint8
	err := c.exchange(r, func(raw []byte) bool {
		if attrs, err := attributes(raw); err == nil {
			highest = byteOf(attrs[nl.IPSET_ATTR_REVISION])
		}
		return true
	})
	if errors.Is(err, unix.EINVAL) { // nfnetlink's answer for a subsystem that nobody has registered
		return errNoIPSets
	}
	if err := kernelError(err); err != nil {
		return err
	}
	if highest < revisions[t] {
		return fmt.Errorf("the kernel has revision %d of %s, and %d is needed", highest, t, revisions[t])
	}
	return nil
}

// message is one message of a dump. Only a set's first message says its type and family; each carries some of its entries.
type message struct {
	setType iptables.SetType
	family  iptables.Family
	adt     []byte
}

// dump runs a request that the kernel answers with messages, and shows each of them to f.
func (c *ipsets) dump(r *nl.NetlinkRequest, f func(name string, m message) error) error {
	var failed error
	err := c.exchange(r, func(raw []byte) bool {
		attrs, err := attributes(raw)
		if err == nil {
			m := message{adt: attrs[nl.IPSET_ATTR_ADT], setType: iptables.SetType(stringOf(attrs[nl.IPSET_ATTR_TYPENAME]))}
			switch byteOf(attrs[nl.IPSET_ATTR_FAMILY]) {
			case unix.AF_INET:
				m.family = iptables.IPv4
			case unix.AF_INET6:
				m.family = iptables.IPv6
			}
			err = f(stringOf(attrs[nl.IPSET_ATTR_SETNAME]), m)
		}
		failed = err
		return err == nil
	})
	return errors.Join(failed, kernelError(err))
}

// attributes are those of a message, by type without its flags.
func attributes(raw []byte) (map[uint16][]byte, error) {
	if len(raw) < nl.SizeofNfgenmsg {
		return nil, fmt.Errorf("a netlink message of %d bytes is too short", len(raw))
	}
	byType := map[uint16][]byte{}
	err := eachAttribute(raw[nl.SizeofNfgenmsg:], func(kind uint16, value []byte) error {
		byType[kind] = value
		return nil
	})
	return byType, err
}

func byteOf(b []byte) uint8 {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func stringOf(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// entries shows each entry of the message to f.
func (m message) entries(f func(iptables.Entry)) error {
	return eachAttribute(m.adt, func(_ uint16, value []byte) error {
		e, err := entryOf(value)
		if err != nil {
			return fmt.Errorf("reading an entry: %w", err)
		}
		f(e)
		return nil
	})
}

// eachAttribute shows each attribute in b to f, with its type without flags. It makes no list of them as nl.ParseRouteAttr does, since a dump has several
// for each entry; and it takes one whose padding is missing, on which that panics.
func eachAttribute(b []byte, f func(kind uint16, value []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return fmt.Errorf("an attribute of %d bytes does not fit into %d", length, len(b))
		}
		if err := f(binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:length]); err != nil {
			return err
		}
		const alignment = unix.RTA_ALIGNTO
		b = b[min((length+alignment-1)/alignment*alignment, len(b)):]
	}
	return nil
}

func entryOf(data []byte) (iptables.Entry, error) {
	var e iptables.Entry
	var addr netip.Addr
	length := -1
	err := eachAttribute(data, func(kind uint16, value []byte) (err error) {
		switch kind {
		case nl.IPSET_ATTR_IP:
			addr, err = addressOf(value)
		case nl.IPSET_ATTR_CIDR:
			length = int(byteOf(value))
		case nl.IPSET_ATTR_PROTO:
			e.Protocol = policy.Protocol(byteOf(value))
		case nl.IPSET_ATTR_PORT:
			if len(value) >= 2 {
				e.Port = binary.BigEndian.Uint16(value)
			}
		case nl.IPSET_ATTR_CADT_FLAGS:
			e.NoMatch = len(value) >= 4 && binary.BigEndian.Uint32(value)&nl.IPSET_FLAG_NOMATCH != 0
		}
		return err
	})
	if length < 0 {
		length = addr.BitLen()
	}
	e.Prefix = policy.PrefixOf(netip.PrefixFrom(addr, length))
	return e, err
}

func addressOf(nested []byte) (netip.Addr, error) {
	var addr netip.Addr
	err := eachAttribute(nested, func(_ uint16, value []byte) error {
		if a, ok := netip.AddrFromSlice(value); ok && !addr.IsValid() {
			addr = a
		}
		return nil
	})
	if err == nil && !addr.IsValid() {
		err = errors.New("it has no address")
	}
	return addr, err
}
