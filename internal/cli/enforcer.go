package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/controllers/node/connections"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/arrival"
	"github.com/ringfence-io/ringfence/enforcer/attachment"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/denials"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/passing"
)

// enforcerOptions are the flags of 'ringfence enforcer'.
type enforcerOptions struct {
	log        logFlags
	kubeconfig string
	node       string
	backend    string
	resync     time.Duration
	metrics    metricsFlags
	health     string
	dns        []string
	nodeDNS    []string
	nflogGroup uint16
	logDenied  bool
	heartbeat  time.Duration
	cni        cniOptions
	cutLive    bool
	unknown    string
	podCIDRs   []string
	watchPods  string

	sourceCheck string
	cniCache    string
}

func newEnforcerCommand() *cobra.Command {
	var o enforcerOptions
	cmd := &cobra.Command{
		Use:   "enforcer",
		Short: "Enforce the cluster's policies on this node",
		Long: `Enforce the cluster's policies on this node: watch the API, and keep the node's
ipsets and iptables chains as the policies demand.

The enforcer needs root, or NET_ADMIN and NET_RAW, in the node's network namespace. When it ends, its
rules stay in force; 'ringfence cleanup' removes them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			logger, err := o.log.logger()
			if err != nil {
				return err
			}
			return o.run(ctrl.LoggerInto(cmd.Context(), logger), logger)
		},
	}
	cmd.Flags().AddFlagSet(o.flags())
	return cmd
}

// flags are the command's, with their defaults.
func (o *enforcerOptions) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("enforcer", pflag.ContinueOnError)
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default $KUBECONFIG, then the service account of the pod)")
	f.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"), "this node's name in the cluster (default $NODE_NAME)")
	f.StringVar(&o.backend, "iptables-backend", "auto", "legacy, nft, or auto: the one that the kubelet uses")
	f.DurationVar(&o.resync, "resync-interval", 30*time.Second, "how often the rules in the kernel are compared with policy, and repaired")
	o.metrics.add(f, ":9441")
	f.StringVar(&o.health, "health-probe-bind-address", ":9440", "address that serves /healthz and /readyz; 0 turns it off")
	f.StringSliceVar(&o.dns, "dns-service", texts(node.DefaultDNSServices),
		"namespace/name of the cluster's DNS Service, for policies that allow DNS; may be repeated, need not exist")
	f.StringSliceVar(&o.nodeDNS, "node-local-dns", texts(node.DefaultDNSAddresses),
		"address of the DNS cache on the nodes, for policies that allow DNS; may be repeated, need not exist")
	f.Uint16Var(&o.nflogGroup, "nflog-group", iptables.DefaultNFLogGroup,
		"NFLOG group for the samples of denied packets; no other program may read it; 0 turns the log of packets off")
	f.BoolVar(&o.logDenied, "log-denied", false,
		"log samples of all denied packets; without it only those of policies in mode Audit and of rules that ask for a log")
	f.DurationVar(&o.heartbeat, "heartbeat-interval", report.DefaultHeartbeat,
		"how often the NodeEnforcement of this node is written if nothing changes; without it for three intervals, the node counts as unknown")
	o.cni.add(f)
	f.BoolVar(&o.cutLive, "cut-live", true, "cut open connections that policy now denies; those that it still allows are never touched")
	f.StringVar(&o.unknown, "unknown-pods", unknownAllow,
		"what happens to packets of addresses in this node's pod range that belong to no known pod: allow or drop; with drop, only its own node reaches "+
			"a new pod until the API shows its addresses")
	f.StringSliceVar(&o.podCIDRs, "pod-cidrs", nil,
		"range of the addresses of this node's pods, for --unknown-pods=drop; may be repeated (default the podCIDRs of the Node)")
	f.StringVar(&o.watchPods, "watch-pods", watchReached,
		"which pods the enforcer hears of: reached are this node's and those of the namespaces that its policies can name, all are all pods of the cluster")
	f.StringVar(&o.sourceCheck, "source-check", "enforce",
		"what happens to packets that a pod sends from an address that is not its own: enforce drops them, audit counts and logs them, off lets them pass; "+
			"the annotation "+v1alpha1.SourceCheckAnnotation+": \"off\" exempts the pods of a namespace")
	f.StringVar(&o.cniCache, "cni-cache-dir", attachment.DefaultCacheDir,
		"directory in which libcni keeps the results of CNI plugins, from which the enforcer learns the interface of each pod; empty uses the kernel alone")
	o.log.add(f)
	return f
}

func (o *enforcerOptions) validate() error {
	var errs []error
	if o.node == "" {
		errs = append(errs, errors.New("--node-name is empty: give the name that 'kubectl get nodes' prints for this node, or set NODE_NAME"))
	}
	if o.resync < time.Second {
		errs = append(errs, fmt.Errorf("--resync-interval %s is too short: 1s or more", o.resync))
	}
	if o.heartbeat < time.Second {
		errs = append(errs, fmt.Errorf("--heartbeat-interval %s is too short: 1s or more", o.heartbeat))
	}
	_, dnsErr := dnsServices(o.dns)
	_, nodeErr := dnsAddresses(o.nodeDNS)
	if o.logDenied && o.nflogGroup == 0 {
		errs = append(errs, errors.New("--log-denied needs an NFLOG group: leave --nflog-group 0 out"))
	}
	_, unknownErr := o.unknownPods(dataplane.Capabilities{})
	_, watchErr := o.reachedPods()
	return errors.Join(append(errs, dnsErr, nodeErr, unknownErr, watchErr, o.validateSources(), o.cni.validate())...)
}

func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}

// dnsServices are the Services that --dns-service names, each once.
func dnsServices(texts []string) ([]types.NamespacedName, error) {
	var names []types.NamespacedName
	var errs []error
	for _, text := range texts {
		namespace, name, ok := strings.Cut(text, "/")
		if !ok || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1035Label(name)) > 0 {
			errs = append(errs, fmt.Errorf("--dns-service %q names no Service: give namespace/name, as in kube-system/kube-dns", text))
			continue
		}
		if n := (types.NamespacedName{Namespace: namespace, Name: name}); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, errors.Join(errs...)
}

// dnsAddresses are the addresses that --node-local-dns gives, each once.
func dnsAddresses(texts []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	var errs []error
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			errs = append(errs, fmt.Errorf("--node-local-dns %q is no address of one host: give it as in 169.254.20.10 or fd00::10", text))
			continue
		}
		if a = a.Unmap(); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, errors.Join(errs...)
}

func (o *enforcerOptions) run(ctx context.Context, logger logr.Logger) error {
	limitStart(ctx, logger)
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	p, err := o.open(ctx, logger)
	if err != nil {
		return err
	}
	p.wire()
	return p.start(ctx, end)
}

// limitStart bounds the memory of the process and the processors that it uses, from its start on.
func limitStart(ctx context.Context, logger logr.Logger) {
	useProcessors(startProcessors)
	if os.Getenv("GOGC") == "" {
		paceCollector()
	}
	if err := limitMemory(ctx, memlimit.FromCgroup, enforcerShare, logger); err != nil {
		logger.Info("whatever limit the container has for memory, it is not heeded: set GOMEMLIMIT", "error", err.Error())
	}
	runtime.MemProfileRate = 0 // nobody can ask for the profile, whose table would take more than a megabyte
	letGoOfStart(logger)
}

// enforcerProcess is what an enforcer's process is made of.
type enforcerProcess struct {
	options *enforcerOptions
	log     logr.Logger
	plane   *dataplane.Dataplane
	manager ctrl.Manager
	config  node.Config // as far as flags and the kernel say it

	health   *report.Health
	arrivals *arrival.Table // nil if the CNI plugin cannot hand pods over
	journal  *denials.Journal
	passing  *passing.Watcher
	ground   *ground
	node     *node.Reconciler
}

// open opens the kernel and connects to the cluster.
func (o *enforcerOptions) open(ctx context.Context, logger logr.Logger) (*enforcerProcess, error) {
	plane, err := openDataplane(ctx, o.backend, logger)
	if err != nil {
		return nil, err
	}
	config, err := o.nodeConfig(plane, logger)
	if err != nil {
		return nil, err
	}
	client, err := restConfig(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	manager, err := ctrl.NewManager(client, ctrl.Options{
		Logger:                 logger,
		Cache:                  node.CacheOptions(o.node),
		MapperProvider:         cached.RESTMapper,
		Metrics:                metricsserver.Options{BindAddress: "0"}, // both are served beside it, whatever becomes of their ports
		HealthProbeBindAddress: "0",
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	return &enforcerProcess{options: o, log: logger, plane: plane, manager: manager, config: config}, nil
}

// nodeConfig is what the flags tell the node, on this kernel.
func (o *enforcerOptions) nodeConfig(plane *dataplane.Dataplane, logger logr.Logger) (node.Config, error) {
	c := node.Config{
		Name: o.node, Resync: o.resync, Heartbeat: o.heartbeat, Facts: facts(plane, logger),
		LinkEvents: watchLinks(plane, logger.WithName("links")), Announce: o.cni.announce,
	}
	var errs [6]error
	c.DNSServices, errs[0] = dnsServices(o.dns)
	c.DNSAddresses, errs[1] = dnsAddresses(o.nodeDNS)
	c.UnknownPods, errs[2] = o.unknownPods(plane.Capabilities())
	c.Sources, errs[3] = o.sources(plane, logger.WithName("links"))
	c.ReachedPods, errs[4] = o.reachedPods()
	c.KeepPods, errs[5] = keptInTests()
	return c, errors.Join(errs[:]...)
}

// What --watch-pods may say.
const (
	watchReached = "reached"
	watchAll     = "all"
)

// reachedPods is whether the node hears of the pods that its policies can name, and no others.
func (o *enforcerOptions) reachedPods() (bool, error) {
	if o.watchPods != watchReached && o.watchPods != watchAll {
		return false, fmt.Errorf("--watch-pods %q is not known: %s or %s", o.watchPods, watchReached, watchAll)
	}
	return o.watchPods == watchReached, nil
}

// wire makes the parts that depend on each other, and adds to the manager what it runs.
func (p *enforcerProcess) wire() {
	render := p.options.renderOptions(p.plane.Capabilities())
	sync := enforcer.New(p.plane, render)
	p.config.Connections = connections.NewLedger()
	p.journal = &denials.Journal{
		Source: p.plane, Log: p.log.WithName("denials"), Group: render.NFLogGroup, Interval: p.options.resync, Witness: p.config.Connections,
	}
	p.passing = &passing.Watcher{Source: p.plane, Log: p.log.WithName("passing"), Witness: p.config.Connections}
	p.ground = &ground{options: p.options, plane: p.plane, sync: sync, journal: p.journal, log: p.log}
	p.health = report.NewHealth()
	p.config.Sync, p.config.Compare, p.config.Kernel = sync, sync, sync
	p.config.Watched = p.passing.Ask
	p.config.Points, p.config.Health, p.config.Ground = p.journal.SetPoints, p.health, p.ground
	if p.arrivals = p.options.cni.arrivals(p.health, p.log.WithName("cni")); p.arrivals != nil {
		p.config.Arrivals = p.arrivals
	}
	p.node = node.New(p.config)
	p.journal.Pods, p.passing.Pods = p.node, p.node
	metrics.Registry.MustRegister(slices.Concat(denials.Metrics(), passing.Metrics(), []prometheus.Collector{BuildInfo()})...)
}

// start runs the manager, and what runs beside it, until ctx ends; end ends the process.
func (p *enforcerProcess) start(ctx context.Context, end context.CancelCauseFunc) error {
	defer p.beside(ctx, end)()
	if err := p.node.SetupWithManager(ctx, p.manager); err != nil {
		return err
	}
	if err := p.addRunnables(); err != nil {
		return err
	}
	p.log.Info("enforcing", "node", p.options.node, "backend", p.plane.Backend(), "table", p.plane.Capabilities().Table, "version", thisBuild().Version)
	if err := startBounded(ctx, shutdownTime, p.manager.Start, p.log); err != nil {
		return fmt.Errorf("running: %w", err)
	}
	p.log.Info("stopped; what was enforced stays in force, 'ringfence cleanup' removes it")
	return nil
}

// addRunnables adds to the manager what it runs besides the node: the end of live connections, the end of the start, and the log of denied packets.
func (p *enforcerProcess) addRunnables() error {
	if p.options.cutLive {
		cutter := &node.Cutter{Live: p.ground.cut(p.options.cni.socket), Pods: p.node.Named, Health: p.health}
		if err := p.manager.Add(cutter); err != nil {
			return fmt.Errorf("adding the end of live connections: %w", err)
		}
	}
	released := func(ctx context.Context) error { return letGoOnceRead(ctx, p.node.Synced, p.log) }
	if err := p.manager.Add(ctrlmanager.RunnableFunc(released)); err != nil {
		return fmt.Errorf("adding the end of the start: %w", err)
	}
	if err := errors.Join(p.manager.Add(p.journal), p.manager.Add(p.passing)); err != nil {
		return fmt.Errorf("adding what denied packets and connections that pass are read by: %w", err)
	}
	return nil
}

// beside runs what runs beside the manager, whatever becomes of that. What it returns ends it.
func (p *enforcerProcess) beside(ctx context.Context, end context.CancelCauseFunc) (stop func()) {
	stops := []func(){
		p.options.cni.serve(ctx, end, p.arrivals, p.health, p.log.WithName("cni")),
		serveAll(ctx, p.options.services(p.manager, p.node), p.health.Note, p.log),
	}
	go watchLife(ctx, liveTime, p.node.Live, end)
	return func() { endBounded(shutdownTime, stops...) }
}

// openDataplane opens the kernel, says what it lacks, and fails if nothing can be enforced.
func openDataplane(ctx context.Context, backend string, logger logr.Logger) (*dataplane.Dataplane, error) {
	plane, err := dataplane.New(ctx, dataplane.Options{Backend: backend, Layout: iptables.Layout(layout), Log: logger.WithName("dataplane")})
	if err != nil {
		return nil, fmt.Errorf("opening the node's netfilter: %w", err)
	}
	for _, f := range plane.Findings() {
		if !f.OK {
			logger.Info("this node lacks something: "+f.Name, "severity", f.Severity, "found", f.Detail, "costs", f.Cost, "remedy", f.Remedy)
		}
	}
	return plane, nil
}

// restConfig reads the kubeconfig of the flag, of KUBECONFIG, or the service account's.
func restConfig(kubeconfig string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.UserAgent = "ringfence/" + version
	// The API server shares itself out among its clients. The client's own limit, five requests a second, would let a controller say of 1,000
	// new policies after minutes what it knows after seconds.
	config.QPS = -1
	return config, nil
}
