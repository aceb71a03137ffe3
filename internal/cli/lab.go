package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/matrix"
	"github.com/ringfence-io/ringfence/lab/scene"
)

func newLabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "See it at work: a cluster on this machine, without containers or virtual machines",
		Long: `A cluster on this machine: a real API server, nodes and pods as network namespaces,
real CNI plugins, and the enforcer as a process on each node. Nothing of the machine's own
network is touched, and nothing is left behind.

It needs root, and what hack/deps.sh installs and hack/kube/build.sh builds: 'make run' does
all of it.`,
	}
	cmd.AddCommand(newLabRunCommand(), newLabProbeCommand())
	return cmd
}

// labFlags are the flags of 'ringfence lab run'.
type labFlags struct {
	options scene.Options
	cni     string
	output  string
}

func newLabRunCommand() *cobra.Command {
	var f labFlags
	cmd := &cobra.Command{
		Use:     "run",
		Aliases: []string{"up"},
		Short:   "Start a lab with a sample application, and show who reaches whom before and after policy",
		Long: `Start a lab with the sample application, show who reaches whom, apply the sample policies and
show it again. Then the same as a cluster's administrator: tenants isolated, first in Audit and
then in Enforce, and denials in tiers Admin and Baseline. It says of each connection whether it
is what the API texts demand.

Then the lab stays up until Ctrl-C, with a KUBECONFIG and commands to try.`,
		Example: `  ringfence lab run
  ringfence lab run --nodes 3 --cni ptp --backend nft
  ringfence lab run --once -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.complete(cmd); err != nil {
				return err
			}
			return scene.Play(cmd.Context(), f.options)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.options.Lab.Nodes, "nodes", 2, "number of nodes")
	flags.StringVar(&f.cni, "cni", string(cni.Bridge), "CNI plugin that connects pods: bridge or ptp")
	flags.StringVar(&f.options.Lab.Backend, "backend", "auto", "iptables back end of the enforcers: legacy, nft or auto")
	flags.BoolVar(&f.options.Lab.NoEnforcer, "no-enforcer", false, "run no enforcer, to show that policies do nothing without one")
	flags.BoolVar(&f.options.Once, "once", false, "exit after the last matrix, with an error if a connection is not as demanded")
	flags.BoolVar(&f.options.Lab.KeepDir, "keep", false, "keep the directory with the logs")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json; progress goes to standard error")
	flags.DurationVar(&f.options.Timeout, "timeout", time.Minute, "how long to wait for pods, and for policies to take effect")
	flags.StringVar(&f.options.Name, "name", scene.DefaultName, "name of the lab; labs of different names can run together")
	return cmd
}

// complete fills in what is no flag.
func (f *labFlags) complete(cmd *cobra.Command) error {
	json, err := wantsJSON(f.output)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the enforcer's program: %w", err)
	}
	f.options.Lab.CNI = cni.Kind(f.cni)
	f.options.Lab.EnforcerBinary = self
	f.options.Program = os.Args[0]
	f.options.JSON = json
	f.options.Out, f.options.Progress = cmd.OutOrStdout(), cmd.ErrOrStderr()
	f.options.Style = matrix.Style{Color: colored(cmd.OutOrStdout())}
	// What cannot be is refused before anything is done.
	return f.options.Lab.Defaults().Validate()
}

func newLabProbeCommand() *cobra.Command {
	var name, output string
	cmd := &cobra.Command{
		Use:   "probe FROM TO:PORT[/PROTOCOL]",
		Short: "Try a connection in a lab that is up",
		Long: `Try a connection in a lab that is up, over each address family, and say what the API texts
demand. FROM is a pod (namespace/name) or "outside"; TO is a pod or an address; PORT is a
number or a container port's name; PROTOCOL is tcp (the default), udp or sctp.

The exit status is 1 if a connection is not as demanded.`,
		Example: `  ringfence lab probe shop/frontend shop/backend:http
  ringfence lab probe shop/backend monitoring/prometheus:8125/udp
  ringfence lab probe outside 10.244.1.2:8080`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := wantsJSON(output)
			if err != nil {
				return err
			}
			answers, err := scene.Ask(cmd.Context(), name, args[0], args[1])
			if err != nil {
				return err
			}
			if asJSON {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(answers); err != nil {
					return fmt.Errorf("writing the answer: %w", err)
				}
			}
			return judge(cmd, answers, asJSON)
		},
	}
	cmd.Flags().StringVar(&name, "name", scene.DefaultName, "name of the lab")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// judge prints the answers for people, and fails if one is not as demanded.
func judge(cmd *cobra.Command, answers []scene.Answer, quiet bool) error {
	words := map[bool]string{true: "yes", false: "no"}
	wrong := 0
	for _, a := range answers {
		if a.Connects != a.Demanded {
			wrong++
		}
		if !quiet {
			fmt.Fprintf(cmd.OutOrStdout(), "%-3s  %s (%s) -> %s (%s) %s/%d: %s\n     the API demands %s: %s\n", words[a.Connects],
				a.From, a.Src, a.To, a.Dst, a.Protocol, a.Port, a.Outcome, words[a.Demanded], a.Because)
			for _, what := range a.Audited {
				fmt.Fprintf(cmd.OutOrStdout(), "     would be denied, were it not for Audit: %s\n", what)
			}
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d connections are not as the API demands", wrong, len(answers))
	}
	if len(answers) == 0 {
		return fmt.Errorf("the two have no address family in common")
	}
	return nil
}

func wantsJSON(output string) (bool, error) {
	switch output {
	case "json", "text":
		return output == "json", nil
	}
	return false, fmt.Errorf("--output %q is not known: text or json", output)
}

// colored reports whether w is a terminal whose user did not ask for plain text (https://no-color.org).
func colored(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}
