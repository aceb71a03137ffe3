package e2e

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/test/kit"
)

// closing isolates the server from everybody but clients.
const closing = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closing, namespace: a}
spec:
  podSelector: {matchLabels: {app: live}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
`

// TestALiveConnectionEndsWhenItIsDenied: from a write to the API to a connection that carries nothing any more, while its neighbour goes on.
func TestALiveConnectionEndsWhenItIsDenied(t *testing.T) {
	l := start(t, lab.Options{CNI: cni.PTP, Backend: "nft"})
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")))
	server := run(t, l, "live", "", map[string]string{"app": "live"}, nil)
	client, stranger := run(t, l, "client", "", map[string]string{"app": "client"}, nil), run(t, l, "stranger", "", nil, nil)
	kit.Must(t, l.WaitEnforcers(kit.Context(t, patience)))

	const port = 9000
	address := netip.AddrPortFrom(server.Address(iptables.IPv4), port)
	var listener net.Listener
	kit.Must(t, server.Host.Do(func() (err error) {
		listener, err = net.Listen("tcp4", address.String())
		return err
	}))
	defer listener.Close()
	call := func(from *lab.Pod) (near, far net.Conn) {
		kit.Must(t, from.Host.Do(func() (err error) {
			near, err = net.DialTimeout("tcp4", address.String(), 5*time.Second)
			return err
		}))
		far, err := listener.Accept()
		kit.Must(t, err)
		return near, far
	}
	carries := func(from, to net.Conn, patience time.Duration) bool {
		_, _ = from.Write([]byte("x"))
		kit.Must(t, to.SetReadDeadline(time.Now().Add(patience)))
		_, err := to.Read(make([]byte, 64))
		return err == nil
	}
	near, far := call(client)
	nearDenied, farDenied := call(stranger)
	for _, c := range []net.Conn{near, far, nearDenied, farDenied} {
		defer c.Close()
	}
	if !carries(near, far, 5*time.Second) || !carries(nearDenied, farDenied, 5*time.Second) {
		t.Fatal("without policy a connection carries nothing")
	}

	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(closing)))
	written := time.Now()
	var last time.Duration
	for !said(t, server.Node, "cut live connections", "a/stranger to a/live (tcp") {
		switch {
		case carries(nearDenied, farDenied, 20*time.Millisecond):
			last = time.Since(written)
		case time.Since(written) > 30*time.Second:
			t.Fatal("the log does not say that the connection was cut")
		}
	}
	t.Logf("cut %s after the write to the API at the latest, and the last that was carried was %s after it", time.Since(written), last)
	for carries(nearDenied, farDenied, 100*time.Millisecond) { // what was on its way
		if time.Since(written) > 40*time.Second {
			t.Fatal("a connection that was cut goes on")
		}
	}
	if carries(nearDenied, farDenied, time.Second) || carries(farDenied, nearDenied, time.Second) {
		t.Error("something still comes through")
	}
	if !carries(near, far, 5*time.Second) || !carries(far, near, 5*time.Second) {
		t.Error("a connection that is allowed ended")
	}
}

// said reports whether the log of a node's enforcer has a line with all of the texts.
func said(t *testing.T, n *lab.Node, texts ...string) bool {
	t.Helper()
	log, err := os.ReadFile(n.EnforcerLog())
	kit.Must(t, err)
	for line := range strings.Lines(string(log)) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			return true
		}
	}
	return false
}
