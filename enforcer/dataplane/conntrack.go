package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Connection tracking is read entry by entry, and nothing but what policy looks at: a node may have hundreds of thousands, and a library that returns them as
// a list would take more memory than all the rest of the enforcer.

// tracking is a netlink socket to the kernel's connection tracking, in the network namespace in which it was opened.
type tracking struct {
	socket   *nl.NetlinkSocket
	handle   *nl.SocketHandle
	exchange exchange
}

func openTracking(x exchange) (*tracking, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening netlink for connection tracking: %w", err)
	}
	timeout := &unix.Timeval{Sec: socketTimeout}
	if err := errors.Join(s.SetSendTimeout(timeout), s.SetReceiveTimeout(timeout)); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening netlink for connection tracking: %w", err)
	}
	return &tracking{socket: s, handle: &nl.SocketHandle{Socket: s}, exchange: x}, nil
}

func (c *tracking) close() { c.socket.Close() }

func (c *tracking) request(command, flags int, family uint8) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(command|unix.NFNL_SUBSYS_CTNETLINK<<8, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: c.handle}
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return r
}

// available asks for the number of entries: the kernel answers, and loads its module where that is needed.
func (c *tracking) available() error {
	const getStats = 5 // IPCTNL_MSG_CT_GET_STATS
	r := c.request(getStats, unix.NLM_F_ACK, unix.AF_UNSPEC)
	err := r.ExecuteIter(unix.NETLINK_NETFILTER, 0, func([]byte) bool { return true })
	if errors.Is(err, unix.EINVAL) { // nfnetlink's answer for a subsystem that nobody has registered
		return errors.New("the kernel does not list connections")
	}
	return err
}

// dump shows each entry that a walk is about to visit, if the kernel filters as it is asked to, and others if not. One that moves while the kernel lists them
// may be shown twice.
func (c *tracking) dump(ctx context.Context, w walk, visit func(policy.Connection)) error {
	r := c.request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, familyOf(w))
	for _, a := range w.attrs() {
		r.AddData(a)
	}
	return c.show(ctx, r, visit)
}

func familyOf(w walk) uint8 {
	if w.family == 0 {
		return unix.AF_UNSPEC
	}
	return addressFamily(w.family)
}

func (c *tracking) show(ctx context.Context, r *nl.NetlinkRequest, visit func(policy.Connection)) error {
	var failed error
	err := c.exchange(r, func(raw []byte) bool {
		var one policy.Connection
		if failed = context.Cause(ctx); failed == nil {
			one, failed = connectionOf(raw)
		}
		if failed == nil {
			visit(one)
		}
		return failed == nil
	})
	return errors.Join(failed, err)
}

// delete removes the connection's entry, and reports whether it was still there.
func (c *tracking) delete(one policy.Connection) (bool, error) {
	r := c.request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, addressFamily(iptables.FamilyOf(one.Original.Src)))
	r.AddData(tupleAttr(nl.CTA_TUPLE_ORIG, one.Original))
	if one.ID != 0 { // so that another that has come to have the same tuple stays
		r.AddData(uint32Attr(nl.CTA_ID, one.ID))
	}
	if one.Zone != 0 {
		r.AddData(nl.NewRtAttr(nl.CTA_ZONE, nl.BEUint16Attr(one.Zone)))
	}
	_, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// Connections shows each live connection of the families that are enforced to visit, which may call [Dataplane.Cut], if it is affected. It shows others too:
// what the kernel does not filter, all are shown. One may be shown more than once: if the kernel cannot show all of them in one go, it is asked again.
func (d *Dataplane) Connections(ctx context.Context, affected policy.Affected, visit func(policy.Connection)) error {
	families := d.Capabilities().Families
	for _, w := range walks(affected, families, d.filters.count(), d.filters.can) {
		if err := d.walk(ctx, w, visit); err != nil {
			return fmt.Errorf("listing live connections: %w", err)
		}
	}
	if affected.All {
		d.filters.try(d.exchange, families)
	}
	return nil
}

// Related shows each live connection that belongs to another to visit, and where the kernel does not filter by that (before Linux 5.15), all.
func (d *Dataplane) Related(ctx context.Context, visit func(policy.Connection)) error {
	if err := d.walk(ctx, walk{related: true}, visit); err != nil {
		return fmt.Errorf("listing related connections: %w", err)
	}
	return nil
}

// walk makes one dump, and counts what there is where it is of everything.
func (d *Dataplane) walk(ctx context.Context, w walk, visit func(policy.Connection)) error {
	var four, six int
	err := whole(func() error {
		c, err := openTracking(d.exchange)
		if err != nil {
			return err
		}
		defer c.close()
		four, six = 0, 0
		return c.dump(ctx, w, func(one policy.Connection) {
			if one.Original.Src.Is4() {
				four++
			} else {
				six++
			}
			visit(one)
		})
	})
	if err == nil && !w.related && !w.addr.IsValid() {
		for f, n := range map[iptables.Family]int{iptables.IPv4: four, iptables.IPv6: six} {
			if w.family == 0 || w.family == f {
				d.filters.counted(f, n)
			}
		}
	}
	return err
}

