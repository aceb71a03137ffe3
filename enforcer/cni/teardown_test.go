package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/arrival"
)

// TestMain is the plugin where its name is called.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == Type {
		os.Exit(Main("test"))
	}
	os.Exit(m.Run())
}

// installed is a directory with the plugin, and with a main plugin that notes how it was called and makes what the bridge plugin makes.
func installed(t *testing.T) (dir, calls string) {
	t.Helper()
	dir = t.TempDir()
	calls = filepath.Join(dir, "calls")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho $CNI_COMMAND >> " + calls + "\ncat > /dev/null\n[ $CNI_COMMAND != ADD ] || cat <<'END'\n" + bridged + "\nEND\n"
	if err := errors.Join(os.Symlink(self, filepath.Join(dir, Type)), os.WriteFile(filepath.Join(dir, "main"), []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir, calls
}

// hangs is a socket at which nobody answers.
func hangs(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "cni.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return socket
}

// TestTearingDownReachesThePluginsBeforeOurs calls lists by the library that container runtimes use. It ends a list at the first plugin that fails, and begins
// at ours: the main plugin would not be called, and what it holds would stay held.
func TestTearingDownReachesThePluginsBeforeOurs(t *testing.T) {
	for name, ours := range map[string]string{
		"an enforcer that hangs":      fmt.Sprintf(`"socket":%q`, hangs(t)),
		"no enforcer":                 `"socket":"/nowhere/cni.sock"`,
		"a socket that cannot be":     `"socket":"` + strings.Repeat("long", 100) + `"`,
		"a socket of the wrong kind":  `"socket":7`,
		"a setting that cannot be":    `"socket":"/nowhere/cni.sock","onUnavailable":"perhaps"`,
		"a setting of the wrong kind": `"socket":"/nowhere/cni.sock","timeoutSeconds":"15"`,
		"a setting of no length":      `"socket":"/nowhere/cni.sock","timeoutSeconds":-1`,
		"a setting that is to come":   `"socket":"/nowhere/cni.sock","later":{"a":[1]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, calls := installed(t)
			list, err := libcni.NetworkConfFromBytes(fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"main"},{"type":%q,%s}]}`, Type, ours))
			if err != nil {
				t.Fatal(err)
			}
			runtime := libcni.NewCNIConfigWithCacheDir([]string{dir}, t.TempDir(), nil)
			pod := &libcni.RuntimeConf{ContainerID: "c1", NetNS: "/run/netns/gone", IfName: "eth0", Args: [][2]string{
				{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "web"}}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			start := time.Now()
			if err := runtime.DelNetworkList(ctx, list, pod); err != nil {
				t.Errorf("DEL: %v", err)
			}
			if err := runtime.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}); err != nil {
				t.Errorf("GC: %v", err)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("both took %s", took)
			}
			if text, err := os.ReadFile(calls); err != nil || !strings.Contains(string(text), "DEL") || !strings.Contains(string(text), "GC") {
				t.Errorf("the main plugin was called to %q: %v", text, err)
			}
		})
	}
}

