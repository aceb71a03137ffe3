package kubectl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/internal/encode"
	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/internal/source"
)

// against is the state of the cluster, in the place of a directory.
const live = "live"

// failOn are the differences that a change may be refused for, by what people call them.
var failOn = map[string]func(query.Difference) bool{
	"none":   func(query.Difference) bool { return false },
	"any":    func(query.Difference) bool { return true },
	"opened": func(d query.Difference) bool { return len(d.Opened) > 0 },
	"closed": func(d query.Difference) bool { return len(d.Closed) > 0 },
}

func newDiffCommand(o *options) *cobra.Command {
	var against, fail string
	forms := append([]string{"markdown"}, outputs...)
	cmd := &cobra.Command{
		Use:   "diff -f FILES [--against live|DIR]",
		Short: "List the connections that a change opens and closes",
		Long: `List the connections that a change opens and closes, by workload.

Against live, the objects of FILES are taken to be applied to the cluster, in addition to what is there.
Against a directory, FILES are all that there will be, and the directory is all that there was.

The exit status is 0, or 1 if there is a difference that --fail-on names, and 2 if there is no answer.`,
		Example: `  kubectl ringfence diff -f new/ --against live
  git worktree add /tmp/before main && kubectl ringfence diff -f deploy/ --against /tmp/before/deploy --fail-on opened -o markdown`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.checkOutput(forms); err != nil {
				return err
			}
			refused, ok := failOn[fail]
			if !ok {
				return fmt.Errorf("--fail-on %q is not known: write none, opened, closed or any", fail)
			}
			if len(o.files) == 0 {
				return fmt.Errorf("--filename is missing: name the files of the change")
			}
			before, after, err := o.states(cmd.Context(), cmd.InOrStdin(), against)
			if err != nil {
				return err
			}
			printMissing(cmd, append(before.Missing, after.Missing...))
			differences := query.Diff(query.New(before.Complete()), query.New(after.Complete()))
			if err := printDifferences(cmd.OutOrStdout(), o.output, differences); err != nil {
				return err
			}
			if slices.ContainsFunc(differences, refused) {
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&against, "against", live, "what there was before: live, or a directory or file")
	cmd.Flags().StringVar(&fail, "fail-on", "none", "the differences that make the exit status 1: none, opened, closed or any")
	return cmd
}

// states are the objects before the change and after it.
func (o *options) states(ctx context.Context, stdin io.Reader, against string) (before, after source.Gathered, err error) {
	after, err = o.fromFiles(o.files, stdin)
	if err != nil {
		return before, after, err
	}
	if against != live {
		before, err = o.fromFiles([]string{against}, stdin)
		return before, after, err
	}
	before, err = o.cluster(ctx)
	after.Objects = before.Objects.Over(after.Objects)
	return before, after, err
}

// printDifferences prints what a change opens and closes.
func printDifferences(out io.Writer, output string, all []query.Difference) error {
	switch output {
	case "text":
		if len(all) == 0 {
			_, err := fmt.Fprintln(out, "The change opens and closes nothing.")
			return err
		}
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "CHANGE\tFROM\tTO\tPORTS\tBECAUSE OF")
		for _, d := range all {
			for _, row := range rowsOf(d) {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", row.change, d.From, d.To, row.ports, because(d.By))
			}
		}
		return t.Flush()
	case "markdown":
		if len(all) == 0 {
			_, err := fmt.Fprintln(out, "The change opens and closes no connection.")
			return err
		}
		fmt.Fprint(out, "| change | from | to | ports | because of |\n| --- | --- | --- | --- | --- |\n")
		for _, d := range all {
			for _, row := range rowsOf(d) {
				fmt.Fprintf(out, "| %s | `%s` | `%s` | %s | %s |\n", row.change, d.From, d.To, row.ports, because(d.By))
			}
		}
		return nil
	}
	_, err := encode.Value(out, output, all)
	return err
}

type differenceRow struct{ change, ports string }

func rowsOf(d query.Difference) []differenceRow {
	var rows []differenceRow
	if len(d.Opened) > 0 {
		rows = append(rows, differenceRow{"opens", query.PortsText(d.Opened)})
	}
	if len(d.Closed) > 0 {
		rows = append(rows, differenceRow{"closes", query.PortsText(d.Closed)})
	}
	return rows
}
