package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Attributes of connection tracking (linux/netfilter/nfnetlink_conntrack.h) that the netlink library lacks.
const (
	attrTupleMaster = 14 // CTA_TUPLE_MASTER
	attrTupleZone   = 3  // CTA_TUPLE_ZONE
	attrICMPID      = 4  // CTA_PROTO_ICMP_ID; its type and its code follow
	attrICMPv6ID    = 7  // CTA_PROTO_ICMPV6_ID, likewise
)

// statusAnswered is set in the status of an entry whose other end has sent a packet too: IPS_SEEN_REPLY (linux/netfilter/nf_conntrack_common.h).
const statusAnswered = 1 << 1

// connectionOf reads one message of a dump.
func connectionOf(raw []byte) (policy.Connection, error) {
	// The kernel gives no time to an entry whose packets bypass the hooks (IPS_OFFLOAD).
	one := policy.Connection{Left: policy.LongestHold}
	if len(raw) < nl.SizeofNfgenmsg {
		return one, fmt.Errorf("a netlink message of %d bytes is too short", len(raw))
	}
	for rest := raw[nl.SizeofNfgenmsg:]; len(rest) > 0; {
		kind, value, next, err := nextAttr(rest)
		if err != nil {
			return one, err
		}
		rest = next
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			err = readTuple(value, &one.Original, &one.Zone)
		case nl.CTA_TUPLE_REPLY:
			err = readTuple(value, &one.Reply, &one.Zone)
		case attrTupleMaster:
			err = readTuple(value, &one.Master, &one.Zone)
		case nl.CTA_STATUS:
			one.Answered = uint32Of(value)&statusAnswered != 0
		case nl.CTA_PROTOINFO:
			one.SYN, err = readSYN(value)
		case nl.CTA_ZONE:
			one.Zone = uint16Of(value)
		case nl.CTA_ID:
			one.ID = uint32Of(value)
		case nl.CTA_TIMEOUT:
			one.Left = time.Duration(uint32Of(value)) * time.Second
		}
		if err != nil {
			return one, err
		}
	}
	if !one.Original.Src.IsValid() || !one.Reply.Src.IsValid() {
		return one, errors.New("an entry of connection tracking lacks a tuple")
	}
	return one, nil
}

// readTuple reads a tuple, and the zone if it has one of its own.
func readTuple(raw []byte, t *policy.Tuple, zone *uint16) error {
	for len(raw) > 0 {
		kind, value, rest, err := nextAttr(raw)
		if err != nil {
			return err
		}
		raw = rest
		switch kind {
		case nl.CTA_TUPLE_IP:
			err = readEnds(value, t)
		case nl.CTA_TUPLE_PROTO:
			err = readProtocol(value, t)
		case attrTupleZone:
			*zone = uint16Of(value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readEnds(raw []byte, t *policy.Tuple) error {
	for len(raw) > 0 {
		kind, value, rest, err := nextAttr(raw)
		if err != nil {
			return err
		}
		raw = rest
		addr, _ := netip.AddrFromSlice(value)
		switch kind {
		case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
			t.Src = addr
		case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
			t.Dst = addr
		}
	}
	return nil
}

func readProtocol(raw []byte, t *policy.Tuple) error {
	for len(raw) > 0 {
		kind, value, rest, err := nextAttr(raw)
		if err != nil {
			return err
		}
		raw = rest
		switch kind {
		case nl.CTA_PROTO_NUM:
			t.Protocol = policy.Protocol(byteOf(value))
		case nl.CTA_PROTO_SRC_PORT:
			t.SrcPort = uint16Of(value)
		case nl.CTA_PROTO_DST_PORT:
			t.DstPort = uint16Of(value)
		case attrICMPID, attrICMPv6ID:
			t.ICMPID = uint16Of(value)
		case attrICMPID + 1, attrICMPv6ID + 1:
			t.ICMPType = byteOf(value)
		case attrICMPID + 2, attrICMPv6ID + 2:
			t.ICMPCode = byteOf(value)
		}
	}
	return nil
}

// readSYN reads of a TCP connection whether its SYN was seen. The kernel is liberal about the windows of one that it has picked up in mid-stream
// (IP_CT_TCP_FLAG_BE_LIBERAL, linux/netfilter/nf_conntrack_tcp.h).
func readSYN(raw []byte) (bool, error) {
	const beLiberal = 0x08
	tcp, err := find(nl.CTA_PROTOINFO_TCP, raw)
	if err != nil {
		return false, err
	}
	flags, err := find(nl.CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, tcp)
	return len(flags) > 0 && byteOf(flags)&beLiberal == 0, err
}

// find is the value of an attribute, nil if it is not there.
func find(kind uint16, raw []byte) ([]byte, error) {
	for len(raw) > 0 {
		found, value, rest, err := nextAttr(raw)
		if err != nil || found == kind {
			return value, err
		}
		raw = rest
	}
	return nil, nil
}

// nextAttr takes one attribute from the front of b. Its type comes without flags.
func nextAttr(b []byte) (kind uint16, value, rest []byte, err error) {
	if len(b) < unix.SizeofRtAttr {
		return 0, nil, nil, fmt.Errorf("a netlink attribute of %d bytes is too short", len(b))
	}
	length := int(binary.NativeEndian.Uint16(b))
	if length < unix.SizeofRtAttr || length > len(b) {
		return 0, nil, nil, fmt.Errorf("a netlink attribute says that it has %d bytes, of %d", length, len(b))
	}
	kind = binary.NativeEndian.Uint16(b[2:]) & nl.NLA_TYPE_MASK
	aligned := min((length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b))
	return kind, b[unix.SizeofRtAttr:length], b[aligned:], nil
}

func uint16Of(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func uint32Of(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
