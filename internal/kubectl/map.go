package kubectl

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/internal/query"
)

// mapOutputs are the forms of the picture.
var mapOutputs = []string{"text", "json", "yaml", "csv", "mermaid", "dot"}

func newMapCommand(o *options) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "map [-n NAMESPACE | -A]",
		Short: "Draw which workloads may reach which",
		Long: `Draw which workloads of a namespace, or of all, may reach which, and what they may reach and be reached by
elsewhere. Mermaid and DOT are for pictures, the other forms are tables.`,
		Example: `  kubectl ringfence map -n shop -o mermaid
  kubectl ringfence map -f config/samples -A -o dot | dot -Tsvg > map.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := o.ask(cmd, mapOutputs, everywhere)
			if err != nil {
				return err
			}
			s := query.Selection{Outside: true}
			if !all {
				s.Either = query.InNamespace(q.namespace)
			}
			edges := q.Edges(s)
			switch o.output {
			case "mermaid":
				return printMermaid(cmd.OutOrStdout(), edges)
			case "dot":
				return printDOT(cmd.OutOrStdout(), edges)
			}
			return printEdges(cmd.OutOrStdout(), o.output, edges)
		},
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "draw all namespaces")
	return cmd
}

// drawing are the nodes of a picture by namespace, each with what it is called in the text of the picture.
type drawing struct {
	namespaces []string // sorted; the empty one has addresses outside of the cluster
	nodes      map[string][]string
	ids        map[string]string
}

func drawingOf(edges []query.Edge) drawing {
	d := drawing{nodes: map[string][]string{}, ids: map[string]string{}}
	for _, e := range edges {
		for _, node := range []string{e.From, e.To} {
			if d.ids[node] != "" {
				continue
			}
			d.ids[node] = fmt.Sprintf("n%d", len(d.ids))
			namespace := namespaceOfNode(node)
			if d.nodes[namespace] == nil {
				d.namespaces = append(d.namespaces, namespace)
			}
			d.nodes[namespace] = append(d.nodes[namespace], node)
		}
	}
	slices.Sort(d.namespaces)
	return d
}

// namespaceOfNode is the namespace of a workload, empty of a block of addresses.
func namespaceOfNode(node string) string {
	namespace, _, _ := strings.Cut(node, "/")
	if strings.ContainsAny(namespace, ".:") {
		return ""
	}
	return namespace
}

func (d drawing) title(namespace string) string {
	if namespace == "" {
		return "outside"
	}
	return namespace
}

// label is what stands on a node: within its namespace, that need not be said again.
func label(node string) string {
	if namespace := namespaceOfNode(node); namespace != "" {
		return strings.TrimPrefix(node, namespace+"/")
	}
	return node
}

func printMermaid(out io.Writer, edges []query.Edge) error {
	d := drawingOf(edges)
	fmt.Fprintln(out, "flowchart LR")
	for i, namespace := range d.namespaces {
		fmt.Fprintf(out, "  subgraph s%d[%q]\n", i, d.title(namespace))
		for _, node := range d.nodes[namespace] {
			fmt.Fprintf(out, "    %s[%q]\n", d.ids[node], label(node))
		}
		fmt.Fprintln(out, "  end")
	}
	for _, e := range edges {
		if _, err := fmt.Fprintf(out, "  %s -->|%q| %s\n", d.ids[e.From], portsOf(e), d.ids[e.To]); err != nil {
			return err
		}
	}
	return nil
}

func printDOT(out io.Writer, edges []query.Edge) error {
	d := drawingOf(edges)
	fmt.Fprintln(out, "digraph policy {\n  rankdir=LR;\n  node [shape=box];")
	for i, namespace := range d.namespaces {
		fmt.Fprintf(out, "  subgraph cluster_%d {\n    label=%q;\n", i, d.title(namespace))
		for _, node := range d.nodes[namespace] {
			fmt.Fprintf(out, "    %s [label=%q];\n", d.ids[node], label(node))
		}
		fmt.Fprintln(out, "  }")
	}
	for _, e := range edges {
		fmt.Fprintf(out, "  %s -> %s [label=%q];\n", d.ids[e.From], d.ids[e.To], portsOf(e))
	}
	_, err := fmt.Fprintln(out, "}")
	return err
}
