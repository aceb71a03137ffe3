package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
)

func newPreflightCommand() *cobra.Command {
	var output, backend string
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Say what this node's kernel and programs lack, what it costs, and what to do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("preflight", os.Geteuid()); err != nil {
				return err
			}
			plane, err := openDataplane(cmd.Context(), backend, logr.Discard())
			var failed *dataplane.PreflightError
			var findings []dataplane.Finding
			switch {
			case errors.As(err, &failed):
				findings = failed.Findings
			case err != nil:
				return err
			default:
				findings = plane.Findings()
			}
			if printErr := printFindings(cmd.OutOrStdout(), findings, output); printErr != nil {
				return printErr
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&backend, "iptables-backend", dataplane.Auto, "legacy, nft, or auto: the one that the kubelet uses")
	return cmd
}

// needRoot is an error unless a user is root. The kernel refuses all others, and what it refuses looks like what it lacks.
func needRoot(command string, uid int) error {
	if uid == 0 {
		return nil
	}
	return fmt.Errorf("%s asks the kernel what it can do, and has to run as root, not as the user %d", command, uid)
}

func printFindings(w io.Writer, findings []dataplane.Finding, output string) error {
	switch output {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(findings)
	case "text":
	default:
		return fmt.Errorf("--output %q is not known: text or json", output)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		state := "ok"
		if !f.OK {
			state = string(f.Severity)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", state, f.Name, f.Detail)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range findings {
		if !f.OK {
			fmt.Fprintf(w, "\n%s: %s\n  costs:  %s\n  remedy: %s\n", f.Severity, f.Name, f.Cost, f.Remedy)
		}
	}
	return nil
}
