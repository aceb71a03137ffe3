package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/connections"
	"github.com/ringfence-io/ringfence/controllers/startup"
	"github.com/ringfence-io/ringfence/controllers/status"
)

// controllerOptions are the flags of 'ringfence controller'.
type controllerOptions struct {
	log            logFlags
	kubeconfig     string
	elect          bool
	electNamespace string
	metrics        metricsFlags
	health         string
	installation   installationOptions
	startupTaint   string
	connections    string
}

func newControllerCommand() *cobra.Command {
	var o controllerOptions
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Report for every policy whether it is enforced, and where",
		Long: `Report for every policy whether it is understood and whether the nodes enforce it. The report is in
the conditions of ClusterNetworkPolicies and NamespaceIsolations, in a PolicyEnforcement for each
NetworkPolicy, and in Events.

The controller removes the startup taint from a node when the node's enforcer has everything in
force. It changes nothing else of a node. Enforcement does not depend on it: while no controller
runs, statuses and taints stay as they are. With --leader-elect several can run, and one writes.`,
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

func (o *controllerOptions) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("controller", pflag.ContinueOnError)
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default $KUBECONFIG, then the service account of the pod)")
	f.BoolVar(&o.elect, "leader-elect", false, "write only while holding the Lease ringfence-controller, so that several controllers can run")
	f.StringVar(&o.electNamespace, "leader-elect-namespace", "", "namespace of the Lease (default the namespace of the pod)")
	o.metrics.add(f, ":9442")
	f.StringVar(&o.health, "health-probe-bind-address", ":9443", "address that serves /healthz and /readyz; 0 turns it off")
	o.installation.add(f)
	f.StringVar(&o.startupTaint, "startup-taint", startup.DefaultTaint,
		"key of the taint to remove from a node once its enforcer has everything in force since the node booted; empty removes none")
	f.StringVar(&o.connections, "connection-reports", connections.ForThoseThatAsk,
		"which namespaces have a ConnectionReport of the connections that were denied: asked are those with the annotation "+
			v1alpha1.ConnectionsAnnotation+": "+v1alpha1.ConnectionsDenied+", all, or none; with all, have the enforcers run with --log-denied")
	o.log.add(f)
	return f
}

func (o *controllerOptions) validate() error {
	if known := []string{connections.ForThoseThatAsk, connections.ForAll, connections.ForNone}; !slices.Contains(known, o.connections) {
		return fmt.Errorf("--connection-reports %q is not known: write one of %s", o.connections, strings.Join(known, ", "))
	}
	if o.startupTaint == "" {
		return nil
	}
	if wrong := validation.IsQualifiedName(o.startupTaint); len(wrong) > 0 {
		return fmt.Errorf("--startup-taint %q is no key of a taint: %s", o.startupTaint, strings.Join(wrong, "; "))
	}
	return nil
}

func (o *controllerOptions) run(ctx context.Context, logger logr.Logger) error {
	if err := limitMemory(ctx, memlimit.FromCgroup, memoryShare, logger); err != nil {
		logger.Info("whatever limit the container has for memory, it is not heeded: set GOMEMLIMIT", "error", err.Error())
	}
	installation, err := o.installation.installation()
	if err != nil {
		return err
	}
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Logger:                        logger,
		Cache:                         status.CacheOptions(),
		Scheme:                        status.Scheme(),
		MapperProvider:                status.RESTMapper,
		Metrics:                       o.metrics.options(),
		HealthProbeBindAddress:        o.health,
		LeaderElection:                o.elect,
		LeaderElectionID:              "ringfence-controller",
		LeaderElectionNamespace:       o.electNamespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	metrics.Registry.MustRegister(BuildInfo())
	policies := &status.Policies{}
	if err := policies.SetupWithManager(ctx, manager); err != nil {
		return err
	}
	if err := (&connections.Reports{For: o.connections, Runs: policies.Runs}).SetupWithManager(ctx, manager, policies.Client()); err != nil {
		return err
	}
	if installation != nil {
		if err := installation.SetupWithManager(manager); err != nil {
			return err
		}
	}
	if err := (&startup.Taint{Key: o.startupTaint}).SetupWithManager(ctx, manager); err != nil {
		return err
	}
	for _, add := range []func(string, healthz.Checker) error{manager.AddHealthzCheck, manager.AddReadyzCheck} {
		if err := add("ping", healthz.Ping); err != nil {
			return fmt.Errorf("adding health checks: %w", err)
		}
	}
	logger.Info("saying what is enforced", "version", thisBuild().Version)
	if err := startBounded(ctx, shutdownTime, manager.Start, logger); err != nil {
		return fmt.Errorf("running: %w", err)
	}
	return nil
}
