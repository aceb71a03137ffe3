package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/internal/encode"
)

// seen is a connection as it is printed.
type seen struct {
	// Report is the namespace whose ConnectionReport has it.
	Report                      string `json:"report"`
	v1alpha1.ReportedConnection `json:",inline"`
}

// deniedAnswer is what was denied.
type deniedAnswer struct {
	Connections []seen `json:"connections"`
	// Counts are all packets, whether they were seen or not.
	Counts []v1alpha1.ConnectionCount `json:"counts,omitempty"`
	// Rest is what was seen, and is not listed any more.
	Rest v1alpha1.ConnectionRest `json:"rest"`
}

// deniedOptions are the flags of 'denied'.
type deniedOptions struct {
	*options
	all    bool
	follow bool
	since  time.Duration
}

func newDeniedCommand(o *options) *cobra.Command {
	d := &deniedOptions{options: o}
	cmd := &cobra.Command{
		Use:   "denied",
		Short: "List the connections that were denied, or would be",
		Long: `List the connections that were denied, and those that policies in mode Audit would deny, with the pods at
both ends and the policy. They are read from the ConnectionReports of namespaces, so that whoever may view a
namespace may ask about it.

A namespace has a report once it asks for one:
  kubectl annotate namespace NAMESPACE ` + v1alpha1.ConnectionsAnnotation + `=` + v1alpha1.ConnectionsDenied + `

Few packets are looked at where many are denied: PACKETS is how many were seen of a connection. All packets
are counted by the policy that denied them, which is printed below.

The exit status is 0 if nothing is listed, 1 if something is, and 2 if there is no answer.`,
		Example: `  kubectl ringfence denied -n shop --since 10m
  kubectl ringfence denied -A --follow`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd) },
	}
	cmd.Flags().BoolVarP(&d.all, "all-namespaces", "A", false, "of all namespaces")
	cmd.Flags().BoolVar(&d.follow, "follow", false, "go on, and print what comes")
	cmd.Flags().DurationVar(&d.since, "since", 0, "leave out what was seen last longer ago than this; 0 leaves nothing out")
	return cmd
}

func (d *deniedOptions) run(cmd *cobra.Command) error {
	if err := d.checkOutput(outputs); err != nil {
		return err
	}
	if len(d.files) > 0 {
		return fmt.Errorf("files do not say what was denied: leave --filename out")
	}
	if d.follow && d.output != "text" {
		return fmt.Errorf("--follow prints text alone: leave --output out")
	}
	namespace, err := d.readNamespace(d.all)
	if err != nil {
		return err
	}
	c, err := d.client()
	if err != nil {
		return err
	}
	reports, err := listReports(cmd.Context(), c, namespace)
	if err != nil {
		return err
	}
	if d.follow {
		return d.goOn(cmd.Context(), cmd.OutOrStdout(), c, namespace)
	}
	answer := deniedIn(reports, d.from(time.Now()))
	if printed, err := encode.Value(cmd.OutOrStdout(), d.output, answer); err != nil {
		return err
	} else if !printed {
		if err := answer.print(cmd.OutOrStdout(), time.Now()); err != nil {
			return err
		}
	}
	if len(answer.Connections) > 0 {
		return errNo
	}
	return nil
}

// from is the time from which on connections are listed.
func (d *deniedOptions) from(now time.Time) time.Time {
	if d.since == 0 {
		return time.Time{}
	}
	return now.Add(-d.since)
}

// listReports reads the ConnectionReports of a namespace, or of all with the empty name. That there is none is an error that says what to do.
func listReports(ctx context.Context, c client.Reader, namespace string) ([]v1alpha1.ConnectionReport, error) {
	var list v1alpha1.ConnectionReportList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("reading ConnectionReports: %w", err)
	}
	if len(list.Items) == 0 {
		where, one := "namespace "+namespace, namespace
		if namespace == "" {
			where, one = "any namespace", "NAMESPACE"
		}
		return nil, fmt.Errorf("there is no ConnectionReport in %s: have one written by kubectl annotate namespace %s %s=%s, "+
			"and ask again once something was denied", where, one, v1alpha1.ConnectionsAnnotation, v1alpha1.ConnectionsDenied)
	}
	return list.Items, nil
}

