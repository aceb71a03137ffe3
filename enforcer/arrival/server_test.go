package arrival

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringfence-io/ringfence/test/kit"
)

// asked remembers what it was asked, and answers what it is told to.
type asked struct {
	mu    sync.Mutex
	calls []Request
	err   error
	hangs bool
}

func (a *asked) note(r Request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, r)
	return a.err
}

func (a *asked) all() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

func (a *asked) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

func (a *asked) Add(ctx context.Context, p Pod) error {
	if a.hangs {
		<-ctx.Done()
		return errors.New("still waiting")
	}
	return a.note(Request{Verb: Add, Pod: p})
}

func (a *asked) Check(_ context.Context, p Pod) error {
	return a.note(Request{Verb: Check, Pod: p})
}

func (a *asked) Delete(container string) {
	_ = a.note(Request{Verb: Delete, Pod: Pod{Container: container}})
}

func (a *asked) Collect(containers []string) {
	_ = a.note(Request{Verb: Collect, Containers: containers})
}

// serve runs a server, and returns its socket.
func serve(t *testing.T, pods Pods) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "run", "cni.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&Server{Socket: socket, Pods: pods, Log: logr.Discard()}).Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	kit.Eventually(t, 10*time.Second, "the server listens", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return socket
}

func TestAsking(t *testing.T) {
	pods := &asked{}
	socket := serve(t, pods)
	want := []Request{
		{Verb: Add, Pod: came("web", "10.1.0.5", "fd00::5")},
		{Verb: Check, Pod: came("web", "10.1.0.5", "fd00::5")},
		{Verb: Delete, Pod: Pod{Container: "c-web"}},
		{Verb: Collect, Containers: []string{"a", "b"}},
	}
	for _, r := range want {
		r.WaitMillis = 1000
		if err := Ask(t.Context(), socket, r); err != nil {
			t.Errorf("%s: %v", r.Verb, err)
		}
	}
	if diff := cmp.Diff(want, pods.all(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("what was asked (-want +got):\n%s", diff)
	}
	pods.fail(errors.New("not yet"))
	var refused *RefusedError
	if err := Ask(t.Context(), socket, want[0]); !errors.As(err, &refused) || refused.Reason != "not yet" {
		t.Errorf("an answer that is no: %v", err)
	}
}

func TestOnlyRootMayAsk(t *testing.T) {
	socket := serve(t, &asked{})
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the socket has mode %o", mode)
	}
}

func TestWhatAnEnforcerLeavesCanBeRemoved(t *testing.T) {
	socket := serve(t, &asked{})
	if err := Remove(socket); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the socket of an enforcer that runs is gone: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	NewTable(filepath.Join(dir, StateFile), logr.Discard()).Into(snapshot())(always(nil))
	if err := os.WriteFile(filepath.Join(dir, "another"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cni.sock"), nil, 0o600); err != nil { // as nobody listens on it, it is as good as a socket
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(filepath.Join(dir, "cni.sock"), "another"); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
	}
}

func TestAWaitEndsWhenItsTimeIsOver(t *testing.T) {
	socket := serve(t, &asked{hangs: true})
	err := Ask(t.Context(), socket, Request{Verb: Add, Pod: came("web", "10.1.0.5"), WaitMillis: 50})
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reason != "still waiting" {
		t.Errorf("after its time: %v", err)
	}
}

func TestWhoHangsUpIsNotWaitedFor(t *testing.T) {
	pods := &asked{hangs: true}
	s := &Server{Pods: pods, Log: logr.Discard()}
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.handle(t.Context(), ours)
	}()
	if err := writeLine(theirs, Request{Version: protocolVersion, Verb: Add, Pod: came("web", "10.1.0.5"), WaitMillis: 60_000}); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the server waits for somebody who has gone")
	}
}

func TestWhoWaitsWhileTheServerEndsMayAskTheNext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &Server{Pods: &asked{hangs: true}, Log: logr.Discard()}
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.handle(ctx, ours)
	}()
	if err := writeLine(theirs, Request{Version: protocolVersion, Verb: Add, Pod: came("web", "10.1.0.5"), WaitMillis: 60_000}); err != nil {
		t.Fatal(err)
	}
	cancel()
	var a Answer
	if err := readLine(theirs, &a); err == nil {
		t.Errorf("it was answered %q", a.Error)
	}
	<-done
}

func TestANewServerTakesTheSocketOver(t *testing.T) {
	first, second := &asked{}, &asked{}
	socket := serve(t, first)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&Server{Socket: socket, Pods: second, Log: logr.Discard()}).Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	kit.Eventually(t, 10*time.Second, "the second server is asked", func() bool {
		if err := Ask(t.Context(), socket, Request{Verb: Delete, Pod: Pod{Container: "c"}}); err != nil {
			t.Fatalf("while one server takes over from another, nobody answers: %v", err)
		}
		return len(second.all()) > 0
	})
}

