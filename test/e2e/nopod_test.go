package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/arrival"
	ringfencecni "github.com/ringfence-io/ringfence/enforcer/cni"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/process"
	"github.com/ringfence-io/ringfence/test/kit"
)

// runtimeNode is a node whose container runtime looks for plugins in one directory, with real plugins there, and an enforcer that says yes. What is told of
// its pods is the CNI project's own library's doing.
type runtimeNode struct {
	*testing.T
	conf, bin, leases string
	socket            string
	node, pod         *host.Host
}

func newRuntimeNode(t *testing.T, name string) *runtimeNode {
	t.Helper()
	kit.NeedRoot(t)
	plugins, err := cni.Plugins()
	kit.Must(t, err)
	dir := t.TempDir()
	n := &runtimeNode{T: t, conf: filepath.Join(dir, "net.d"), bin: filepath.Join(dir, "usr/lib/cni"), leases: filepath.Join(dir, "leases"),
		socket: filepath.Join(dir, "cni.sock")}
	kit.Must(t, os.MkdirAll(n.conf, 0o755))
	kit.Must(t, os.MkdirAll(n.bin, 0o755))
	for _, plugin := range []string{"bridge", "host-local", "portmap"} {
		text, err := os.ReadFile(filepath.Join(plugins, plugin))
		kit.Must(t, err)
		kit.Must(t, os.WriteFile(filepath.Join(n.bin, plugin), text, 0o755))
	}
	// Four addresses: a pod that leaks one each time it is tried soon has none.
	text, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "net", "plugins": []any{
		map[string]any{"type": "bridge", "bridge": "cni0", "ipam": map[string]any{"type": "host-local", "dataDir": n.leases,
			"ranges": []any{[]any{map[string]any{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.10", "rangeEnd": "10.77.0.13"}}}}},
		map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
	}})
	kit.Must(t, err)
	kit.Must(t, os.WriteFile(filepath.Join(n.conf, "10-net.conflist"), text, 0o600))
	for what, h := range map[string]**host.Host{"node": &n.node, "pod": &n.pod} {
		*h, err = host.New(host.RunPrefix("rf-nopod") + name + what)
		kit.Must(t, err)
		t.Cleanup(func() { kit.Must(t, (*h).Close()) })
	}
	c := &chain{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	var server sync.WaitGroup
	server.Go(func() { (&arrival.Server{Socket: n.socket, Pods: c, Log: logr.Discard()}).Run(ctx) })
	t.Cleanup(func() { cancel(); server.Wait() })
	return n
}

// starts tries a pod as a runtime does that tears down what has failed, ten times, and reports whether it started each time.
func (n *runtimeNode) starts() (all bool, last error) {
	n.Helper()
	all = true
	for i := range 10 {
		list, err := libcni.ConfListFromFile(filepath.Join(n.conf, "10-net.conflist"))
		kit.Must(n.T, err)
		runner := libcni.NewCNIConfigWithCacheDir([]string{n.bin}, filepath.Join(n.conf, "cache"), nil)
		pod := &libcni.RuntimeConf{ContainerID: fmt.Sprint("c", i), NetNS: n.pod.Path(), IfName: "eth0", Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_UID", "11-22"}}}
		ctx, cancel := context.WithTimeout(n.Context(), time.Minute)
		err = n.node.Do(func() error { _, err := runner.AddNetworkList(ctx, list, pod); return err })
		if err != nil {
			all, last = false, err
		}
		if err := n.node.Do(func() error { return runner.DelNetworkList(ctx, list, pod) }); err != nil {
			all, last = false, errors.Join(last, err)
		}
		cancel()
	}
	return all, last
}

// leaked are the addresses that are still taken.
func (n *runtimeNode) leaked() (addresses []string) {
	n.Helper()
	found, err := filepath.Glob(filepath.Join(n.leases, "net", "10.77.*"))
	kit.Must(n.T, err)
	return found
}

func (n *runtimeNode) install(dirs string) (output string, err error) {
	n.Helper()
	out, err := n.node.Command(n.Context(), ringfence, "cni", "install", "--cni-conf-dir", n.conf, "--cni-bin-dir", dirs, "--cni-socket", n.socket).CombinedOutput()
	return string(out), err
}

func (n *runtimeNode) listed() bool {
	n.Helper()
	text, err := os.ReadFile(filepath.Join(n.conf, "10-net.conflist"))
	kit.Must(n.T, err)
	return strings.Contains(string(text), ringfencecni.Type)
}

// TestPodsStartWhereverTheRuntimeLooks: pods start, and their addresses come back, whether the directory in which the runtime looks for plugins is known or
// not; with us in the list where it is.
func TestPodsStartWhereverTheRuntimeLooks(t *testing.T) {
	t.Run("where nobody told us", func(t *testing.T) {
		n := newRuntimeNode(t, "a")
		other := filepath.Join(t.TempDir(), "opt/cni/bin")
		kit.Must(t, os.MkdirAll(other, 0o755))
		out, err := n.install(other)
		if err == nil || !strings.Contains(out, "looks for plugins elsewhere") || n.listed() {
			t.Errorf("installing there says %q, %v", out, err)
		}
		if all, err := n.starts(); !all {
			t.Errorf("a pod does not start: %v", err)
		}
		if leaked := n.leaked(); len(leaked) != 0 {
			t.Errorf("addresses that nobody has are taken: %s", leaked)
		}
	})
	t.Run("where it is one of several", func(t *testing.T) {
		n := newRuntimeNode(t, "b")
		other := filepath.Join(t.TempDir(), "opt/cni/bin")
		kit.Must(t, os.MkdirAll(other, 0o755))
		if out, err := n.install(other + "," + n.bin); err != nil || !n.listed() {
			t.Errorf("installing says %q, %v", out, err)
		}
		if all, err := n.starts(); !all {
			t.Errorf("a pod does not start: %v", err)
		}
		if leaked := n.leaked(); len(leaked) != 0 {
			t.Errorf("addresses that nobody has are taken: %s", leaked)
		}
	})
}

// TestPortsThatOtherProgramsHave: the enforcer does without probes and metrics, says so in the node's report, and serves them as soon as it can.
func TestPortsThatOtherProgramsHave(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1, NoEnforcer: true})
	node := l.Nodes[0]
	var others []net.Listener
	for _, port := range []int{lab.EnforcerHealth, lab.EnforcerMetrics} {
		kit.Must(t, node.Host.Do(func() error {
			other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			others = append(others, other)
			return err
		}))
	}
	kit.Must(t, node.StartEnforcer())
	pid := node.EnforcerPID()
	until := func(what string, holds func(*v1alpha1.NodeEnforcement) bool) {
		t.Helper()
		kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
			r, err := reportOf(ctx, l, node.Name)
			if err == nil && !holds(r) {
				err = fmt.Errorf("it is not so: %s: %+v", what, r.Status.Conditions)
			}
			return err
		}))
	}
	until("policy is enforced, and what is not served is said", func(r *v1alpha1.NodeEnforcement) bool {
		healthy := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.HealthyCondition)
		return meta.IsStatusConditionTrue(r.Status.Conditions, v1alpha1.EnforcingCondition) && healthy != nil && healthy.Status == metav1.ConditionFalse &&
			healthy.Reason == v1alpha1.ProbesNotServedReason && strings.Contains(healthy.Message, fmt.Sprint(lab.EnforcerMetrics))
	})
	for _, other := range others {
		kit.Must(t, other.Close())
	}
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		return errors.Join(node.Get(ctx, lab.EnforcerHealth, "/readyz"), node.Get(ctx, lab.EnforcerMetrics, "/metrics"))
	}))
	if now := node.EnforcerPID(); now != pid {
		t.Errorf("the enforcer is another one: %d, and was %d", now, pid)
	}
}