// deniedIn is what some reports have that was seen since a time. What stands in the reports of both ends' namespaces is listed once, as the one has it whose
// policy decided.
func deniedIn(reports []v1alpha1.ConnectionReport, from time.Time) deniedAnswer {
	answer := deniedAnswer{Connections: []seen{}}
	own := map[string]bool{}
	for _, r := range reports {
		own[r.Namespace] = true
	}
	for _, r := range reports {
		for _, c := range r.Status.Connections {
			local, _ := c.Ends()
			if c.Verdict == v1alpha1.ConnectionAllowed || c.LastTime.Time.Before(from) || local.Namespace != r.Namespace && own[local.Namespace] {
				continue
			}
			answer.Connections = append(answer.Connections, seen{r.Namespace, c})
		}
		answer.Counts = append(answer.Counts, r.Status.Counts...)
		answer.Rest.Connections += r.Status.Rest.Connections
		answer.Rest.Packets += r.Status.Rest.Packets
	}
	slices.SortStableFunc(answer.Connections, func(a, b seen) int {
		return cmp.Or(v1alpha1.CompareConnections(a.ObservedConnection, b.ObservedConnection), cmp.Compare(a.Report, b.Report))
	})
	slices.SortFunc(answer.Counts, v1alpha1.CompareCounts)
	return answer
}

func (a deniedAnswer) print(out io.Writer, now time.Time) error {
	if len(a.Connections) == 0 {
		fmt.Fprintln(out, "No connection is listed that was denied.")
	} else {
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "LAST\tFROM\tTO\tPORT\tVERDICT\tBY\tPACKETS\tFIRST")
		for _, c := range a.Connections {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", ago(now, c.LastTime.Time), endText(c.From), endText(c.To), portOf(c), verdictName(c.Verdict),
				byText(c), c.Packets, ago(now, c.FirstTime.Time))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if a.Rest.Connections > 0 {
		fmt.Fprintf(out, "\n%d more connections of %d packets were seen, and are not listed any more.\n", a.Rest.Connections, a.Rest.Packets)
	}
	if len(a.Counts) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ALL PACKETS\tVERDICT\tBY")
	for _, c := range a.Counts {
		fmt.Fprintf(t, "%d\t%s\t%s %s\n", c.Packets, verdictName(c.Verdict), c.Policy, strings.ToLower(string(c.Direction)))
	}
	return t.Flush()
}

// ago is how long ago a time was.
func ago(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(now.Sub(then), 0))
}

// endText is an end: its workload, or its address if it is no pod's.
func endText(e v1alpha1.ConnectionEnd) string {
	switch {
	case e.Workload == "":
		return cmp.Or(e.Address, "-")
	case e.Workload == e.Pod || e.Pod == "":
		return e.Namespace + "/" + e.Workload
	}
	return fmt.Sprintf("%s/%s (%s)", e.Namespace, e.Workload, e.Pod)
}

func portOf(c seen) string {
	if c.Port == 0 {
		return strings.ToLower(c.Protocol)
	}
	return fmt.Sprintf("%s/%d", strings.ToLower(c.Protocol), c.Port)
}

func verdictName(v v1alpha1.ConnectionVerdict) string {
	if v == v1alpha1.ConnectionWouldDeny {
		return "would deny"
	}
	return "DENIED"
}

// byText is the policy that decided, its direction, and the rule if it is one.
func byText(c seen) string {
	text := c.Policy + " " + strings.ToLower(string(c.Direction))
	if c.Rule != nil {
		text += fmt.Sprintf("[%d]", *c.Rule)
	}
	return text
}

// goOn prints each connection when it is seen, again when it is seen again, until ctx ends.
func (d *deniedOptions) goOn(ctx context.Context, out io.Writer, c client.WithWatch, namespace string) error {
	printed := map[string]time.Time{}
	from := d.from(time.Now())
	for ctx.Err() == nil {
		var list v1alpha1.ConnectionReportList
		if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return fmt.Errorf("reading ConnectionReports: %w", err)
		}
		for i := range list.Items {
			printNew(out, printed, &list.Items[i], from)
		}
		since := &client.ListOptions{Namespace: namespace, Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}}
		w, err := c.Watch(ctx, &v1alpha1.ConnectionReportList{}, since)
		if err != nil {
			return fmt.Errorf("watching ConnectionReports: %w", err)
		}
		stop := context.AfterFunc(ctx, w.Stop)
		for event := range w.ResultChan() {
			if r, ok := event.Object.(*v1alpha1.ConnectionReport); ok && event.Type != watch.Deleted {
				printNew(out, printed, r, from)
			}
		}
		stop()
	}
	return nil
}

// printNew prints a line for each connection that was seen since it was printed.
func printNew(out io.Writer, printed map[string]time.Time, r *v1alpha1.ConnectionReport, from time.Time) {
	for _, c := range slices.Backward(r.Status.Connections) {
		one := seen{r.Namespace, c}
		key := strings.Join([]string{r.Namespace, endText(c.From), endText(c.To), portOf(one), byText(one), string(c.Verdict)}, "\x00")
		if !c.LastTime.After(printed[key]) || c.LastTime.Time.Before(from) {
			continue
		}
		printed[key] = c.LastTime.Time
		fmt.Fprintf(out, "%s  %s  %s to %s  %s  by %s  %d packets\n",
			c.LastTime.UTC().Format(time.RFC3339), verdictName(one.Verdict), endText(c.From), endText(c.To), portOf(one), byText(one), c.Packets)
	}
}
