// Package lab is a cluster on one machine: a real API server, nodes and pods as network namespaces, real CNI plugins, and
// the real enforcer on each node. `make run` shows it to people; tests and benchmarks use the same package.
//
//	          world  192.0.2.1  2001:db8::1    kube-apiserver, etcd, controllers; a client here is off-cluster
//	            │ wire0 (bridge)
//	     ┌──────┴──────┐
//	eth0 │        eth0 │
//	node n1       node n2   192.0.2.(10+i)  2001:db8::(10+i)   one enforcer process in each
//	 │    │        │    │
//	pod  pod      pod  pod  10.244.i.0/24  fd00:10:244:i::/64  wired by bridge or ptp
//
// Goals, and how each is met:
//   - what is real where policy is concerned: API server, watches, RBAC, CNI plugins, the enforcer's process, packets;
//   - as fast as that allows: no scheduler, controller manager, kubelet or container runtime runs. The lab binds pods,
//     ends namespaces and plays the kubelet itself (package kubelet);
//   - any number of labs beside each other: everything lives in namespaces and in one directory with names of its own;
//   - nothing left behind: Close removes all, children die with this process, and what a killed process left is swept
//     by the next Start.
//
// A Lab may be used by several goroutines at once; Close comes last.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/kubelet"
)

// hostPrefix begins the names of all labs' network namespaces, dirPrefix those of temporary directories. The process id
// follows, by which the next lab knows what a dead one left.
const (
	hostPrefix = "lab"
	dirPrefix  = "ringfence-lab-"
)

// started counts this process's labs, for their names.
var started atomic.Int32

// Options say what cluster to start. The zero value, with Defaults, is two dual-stack nodes on bridges.
type Options struct {
	// Nodes is how many there are, named n1, n2, ...
	Nodes int
	// CNI is the plugin that connects pods.
	CNI cni.Kind
	// Families are those that nodes and pods have addresses in, the preferred one first.
	Families []iptables.Family

	// EnforcerBinary is the ringfence program. NoEnforcer leaves it out: the nodes enforce nothing.
	EnforcerBinary string
	NoEnforcer     bool
	// Controller starts one controller, c1, of the same program. Without it policies get no status.
	Controller bool
	// Backend is the enforcer's --iptables-backend.
	Backend string
	// EnforcerArgs are further flags of the enforcer.
	EnforcerArgs []string
	// ControllerArgs are further flags of all controllers.
	ControllerArgs []string
	// APIServerArgs are further flags of kube-apiserver.
	APIServerArgs []string
	// FirstPacket chains the enforcer's CNI plugin behind the others, so that a pod waits for its policy.
	FirstPacket bool
	// FirstAct, if it is set, is what each pod's program does first.
	FirstAct kubelet.FirstAct
	// StatusDelay is how long after a pod has got its network its status says so; at once if it is 0.
	StatusDelay time.Duration

	// Dir keeps certificates, logs and kubeconfigs. It is made, must not exist, and is removed by Close. Without it, a
	// temporary one is used.
	Dir string
	// KeepDir leaves Dir in place, for its logs.
	KeepDir bool
	// Progress is told each step in a few words, if it is set; Report what went wrong and will be tried again.
	Progress func(string)
	Report   func(error)
}

// Defaults fills in what is zero.
func (o Options) Defaults() Options {
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.CNI == "" {
		o.CNI = cni.Bridge
	}
	if len(o.Families) == 0 {
		o.Families = iptables.Families[:]
	}
	if o.Backend == "" {
		o.Backend = "auto"
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Report == nil {
		o.Report = func(error) {}
	}
	return o
}

// Validate says what cannot be.
func (o Options) Validate() error {
	var errs []error
	if o.Nodes < 1 || o.Nodes > maxNodes {
		errs = append(errs, fmt.Errorf("%d nodes: from 1 to %d are possible", o.Nodes, maxNodes))
	}
	if o.CNI != cni.Bridge && o.CNI != cni.PTP {
		errs = append(errs, fmt.Errorf("CNI plugin %q: it must be %s or %s", o.CNI, cni.Bridge, cni.PTP))
	}
	if !o.NoEnforcer && o.EnforcerBinary == "" {
		errs = append(errs, errors.New("no enforcer: name its program, or say that there is to be none"))
	}
	if o.FirstPacket && o.EnforcerBinary == "" {
		errs = append(errs, errors.New("no program for the CNI plugin: name it, or do without"))
	}
	if o.Controller && o.EnforcerBinary == "" {
		errs = append(errs, errors.New("no program for the controller: name it, or say that there is to be no controller"))
	}
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("network namespaces need root"))
	}
	return errors.Join(errs...)
}

// Lab is a running cluster.
type Lab struct {
	// Client, Config and Kubeconfig are an administrator's, for this process and for programs in its network.
	Client     kubernetes.Interface
	Config     *rest.Config
	Kubeconfig string
	// API can be killed and resumed.
	API *apiserver.Server
	// World is the network namespace outside all nodes.
	World *host.Host
	Nodes []*Node
	// Dir holds the logs, as NAME.log.
	Dir string

	opts        Options
	prefix      string // of the hosts' names
	dynamic     dynamic.Interface
	metadata    metadata.Interface
	informers   informers.SharedInformerFactory
	controllers controllerGroup

	cancel context.CancelFunc // ends the goroutines in all
	all    sync.WaitGroup
	closed sync.Once
}

