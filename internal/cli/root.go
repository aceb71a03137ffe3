// Package cli is ringfence's command line: flags, wiring, and nothing that decides.
package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/enforcer/cni"
	"github.com/ringfence-io/ringfence/internal/kubectl"
)

// Run runs the command line, which begins with the program's name, and returns the exit status: 0, or 1 after an error, which is on standard error by
// then. Under the name of the CNI plugin, or of kubectl's, it is that.
func Run(args []string) int {
	if isPlugin(args) {
		return cni.Main(thisBuild().Version)
	}
	if len(args) > 0 && kubectl.IsName(args[0]) {
		return kubectl.Run(args[1:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRootCommand()
	root.SetArgs(args[min(1, len(args)):])
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "ringfence:", err)
		return 1
	}
	return 0
}

func newRootCommand() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "ringfence",
		Short: "Kubernetes NetworkPolicy for clusters whose CNI does not enforce it",
		Long: `Ringfence enforces Kubernetes NetworkPolicy on any cluster whose CNI moves packets
through the host's netfilter. The CNI stays, the policy comes.

'ringfence enforcer' runs on each node. 'ringfence lab' shows it at work on one machine.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), thisBuild())
				return err
			}
			return cmd.Help()
		},
	}
	// Cobra's own flag prints by a template. Where templates are in a program, its linker has to keep each method of each type.
	root.Flags().BoolVarP(&version, "version", "v", false, "version for ringfence")
	root.AddCommand(newEnforcerCommand(), newControllerCommand(), newCleanupCommand(), newPreflightCommand(), newAuditCommand(),
		newCNICommand(), newVersionCommand(), newLabCommand())
	return root
}
