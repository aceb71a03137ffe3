package packets

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// The chunks of SCTP that are sent here (RFC 9260, section 3.2).
const (
	sctpData = 0
	sctpInit = 1
)

// sctpPacket has one chunk, of the length that its type asks for.
func sctpPacket(from, to uint16, chunk byte) []byte {
	b := make([]byte, 12+20)
	binary.BigEndian.PutUint16(b[0:], from)
	binary.BigEndian.PutUint16(b[2:], to)
	if chunk != sctpInit { // whose verification tag is zero
		binary.BigEndian.PutUint32(b[4:], 7)
	}
	b[12] = chunk
	binary.BigEndian.PutUint16(b[14:], 20)
	binary.BigEndian.PutUint32(b[16:], 7) // initiate tag, or TSN
	if chunk == sctpInit {
		binary.BigEndian.PutUint32(b[20:], 65535)
		binary.BigEndian.PutUint16(b[24:], 1)
		binary.BigEndian.PutUint16(b[26:], 1)
		binary.BigEndian.PutUint32(b[28:], 1)
	} else {
		b[13] = 3 // a whole message
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// rawSCTP is a socket of a place through which all of its SCTP packets can be read.
func rawSCTP(t *testing.T, h *host.Host, a netip.Addr) *net.IPConn {
	t.Helper()
	var c *net.IPConn
	kit.Must(t, h.Do(func() (err error) {
		network := "ip4:132"
		if a.Is6() {
			network = "ip6:132"
		}
		c, err = net.ListenIP(network, &net.IPAddr{IP: a.AsSlice()})
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// firstChunk is the type of the first chunk of the next packet between two ports, or -1 if none comes.
func firstChunk(t *testing.T, c *net.IPConn, from, to uint16) int {
	t.Helper()
	kit.Must(t, c.SetReadDeadline(time.Now().Add(slower*2*time.Second)))
	for b := make([]byte, 2048); ; {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return -1
		}
		if n > 12 && binary.BigEndian.Uint16(b) == from && binary.BigEndian.Uint16(b[2:]) == to {
			return int(b[12])
		}
	}
}

// TestAnINITIsJudgedByPolicy: an association of client's with web is cut. What web still sends of it is held off, and an association that web begins between the
// same two ports, as endpoints with fixed ports do, is not: policy allows it.
func TestAnINITIsJudgedByPolicy(t *testing.T) {
	kit.NeedNetfilter(t)
	const clientPort, webPort = 36412, 38412
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			lives := w.enforcers(true)
			w.sync(t, w.cluster())
			w.cutNow(t, lives)
			kit.Must(t, w.top.ForgetConnections())
			clientAddr, webAddr := w.places["client"].in(w.family), w.places["web"].in(w.family)
			client, web := rawSCTP(t, w.places["client"].host, clientAddr), rawSCTP(t, w.places["web"].host, webAddr)
			send := func(from *net.IPConn, to netip.Addr, packet []byte) {
				t.Helper()
				_, err := from.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()})
				kit.Must(t, err)
			}
			send(client, webAddr, sctpPacket(clientPort, webPort, sctpInit))
			if got := firstChunk(t, web, clientPort, webPort); got != sctpInit {
				t.Fatalf("web hears the chunk %d of what is allowed, want INIT", got)
			}

			closed := w.cluster()
			setPolicies(t, closed, fromRed)
			w.sync(t, closed)
			if cut := w.cutNow(t, lives); cut != 1 {
				t.Errorf("%d associations were cut, want one", cut)
			}
			send(web, clientAddr, sctpPacket(webPort, clientPort, sctpData))
			send(web, clientAddr, sctpPacket(webPort, clientPort, sctpInit))
			if got := firstChunk(t, client, webPort, clientPort); got != sctpInit {
				t.Errorf("of DATA and INIT, client hears the chunk %d first, want INIT", got)
			}
		})
	}
}
