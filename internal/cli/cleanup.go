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
		Short: "Remove everything of ours from this node, and nothing else",
		Long: `Remove everything of ours from this node, and nothing else: the CNI plugin from the network
configurations and its directory, so that pods start without waiting for anybody; the jumps in the
base chains, the chains and the sets whose names start with RF-, in both iptables back ends; and what
an enforcer that has ended left in /run.

Stop the enforcer on the node first, or it puts everything back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := log.logger()
			if err != nil {
				return err
			}
			if err := errors.Join(left.remove(), dataplane.Cleanup(cmd.Context(), logger)); err != nil {
				return fmt.Errorf("cleaning up: %w", err)
			}
			if _, err = fmt.Fprintln(cmd.OutOrStdout(), left.kept()+"Nothing of ours is left on this node: no policy is enforced here."); err != nil || !stay {
				return err
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	left.add(cmd.Flags())
	cmd.Flags().BoolVar(&stay, "stay", false, "do not end until told to (SIGTERM), as the pods of a DaemonSet must")
	log.format, log.level = "text", "warn"
	return cmd
}
