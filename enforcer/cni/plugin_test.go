package cni

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/go-logr/logr"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringfence-io/ringfence/enforcer/arrival"
)

// bridged is what the bridge plugin returns.
const bridged = `{"cniVersion":"1.1.0","interfaces":[{"name":"cni0","mac":"aa:aa:aa:aa:aa:aa"},{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/pod"}],
	"ips":[{"interface":2,"address":"10.1.0.5/24","gateway":"10.1.0.1"},{"interface":2,"address":"fd00::5/64"}]}`

// alone is what plugins return that move an interface into the pod.
const alone = `{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/run/netns/pod"}],"ips":[{"interface":0,"address":"10.1.0.5/24"}]}`

// podArgs are what a container runtime says of a pod.
const podArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u-1"

// call is one call of the plugin.
type call struct {
	prev     string // the previous result, none if it is empty
	args     string
	settings string // further fields of the configuration
	driver   string
	version  string // of the configuration, 1.1.0 if it is empty
}

func (c call) stdin(socket string) []byte {
	prev := ""
	if c.prev != "" {
		prev = `,"prevResult":` + c.prev
	}
	return fmt.Appendf(nil, `{"cniVersion":%q,"name":"net","type":%q,"socket":%q,"timeoutSeconds":1%s%s}`,
		cmp.Or(c.version, "1.1.0"), Type, socket, c.settings, prev)
}

// node is an enforcer, as far as the plugin sees it.
type node struct {
	mu   sync.Mutex
	seen []arrival.Request
	err  error
}

func (n *node) note(r arrival.Request) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = append(n.seen, r)
	return n.err
}

func (n *node) all() []arrival.Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen
}

func (n *node) Add(_ context.Context, p arrival.Pod) error {
	return n.note(arrival.Request{Verb: arrival.Add, Pod: p})
}

func (n *node) Check(_ context.Context, p arrival.Pod) error {
	return n.note(arrival.Request{Verb: arrival.Check, Pod: p})
}

func (n *node) Delete(container string) {
	_ = n.note(arrival.Request{Verb: arrival.Delete, Pod: arrival.Pod{Container: container}})
}

func (n *node) Collect(containers []string) {
	_ = n.note(arrival.Request{Verb: arrival.Collect, Containers: containers})
}

// serve runs the enforcer's side, and returns its socket.
func (n *node) serve(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "cni.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&arrival.Server{Socket: socket, Pods: n, Log: logr.Discard()}).Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return socket
}

// run calls the plugin, and returns what it printed and what it said besides.
func (c call) run(t *testing.T, verb func(plugin, *skel.CmdArgs) error, socket string) (printed, said string, err error) {
	t.Helper()
	p := plugin{
		driver: func(string, string) (string, error) {
			if c.driver == "" {
				return "", errors.New("no such namespace")
			}
			return c.driver, nil
		},
		warn: func(text string) { said += text },
	}
	args := &skel.CmdArgs{ContainerID: "c1", Netns: "/run/netns/pod", IfName: "eth0", Args: c.args, StdinData: c.stdin(socket)}
	printed = captured(t, func() { err = verb(p, args) })
	return printed, said, err
}

