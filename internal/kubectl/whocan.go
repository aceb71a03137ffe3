package kubectl

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/internal/encode"
	"github.com/ringfence-io/ringfence/internal/query"
)

// tableOutputs are the forms of a table.
var tableOutputs = append([]string{"csv"}, outputs...)

func newWhoCanCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "who-can",
		Short: "List who can reach a workload, or whom it can reach",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newDirectionCommand(o, "reach TO", "List who can reach a workload, at which ports, and because of which rules",
			func(s *query.Selection) *takes { return &s.To }),
		newDirectionCommand(o, "be-reached-by FROM", "List whom a workload can reach, at which ports, and because of which rules",
			func(s *query.Selection) *takes { return &s.From }),
	)
	return cmd
}

// takes is how a selection takes workloads.
type takes = func(namespace, workload string) bool

// newDirectionCommand is a command about a workload, whose end of the connections is the one that a selection is restricted at.
func newDirectionCommand(o *options, use, short string, end func(*query.Selection) *takes) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Long: short + `.

The workload is NAMESPACE/POD, NAMESPACE/deploy/NAME and likewise, or NAMESPACE/svc/NAME, as 'why' reads it.
Addresses outside of the cluster are listed by the blocks that policies tell apart. A row says "partly" if
not every pod is meant, or not each family of addresses.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := o.ask(cmd, tableOutputs, everywhere)
			if err != nil {
				return err
			}
			ends, err := q.Ends(args[0], q.namespace)
			if err != nil {
				return err
			}
			if ends[0].Pod == nil {
				return fmt.Errorf("%s is no pod, and policies are about pods: ask about the pods at the other end", args[0])
			}
			s := query.Selection{Outside: true}
			*end(&s) = query.IsOneOf(ends)
			return printEdges(cmd.OutOrStdout(), o.output, q.Edges(s))
		},
	}
}

// printEdges prints a table of what may be reached from where.
func printEdges(out io.Writer, output string, edges []query.Edge) error {
	switch output {
	case "text":
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "FROM\tTO\tPORTS\tBECAUSE OF")
		for _, e := range edges {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", e.From, e.To, portsOf(e), because(e.By))
		}
		return t.Flush()
	case "csv":
		w := csv.NewWriter(out)
		rows := [][]string{{"from", "to", "ports", "partly", "because of"}}
		for _, e := range edges {
			rows = append(rows, []string{e.From, e.To, query.PortsText(e.Ports), fmt.Sprint(e.Partly), because(e.By)})
		}
		return w.WriteAll(rows)
	}
	_, err := encode.Value(out, output, edges)
	return err
}

func portsOf(e query.Edge) string {
	if e.Partly {
		return query.PortsText(e.Ports) + " (partly)"
	}
	return query.PortsText(e.Ports)
}

func because(by []string) string {
	if len(by) == 0 {
		return "no policy"
	}
	return strings.Join(by, "; ")
}
