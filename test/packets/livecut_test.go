package packets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// line is one live connection of which the test holds both ends, so that either can speak first.
type line struct {
	network        string
	client, server net.Conn
}

// call opens a connection from a place to a port of another, and has both ends speak once.
func call(t *testing.T, w *world, network, from, to string, clientPort int) *line {
	t.Helper()
	l, err := tryCall(t, w, network, from, to, clientPort)
	kit.Must(t, err)
	return l
}

func tryCall(t *testing.T, w *world, network, from, to string, clientPort int) (*line, error) {
	t.Helper()
	a, b := w.places[from], w.places[to]
	address := netip.AddrPortFrom(b.in(w.family), talkPort)
	l := &line{network: network}
	accepted := make(chan net.Conn, 1)
	if network == "tcp" {
		listener := tcpListener(t, b.host, address)
		defer listener.Close()
		go func() {
			if c, err := listener.Accept(); err == nil {
				accepted <- c
			}
		}()
	}
	var err error
	if l.client, err = dial(t, a.host, network, clientPort, address); err != nil {
		return nil, err
	}
	if network == "tcp" {
		l.server = <-accepted
	} else {
		local := l.client.LocalAddr().(*net.UDPAddr).AddrPort()
		client := netip.AddrPortFrom(a.in(w.family), local.Port())
		bind(t, b.host, address, func() (err error) {
			d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(address)}
			l.server, err = d.DialContext(t.Context(), network, client.String())
			return err
		})
	}
	t.Cleanup(l.hangUp)
	if !l.carries(l.client, l.server) || !l.carries(l.server, l.client) {
		l.hangUp()
		return nil, os.ErrDeadlineExceeded
	}
	return l, nil
}

func tcpListener(t *testing.T, h *host.Host, a netip.AddrPort) net.Listener {
	t.Helper()
	var l net.Listener
	bind(t, h, a, func() (err error) {
		l, err = net.Listen("tcp", a.String())
		return err
	})
	return l
}

// bind opens a socket at an address where another one may have been a moment ago: a program that this process was just starting may still hold that one.
func bind(t *testing.T, h *host.Host, a netip.AddrPort, open func() error) {
	t.Helper()
	kit.Eventually(t, 10*time.Second, fmt.Sprintf("%s is free", a), func() bool {
		err := h.Do(open)
		if !errors.Is(err, syscall.EADDRINUSE) {
			kit.Must(t, err)
		}
		return err == nil
	})
}

// carries has one end speak and reports whether the other hears of it, or of anything said before, within the time that a repetition takes.
func (l *line) carries(from, to net.Conn) bool {
	return carriesWithin(slower*700*time.Millisecond, from, to)
}

func carriesWithin(patience time.Duration, from, to net.Conn) bool {
	_, _ = from.Write([]byte("hello"))
	_ = to.SetReadDeadline(time.Now().Add(patience))
	n, _ := to.Read(make([]byte, 512))
	return n > 0
}