func TestRequestsThatMeanNothing(t *testing.T) {
	good := func(change func(*Request)) string {
		r := Request{Version: protocolVersion, Verb: Add, Pod: came("web", "10.1.0.5")}
		change(&r)
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	}
	tests := []struct{ name, text, want string }{
		{"nothing", "\n", "reading the request"},
		{"no JSON", "hello\n", "reading the request"},
		{"a line that is too long", strings.Repeat("x", maxLine+1) + "\n", "reading the request"},
		{"another version", good(func(r *Request) { r.Version = 7 }), "version 7"},
		{"an unknown verb", good(func(r *Request) { r.Verb = "stop" }), `verb "stop"`},
		{"no namespace", good(func(r *Request) { r.Pod.Namespace = "" }), "namespace"},
		{"a uid without end", good(func(r *Request) { r.Pod.UID = strings.Repeat("u", 300) }), "uid"},
		{"a name without end", good(func(r *Request) { r.Pod.Name = strings.Repeat("n", 300) }), "name"},
		{"no address", good(func(r *Request) { r.Pod.Addrs = nil }), "0 addresses"},
		{"an address that is everybody's", good(func(r *Request) { r.Pod.Addrs = kit.Addrs("0.0.0.0") }), "no address of a pod"},
		{"loopback", good(func(r *Request) { r.Pod.Addrs = kit.Addrs("::1") }), "no address of a pod"},
	}
	for _, tt := range tests {
		pods := &asked{}
		if got := converse(t, pods, tt.text); !strings.Contains(got.Error, tt.want) {
			t.Errorf("%s: answered %q, want %q in it", tt.name, got.Error, tt.want)
		}
		if len(pods.calls) > 0 {
			t.Errorf("%s: it was done", tt.name)
		}
	}
}

// converse sends bytes to a server and returns what it answers, nothing if that is nothing.
func converse(t *testing.T, pods Pods, text string) Answer {
	s := &Server{Pods: pods, Log: logr.Discard()}
	c := &canned{in: strings.NewReader(text)}
	s.handle(t.Context(), c)
	var a Answer
	if err := readLine(&c.out, &a); err != nil {
		t.Errorf("%.60q: the answer cannot be read: %v", text, err)
	}
	return a
}

// canned is a connection whose other side has said all it has to say.
type canned struct {
	net.Conn
	in  *strings.Reader
	out bytes.Buffer
}

func (c *canned) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *canned) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *canned) Close() error                     { return nil }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// TestASandboxHasNoImpossibleAddress: what no set can hold, or means more than one pod, is refused, however it is written.
func TestASandboxHasNoImpossibleAddress(t *testing.T) {
	for addr, want := range map[string]bool{
		"10.1.0.5": true, "fd00::5": true, "::ffff:10.1.0.5": true, "169.254.172.3": true, "fe80::1%eth0": true,
		"0.0.0.0": false, "::": false, "::ffff:0.0.0.0": false, "::%eth0": false, "127.0.0.1": false, "::1": false, "::1%lo": false, "224.0.0.1": false,
		"ff02::1%eth0": false, "255.255.255.255": false,
	} {
		p := came("web", "10.1.0.6")
		p.Addrs = append(p.Addrs, netip.MustParseAddr(addr))
		if err := p.validate(); (err == nil) != want {
			t.Errorf("a sandbox with %s: %v", addr, err)
		}
	}
}

// FuzzRequest gives a server bytes. Whatever they are, it answers in its protocol, and only what is valid is done.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"verb":"add","pod":{"namespace":"shop","name":"web","uid":"u-1","container":"c","addrs":["10.1.0.5","fd00::5"]},"waitMillis":10}` + "\n",
		`{"version":1,"verb":"check","pod":{"namespace":"shop","name":"web","uid":"u-1","container":"c","addrs":["::ffff:10.1.0.5","fe80::1%eth0"]}}` + "\n",
		`{"version":1,"verb":"delete","pod":{"container":"c"}}` + "\n",
		`{"version":1,"verb":"collect","containers":["a",""]}` + "\n" + `{"version":1}`,
		`{"version":1,"verb":"add","pod":{"addrs":[null]}}` + "\n",
		`{"version":1,"verb":"delete","pod":{"container":"c"},"waitMillis":-9223372036854775808}` + "\n",
		"\n", "[]\n", "\x00\xff\n", `{"verb":`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pods := &asked{}
		a := converse(t, pods, text)
		if a.Version != protocolVersion {
			t.Errorf("answered in version %d", a.Version)
		}
		if done := len(pods.calls) > 0; done != (a.Error == "") {
			t.Errorf("answered %q, and done: %v", a.Error, done)
		}
		for _, r := range pods.calls {
			r.Version = protocolVersion
			if err := r.validate(); err != nil {
				t.Errorf("done though %v", err)
			}
		}
	})
}