// TestAskedToEndEarly asks an enforcer to end that still waits for its API server.
func TestAskedToEndEarly(t *testing.T) {
	kit.NeedRoot(t)
	node, err := host.New(host.RunPrefix("rf-early"))
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, node.Close()) })
	dir := t.TempDir()
	kubeconfig, log := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "log")
	kit.Must(t, os.WriteFile(kubeconfig, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],`+
		`"clusters":[{"name":"c","cluster":{"server":"https://127.0.0.1:1"}}]}`), 0o600))
	cmd := node.Command(context.Background(), ringfence, "enforcer", "--kubeconfig", kubeconfig, "--node-name", "n1", "--log-format", "text",
		"--cni-socket", filepath.Join(dir, "cni.sock"))
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(dir, "lock"))
	enforcer, err := process.Start(cmd, "an enforcer", log)
	kit.Must(t, err)
	t.Cleanup(enforcer.Kill)
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		text, err := os.ReadFile(log)
		if err == nil && !strings.Contains(string(text), "Serving metrics server") {
			err = fmt.Errorf("it has not come so far that it waits for the API server: %s", text)
		}
		return err
	}))
	asked := time.Now()
	kit.Must(t, syscall.Kill(enforcer.PID(), syscall.SIGTERM))
	const grace = 10 * time.Second // of config/enforcer
	select {
	case <-enforcer.Done():
	case <-time.After(grace):
		text, _ := os.ReadFile(log)
		t.Fatalf("it has not ended %s after it was asked to: %s", time.Since(asked).Round(time.Second), text)
	}
}
