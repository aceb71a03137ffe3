package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// No kernel is believed to filter as it says: what a filter leaves out by mistake would go on against policy. By IPv6 addresses every kernel up to 6.18 at
// least shows all entries but those that are asked for (ctnetlink_filter_match_tuple takes ipv6_addr_cmp for the opposite of what it is), by the tuple of
// replies several before 6.2 show none (they read it by the flags of the original one), and before 5.8 they show all. So each kind of filter is tried once,
// on entries that are made for it.

// Attributes and flags of filters (linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_internals.h).
const (
	attrFilter     = 25 // CTA_FILTER; CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS in it have the numbers of the tuples
	attrStatusMask = 26 // CTA_STATUS_MASK
	filterBySource = 1  // CTA_FILTER_F_CTA_IP_SRC
	statusExpected = 1  // IPS_EXPECTED, which whatever has a master has
)

// The entries that filters are tried on. They are in a zone of their own, where they meet no packet, and between addresses that are for documentation.
const probeZone = 0xfeed

var probeAddrs = map[iptables.Family][2]netip.Addr{
	iptables.IPv4: {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
	iptables.IPv6: {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")},
}

// filters are what the kernel is known to filter by, and how many entries it has shown of late.
type filters struct {
	mu      sync.Mutex
	tried   map[iptables.Family]map[side]bool // whether it does; absent while nobody has tried
	tracked map[iptables.Family]int           // when they were all shown last
}

// can reports whether the kernel is known to filter by the addresses of one side.
func (f *filters) can(family iptables.Family, s side) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tried[family][s]
}

// try finds out what the kernel filters by, where nobody has. That takes as long as some walks: no look that is urgent should wait for it.
func (f *filters) try(x exchange, families []iptables.Family) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tried == nil {
		f.tried = map[iptables.Family]map[side]bool{}
	}
	for _, family := range families {
		if _, known := f.tried[family]; known {
			continue
		}
		if found, err := tryFilters(x, family); err == nil { // else it is tried with the next look at all
			f.tried[family] = found
		}
	}
}

// count are the entries of each family when they were all shown last.
func (f *filters) count() map[iptables.Family]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tracked
}

// counted notes how many entries of a family there are.
func (f *filters) counted(family iptables.Family, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tracked = maps.Clone(f.tracked)
	if f.tracked == nil {
		f.tracked = map[iptables.Family]int{}
	}
	f.tracked[family] = n
}

// tryFilters makes two entries, one in each direction, asks for one of them by either side, and removes both.
func tryFilters(x exchange, family iptables.Family) (found map[side]bool, err error) {
	c, err := openTracking(x)
	if err != nil {
		return nil, err
	}
	defer c.close()
	ends := probeAddrs[family]
	there, back := probeOf(ends[0], ends[1], 9), probeOf(ends[1], ends[0], 10)
	for _, one := range []policy.Connection{there, back} {
		if err := c.create(one, 30*time.Second); err != nil {
			return nil, err
		}
		defer func() {
			_, failed := c.delete(one)
			err = errors.Join(err, failed)
		}()
	}
	found = map[side]bool{}
	for _, s := range []side{bySource, byDestination} {
		shown := map[policy.Tuple]bool{}
		err := c.dump(context.Background(), walk{family: family, side: s, addr: ends[s]}, func(one policy.Connection) {
			shown[one.Original] = shown[one.Original] || one.Zone == probeZone
		})
		if isBusy(err) {
			return nil, err
		}
		found[s] = err == nil && shown[there.Original] && !shown[back.Original]
	}
	return found, nil
}

// probeOf is an entry with a port at both ends, which is another for each: the replies of one must not look as the other.
func probeOf(src, dst netip.Addr, port uint16) policy.Connection {
	return policy.Connection{
		Original: policy.Tuple{Protocol: policy.UDP, Src: src, Dst: dst, SrcPort: port, DstPort: port},
		Reply:    policy.Tuple{Protocol: policy.UDP, Src: dst, Dst: src, SrcPort: port, DstPort: port},
		Zone:     probeZone,
	}
}

// create makes the entry of a connection.
func (c *tracking) create(one policy.Connection, left time.Duration) error {
	r := c.request(nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE|unix.NLM_F_ACK, addressFamily(iptables.FamilyOf(one.Original.Src)))
	r.AddData(tupleAttr(nl.CTA_TUPLE_ORIG, one.Original))
	r.AddData(tupleAttr(nl.CTA_TUPLE_REPLY, one.Reply))
	r.AddData(uint32Attr(nl.CTA_TIMEOUT, uint32(left/time.Second)))
	r.AddData(nl.NewRtAttr(nl.CTA_ZONE, nl.BEUint16Attr(one.Zone)))
	if _, err := r.Execute(unix.NETLINK_NETFILTER, 0); err != nil {
		return fmt.Errorf("making an entry of connection tracking: %w", err)
	}
	return nil
}

// attrs have a dump show the entries alone that a walk is about.
func (w walk) attrs() []*nl.RtAttr {
	if w.related {
		return []*nl.RtAttr{uint32Attr(nl.CTA_STATUS, statusExpected), uint32Attr(attrStatusMask, statusExpected)}
	}
	if !w.addr.IsValid() {
		return nil
	}
	tuple := nl.CTA_TUPLE_ORIG
	if w.side == byDestination {
		tuple = nl.CTA_TUPLE_REPLY
	}
	flags := nl.NewRtAttr(attrFilter|int(nl.NLA_F_NESTED), nil)
	flags.AddChild(nl.NewRtAttr(tuple, binary.NativeEndian.AppendUint32(nil, filterBySource)))
	return []*nl.RtAttr{tupleAttr(tuple, policy.Tuple{Src: w.addr, Dst: w.addr}), flags}
}