// captured is what f prints: the library prints results to standard output.
func captured(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stdout
	os.Stdout = w
	f()
	os.Stdout = before
	_ = w.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAdd(t *testing.T) {
	both := []string{"10.1.0.5", "fd00::5"}
	tests := []struct {
		name string
		call call
		want []string // addresses that were handed over
		err  string
	}{
		{"behind a bridge", call{prev: bridged, args: podArgs, driver: "veth"}, both, ""},
		{"behind a bridge, in a namespace that cannot be looked into", call{prev: bridged, args: podArgs}, both, ""},
		{"an end of a veth pair that was moved into the pod", call{prev: alone, args: podArgs, driver: "veth"}, []string{"10.1.0.5"}, ""},
		{"a network card that was moved into the pod", call{prev: alone, args: podArgs, driver: "mlx5_core"}, nil, "driver mlx5_core"},
		{"macvlan", call{prev: alone, args: podArgs, driver: "macvlan"}, nil, "is a macvlan"},
		{"ipvlan, which also names the host's interface", call{prev: bridged, args: podArgs, driver: "ipvlan"}, nil, "is a ipvlan"},
		{"nobody knows", call{prev: alone, args: podArgs}, nil, "no other end on the host"},
		{"addresses of its other interfaces are beside those of this one, and the host's are not its", call{args: podArgs, driver: "veth",
			prev: `{"cniVersion":"1.1.0","interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/x"},{"name":"net1","sandbox":"/x"}],
			"ips":[{"interface":1,"address":"10.1.0.5/24"},{"interface":2,"address":"192.168.0.5/24"},{"interface":0,"address":"169.254.1.1/32"}]}`},
			[]string{"10.1.0.5", "+192.168.0.5"}, ""},
		{"a result of an old version", call{args: podArgs, driver: "veth", version: "0.4.0",
			prev: `{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.0.5/24"}]}`}, []string{"10.1.0.5"}, ""},
		{"no address", call{prev: `{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}]}`, args: podArgs, driver: "veth"}, nil, "report no address"},
		{"a container that is no pod", call{prev: bridged}, nil, ""},
		{"a runtime that says no namespace", call{prev: bridged, args: "IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_UID=u-1"}, nil, "K8S_POD_NAMESPACE"},
		{"a runtime that says nothing but the UID", call{prev: bridged, args: "IgnoreUnknown=1;K8S_POD_UID=u-1"}, nil, "K8S_POD_NAMESPACE"},
		{"arguments that are none", call{prev: bridged, args: "K8S_POD_NAME"}, nil, "CNI_ARGS"},
		{"a socket that cannot be", call{prev: bridged, args: podArgs, settings: `,"Socket":"run"`}, nil, "absolute path"},
		{"no plugin before", call{args: podArgs}, nil, "at the end of a chain"},
		{"a setting that cannot be", call{prev: bridged, args: podArgs, settings: `,"onUnavailable":"perhaps"`}, nil, "perhaps"},
	}
	for _, tt := range tests {
		n := &node{}
		printed, _, err := tt.call.run(t, plugin.add, n.serve(t))
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(full(err), tt.err) {
			t.Errorf("%s: error %v, want %q in it", tt.name, err, tt.err)
		}
		if err == nil {
			sameResult(t, tt.name, tt.call.prev, printed)
		}
		var want []arrival.Request
		if tt.want != nil {
			p := arrival.Pod{Namespace: "shop", Name: "web", UID: "u-1", Container: "c1"}
			for _, a := range tt.want {
				if extra, ok := strings.CutPrefix(a, "+"); ok {
					p.Extra = append(p.Extra, netip.MustParseAddr(extra))
					continue
				}
				p.Addrs = append(p.Addrs, netip.MustParseAddr(a))
			}
			want = append(want, arrival.Request{Verb: arrival.Add, Pod: p})
		}
		if diff := gocmp.Diff(want, n.all(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s: what was handed over (-want +got):\n%s", tt.name, diff)
		}
	}
}

// full is an error with its details, which the library prints apart.
func full(err error) string {
	var e *types.Error
	if errors.As(err, &e) {
		return e.Msg + ": " + e.Details
	}
	return err.Error()
}

// sameResult compares results, but for their version.
func sameResult(t *testing.T, name, before, after string) {
	t.Helper()
	var results [2]map[string]any
	for i, text := range []string{before, after} {
		if err := json.Unmarshal([]byte(text), &results[i]); err != nil {
			t.Errorf("%s: printed %q: %v", name, text, err)
			return
		}
		delete(results[i], "cniVersion")
		delete(results[i], "dns")
		if ips, ok := results[i]["ips"].([]any); ok {
			for _, ip := range ips {
				delete(ip.(map[string]any), "version")
			}
		}
	}
	if diff := gocmp.Diff(results[0], results[1]); diff != "" {
		t.Errorf("%s: the result has changed (-before +after):\n%s", name, diff)
	}
}

// TestWithoutAnAnswer has no enforcer, one that hangs, and one that says no.
func TestWithoutAnAnswer(t *testing.T) {
	tests := []struct {
		name    string
		enforce func(*testing.T) string
		want    string
	}{
		{"no enforcer", func(t *testing.T) string { return filepath.Join(t.TempDir(), "cni.sock") }, "nobody listens on"},
		{"an enforcer that hangs", hangs, "does not answer"},
		{"an enforcer that says no", func(t *testing.T) string { return (&node{err: errors.New("no space in the set")}).serve(t) }, "no space in the set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket := tt.enforce(t)
			pod := call{prev: bridged, args: podArgs, driver: "veth"}
			start := time.Now()
			for verb, does := range map[string]func(plugin, *skel.CmdArgs) error{"ADD": plugin.add, "CHECK": plugin.check} {
				_, _, err := pod.run(t, does, socket)
				if err == nil || !strings.Contains(full(err), tt.want) {
					t.Errorf("%s: %v, want %q in it", verb, err, tt.want)
				}
			}
			pod.settings = `,"onUnavailable":"allow"`
			printed, said, err := pod.run(t, plugin.add, socket)
			if err != nil || !strings.Contains(said, "starts without its policy") {
				t.Errorf("ADD, where pods are let in all the same: %v, and said %q", err, said)
			}
			sameResult(t, "ADD", pod.prev, printed)
			if _, _, err := (call{prev: bridged, args: podArgs}).run(t, plugin.del, socket); err != nil {
				t.Errorf("DEL: %v", err)
			}
			if _, _, err := (call{settings: `,"cni.dev/valid-attachments":[]`}).run(t, plugin.collect, socket); err != nil {
				t.Errorf("GC: %v", err)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("five calls of a second each took %s", took)
			}
		})
	}
}

func TestAnEnforcerThatComesBackIsAsked(t *testing.T) {
	n := &node{}
	socket := filepath.Join(t.TempDir(), "cni.sock")
	ctx, cancel := context.WithCancel(t.Context())
	var server sync.WaitGroup
	defer server.Wait()
	defer cancel()
	time.AfterFunc(200*time.Millisecond, func() {
		server.Go(func() { (&arrival.Server{Socket: socket, Pods: n, Log: logr.Discard()}).Run(ctx) })
	})
	c := call{prev: bridged, args: podArgs, driver: "veth", settings: `,"timeoutSeconds":60`}
	if _, _, err := c.run(t, plugin.add, socket); err != nil {
		t.Error(err)
	}
}

func TestWhatTheEnforcerIsTold(t *testing.T) {
	n := &node{}
	socket := n.serve(t)
	for _, c := range []struct {
		verb func(plugin, *skel.CmdArgs) error
		call call
	}{
		{plugin.check, call{prev: bridged, args: podArgs, driver: "veth"}},
		{plugin.del, call{prev: bridged, args: podArgs}},
		{plugin.del, call{}}, // a runtime may have lost all but the container
		{plugin.collect, call{settings: `,"cni.dev/valid-attachments":[{"containerID":"c7","ifname":"eth0"}]`}},
	} {
		if _, _, err := c.call.run(t, c.verb, socket); err != nil {
			t.Error(err)
		}
	}
	want := []arrival.Request{
		{Verb: arrival.Check, Pod: arrival.Pod{Namespace: "shop", Name: "web", UID: "u-1", Container: "c1",
			Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")}}},
		{Verb: arrival.Delete, Pod: arrival.Pod{Container: "c1"}},
		{Verb: arrival.Delete, Pod: arrival.Pod{Container: "c1"}},
		{Verb: arrival.Collect, Containers: []string{"c7"}},
	}
	if diff := gocmp.Diff(want, n.all(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStatus: a node that has never had policy enforced is not ready for pods. One that has stays ready while its enforcer is away.
func TestStatus(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "cni.sock")
	_, _, err := call{}.run(t, plugin.status, socket)
	var e *types.Error
	if !errors.As(err, &e) || e.Code != errNotAvailable {
		t.Errorf("before the first sync: %v", err)
	}
	if _, _, err := (call{settings: `,"onUnavailable":"allow"`}).run(t, plugin.status, socket); err != nil {
		t.Errorf("where pods are let in all the same: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, arrival.StateFile), []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (call{}).run(t, plugin.status, socket); err != nil {
		t.Errorf("after the first sync: %v", err)
	}
}

// FuzzConfig reads bytes as a container runtime gives them. What comes of them is an error, or settings that are valid and addresses that are.
func FuzzConfig(f *testing.F) {
	for _, c := range []call{
		{}, {prev: bridged, args: podArgs}, {prev: alone, settings: `,"onUnavailable":"allow"`},
		{prev: `{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.0.5/24"}]}`, version: "0.4.0"}, {prev: `{"cniVersion":"9.9.9"}`},
		{prev: `{"cniVersion":"1.1.0","interfaces":[null],"ips":[null,{"interface":7,"address":"10.1.0.5/24"},{"interface":-1,"address":"::ffff:1.2.3.4/96"}]}`},
		{settings: `,"timeoutSeconds":-1`}, {settings: `,"cni.dev/valid-attachments":[{}]`},
	} {
		f.Add(string(c.stdin("/s")), c.args)
	}
	f.Add("", "=;")
	f.Add("[]", "K8S_POD_UID")
	f.Fuzz(func(t *testing.T, stdin, args string) {
		p := plugin{driver: func(string, string) (string, error) { return "veth", nil }, warn: func(string) {}}
		c, err := p.parse(&skel.CmdArgs{ContainerID: "c1", IfName: "eth0", Args: args, StdinData: []byte(stdin)})
		if err != nil {
			return
		}
		if err := c.Settings.Validate(); err != nil {
			t.Errorf("taken: %v", err)
		}
		a, err := c.attachment("eth0")
		if err != nil {
			return
		}
		for _, addr := range a.addrs {
			if !addr.IsValid() || addr.Is4In6() {
				t.Errorf("taken as an address: %v", addr)
			}
		}
	})
}