// hangUp closes both ends at once, and without a word that the other would have to answer.
func (l *line) hangUp() {
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

// cutNow has every node end what is due, once.
func (w *world) cutNow(t *testing.T, lives []*enforcer.Connections) (cut int) {
	t.Helper()
	for i, n := range w.nodes {
		kit.Must(t, n.Do(func() error {
			e, err := lives[i].Cut(t.Context())
			cut += e.Cut
			return err
		}))
	}
	return cut
}

// enforcers gives every node a new enforcer, as a restart would, with or without rules that hold off what was cut.
func (w *world) enforcers(holdCut bool) (lives []*enforcer.Connections) {
	for _, n := range w.nodes {
		c := n.plane.Capabilities()
		n.enforcer = enforcer.New(n.plane, iptables.Options{Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: holdCut})
		live := enforcer.NewConnections(n.plane)
		n.enforcer.Follow(live)
		lives = append(lives, live)
	}
	return lives
}

// TestCutConnectionsStayCut: web may not be reached from client any more, and may itself reach everybody. When it speaks first on a connection that was cut, nothing of
// that comes through, nor does the connection come back by it, as it does without the rules against that; neither does a restart of the enforcer bring it back. What
// the policy allows again, or another connection between the two, passes at once.
func TestCutConnectionsStayCut(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			open, closed := w.cluster(), w.cluster()
			setPolicies(t, closed, fromRed)
			for _, holdCut := range []bool{false, true} {
				lives := w.enforcers(holdCut)
				for i, network := range []string{"tcp", "udp"} {
					for j, from := range []string{"client", "remote"} {
						w.sync(t, open)
						w.cutNow(t, lives)
						kit.Must(t, w.top.ForgetConnections())
						l := call(t, w, network, from, "web", 30000+10*i+j)
						w.sync(t, closed)
						if cut := w.cutNow(t, lives); cut != 1 {
							t.Errorf("%s from %s: %d connections were cut, want one", network, from, cut)
						}
						heard := l.carries(l.server, l.client)
						revived := l.carries(l.client, l.server)
						if want := !holdCut; heard != want || revived != want {
							t.Errorf("%s from %s, held off %t: the client hears the server %t, and the server the client %t", network, from, holdCut, heard, revived)
						}
						if !holdCut {
							l.hangUp()
							continue
						}
						lives = w.enforcers(true)
						w.sync(t, closed)
						w.cutNow(t, lives)
						if l.carries(l.server, l.client) || l.carries(l.client, l.server) {
							t.Errorf("%s from %s: a restart has brought the connection back", network, from)
						}
						w.othersPass(t, network, from)
						l.hangUp()
						w.sync(t, open)
						again, err := tryCall(t, w, network, from, "web", 30000+10*i+j)
						if err != nil {
							t.Errorf("%s from %s: what is allowed again does not pass at once: %v", network, from, err)
							continue
						}
						again.hangUp()
					}
				}
			}
		})
	}
}

// othersPass holds that the other direction is open to connections of its own.
func (w *world) othersPass(t *testing.T, network, to string) {
	t.Helper()
	l, err := tryCall(t, w, network, "web", to, 0)
	if err != nil {
		t.Errorf("%s: web does not reach %s while a connection between them is held off: %v", network, to, err)
		return
	}
	l.hangUp()
}

// TestLiveConnectionsCanBeLeftAlone: with --cut-live=false nothing is cut. An enforcer that starts later with it on ends what has been denied meanwhile.
func TestLiveConnectionsCanBeLeftAlone(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		if c.kind != "routed" {
			continue // the kind of network makes no difference here
		}
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			for _, n := range w.nodes {
				caps := n.plane.Capabilities()
				n.enforcer = enforcer.New(n.plane, iptables.Options{Families: caps.Families, Table: caps.Table, SelfMatch: caps.SelfMatch})
			}
			w.sync(t, w.cluster())
			denied, allowed := call(t, w, "tcp", "client", "web", 0), call(t, w, "tcp", "db", "web", 0)
			closed := w.cluster()
			setPolicies(t, closed, fromRed)
			w.sync(t, closed)
			if !denied.carries(denied.client, denied.server) || !denied.carries(denied.server, denied.client) {
				t.Error("a live connection ended")
			}
			if sets := w.cutSets(t); sets != "" {
				t.Errorf("there are sets that nobody needs:\n%s", sets)
			}

			lives := w.enforcers(true)
			w.sync(t, closed)
			if cut := w.cutNow(t, lives); cut != 1 {
				t.Errorf("the start has cut %d connections, want one", cut)
			}
			if denied.carries(denied.client, denied.server) {
				t.Error("a connection that is denied goes on")
			}
			if !allowed.carries(allowed.client, allowed.server) || !allowed.carries(allowed.server, allowed.client) {
				t.Error("a connection that is allowed ended")
			}
			if sets := w.cutSets(t); !strings.Contains(sets, ",tcp:") {
				t.Errorf("no set holds the connection:\n%s", sets)
			}
			kit.Must(t, w.nodes[0].Do(func() error { return w.nodes[0].plane.Cleanup(t.Context()) }))
			if sets := w.cutSets(t); strings.Contains(sets, ",tcp:") {
				t.Errorf("the cleanup has left:\n%s", sets)
			}
		})
	}
}

// cutSets are the sets of connections that were cut, on the first node, with what they hold.
func (w *world) cutSets(t *testing.T) string {
	t.Helper()
	out, err := w.nodes[0].Command(t.Context(), "ipset", "save").CombinedOutput()
	kit.Must(t, err)
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "-CUT ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

var _ enforcer.Tracker = (*dataplane.Dataplane)(nil)
