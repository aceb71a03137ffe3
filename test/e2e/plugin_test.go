package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	cnitypes "github.com/containernetworking/cni/pkg/types/100"
	"github.com/go-logr/logr"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ringfence-io/ringfence/enforcer/arrival"
	ringfencecni "github.com/ringfence-io/ringfence/enforcer/cni"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// TestPluginBehindMainPlugins calls the program through the CNI project's own library, as container runtimes do, behind real plugins: each verb, and what it tells
// the enforcer. The library checks what it gets, too: versions, results, the cache.
func TestPluginBehindMainPlugins(t *testing.T) {
	kit.NeedRoot(t)
	ipam := map[string]any{"type": "host-local", "ranges": []any{[]any{map[string]any{"subnet": "10.77.0.0/24"}}}}
	tests := []struct {
		name    string
		main    map[string]any
		prepare func(*testing.T, *host.Host)
		refused string
	}{
		{"bridge", map[string]any{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": ipam}, nil, ""},
		{"ptp", map[string]any{"type": "ptp", "ipam": ipam}, nil, ""},
		{"host-device with an end of a veth pair", map[string]any{"type": "host-device", "device": "in0", "ipam": ipam}, func(t *testing.T, h *host.Host) {
			kit.Must(t, host.Veth(host.End{Host: h, Link: "out0"}, host.End{Host: h, Link: "in0"}))
		}, ""},
		{"host-device with a device on the node's network card", map[string]any{"type": "host-device", "device": "in0", "ipam": ipam}, func(t *testing.T, h *host.Host) {
			kit.Must(t, host.Veth(host.End{Host: h, Link: "out0"}, host.End{Host: h, Link: "other0"}))
			nl, err := h.Netlink()
			kit.Must(t, err)
			card, err := nl.LinkByName("out0")
			kit.Must(t, err)
			kit.Must(t, nl.LinkAdd(&netlink.Macvlan{
				LinkAttrs: netlink.LinkAttrs{Name: "in0", ParentIndex: card.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE}))
		}, "is a macvlan"},
		{"macvlan", map[string]any{"type": "macvlan", "master": "out0", "ipam": ipam}, func(t *testing.T, h *host.Host) {
			kit.Must(t, host.Veth(host.End{Host: h, Link: "out0"}, host.End{Host: h, Link: "in0"}))
			kit.Must(t, h.Up("out0"))
		}, "is a macvlan"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newChain(t, string(rune('a'+i)), tt.main)
			if tt.prepare != nil {
				tt.prepare(t, c.node)
			}
			if err := c.do(func(ctx context.Context) error { return c.runner.GetStatusNetworkList(ctx, c.list) }); err == nil {
				t.Error("STATUS is fine before policy has been enforced")
			}
			kit.Must(t, os.WriteFile(filepath.Join(c.dir, arrival.StateFile), []byte("[]"), 0o600))
			kit.Must(t, c.do(func(ctx context.Context) error { return c.runner.GetStatusNetworkList(ctx, c.list) }))

			result, err := c.add()
			if tt.refused != "" {
				var e *types.Error
				if !errors.As(err, &e) || !strings.Contains(e.Details, tt.refused) {
					t.Errorf("ADD: %v, want a refusal that says %q", err, tt.refused)
				}
				kit.Must(t, c.del()) // as a runtime cleans up
				return
			}
			kit.Must(t, err)
			want := arrival.Pod{Namespace: "shop", Name: "web", UID: "11-22", Container: "c1", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2")}}
			c.heard(arrival.Add, want)
			if !strings.Contains(result, `"10.77.0.2/24"`) || !strings.Contains(result, `"sandbox"`) {
				t.Errorf("the result has become %s", result)
			}
			kit.Must(t, c.do(func(ctx context.Context) error { return c.runner.CheckNetworkList(ctx, c.list, c.pod) }))
			c.heard(arrival.Check, want)
			kit.Must(t, c.do(func(ctx context.Context) error {
				return c.runner.GCNetworkList(ctx, c.list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}}})
			}))
			c.heard(arrival.Collect, arrival.Pod{})
			kit.Must(t, c.del())
			c.heard(arrival.Delete, arrival.Pod{Container: "c1"})
			c.stop()
			if tt.main["type"] != "host-device" { // which fails where it has nothing to give back
				kit.Must(t, c.del()) // again, and without an enforcer
			}
			if _, err := c.add(); err == nil || !strings.Contains(err.Error(), "nobody listens") {
				t.Errorf("ADD without an enforcer: %v", err)
			}
			kit.Must(t, c.del()) // as a runtime cleans up
		})
	}
}

