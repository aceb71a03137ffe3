package kubectl

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/internal/encode"
	"github.com/ringfence-io/ringfence/internal/query"
)

func newLintCommand(o *options) *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "lint",
		Short: "Say what is wrong with policies, and what is worth a look",
		Long: `Say what is wrong with policies: fields that cannot be understood, policies over a budget, priorities that
conflict, rules that never match, names of ports that no pod has. Warn of policies that select nothing, of rules
that add nothing to another, of namespaces that are not isolated, and of pods that cannot ask for names.

The exit status is 0, or 1 if there are errors (with --strict, if there is anything), and 2 if there is no answer.`,
		Example: `  kubectl ringfence lint -f config/samples
  kubectl ringfence lint`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := o.ask(cmd, outputs, everywhere)
			if err != nil {
				return err
			}
			findings := q.Lint()
			if err := printFindings(cmd.OutOrStdout(), o.output, findings); err != nil {
				return err
			}
			isBad := func(f query.Finding) bool { return f.Error || strict }
			if slices.ContainsFunc(findings, isBad) || len(o.files) > 0 && len(q.Missing) > 0 {
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "take warnings for errors")
	return cmd
}

func printFindings(out io.Writer, output string, findings []query.Finding) error {
	if output != "text" {
		if findings == nil {
			findings = []query.Finding{} // "[]" in JSON, not "null"
		}
		_, err := encode.Value(out, output, findings)
		return err
	}
	if len(findings) == 0 {
		_, err := fmt.Fprintln(out, "There is nothing to say about the policies.")
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SEVERITY\tOBJECT\tFIELD\tREASON\tDETAIL")
	for _, f := range findings {
		severity := "warning"
		if f.Error {
			severity = "error"
		}
		field := f.Field
		if field == "" {
			field = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", severity, f.Object, field, f.Reason, f.Detail)
	}
	return t.Flush()
}