// Addresses are all that the node has itself.
func (d *Dataplane) Addresses(context.Context) ([]netip.Addr, error) {
	var list []netlink.Addr
	err := whole(func() (err error) {
		list, err = netlink.AddrList(nil, netlink.FAMILY_ALL)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the node's addresses: %w", err)
	}
	addrs := make([]netip.Addr, 0, len(list))
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, nil
}

// Cut ends connections: it removes their entries, and before that has what their other ends still send held off, if that is asked for. It says how many
// entries it has removed; one that is gone already is no error.
func (d *Dataplane) Cut(ctx context.Context, all []policy.Connection, holdOff bool) (int, error) {
	var errs []error
	if holdOff && d.Capabilities().HoldCut {
		if err := hold(ctx, all); err != nil {
			errs = append(errs, err) // that they end is worth more than that they stay ended
		}
	}
	c, err := openTracking(d.exchange)
	if err != nil {
		return 0, errors.Join(append(errs, err)...)
	}
	defer c.close()
	cut := 0
	for _, one := range all {
		if err := context.Cause(ctx); err != nil {
			return cut, errors.Join(append(errs, fmt.Errorf("cutting connections: %w", err))...)
		}
		was, err := c.delete(one)
		if err != nil {
			errs = append(errs, fmt.Errorf("cutting the connection %s: %w", one.Original, err))
		}
		if was {
			cut++
		}
	}
	return cut, errors.Join(errs...)
}

// hold puts the connections into the sets whose packets in the other direction are dropped, for as long as [policy.Connection.Hold] says.
func hold(ctx context.Context, all []policy.Connection) error {
	c, err := openIPSets(askKernel)
	if err != nil {
		return err
	}
	defer c.close()
	var errs []error
	for _, f := range iptables.Families {
		var entries [][]byte
		for _, one := range all {
			if iptables.FamilyOf(one.Reply.Dst) == f && one.Reply.Protocol.HasPorts() {
				entries = append(entries, holdData(one).Serialize())
			}
		}
		for len(entries) > 0 {
			n := min(len(entries), messageSize/128) // an entry takes less than 128 bytes
			err := context.Cause(ctx)
			if err == nil {
				err = c.sendData(nl.IPSET_CMD_ADD, iptables.CutSet(f), slices.Concat(entries[:n]...))
			}
			if errors.Is(err, unix.ENOENT) {
				break // no rule asks for the set, or it would be there
			}
			if err != nil {
				errs = append(errs, &SetError{Set: iptables.CutSet(f), Op: "holding off connections that are cut", Err: err})
				break
			}
			entries = entries[n:]
		}
	}
	return errors.Join(errs...)
}

// holdData is the entry of a connection, as the packets of its other end have it: their destination address and port, and their source.
func holdData(one policy.Connection) *nl.RtAttr {
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	data.AddChild(addressData(nl.IPSET_ATTR_IP, one.Reply.Dst))
	data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_PROTO, nl.Uint8Attr(uint8(one.Reply.Protocol))))
	data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_PORT|int(nl.NLA_F_NET_BYTEORDER), nl.BEUint16Attr(one.Reply.DstPort)))
	data.AddChild(addressData(nl.IPSET_ATTR_IP2, one.Reply.Src))
	data.AddChild(uint32Attr(nl.IPSET_ATTR_TIMEOUT, uint32(one.Hold()/time.Second)))
	return data
}

// tupleAttr is a tuple as the kernel reads it.
func tupleAttr(kind int, t policy.Tuple) *nl.RtAttr {
	source, destination := nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
	if t.Src.Is4() {
		source, destination = nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST
	}
	nested := func(kind int) *nl.RtAttr { return nl.NewRtAttr(kind|int(nl.NLA_F_NESTED), nil) }
	tuple, ip, proto := nested(kind), nested(nl.CTA_TUPLE_IP), nested(nl.CTA_TUPLE_PROTO)
	ip.AddChild(nl.NewRtAttr(source, t.Src.AsSlice()))
	ip.AddChild(nl.NewRtAttr(destination, t.Dst.AsSlice()))
	proto.AddChild(nl.NewRtAttr(nl.CTA_PROTO_NUM, nl.Uint8Attr(uint8(t.Protocol))))
	switch t.Protocol {
	case policy.ICMP, policy.ICMPv6:
		first := attrICMPID
		if t.Protocol == policy.ICMPv6 {
			first = attrICMPv6ID
		}
		proto.AddChild(nl.NewRtAttr(first, nl.BEUint16Attr(t.ICMPID)))
		proto.AddChild(nl.NewRtAttr(first+1, nl.Uint8Attr(t.ICMPType)))
		proto.AddChild(nl.NewRtAttr(first+2, nl.Uint8Attr(t.ICMPCode)))
	default: // for a protocol without ports the kernel passes over them
		proto.AddChild(nl.NewRtAttr(nl.CTA_PROTO_SRC_PORT, nl.BEUint16Attr(t.SrcPort)))
		proto.AddChild(nl.NewRtAttr(nl.CTA_PROTO_DST_PORT, nl.BEUint16Attr(t.DstPort)))
	}
	tuple.AddChild(ip)
	tuple.AddChild(proto)
	return tuple
}