// chain is a node with a main plugin, ours behind it, and an enforcer that says yes.
type chain struct {
	t      *testing.T
	dir    string
	node   *host.Host
	runner *libcni.CNIConfig
	list   *libcni.NetworkConfigList
	pod    *libcni.RuntimeConf
	stop   func()

	mu   sync.Mutex
	seen []arrival.Request
}

func newChain(t *testing.T, name string, main map[string]any) *chain {
	t.Helper()
	plugins, err := cni.Plugins()
	kit.Must(t, err)
	c := &chain{t: t, dir: t.TempDir()}
	newHost := func(what string) *host.Host {
		h, err := host.New(host.RunPrefix("rf-chain") + name + what)
		kit.Must(t, err)
		t.Cleanup(func() { kit.Must(t, h.Close()) })
		return h
	}
	c.node = newHost("node")
	ours := filepath.Join(c.dir, "bin")
	kit.Must(t, os.Mkdir(ours, 0o755))
	kit.Must(t, os.Symlink(ringfence, filepath.Join(ours, ringfencecni.Type)))
	socket := filepath.Join(c.dir, "cni.sock")
	ipam := main["ipam"].(map[string]any)
	ipam["dataDir"] = filepath.Join(c.dir, "leases")
	text, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": "net", "plugins": []any{
		main, map[string]any{"type": ringfencecni.Type, "socket": socket, "timeoutSeconds": 5},
	}})
	kit.Must(t, err)
	c.list, err = libcni.NetworkConfFromBytes(text)
	kit.Must(t, err)
	c.runner = libcni.NewCNIConfigWithCacheDir([]string{plugins, ours}, filepath.Join(c.dir, "cache"), nil)
	c.pod = &libcni.RuntimeConf{ContainerID: "c1", NetNS: newHost("pod").Path(), IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_UID", "11-22"},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var server sync.WaitGroup
	server.Go(func() { (&arrival.Server{Socket: socket, Pods: c, Log: logr.Discard()}).Run(ctx) })
	c.stop = func() {
		cancel()
		server.Wait()
	}
	t.Cleanup(c.stop)
	return c
}

// do calls the library from inside the node.
func (c *chain) do(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	return c.node.Do(func() error { return f(ctx) })
}

// add returns the result as text.
func (c *chain) add() (text string, err error) {
	err = c.do(func(ctx context.Context) error {
		result, err := c.runner.AddNetworkList(ctx, c.list, c.pod)
		if err != nil {
			return err
		}
		current, err := cnitypes.NewResultFromResult(result)
		if err != nil {
			return err
		}
		encoded, err := json.Marshal(current)
		text = string(encoded)
		return err
	})
	return text, err
}

func (c *chain) del() error {
	return c.do(func(ctx context.Context) error { return c.runner.DelNetworkList(ctx, c.list, c.pod) })
}

// heard checks the last thing that the enforcer was asked.
func (c *chain) heard(verb arrival.Verb, p arrival.Pod) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		c.t.Fatalf("the enforcer was asked nothing, not %s", verb)
	}
	got := c.seen[len(c.seen)-1]
	equal := slices.Equal(got.Pod.Addrs, p.Addrs)
	got.Pod.Addrs, p.Addrs = nil, nil
	if diff := gocmp.Diff(arrival.Request{Verb: verb, Pod: p}, got); diff != "" || !equal {
		c.t.Errorf("the enforcer was asked (-want +got):\n%s", diff)
	}
}

func (c *chain) note(r arrival.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, r)
}

func (c *chain) Add(_ context.Context, p arrival.Pod) error {
	c.note(arrival.Request{Verb: arrival.Add, Pod: p})
	return nil
}

func (c *chain) Check(_ context.Context, p arrival.Pod) error {
	c.note(arrival.Request{Verb: arrival.Check, Pod: p})
	return nil
}

func (c *chain) Delete(container string) {
	c.note(arrival.Request{Verb: arrival.Delete, Pod: arrival.Pod{Container: container}})
}

func (c *chain) Collect([]string) { c.note(arrival.Request{Verb: arrival.Collect}) }
