package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/enforcer/ruleset"
)

// dumpAttempts bounds how often a dump is begun anew because sets came or went while it ran.
const dumpAttempts = 5

// list is our sets with their entries.
func (c *ipsets) list() (map[string]ruleset.Set, error) {
	for attempt := 1; ; attempt++ {
		sets := map[string]ruleset.Set{}
		err := c.dump(c.request(nl.IPSET_CMD_LIST, ""), func(name string, m message) error {
			if !isOurs(name) {
				return nil
			}
			s, ok := sets[name]
			if !ok {
				s = ruleset.Set{Name: name, Type: m.setType, Family: m.family}
			}
			if sets[name] = s; s.Type == ruleset.HashIPPortIP {
				return nil // its entries are no part of a ruleset
			}
			err := m.entries(func(e ruleset.Entry) { s.Entries = append(s.Entries, e) })
			sets[name] = s
			return err
		})
		switch {
		case err == nil:
			for name, s := range sets {
				s.Entries = ruleset.SortEntries(s.Entries) // a set that grows while it is listed repeats some
				sets[name] = s
			}
			return sets, nil
		case !errors.Is(err, nl.ErrDumpInterrupted) || attempt == dumpAttempts:
			return nil, fmt.Errorf("listing the ipsets: %w", err)
		}
	}
}

// names are those of our sets, without looking into them.
func (c *ipsets) names() ([]string, error) {
	r := c.request(nl.IPSET_CMD_LIST, "")
	const listNames = 1 << 1 // IPSET_FLAG_LIST_SETNAME
	r.AddData(uint32Attr(nl.IPSET_ATTR_FLAGS, listNames))
	var names []string
	err := c.dump(r, func(name string, _ message) error {
		if isOurs(name) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, fmt.Errorf("listing the names of the ipsets: %w", err)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// hasType asks the kernel for a type of set, which loads its module where that is needed.
func (c *ipsets) hasType(t ruleset.SetType, f ruleset.Family) error {
	r := c.request(nl.IPSET_CMD_TYPE, "")
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated(string(t))))
	r.AddData(nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(addressFamily(f))))
	var highest uint8
	err := r.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(raw []byte) bool {
		if attrs, err := attributes(raw); err == nil {
			highest = byteOf(attrs[nl.IPSET_ATTR_REVISION])
		}
		return true
	})
	if errors.Is(err, unix.EINVAL) { // nfnetlink's answer for a subsystem that nobody has registered
		return errors.New("the kernel has no ip_set")
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
	setType ruleset.SetType
	family  ruleset.Family
	adt     []byte
}

// dump runs a request that the kernel answers with messages, and shows each of them to f.
func (c *ipsets) dump(r *nl.NetlinkRequest, f func(name string, m message) error) error {
	var failed error
	err := r.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(raw []byte) bool {
		attrs, err := attributes(raw)
		if err == nil {
			m := message{adt: attrs[nl.IPSET_ATTR_ADT], setType: ruleset.SetType(stringOf(attrs[nl.IPSET_ATTR_TYPENAME]))}
			switch byteOf(attrs[nl.IPSET_ATTR_FAMILY]) {
			case unix.AF_INET:
				m.family = ruleset.IPv4
			case unix.AF_INET6:
				m.family = ruleset.IPv6
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
	list, err := nl.ParseRouteAttr(raw[nl.SizeofNfgenmsg:])
	if err != nil {
		return nil, err
	}
	byType := make(map[uint16][]byte, len(list))
	for _, a := range list {
		byType[kind(a)] = a.Value
	}
	return byType, nil
}

func kind(a syscall.NetlinkRouteAttr) uint16 { return a.Attr.Type & nl.NLA_TYPE_MASK }

func byteOf(b []byte) uint8 {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func stringOf(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// entries shows each entry of the message to f.
func (m message) entries(f func(ruleset.Entry)) error {
	list, err := nl.ParseRouteAttr(m.adt)
	if err != nil {
		return fmt.Errorf("reading entries: %w", err)
	}
	for _, a := range list {
		e, err := entryOf(a.Value)
		if err != nil {
			return fmt.Errorf("reading an entry: %w", err)
		}
		f(e)
	}
	return nil
}

func entryOf(data []byte) (ruleset.Entry, error) {
	attrs, err := nl.ParseRouteAttr(data)
	if err != nil {
		return ruleset.Entry{}, err
	}
	var e ruleset.Entry
	var addr netip.Addr
	length := -1
	for _, a := range attrs {
		switch kind(a) {
		case nl.IPSET_ATTR_IP:
			if addr, err = addressOf(a.Value); err != nil {
				return e, err
			}
		case nl.IPSET_ATTR_CIDR:
			length = int(byteOf(a.Value))
		case nl.IPSET_ATTR_PROTO:
			e.Protocol = policy.Protocol(byteOf(a.Value))
		case nl.IPSET_ATTR_PORT:
			if len(a.Value) >= 2 {
				e.Port = binary.BigEndian.Uint16(a.Value)
			}
		case nl.IPSET_ATTR_CADT_FLAGS:
			e.NoMatch = len(a.Value) >= 4 && binary.BigEndian.Uint32(a.Value)&nl.IPSET_FLAG_NOMATCH != 0
		}
	}
	if length < 0 {
		length = addr.BitLen()
	}
	e.Prefix = netip.PrefixFrom(addr, length)
	return e, nil
}

func addressOf(nested []byte) (netip.Addr, error) {
	attrs, err := nl.ParseRouteAttr(nested)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range attrs {
		if addr, ok := netip.AddrFromSlice(a.Value); ok {
			return addr, nil
		}
	}
	return netip.Addr{}, errors.New("it has no address")
}
