package packets

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"

	nodectl "github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scenario"
)

const (
	// talkEvery is between two requests of one conversation.
	talkEvery = 200 * time.Millisecond
	// talkPort is where conversations are answered, and talkVIP a service in front of web's.
	talkPort = 9000
	talkVIP  = "10.96.0.9"
	// sentence is the length of a request, and of its answer: the number of the conversation, and that of the request.
	sentence = 16
)

// fromRed admits the pods of red to each other, and nobody else.
const fromRed = `red/in: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`

// conversation is a live connection on which a client asks and the server answers.
type conversation struct {
	what   string
	number uint64
	conn   net.Conn
	tcp    bool

	sent, answered atomic.Uint64
	lastAnswer     atomic.Int64 // Unix time in nanoseconds
	wrong          atomic.Pointer[string]
}

// ask sends requests until ctx ends. On a connection that is cut, TCP's writes end up in a buffer.
func (c *conversation) ask(ctx context.Context) {
	ticks := time.NewTicker(talkEvery)
	defer ticks.Stop()
	for {
		request := make([]byte, sentence)
		binary.BigEndian.PutUint64(request, c.number)
		binary.BigEndian.PutUint64(request[8:], c.sent.Load())
		if _, err := c.conn.Write(request); err == nil {
			c.sent.Add(1)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// listen takes answers, which must come each once and in their order.
func (c *conversation) listen() {
	answer := make([]byte, sentence)
	for {
		_, err := io.ReadFull(c.conn, answer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil && c.tcp:
			c.fault("the connection ended: %v", err)
			return
		case err != nil:
			continue // an ICMP error that an earlier request caused
		}
		want := c.answered.Load()
		if n, i := binary.BigEndian.Uint64(answer), binary.BigEndian.Uint64(answer[8:]); n != c.number || i != want {
			c.fault("answer %d of conversation %d where %d of %d was due", i, n, want, c.number)
		}
		c.answered.Store(want + 1)
		c.lastAnswer.Store(time.Now().UnixNano())
	}
}

func (c *conversation) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.wrong.CompareAndSwap(nil, &text)
}

// answerTalk answers conversations at a host, over TCP and UDP, until the test ends.
func answerTalk(t *testing.T, h *host.Host, a netip.AddrPort) {
	t.Helper()
	var l net.Listener
	var u *net.UDPConn
	kit.Must(t, h.Do(func() (err error) {
		if l, err = net.Listen("tcp", a.String()); err != nil {
			return err
		}
		u, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
		return err
	}))
	t.Cleanup(func() { _ = l.Close(); _ = u.Close() })
	kit.Must(t, u.SetReadBuffer(4<<20))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = u.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
}

// dial opens a connection from a host; a port of 0 leaves the choice to the kernel.
func dial(t *testing.T, h *host.Host, network string, port int, to netip.AddrPort) (net.Conn, error) {
	t.Helper()
	var c net.Conn
	err := h.Do(func() (err error) {
		d := net.Dialer{Timeout: slower * 900 * time.Millisecond} // before the first SYN is repeated
		if d.LocalAddr = (&net.TCPAddr{Port: port}); network == "udp" {
			d.LocalAddr = &net.UDPAddr{Port: port}
		}
		c, err = d.DialContext(t.Context(), network, to.String())
		return err
	})
	return c, err
}

// talks are many conversations at once.
type talks struct {
	allowed, denied []*conversation
	hush            func() // ends all asking
}

func (k *talks) all() []*conversation { return slices.Concat(k.allowed, k.denied) }

// start opens conversations of every kind in turn, as many as are asked for.
func (k *talks) start(t *testing.T, w *world, count int) {
	t.Helper()
	web := w.places["web"].in(w.family)
	vip := netip.MustParseAddr(talkVIP)
	if w.family == 6 {
		vip = twin.Of(vip)
	}
	ctx, stop := context.WithCancel(t.Context())
	var asking, listening sync.WaitGroup
	k.hush = func() { stop(); asking.Wait() }
	t.Cleanup(func() {
		for _, c := range k.all() {
			_ = c.conn.Close()
		}
		k.hush()
		listening.Wait()
	})
	for i := range count {
		network := []string{"tcp", "udp"}[i%2]
		to := []netip.AddrPort{netip.AddrPortFrom(web, talkPort), netip.AddrPortFrom(vip, scenario.ServicePort)}[i/2%2]
		from := []string{"client", "db", "remote", "far"}[i/4%4]
		if i < 20 {
			from, to = "n1", netip.AddrPortFrom(web, talkPort) // as the kubelet would
		}
		conn, err := dial(t, w.places[from].host, network, 0, to)
		kit.Must(t, err)
		c := &conversation{what: fmt.Sprintf("%s %s to %s", network, from, to), number: uint64(i), conn: conn, tcp: network == "tcp"}
		if from == "client" || from == "remote" {
			k.denied = append(k.denied, c)
		} else {
			k.allowed = append(k.allowed, c)
		}
		asking.Go(func() { c.ask(ctx) })
		listening.Go(c.listen)
	}
}

// going waits until each of the conversations has been answered some more.
func going(t *testing.T, some []*conversation, more uint64) {
	t.Helper()
	want := make([]uint64, len(some))
	for i, c := range some {
		want[i] = c.answered.Load() + more
	}
	kit.Eventually(t, 20*time.Second, "all conversations go on", func() bool {
		for i, c := range some {
			if c.answered.Load() < want[i] {
				return false
			}
		}
		return true
	})
}

// counted are Connections that count how many have been cut.
type counted struct {
	*enforcer.Connections
	cut atomic.Int64
}

var _ nodectl.Live = (*counted)(nil)

func (c *counted) Cut(ctx context.Context) (enforcer.Ended, error) {
	e, err := c.Connections.Cut(ctx)
	c.cut.Add(int64(e.Cut))
	return e, err
}

// cutting has every node end live connections as the program does, until the test ends.
func (w *world) cutting(t *testing.T) []*counted {
	t.Helper()
	ctx, stop := context.WithCancel(logr.NewContext(t.Context(), logr.Discard()))
	var done sync.WaitGroup
	var all []*counted
	for _, n := range w.nodes {
		live := &counted{Connections: enforcer.NewConnections(n.plane)}
		n.enforcer.Follow(live.Connections)
		cutter := &nodectl.Cutter{Live: live, Pods: func(write func([]policy.PodName), a ...netip.Addr) { write(make([]policy.PodName, len(a))) }}
		done.Go(func() {
			if err := n.Do(func() error { return cutter.Start(ctx) }); err != nil {
				t.Errorf("%s: %v", n.name, err)
			}
		})
		all = append(all, live)
	}
	t.Cleanup(func() { stop(); done.Wait() })
	return all
}

func (w *world) sync(t *testing.T, c *scenario.Cluster) {
	t.Helper()
	for _, n := range w.nodes {
		n.sync(t, c, false)
	}
}

// TestExactlyWhatIsNewlyDeniedIsCut: of a thousand live connections over TCP and UDP, some of them through a service and some from the node itself, half are denied
// by a change. These end within a second, and no other loses as much as a byte.
func TestExactlyWhatIsNewlyDeniedIsCut(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			w := newWorld(t, c)
			web := w.places["web"]
			answerTalk(t, web.host, netip.AddrPortFrom(web.in(w.family), talkPort))
			for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP} {
				kit.Must(t, w.top.Service(netip.MustParseAddr(talkVIP), protocol, scenario.ServicePort, w.pods[0], talkPort))
			}
			cuts := w.cutting(t)
			before := w.cluster()
			w.sync(t, before)

			var k talks
			k.start(t, w, 1000)
			going(t, k.all(), 3)
			after := w.cluster()
			setPolicies(t, after, fromRed)
			began := time.Now()
			w.sync(t, after)
			programmed := time.Now()
			kit.Eventually(t, slower*time.Second+talkEvery, "all that are denied are cut", func() bool { return cuts[0].cut.Load() >= int64(len(k.denied)) })
			took := time.Since(programmed)
			going(t, k.allowed, 10) // two seconds

			var last time.Duration
			for _, c := range k.denied {
				last = max(last, time.Unix(0, c.lastAnswer.Load()).Sub(programmed))
			}
			t.Logf("%d allowed and %d denied; rules in %s, then all cut in %s, the last answer after %s",
				len(k.allowed), len(k.denied), programmed.Sub(began).Round(time.Millisecond), took.Round(time.Millisecond), last.Round(time.Millisecond))
			if last > slower*time.Second {
				t.Errorf("a connection that is denied was answered %s after policy was in force", last)
			}
			if n1, n2 := cuts[0].cut.Load(), cuts[1].cut.Load(); n1 != int64(len(k.denied)) || n2 != 0 {
				t.Errorf("cut %d and %d connections, want %d at the server's node, and none at the other", n1, n2, len(k.denied))
			}
			k.hush()
			for _, c := range k.allowed {
				kit.Eventually(t, 20*time.Second, c.what+", which is allowed, is answered each of its requests", func() bool {
					return c.answered.Load() >= c.sent.Load() || c.wrong.Load() != nil
				})
				if why := c.wrong.Load(); why != nil {
					t.Errorf("%s, which is allowed: %s", c.what, *why)
				}
			}
		})
	}
}
