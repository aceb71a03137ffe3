// Package watchcost measures what those who watch an API server cost it: bytes on the wire, CPU of the server and its memory, for clients that watch all
// pods of a cluster, or fewer.
//
// The API server is a real one. A client is what an enforcer's is, by client-go: a connection of its own with TLS and HTTP/2, Protocol Buffers for
// the kinds that have them, and the rights of config/rbac. It counts what comes, and decodes nothing, so that a thousand of them fit into a process.
// No kubelet runs: [Cluster.Churn] writes what a scheduler, a kubelet and the garbage collector write of a pod.
package watchcost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	labserver "github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit/proc"
	"github.com/ringfence-io/ringfence/test/scale"
)

// Size is how large a cluster is. Pods are spread evenly over nodes, and over namespaces.
type Size struct{ Nodes, Namespaces, Pods int }

// String is what a table's title says of it.
func (s Size) String() string {
	return fmt.Sprintf("%d nodes, %d namespaces, %d pods", s.Nodes, s.Namespaces, s.Pods)
}

// Cluster is one that runs. Its methods are for one goroutine.
type Cluster struct {
	Size
	host    *host.Host
	server  *labserver.Server
	admin   *rest.Config
	kubes   map[string]kubernetes.Interface // by who writes
	watcher *rest.Config                    // an enforcer's
	churned int                             // pods that have come and gone
}

// Who writes of a pod, as its managed fields say.
const (
	workloads = "kube-controller-manager"
	scheduler = "kube-scheduler"
	kubelet   = "kubelet"
)

// enforcer is whom the API server takes a client for. All enforcers have one service account, and so are one flow in the API server's fairness.
var enforcer = labserver.User{
	Name:   "system:serviceaccount:ringfence-system:ringfence-enforcer",
	Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ringfence-system"},
}

// Start starts a cluster with all of its pods running. The name is that of a network namespace, and dir an existing directory. The caller closes the
// cluster, also if there was an error.
func Start(ctx context.Context, size Size, name, dir string) (*Cluster, error) {
	log.SetLogger(logr.Discard())
	c := &Cluster{Size: size, kubes: map[string]kubernetes.Interface{}}
	var err error
	if c.host, err = host.New(name); err != nil {
		return c, err
	}
	c.server, err = labserver.Start(ctx, labserver.Options{
		Host: c.host, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, Dir: dir,
		Args: []string{"--profiling=true"}, // it collects its garbage on demand
	})
	if err != nil {
		return c, err
	}
	if c.admin, err = c.server.Config(labserver.Admin); err != nil {
		return c, err
	}
	if c.watcher, err = c.server.Config(enforcer); err != nil {
		return c, err
	}
	// Straight to the server: the proxy of the lab would take as much of this machine as the server does.
	c.watcher.Host = fmt.Sprintf("https://127.0.0.1:%d", labserver.Port)
	for _, who := range []string{workloads, scheduler, kubelet} {
		config := rest.CopyConfig(c.admin)
		config.ContentType, config.UserAgent = runtime.ContentTypeProtobuf, who
		if c.kubes[who], err = kubernetes.NewForConfig(config); err != nil {
			return c, fmt.Errorf("making a client of %s: %w", who, err)
		}
	}
	if err := c.install(ctx); err != nil {
		return c, err
	}
	return c, c.fill(ctx)
}

// install installs our kinds, and what an enforcer may do.
func (c *Cluster) install(ctx context.Context) error {
	if _, err := scale.Install(ctx, c.admin); err != nil {
		return err
	}
	if err := c.installSlices(); err != nil {
		return err
	}
	return c.allowSlices(ctx)
}

// fill creates namespaces and pods.
func (c *Cluster) fill(ctx context.Context) error {
	if err := scale.InParallel(c.Namespaces, func(i int) error {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i)}}
		_, err := c.kubes[workloads].CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		return err
	}); err != nil {
		return fmt.Errorf("creating namespaces: %w", err)
	}
	if err := scale.InParallel(c.Pods, func(i int) error {
		p := c.place(i).pod("stays")
		p.Spec.NodeName = c.place(i).node
		created, err := c.kubes[workloads].CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		created.Status = c.place(i).running()
		_, err = c.kubes[kubelet].CoreV1().Pods(p.Namespace).UpdateStatus(ctx, created, metav1.UpdateOptions{})
		return err
	}); err != nil {
		return fmt.Errorf("creating pods: %w", err)
	}
	return nil
}

// Close ends everything.
func (c *Cluster) Close() error {
	if c.server != nil {
		c.server.Stop()
	}
	if c.host != nil {
		return c.host.Close()
	}
	return nil
}

// CPU is what the API server has taken so far, without etcd.
func (c *Cluster) CPU() (time.Duration, error) {
	use, err := proc.UsageOf(c.server.PID())
	return use.CPU, err
}

// Memory is what the API server holds, in bytes.
type Memory struct {
	Resident int // VmRSS, garbage included
	Live     int // heap and stacks that are in use, after garbage was collected
}

// Memory collects the API server's garbage, and says what is left.
func (c *Cluster) Memory(ctx context.Context) (Memory, error) {
	if _, err := c.get(ctx, "/debug/pprof/heap?gc=1"); err != nil {
		return Memory{}, err
	}
	text, err := c.get(ctx, "/metrics")
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "go_memstats_alloc_bytes" && name != "go_memstats_stack_inuse_bytes" {
			continue
		}
		bytes, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("reading the API server's metric %s: %w", name, err)
		}
		m.Live += int(bytes)
	}
	use, err := proc.UsageOf(c.server.PID())
	m.Resident = use.Now
	return m, err
}

// get is what the API server answers to an administrator.
func (c *Cluster) get(ctx context.Context, path string) (text string, err error) {
	client, err := rest.HTTPClientFor(c.admin)
	if err != nil {
		return "", fmt.Errorf("making a client: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.admin.Host+path, nil)
	if err != nil {
		return "", fmt.Errorf("asking for %s: %w", path, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("asking for %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("asking for %s: %s", path, response.Status)
	}
	return string(body), err
}