// TestTearingDownNeverFails calls the program itself, with what the library would not let pass.
func TestTearingDownNeverFails(t *testing.T) {
	dir, _ := installed(t)
	usual := []string{"CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/gone", "CNI_PATH=" + dir}
	for name, tt := range map[string]struct {
		env   []string
		stdin string
	}{
		"nothing to read":           {usual, ""},
		"no JSON":                   {usual, "hello"},
		"a version that is to come": {usual, `{"socket":"/nowhere","cniVersion":"9.0.0","name":"net","type":"ringfence-cni"}`},
		"a version that is none":    {usual, `{"socket":"/nowhere","cniVersion":"newest","name":"net","type":"ringfence-cni"}`},
		"no name":                   {usual, `{"socket":"/nowhere","cniVersion":"1.1.0"}`},
		"a result that is none":     {usual, `{"socket":"/nowhere","cniVersion":"1.1.0","name":"net","type":"ringfence-cni","prevResult":{"ips":7}}`},
		"a result that is to come":  {usual, `{"socket":"/nowhere","cniVersion":"1.1.0","name":"net","type":"ringfence-cni","prevResult":{"cniVersion":"9.0.0"}}`},
		"no container":              {usual[1:], `{"socket":"/nowhere","cniVersion":"1.1.0","name":"net","type":"ringfence-cni"}`},
		"arguments that are none":   {append(usual, "CNI_ARGS==;;"), `{"socket":"/nowhere","cniVersion":"1.1.0","name":"net","type":"ringfence-cni"}`},
		"the node's own network":    {append(usual, "CNI_NETNS=/proc/self/ns/net"), `{"socket":"/nowhere","cniVersion":"1.1.0","name":"net","type":"ringfence-cni"}`},
	} {
		for _, verb := range []string{"DEL", "GC"} {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, Type))
			cmd.Env, cmd.Stdin = append(tt.env, "CNI_COMMAND="+verb), strings.NewReader(tt.stdin)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil || out.Len() > 0 {
				t.Errorf("%s, %s: %v, and printed %q; it says %q", name, verb, err, out.String(), errs.String())
			}
		}
	}
}

// TestAPluginThatWouldHang: each call ends, and one that fails says so as the specification asks for.
func TestAPluginThatWouldHang(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	err := within(10*time.Millisecond, func() *types.Error { <-release; return nil })
	if err == nil || !strings.Contains(err.Details, "hangs") {
		t.Errorf("%v", err)
	}
	if err := within(time.Minute, func() *types.Error { return types.NewError(7, "as it is", "") }); err == nil || err.Code != 7 {
		t.Errorf("%v", err)
	}
}

// TestWithoutAUID has a runtime that does not say the pod's UID, or no pod at all: it is the enforcer that says whether the name is enough, and onUnavailable
// what becomes of the pod if it is not.
func TestWithoutAUID(t *testing.T) {
	const named = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1" // as cri-dockerd has it
	n := &node{}
	socket := n.serve(t)
	if _, _, err := (call{prev: bridged, args: named, driver: "veth"}).run(t, plugin.add, socket); err != nil {
		t.Errorf("ADD: %v", full(err))
	}
	if _, _, err := (call{prev: bridged, args: named, driver: "veth"}).run(t, plugin.check, socket); err != nil {
		t.Errorf("CHECK: %v", full(err))
	}
	if seen := n.all(); len(seen) != 2 || seen[0].Pod.Name != "web" || seen[0].Pod.Namespace != "shop" || seen[0].Pod.UID != "" || len(seen[0].Pod.Addrs) != 2 {
		t.Errorf("the enforcer was asked %v", n.all())
	}
	for name, args := range map[string]string{
		"an enforcer that cannot find it": named,
		"no namespace":                    "IgnoreUnknown=1;K8S_POD_NAME=web",
		"nothing but a UID":               "IgnoreUnknown=1;K8S_POD_UID=u-1",
		"arguments that are none":         "K8S_POD_NAME",
	} {
		says := (&node{err: errors.New("which pod is that?")}).serve(t)
		for verb, does := range map[string]func(plugin, *skel.CmdArgs) error{"ADD": plugin.add, "CHECK": plugin.check} {
			c := call{prev: bridged, args: args, driver: "veth"}
			if _, _, err := c.run(t, does, says); err == nil {
				t.Errorf("%s: %s lets it start where pods are blocked", name, verb)
			}
			c.settings = `,"onUnavailable":"allow"`
			printed, said, err := c.run(t, does, says)
			if err != nil || !strings.Contains(said, "starts without its policy") {
				t.Errorf("%s: %s, where pods are let in all the same: %v, and said %q", name, verb, err, said)
			}
			if verb == "ADD" && err == nil {
				sameResult(t, name, c.prev, printed)
			}
		}
	}
	var refused *arrival.RefusedError
	if err := arrival.Ask(t.Context(), socket, arrival.Request{Verb: arrival.Add, WaitMillis: 100, Pod: arrival.Pod{Namespace: "shop", Container: "c1"}}); !errors.As(err, &refused) {
		t.Errorf("a pod without a name: %v", err)
	}
}
