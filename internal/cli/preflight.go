package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/internal/encode"
)

func newPreflightCommand() *cobra.Command {
	var output, backend string
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Check what this node's kernel and programs lack, what that costs, and what to do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
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
	cmd.Flags().StringVarP(&output, "output", "o", "text", outputUsage)
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

// finding is one as programs read it.
type finding struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Severity string `json:"severity,omitempty"`
	Detail   string `json:"detail,omitempty"`
	Cost     string `json:"cost,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

func printable(findings []dataplane.Finding) []finding {
	out := []finding{} // "[]" in JSON, not "null"
	for _, f := range findings {
		out = append(out, finding{f.Name, f.OK, string(f.Severity), f.Detail, f.Cost, f.Remedy})
	}
	return out
}

func printFindings(w io.Writer, findings []dataplane.Finding, output string) error {
	if printed, err := encode.Value(w, output, printable(findings)); printed {
		return err
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
