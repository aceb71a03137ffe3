package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer/arrival"
	"github.com/ringfence-io/ringfence/enforcer/cni"
)

// isPlugin reports whether a container runtime calls: by the plugin's name, or by any name of the program with nothing but the environment.
func isPlugin(args []string) bool {
	if len(args) == 0 {
		return false
	}
	if filepath.Base(args[0]) == cni.Type {
		return true
	}
	bare := len(args) == 1 || len(args) == 2 && args[1] == "cni"
	return bare && os.Getenv("CNI_COMMAND") != ""
}

// cniOptions are the flags of the enforcer that concern pods which start.
type cniOptions struct {
	socket        string
	confDir       string
	binDirs       []string
	onUnavailable string
	timeout       time.Duration
	announce      bool
}

func (o *cniOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.socket, "cni-socket", arrival.DefaultSocket,
		"unix socket at which the CNI plugin hands new pods over, so that policy holds from their first packet; empty for none")
	f.BoolVar(&o.announce, "announce-addresses", true,
		"with --cni-socket: tell other nodes the addresses of a new pod at once, in a condition of its status, not when its kubelet has written them")
	o.addInstall(f)
	f.Lookup("cni-conf-dir").Usage += "; the plugin is installed and kept there while the enforcer runs; empty for not"
	f.Lookup("cni-bin-dir").Usage += "; both or none"
}

// addInstall are the flags that say how the plugin is installed.
func (o *cniOptions) addInstall(f *pflag.FlagSet) {
	f.StringVar(&o.confDir, "cni-conf-dir", "", "directory of the node's network configurations, as "+cni.DefaultConfDir)
	f.StringSliceVar(&o.binDirs, "cni-bin-dir", nil,
		"directory in which the container runtime may look for CNI plugins, such as "+cni.DefaultBinDirs[0]+"; may be repeated: the plugin goes where the "+
			"programs of the network configuration are")
	f.StringVar(&o.onUnavailable, "cni-on-unavailable", string(cni.Block),
		"what becomes of a pod whose policy cannot be put in force in time: block, so that it does not start, or allow")
	f.DurationVar(&o.timeout, "cni-timeout", cni.DefaultTimeout, "how long an attempt to start a pod waits for its policy, in whole seconds")
}

func (o *cniOptions) validate() error {
	if (o.confDir == "") != (len(o.binDirs) == 0) {
		return errors.New("--cni-conf-dir and --cni-bin-dir belong together: give both, or none")
	}
	if o.confDir == "" {
		return nil
	}
	if o.socket == "" {
		return errors.New("--cni-conf-dir needs a --cni-socket, which the plugin asks")
	}
	return o.validateSettings()
}

func (o *cniOptions) validateSettings() error {
	if err := o.settings().Validate(); err != nil {
		return fmt.Errorf("--cni-on-unavailable, --cni-timeout, --cni-socket: %w", err)
	}
	if slices.Contains(o.binDirs, "") {
		return errors.New("--cni-bin-dir has an empty directory among others")
	}
	return nil
}

func (o *cniOptions) settings() cni.Settings {
	return cni.Settings{Socket: o.socket, OnUnavailable: cni.Unavailable(o.onUnavailable), TimeoutSeconds: int(o.timeout.Seconds())}
}

// arrivals are the pods that the plugin hands over, nil if none can be.
func (o *cniOptions) arrivals(health *report.Health, log logr.Logger) *arrival.Table {
	if o.socket == "" {
		return nil
	}
	table := arrival.NewTable(filepath.Join(filepath.Dir(o.socket), arrival.StateFile), log)
	table.OnSave(func(err error) { health.Note(v1alpha1.ArrivalsUnsavedReason, err) })
	return table
}

