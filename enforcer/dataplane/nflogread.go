package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What nfnetlink_log says and is told, in the numbers of linux/netfilter/nfnetlink_log.h.
const (
	logPacket, logConfig = 0, 1 // messages

	configCommand, configMode, configTimeout, configBatch, configFlags = 1, 2, 4, 5, 6 // attributes of a configuration

	bindGroup, copyPacket, withSequence = 1, 2, 1

	attrTimestamp, attrIn, attrOut, attrPayload, attrPrefix, attrSequence = 3, 4, 5, 9, 10, 12 // attributes of a packet
)

// logSocket reads a group of NFLOG. It reads packets of every family: those that guards sample are of netdev.
type logSocket struct{ conn *netlink.Conn }

// openLog opens netlink, in the network namespace of the calling thread. The group is not bound yet.
func openLog() (*logSocket, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	return &logSocket{c}, nil
}

// bind takes the group. All is asked in one message: no packet comes in another form.
func (s *logSocket) bind(group uint16) error {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Bytes(configCommand, []byte{bindGroup})
	ae.Bytes(configMode, append(binary.BigEndian.AppendUint32(nil, copyRange), copyPacket, 0))
	ae.Uint32(configTimeout, logDelay)
	ae.Uint32(configBatch, logBatch)
	ae.Uint16(configFlags, withSequence)
	attrs, err := ae.Encode()
	if err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	_, err = s.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_ULOG<<8 | logConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(header, attrs...),
	})
	return err
}

// read gives packets to take until ctx ends, which is no error. That we were too slow shows in the sequence numbers alone.
func (s *logSocket) read(ctx context.Context, take func(sampled)) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for ctx.Err() == nil {
		messages, err := s.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return err
		}
		for _, m := range messages {
			if m.Header.Type != unix.NFNL_SUBSYS_ULOG<<8|logPacket {
				continue
			}
			if l, ok := parseSampled(m.Data); ok {
				take(l)
			}
		}
	}
	return nil
}

// sampled is a message about a packet, with what is known of it.
type sampled struct {
	sequence uint32
	prefix   string
	at       time.Time // zero if the kernel does not say it
	in, out  uint32    // numbers of interfaces, 0 for none
	payload  []byte
}

// parseSampled reads a message behind netlink's header. It begins with a family, a version and the group.
func parseSampled(b []byte) (l sampled, ok bool) {
	const header = 4
	if len(b) < header {
		return sampled{}, false
	}
	d, err := netlink.NewAttributeDecoder(b[header:])
	if err != nil {
		return sampled{}, false
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		switch d.Type() {
		case attrTimestamp:
			if t := d.Bytes(); len(t) == 16 {
				l.at = time.Unix(int64(binary.BigEndian.Uint64(t)), 1000*int64(binary.BigEndian.Uint64(t[8:])))
			}
		case attrIn:
			l.in = d.Uint32()
		case attrOut:
			l.out = d.Uint32()
		case attrPayload:
			l.payload = d.Bytes()
		case attrPrefix:
			l.prefix = d.String()
		case attrSequence:
			l.sequence = d.Uint32()
		}
	}
	return l, d.Err() == nil
}
