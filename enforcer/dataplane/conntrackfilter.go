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

// No kernel is believed to filter as it says: what a filter leaves out by mistake would go on against policy. By IPv6 addresses every kernel up to 6.18 at least shows
// all entries but those that are asked for (ctnetlink_filter_match_tuple takes ipv6_addr_cmp for the opposite of what it is), by the tuple of replies several before 6.2
// show none (they read it by the flags of the original one), and before 5.8 they show all. So each kind of filter is tried once, on an entry that is made for it.

// Attributes and flags of filters (linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_internals.h).
const (
	attrFilter     = 25 // CTA_FILTER; CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS in it have the numbers of the tuples
	attrStatusMask = 26 // CTA_STATUS_MASK
	filterBySource = 1  // CTA_FILTER_F_CTA_IP_SRC
	statusExpected = 1  // IPS_EXPECTED, which whatever has a master has
)

// The entry that filters are tried on. It is in a zone of its own, where it meets no packet, and between addresses that are for documentation.
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

// can reports whether the kernel filters by the addresses of one side, and tries it if nobody has.
func (f *filters) can(x exchange, family iptables.Family, s side) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.tried[family]; ok {
		return known[s]
	}
	found, err := tryFilters(x, family)
	if err != nil {
		return false // something is busy, and it is tried again with the next look
	}
	if f.tried == nil {
		f.tried = map[iptables.Family]map[side]bool{}
	}
	f.tried[family] = found
	return found[s]
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

// tryFilters makes an entry, asks for it by either side, and removes it.
func tryFilters(x exchange, family iptables.Family) (map[side]bool, error) {
	c, err := openTracking(x)
	if err != nil {
		return nil, err
	}
	defer c.close()
	ends := probeAddrs[family]
	one := policy.Connection{
		Original: policy.Tuple{Protocol: policy.UDP, Src: ends[0], Dst: ends[1], SrcPort: 9, DstPort: 9},
		Reply:    policy.Tuple{Protocol: policy.UDP, Src: ends[1], Dst: ends[0], SrcPort: 9, DstPort: 9},
		Zone:     probeZone,
	}
	if err := c.create(one, 30*time.Second); err != nil {
		return nil, err
	}
	found := map[side]bool{}
	var errs []error
	for _, s := range []side{bySource, byDestination} {
		found[s] = true
		for _, of := range []struct {
			addr netip.Addr
			want bool
		}{{ends[s], true}, {ends[1-s], false}} {
			shown := false
			err := c.dump(context.Background(), walk{family: family, side: s, addr: of.addr}, func(c policy.Connection) {
				shown = shown || c.Zone == one.Zone && c.Original == one.Original
			})
			if isBusy(err) {
				errs = append(errs, err)
			}
			found[s] = found[s] && err == nil && shown == of.want
		}
	}
	if _, err := c.delete(one); err != nil {
		errs = append(errs, err)
	}
	return found, errors.Join(errs...)
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
