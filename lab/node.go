package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ringfencecni "github.com/ringfence-io/ringfence/enforcer/cni"
	"github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/kubelet"
	"github.com/ringfence-io/ringfence/lab/process"
)

// EnforcerHealth and EnforcerMetrics are the ports where the enforcers serve, each on its node's loopback.
const (
	EnforcerHealth  = 9440
	EnforcerMetrics = 9441
)

// Node is one of the lab's nodes.
type Node struct {
	Name      string
	Host      *host.Host
	Addresses []netip.Addr   // one per family, in the lab's order
	PodCIDRs  []netip.Prefix // likewise

	lab     *Lab
	kubelet *kubelet.Kubelet

	mu       sync.Mutex
	program  program // the enforcer's, at its next start
	enforcer *process.Process
}

// program is what starts an enforcer.
type program struct {
	binary, backend string
	args            []string
}

// object is the Node as a kubelet and a controller manager would have made it together.
func (n *Node) object() *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{
			corev1.LabelHostname: n.Name, corev1.LabelOSStable: "linux",
		}},
		Spec: corev1.NodeSpec{PodCIDR: n.PodCIDRs[0].String()},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: n.Name}},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "LabReady",
				LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
			}},
			NodeInfo: corev1.NodeSystemInfo{
				OperatingSystem: "linux", KubeletVersion: apiserver.Version, ContainerRuntimeVersion: "lab://1",
			},
		},
	}
	for i, cidr := range n.PodCIDRs {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, cidr.String())
		node.Status.Addresses = append(node.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: n.Addresses[i].String()})
	}
	return node
}

// register writes the Node object, and the kubeconfig of the node's enforcer: with a token that is bound to this Node, as that of a pod on
// it would be. It is there before an enforcer starts, since that may happen while the API server is away.
func (n *Node) register(ctx context.Context) error {
	nodes := n.lab.Client.CoreV1().Nodes()
	object := n.object()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("registering node %s: %w", n.Name, err)
	}
	object.Status.NodeInfo.BootID = strings.TrimSpace(string(boot))
	created, err := nodes.Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("registering node %s: %w", n.Name, err)
	}
	created.Status = object.Status
	if _, err := nodes.UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("writing the status of node %s: %w", n.Name, err)
	}
	return n.lab.API.WriteTokenKubeconfig(ctx, n.enforcerKubeconfig(), n.lab.inside(), account(enforcerAccount), created)
}

func (n *Node) enforcerKubeconfig() string { return filepath.Join(n.lab.Dir, n.Name+".kubeconfig") }

// startKubelet has the node run the pods that are bound to it.
func (n *Node) startKubelet(ctx context.Context) error {
	config := cni.Config{Kind: n.lab.opts.CNI, Node: n.Host, PodCIDRs: n.PodCIDRs, Dir: n.cniDir()}
	if n.lab.opts.FirstPacket {
		var err error
		if config.Last, config.LastPath, err = n.installPlugin(config.Dir); err != nil {
			return err
		}
	}
	network, err := cni.New(config)
	if err != nil {
		return err
	}
	n.kubelet, err = kubelet.New(kubelet.Config{
		Node: n.Name, Host: n.Host, Addresses: n.Addresses, Network: network,
		Client: n.lab.Client, Pods: n.lab.informers.Core().V1().Pods().Informer(),
		HostName: n.lab.podHostName, Report: n.lab.opts.Report, FirstAct: n.lab.opts.FirstAct, StatusDelay: n.lab.opts.StatusDelay,
	})
	if err != nil {
		return err
	}
	n.kubelet.Start(ctx)
	return nil
}

// installPlugin gives the node the enforcer's CNI plugin, and returns its configuration and where it is.
func (n *Node) installPlugin(dir string) (conf map[string]any, path string, err error) {
	path = filepath.Join(dir, "bin")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, "", fmt.Errorf("installing the CNI plugin on node %s: %w", n.Name, err)
	}
	program, err := filepath.Abs(n.lab.opts.EnforcerBinary)
	if err != nil {
		return nil, "", fmt.Errorf("installing the CNI plugin on node %s: %w", n.Name, err)
	}
	if err := os.Symlink(program, filepath.Join(path, ringfencecni.Type)); err != nil {
		return nil, "", fmt.Errorf("installing the CNI plugin on node %s: %w", n.Name, err)
	}
	return map[string]any{"type": ringfencecni.Type, "socket": n.CNISocket()}, path, nil
}

// cniDir is where the node's CNI plugins have what they need and keep, and cniCache what they have said of each pod.
func (n *Node) cniDir() string { return filepath.Join(n.lab.Dir, n.Name+"-cni") }

func (n *Node) cniCache() string { return cni.CacheDir(n.cniDir()) }

// CNISocket is where the node's enforcer waits for its CNI plugin, whether there is one or not, and beside which it keeps what outlives it. Each node has its
// own, in a directory of its own: the file system is shared.
func (n *Node) CNISocket() string { return filepath.Join(n.lab.Dir, n.Name+"-run", "cni.sock") }