// Start starts a cluster and returns when its API server answers and each node has its enforcer running; see
// [Lab.WaitEnforcers] for when they have read everything.
func Start(ctx context.Context, opts Options) (*Lab, error) {
	opts = opts.Defaults()
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("starting the lab: %w", err)
	}
	l := &Lab{opts: opts, prefix: host.RunPrefix(hostPrefix)}
	if n := started.Add(1); n > 1 {
		l.prefix += fmt.Sprintf("%d-", n)
	}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) error {
	if err := l.sweep(); err != nil {
		return err
	}
	if err := l.makeDir(); err != nil {
		return err
	}
	if err := l.buildNetwork(); err != nil {
		return err
	}
	l.opts.Progress("starting the API server")
	var err error
	l.API, err = apiserver.Start(ctx, apiserver.Options{
		Host: l.World, Addresses: l.WorldAddresses(), Dir: l.Dir, Args: l.opts.APIServerArgs,
	})
	if err != nil {
		return err
	}
	if err := l.connect(); err != nil {
		return err
	}
	if err := l.prepareCluster(ctx); err != nil {
		return err
	}
	l.opts.Progress(fmt.Sprintf("starting %d nodes (CNI plugin %s)", len(l.Nodes), l.opts.CNI))
	if err := l.runCluster(); err != nil {
		return err
	}
	if l.opts.Controller {
		l.opts.Progress("starting a controller")
		if err := l.StartController("c1"); err != nil {
			return err
		}
	}
	if l.opts.NoEnforcer {
		return nil
	}
	l.opts.Progress("starting an enforcer on each node")
	for _, n := range l.Nodes {
		if err := n.StartEnforcer(); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what labs left that were killed.
func (l *Lab) sweep() error {
	swept, err := host.Sweep(hostPrefix)
	if err != nil {
		return fmt.Errorf("removing the rest of an earlier lab: %w", err)
	}
	if len(swept) > 0 {
		l.opts.Progress(fmt.Sprintf("removed %d network namespaces of an earlier lab", len(swept)))
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"[0-9]*-*"))
	if err != nil {
		return fmt.Errorf("looking for what an earlier lab left: %w", err)
	}
	for _, dir := range dirs {
		id, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if pid, err := strconv.Atoi(id); err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("removing what an earlier lab left: %w", err)
			}
		}
	}
	return nil
}

func (l *Lab) makeDir() error {
	if l.opts.Dir == "" {
		dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
		l.Dir = dir
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.opts.Dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(l.opts.Dir, 0o755); err != nil {
		return err
	}
	l.Dir = l.opts.Dir // from now on it is ours to remove
	return nil
}

// connect makes the clients.
func (l *Lab) connect() error {
	var err error
	if l.Config, err = l.API.Config(apiserver.Admin); err != nil {
		return err
	}
	if l.Client, err = kubernetes.NewForConfig(l.Config); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if l.dynamic, err = dynamic.NewForConfig(l.Config); err != nil {
		return fmt.Errorf("making a client of all kinds: %w", err)
	}
	if l.metadata, err = metadata.NewForConfig(l.Config); err != nil {
		return fmt.Errorf("making a client of metadata: %w", err)
	}
	l.informers = informers.NewSharedInformerFactory(l.Client, 0)
	for _, informer := range []cache.SharedIndexInformer{
		l.informers.Core().V1().Pods().Informer(),
		l.informers.Core().V1().Nodes().Informer(),
		l.informers.Core().V1().Namespaces().Informer(),
	} {
		if err := informer.SetWatchErrorHandlerWithContext(l.watchFailed); err != nil {
			return fmt.Errorf("preparing a watch: %w", err)
		}
	}
	l.Kubeconfig = filepath.Join(l.Dir, "kubeconfig")
	return l.API.WriteKubeconfig(l.Kubeconfig, l.API.LocalURL(), apiserver.Admin)
}

// watchFailed is told of a watch that ended and will be tried again, as when the API server is away.
func (l *Lab) watchFailed(ctx context.Context, _ *cache.Reflector, err error) {
	if ctx.Err() == nil {
		l.opts.Report(fmt.Errorf("watching the API server: %w", err))
	}
}

// runCluster starts everything that follows the API objects: kubelets, scheduler, namespace controller.
func (l *Lab) runCluster() error {
	ctx, cancel := context.WithCancel(context.Background()) // until Close, whatever Start's context does
	l.cancel = cancel
	for _, n := range l.Nodes {
		if err := n.startKubelet(ctx); err != nil {
			return err
		}
	}
	l.all.Go(newScheduler(l).start(ctx))
	l.all.Go(newNamespaces(l).start(ctx))
	l.informers.Start(ctx.Done())
	return nil
}

// Close ends everything and removes what Start made, whatever state it is in. It may be called twice.
func (l *Lab) Close() error {
	var errs []error
	l.closed.Do(func() {
		if l.cancel != nil {
			l.cancel()
		}
		var programs sync.WaitGroup
		for _, n := range l.Nodes {
			programs.Go(func() { n.stopEnforcer(5 * time.Second) })
		}
		programs.Go(func() { l.stopControllers(5 * time.Second) })
		programs.Wait()
		l.all.Wait()
		if l.informers != nil {
			l.informers.Shutdown()
		}
		if l.API != nil {
			l.API.Stop()
		}
		for _, n := range l.Nodes {
			errs = append(errs, n.close())
		}
		if l.World != nil {
			errs = append(errs, l.World.Close())
		}
		if l.Dir != "" && !l.opts.KeepDir {
			errs = append(errs, os.RemoveAll(l.Dir))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ending the lab: %w", err)
	}
	return nil
}
