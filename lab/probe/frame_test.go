package probe_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/netns"
)

// TestKernelsUnderstandWhatIsWritten sends packets field by field, as a program that has NET_RAW, and sees a kernel's answers.
func TestKernelsUnderstandWhatIsWritten(t *testing.T) {
	n := newNetwork(t)
	sniffer, err := probe.SniffLink(n.client, "eth0")
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, sniffer.Close()) })
	own, err := n.client.HardwareAddr("eth0")
	kit.Must(t, err)
	router, err := n.router.HardwareAddr("client")
	kit.Must(t, err)
	for i, f := range families {
		src, dst := netip.AddrPortFrom(f.client, uint16(5000+i)), netip.AddrPortFrom(f.server, 82)
		ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 82), src.Port())
		echo := uint8(8)
		if f.client.Is6() {
			echo = 128
		}
		// Connection tracking puts the fragments together before the router's rules look.
		long := probe.ICMP(f.client, f.server, echo, 0, 2, append(make([]byte, 56), "piece by piece"...))
		for _, c := range []struct {
			name    string
			packets []probe.Packet
			answer  []byte
		}{
			{"an echo request", []probe.Packet{probe.ICMP(f.client, f.server, echo, 0, 1, []byte("hello "+f.name))}, []byte("hello " + f.name)},
			{"a datagram", []probe.Packet{probe.UDP(src, dst, []byte("who?"))}, []byte(n.server.Name())},
			{"a SYN", []probe.Packet{probe.TCP(src, dst, probe.SYN, 7, 0, nil)}, ports},
			{"fragments", []probe.Packet{long.Piece(9, 0, 32, true), long.Piece(9, 32, len(long.Payload), false)}, []byte("piece by piece")},
		} {
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				sniffer.Forget()
				kit.Must(t, probe.As(n.client, probe.NetRaw, 0, func() error {
					link, err := probe.OpenLink("eth0")
					if err != nil {
						return err
					}
					defer link.Close()
					for _, p := range c.packets {
						if err := link.Send(probe.Frame{Dst: router, Src: own, Type: p.EtherType(), Payload: p.Marshal()}); err != nil {
							return err
						}
					}
					return nil
				}))
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if err := sniffer.Wait(ctx, c.answer); err != nil {
					t.Errorf("no answer: %v", err)
				}
			})
		}
	}
}

// TestRights holds As to what it promises: no right but those that are given.
func TestRights(t *testing.T) {
	kit.NeedNetfilter(t)
	h := netns.New(t, "rf-probetest", "confined")
	open := func(r probe.Rights) error {
		return probe.As(h, r, 0, func() error {
			link, err := probe.OpenLink("lo")
			if err == nil {
				err = link.Close()
			}
			return err
		})
	}
	if err := open(probe.Sockets); !errors.Is(err, unix.EPERM) {
		t.Errorf("opening a link without rights: %v, want %v", err, unix.EPERM)
	}
	kit.Must(t, open(probe.NetRaw))
	err := probe.As(h, probe.NetRaw, 1, func() error {
		return unix.Unshare(unix.CLONE_NEWNET)
	})
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("making a namespace with NET_RAW alone: %v, want %v", err, unix.EPERM)
	}
	kit.Must(t, h.Do(func() error { // the threads that were confined are gone
		link, err := probe.OpenLink("lo")
		if err == nil {
			err = link.Close()
		}
		return err
	}))
}

// TestSniffSockets holds a sniffer of sockets to what its host lets in.
func TestSniffSockets(t *testing.T) {
	n := newNetwork(t)
	sniffer, err := probe.SniffSockets(n.router, unix.IPPROTO_UDP)
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, sniffer.Close()) })
	run(t, n.router, "iptables", "-w", "-A", "INPUT", "-p", "udp", "--dport", "9001", "-j", "DROP")
	for _, port := range []uint16{9001, 9002} { // in this order: what arrives last shows that the first is not under way
		kit.Must(t, sendUDP(t, n.client, netip.AddrPortFrom(families[0].toClient, port)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	kit.Must(t, sniffer.Wait(ctx, []byte("to 9002")))
	if got := sniffer.Carrying([]byte("to 9001")); len(got) != 0 {
		t.Errorf("what the firewall drops has arrived: % x", got)
	}
	sniffer.Forget()
	if got := sniffer.Carrying([]byte("to 9002")); len(got) != 0 {
		t.Errorf("what was forgotten is still there: % x", got)
	}
}

func sendUDP(t *testing.T, h *host.Host, to netip.AddrPort) error {
	t.Helper()
	c, err := h.DialContext(t.Context(), "udp", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = fmt.Fprintf(c, "to %d", to.Port())
	return err
}