// SetEnforcer says which program the node's next enforcers are, with which --iptables-backend and further flags. One that runs goes on as it is.
func (n *Node) SetEnforcer(binary, backend string, args ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.program = program{binary, backend, args}
}

// StartEnforcer starts the node's enforcer, which must not be running.
func (n *Node) StartEnforcer() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.enforcer != nil && n.enforcer.Running() {
		return fmt.Errorf("starting the enforcer of %s: one is running", n.Name)
	}
	args := append([]string{
		"enforcer", "--kubeconfig", n.enforcerKubeconfig(), "--node-name", n.Name, "--iptables-backend", n.program.backend,
		"--log-format", "text", "--cni-socket", n.CNISocket(), "--cni-cache-dir", n.cniCache(),
		"--health-probe-bind-address", fmt.Sprintf("127.0.0.1:%d", EnforcerHealth),
		"--metrics-bind-address", fmt.Sprintf("127.0.0.1:%d", EnforcerMetrics), "--metrics-secure=false",
	}, n.program.args...)
	cmd := n.Host.Command(context.Background(), n.program.binary, args...)
	cmd.Env = n.env()
	var err error
	n.enforcer, err = process.Start(cmd, "the enforcer of "+n.Name, n.EnforcerLog())
	return err
}

// XtablesLock is the node's lock of xtables. The file system is shared, and so would be the usual one.
func (n *Node) XtablesLock() string { return filepath.Join(n.lab.Dir, n.Name+"-xtables.lock") }

// env is the environment of a program on the node.
func (n *Node) env() []string { return append(os.Environ(), "XTABLES_LOCKFILE="+n.XtablesLock()) }

// EnforcerLog is the file that the node's enforcer writes its log to, one after another.
func (n *Node) EnforcerLog() string { return filepath.Join(n.lab.Dir, n.Name+"-enforcer.log") }

// KillEnforcer ends the node's enforcer as a crash would.
func (n *Node) KillEnforcer() { n.stopEnforcer(0) }

// RestartEnforcer asks the node's enforcer to end and starts it anew.
func (n *Node) RestartEnforcer() error {
	n.stopEnforcer(30 * time.Second)
	return n.StartEnforcer()
}

// stopEnforcer ends the enforcer, at once if there is no grace.
func (n *Node) stopEnforcer(grace time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.enforcer == nil:
	case grace == 0:
		n.enforcer.Kill()
	default:
		n.enforcer.Stop(grace)
	}
}

// EnforcerReady reports nil once the node's enforcer has brought the kernel to what the API server says.
func (n *Node) EnforcerReady(ctx context.Context) error {
	n.mu.Lock()
	enforcer := n.enforcer
	n.mu.Unlock()
	if enforcer == nil {
		return fmt.Errorf("node %s has no enforcer", n.Name)
	}
	if err := enforcer.Err(); err != nil {
		return err
	}
	return n.Get(ctx, EnforcerHealth, "/readyz")
}

// EnforcerPID is the process id of the node's enforcer, 0 if none runs.
func (n *Node) EnforcerPID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.enforcer == nil || !n.enforcer.Running() {
		return 0
	}
	return n.enforcer.PID()
}

// Get asks a server on the node's loopback, and returns nil if it answers 200.
func (n *Node) Get(ctx context.Context, port int, path string) error {
	if err := get(ctx, n.Host, port, path); err != nil {
		return fmt.Errorf("asking node %s: %w", n.Name, err)
	}
	return nil
}

// Metrics are those of the node's enforcer, as Prometheus reads them.
func (n *Node) Metrics(ctx context.Context) (string, error) {
	text, err := read(ctx, n.Host, EnforcerMetrics, "/metrics")
	if err != nil {
		return "", fmt.Errorf("asking node %s: %w", n.Name, err)
	}
	return string(text), nil
}

// get asks a server on a host's loopback, and returns nil if it answers 200.
func get(ctx context.Context, h *host.Host, port int, path string) error {
	_, err := read(ctx, h, port, path)
	return err
}

// read asks a server on a host's loopback for what it answers with 200.
func read(ctx context.Context, h *host.Host, port int, path string) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: h.DialContext}}
	url := fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err // it names the URL
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// Exec runs a program inside the node, with the node's own xtables lock, and returns what it printed to its standard output; an error has the rest too.
func (n *Node) Exec(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := n.Host.Command(ctx, name, args...)
	cmd.Env = n.env()
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("running %s on node %s: %w: %s%s", name, n.Name, err, out, &complaints)
	}
	return out, nil
}

// close removes the node's pods and then the node.
func (n *Node) close() error {
	var err error
	if n.kubelet != nil {
		err = n.kubelet.Close()
	}
	if n.Host != nil {
		err = errors.Join(err, n.Host.Close())
	}
	return err
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}
