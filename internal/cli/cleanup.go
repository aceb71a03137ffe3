package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
)

func newCleanupCommand() *cobra.Command {
	var log logFlags
	var left leftovers
	var stay bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything of Ringfence from this node, and nothing else",
		Long: `Remove everything of Ringfence from this node, and nothing else:

- the CNI plugin from the network configurations and from its directory, so that pods start without waiting;
- the chains and sets whose names begin with RF-, and the jumps to them, in both iptables back ends;
- what an enforcer left in /run.

First stop the enforcer on the node: it would put everything back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := log.logger()
			if err != nil {
				return err
			}
			if err := errors.Join(left.remove(), dataplane.Cleanup(cmd.Context(), logger)); err != nil {
				return fmt.Errorf("cleaning up: %w", err)
			}
			const done = "Nothing of Ringfence is left on this node: no policy is enforced here."
			if _, err = fmt.Fprintln(cmd.OutOrStdout(), left.kept()+done); err != nil || !stay {
				return err
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	left.add(cmd.Flags())
	cmd.Flags().BoolVar(&stay, "stay", false, "stay until SIGTERM after the cleanup, so that it can run in a DaemonSet")
	log.format, log.level = "text", "warn"
	return cmd
}
