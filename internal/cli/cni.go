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
		"Unix socket on which the CNI plugin announces new pods, so that policy holds from their first packet; empty turns it off")
	f.BoolVar(&o.announce, "announce-addresses", true,
		"with --cni-socket: write the addresses of a new pod to a condition of its status at once, so that other nodes need not wait for its kubelet")
	o.addInstall(f)
	f.Lookup("cni-conf-dir").Usage += "; the enforcer installs the plugin there and keeps it installed; empty installs nothing"
	f.Lookup("cni-bin-dir").Usage += "; needs --cni-conf-dir"
}

// addInstall are the flags that say how the plugin is installed.
func (o *cniOptions) addInstall(f *pflag.FlagSet) {
	f.StringVar(&o.confDir, "cni-conf-dir", "", "directory of the node's network configurations, such as "+cni.DefaultConfDir)
	f.StringSliceVar(&o.binDirs, "cni-bin-dir", nil,
		"directory in which the container runtime looks for CNI plugins, such as "+cni.DefaultBinDirs[0]+"; may be repeated: the plugin is copied to "+
			"those that hold the other plugins")
	f.StringVar(&o.onUnavailable, "cni-on-unavailable", string(cni.Block),
		"whether a pod starts if its policy cannot be in force in time: block or allow")
	f.DurationVar(&o.timeout, "cni-timeout", cni.DefaultTimeout, "how long the start of a pod waits for its policy, in whole seconds")
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
		Short: "Install or remove the CNI plugin that makes policy hold from a pod's first packet",
		Long: `Install or remove the CNI plugin that makes policy hold from a pod's first packet.

Container runtimes call the plugin under the name ` + cni.Type + `, after the plugins that connect a pod.
It gives the pod's addresses to this node's enforcer, and returns when the pod's policy is in force.`,
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
		Short: "Add the CNI plugin to this node's network configuration",
		Long: `Copy this program into the directory of CNI plugins as ` + cni.Type + `, and add it as the last plugin to
the network configuration that the container runtime uses, which is the first one in its directory.
Pods that start afterwards wait until their policy is in force. Running pods are not touched.

An enforcer with --cni-conf-dir and --cni-bin-dir does the same, and repeats it when the file changes.`,
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
	cmd.Flags().StringVar(&o.socket, "cni-socket", arrival.DefaultSocket, "Unix socket of this node's enforcer")
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
	f.StringSliceVar(&l.binDirs, "cni-bin-dir", cni.DefaultBinDirs, "directory to remove the plugin from; may be repeated")
	f.StringVar(&l.socket, "cni-socket", arrival.DefaultSocket, "Unix socket of this node's enforcer; it is removed unless an enforcer listens on it")
	f.BoolVar(&l.keepProgram, "keep-program", false, "leave the program of the CNI plugin where it is; the default is true on nodes that run CRI-O")
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

// kept is the message about the program, if it stays.
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
		Short: "Remove the CNI plugin from this node",
		Long: `Remove the plugin from this node's network configurations, remove its program, and remove what an
enforcer left in /run. First stop the enforcer, if it keeps the plugin installed.

CRI-O needs the program to remove the pods that were set up with it. Where CRI-O runs, the program
stays. When those pods are gone, remove it with --keep-program=false.`,
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
