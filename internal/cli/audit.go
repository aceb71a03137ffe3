package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/internal/encode"
)

func newAuditCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what policies in mode Audit would deny on this node, and what logged rules have denied",
		Long: `Show how many packets the policies in mode Audit would have denied on this node, and how many packets
the logged rules have denied. Counting starts when the enforcer writes a rule, which is when the
policy reaches this node.

Run it as root in the node's network namespace. It reads the node's netfilter and needs neither the
API server nor the enforcer. It has no counts for policies that are neither in mode Audit nor logged.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			counts, enforced, err := dataplane.Counted(cmd.Context(), iptables.Layout(layout), logr.Discard())
			if err != nil {
				err = fmt.Errorf("reading the counters: %w", err)
			}
			if err != nil && len(counts) == 0 {
				return err
			}
			return errors.Join(printAudit(cmd.OutOrStdout(), auditRows(counts), enforced, output), err)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", outputUsage)
	return cmd
}

// auditRow is what one place in the rules has counted, in both families.
type auditRow struct {
	ID        string `json:"id"`
	Object    string `json:"object"` // "Kind namespace/name"
	Direction string `json:"direction"`
	Rule      *int   `json:"rule,omitempty"` // of the object; none where no rule of it matched
	Audit     bool   `json:"audit"`          // the packets were not denied, they only would have been
	Packets   uint64 `json:"packets"`
}

// auditRows adds up the families, and sorts: most packets first.
func auditRows(counts []dataplane.Count) []auditRow {
	type place struct {
		id        string
		direction policy.Direction
		audit     bool
	}
	byPlace := map[place]auditRow{}
	for _, c := range counts {
		at := place{c.Point.ID, c.Point.Direction, c.Point.Audit}
		row, ok := byPlace[at]
		if !ok {
			row = auditRow{ID: c.Point.ID, Direction: c.Point.Direction.String(), Audit: c.Point.Audit}
			row.Object, row.Rule = iptables.ObjectOfComment(c.Comment)
		}
		row.Packets += c.Packets
		byPlace[at] = row
	}
	rows := []auditRow{} // "[]" in JSON, not "null"
	for _, row := range byPlace {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b auditRow) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(a.ID, b.ID))
	})
	return rows
}

func printAudit(w io.Writer, rows []auditRow, enforced bool, output string) error {
	if printed, err := encode.Value(w, output, rows); printed {
		return err
	}
	if len(rows) > 0 {
		if err := printAuditTable(w, rows); err != nil {
			return err
		}
	}
	var err error
	switch {
	case !enforced:
		_, err = fmt.Fprintln(w, "There are no rules of Ringfence on this node: no enforcer has run here, or they were removed.")
	case len(rows) == 0:
		_, err = fmt.Fprintln(w, "Nothing is in audit mode on this node, and nothing that is denied is logged: there are no counts.")
	case !slices.ContainsFunc(rows, func(r auditRow) bool { return r.Audit }):
		_, err = fmt.Fprintln(w, "\nNothing is in audit mode on this node.")
	}
	return err
}

// printAuditTable prints the rows, in packets.
func printAuditTable(w io.Writer, rows []auditRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "OBJECT\tDIRECTION\tWOULD DENY\tDENIED")
	for _, r := range rows {
		direction, wouldDeny, denied := r.Direction, "-", strconv.FormatUint(r.Packets, 10)
		if r.Rule != nil {
			direction += fmt.Sprintf("[%d]", *r.Rule)
		}
		if r.Audit {
			wouldDeny, denied = denied, wouldDeny
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Object, direction, wouldDeny, denied)
	}
	return t.Flush()
}