// serve answers the plugin, if it can hand pods over, and keeps it installed if it is to be. What it returns ends both; end ends the process.
func (o *cniOptions) serve(ctx context.Context, end context.CancelCauseFunc, pods *arrival.Table, health *report.Health, log logr.Logger) (stop func()) {
	if pods == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { (&arrival.Server{Socket: o.socket, Pods: pods, Log: log}).Run(ctx) })
	if o.confDir != "" {
		running.Go(func() { o.keep(ctx, end, health, log) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}

func (o *cniOptions) keep(ctx context.Context, end context.CancelCauseFunc, health *report.Health, log logr.Logger) {
	program, err := os.Executable()
	if err != nil {
		log.Error(err, "the CNI plugin cannot be installed: this program's own file is not known")
		return
	}
	install := o.install(program)
	install.Tell = func(err error) { health.Note(v1alpha1.NotInstalledReason, err) }
	install.Lost = func(dir string) {
		end(&endError{fmt.Errorf("%s has been removed from the node: a new container sees what takes its place", dir)})
	}
	install.Keep(ctx, log)
}

func (o *cniOptions) install(program string) cni.Install {
	return cni.Install{ConfDir: o.confDir, BinDirs: o.binDirs, Program: program, Settings: o.settings()}.Defaults()
}

func newCNICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cni",
		Short: "The CNI plugin by which policy holds from a pod's first packet",
		Long: `The CNI plugin by which policy holds from a pod's first packet. Container runtimes call it under
the name ` + cni.Type + `, as the last of the plugins that connect a pod: it hands the pod's addresses
to this node's enforcer, and returns when the pod's policy is in force.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCNIInstallCommand(), newCNIUninstallCommand())
	return cmd
}

func newCNIInstallCommand() *cobra.Command {
	var o cniOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Make it the last plugin of this node's network configuration",
		Long: `Copy this program into the directory of CNI plugins as ` + cni.Type + `, and make it the last plugin of
the network configuration that the container runtime uses: the first of its directory. Pods that start
from then on wait until their policy is in force; pods that run are not touched.

An enforcer with --cni-conf-dir and --cni-bin-dir does the same, and does it again when the file is rewritten.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program's own file: %w", err)
			}
			if err := o.validateSettings(); err != nil {
				return err
			}
			changed, err := o.install(program).Run()
			if err != nil {
				return fmt.Errorf("installing the CNI plugin: %w", err)
			}
			text := "The CNI plugin was installed already."
			if changed != "" {
				text = "The CNI plugin is the last one in " + changed + "."
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	o.addInstall(cmd.Flags())
	cmd.Flags().StringVar(&o.socket, "cni-socket", arrival.DefaultSocket, "unix socket of this node's enforcer")
	return cmd
}

// leftovers are what the CNI plugin and an enforcer leave on a node besides rules.
type leftovers struct {
	confDir, socket string
	binDirs         []string
	keepProgram     bool
	keepSaid        func() bool // whether the flag says so, or its default
}

func (l *leftovers) add(f *pflag.FlagSet) {
	f.StringVar(&l.confDir, "cni-conf-dir", cni.DefaultConfDir, "directory of the node's network configurations")
	f.StringSliceVar(&l.binDirs, "cni-bin-dir", cni.DefaultBinDirs, "directory in which the plugin may have been installed; may be repeated")
	f.StringVar(&l.socket, "cni-socket", arrival.DefaultSocket, "unix socket of this node's enforcer, which is removed unless one listens")
	f.BoolVar(&l.keepProgram, "keep-program", false, "leave the CNI plugin's program in its directory; without the flag it stays where CRI-O runs")
	l.keepSaid = func() bool { return f.Changed("keep-program") }
}

// keeps reports whether the program stays: CRI-O tears a pod down by the configuration that it was set up with, and without the program could not.
func (l *leftovers) keeps() bool {
	if l.keepProgram || l.keepSaid != nil && l.keepSaid() {
		return l.keepProgram
	}
	run := filepath.Dir(filepath.Dir(l.socket))
	_, err := os.Stat(filepath.Join(run, "crio", "crio.sock"))
	return err == nil
}

// kept is what is to be said of the program, if it stays.
func (l *leftovers) kept() string {
	if !l.keeps() {
		return ""
	}
	return "The program of the CNI plugin stays, by which CRI-O tears down the pods that were set up with it. When they are gone: --keep-program=false\n"
}

func (l *leftovers) remove() error {
	if err := errors.Join(cni.Uninstall(l.confDir, l.binDirs, l.keeps()), arrival.Remove(l.socket, unseenFile)); err != nil {
		return fmt.Errorf("uninstalling the CNI plugin: %w", err)
	}
	return nil
}

func newCNIUninstallCommand() *cobra.Command {
	var left leftovers
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Undo what install, or an enforcer, did",
		Long: `Take the plugin out of this node's network configurations, remove its program, and what an enforcer
that has ended left in /run. Stop an enforcer that keeps it installed first.

CRI-O tears a pod down by the configuration that it was set up with: where it runs, the program stays
until it is removed by --keep-program=false, when such pods are gone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := left.remove(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), left.kept()+"Pods on this node start without waiting for their policy.")
			return err
		},
	}
	left.add(cmd.Flags())
	return cmd
}
