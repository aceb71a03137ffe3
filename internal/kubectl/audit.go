package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/internal/encode"
	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/internal/source"
)

// audited is a policy in mode Audit, and what is known of what it would deny.
type audited struct {
	Policy string `json:"policy"`
	// Counted is set if what it would deny is counted, as far as the caller may read.
	Counted bool `json:"counted"`
	// Packets it would have denied since Since, the last of them at Last.
	Packets int64        `json:"packets"`
	Since   *metav1.Time `json:"since,omitempty"`
	Last    *metav1.Time `json:"last,omitempty"`
}

func newAuditCommand(o *options) *cobra.Command {
	var all bool
	var clean time.Duration
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List the policies in mode Audit, and what they would deny",
		Long: `List the policies in mode Audit, and how many packets they would deny if they were enforced. A policy is
clean once it would have denied nothing for a while: it can be enforced then.

Of NetworkPolicies the ConnectionReport of their namespace tells. Policies of the whole cluster are listed with
--all-namespaces; the NodeConnections tell of them, which administrators alone may read.

The exit status is 0 if all policies that are listed are clean, 1 if not, and 2 if there is no answer.`,
		Example: `  kubectl ringfence audit -n shop
  kubectl ringfence audit -A --clean-after 24h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.audit(cmd, all, clean) },
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces, and of the whole cluster")
	cmd.Flags().DurationVar(&clean, "clean-after", time.Hour, "for how long a policy has to have denied nothing to be clean")
	return cmd
}

func (o *options) audit(cmd *cobra.Command, all bool, clean time.Duration) error {
	if err := o.checkOutput(outputs); err != nil {
		return err
	}
	if len(o.files) > 0 {
		return errors.New("files do not say what policies would deny: leave --filename out")
	}
	namespace, err := o.readNamespace(all)
	if err != nil {
		return err
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	gathered, err := source.Live(cmd.Context(), c, namespacesIn(namespace)...)
	if err != nil {
		return err
	}
	printMissing(cmd, gathered.Missing)
	books, err := readBooks(cmd.Context(), c, namespace)
	if err != nil {
		return err
	}
	list := books.audited(query.AuditedIn(gathered.Objects, all))
	now := time.Now()
	printed, err := encode.Value(cmd.OutOrStdout(), o.output, list)
	if !printed && err == nil {
		err = printAudited(cmd.OutOrStdout(), list, now, clean)
	}
	if err == nil && slices.ContainsFunc(list, func(a audited) bool { return !a.isClean(now, clean) }) {
		err = errNo
	}
	return err
}

// namespacesIn are those to read for one, or none, which means all, for the empty name.
func namespacesIn(namespace string) []string {
	if namespace == "" {
		return nil
	}
	return []string{namespace}
}

// books are what was counted, by the namespace of the policies; those of the whole cluster are under the empty name.
type books map[string]*book

type book struct {
	since  *metav1.Time
	counts []v1alpha1.ConnectionCount
}

// readBooks reads the reports of a namespace. With the empty name it reads those of all, and if the caller may, what the nodes have counted: that tells of the
// policies of the whole cluster, and of namespaces without a report.
func readBooks(ctx context.Context, c client.Reader, namespace string) (books, error) {
	all := books{}
	if namespace == "" {
		var nodes v1alpha1.NodeConnectionsList
		if err := c.List(ctx, &nodes); err != nil && !apierrors.IsForbidden(err) {
			return nil, fmt.Errorf("reading NodeConnections: %w", err)
		}
		for _, n := range nodes.Items {
			all.add(&n.Status)
		}
	}
	var reports v1alpha1.ConnectionReportList
	if err := c.List(ctx, &reports, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("reading ConnectionReports: %w", err)
	}
	for _, r := range reports.Items {
		all[r.Namespace] = &book{cmp.Or(r.Status.Since, &r.CreationTimestamp), r.Status.Counts}
	}
	return all, nil
}

// add adds what a node has counted.
func (b books) add(n *v1alpha1.NodeConnectionsStatus) {
	for _, c := range n.Counts {
		of := b[c.Namespace]
		if of == nil {
			of = &book{}
			b[c.Namespace] = of
		}
		if of.since == nil || n.Since.Before(of.since) {
			of.since = &n.Since
		}
		of.counts = append(of.counts, c)
	}
}

// audited is what is known of some policies.
func (b books) audited(policies []query.AuditedPolicy) []audited {
	list := []audited{}
	for _, p := range policies {
		one := audited{Policy: p.Name}
		if book := b[p.Namespace]; book != nil {
			one.Counted, one.Since = true, book.since
			for _, c := range book.counts {
				if c.Verdict != v1alpha1.ConnectionWouldDeny || c.Policy != p.Name {
					continue
				}
				one.Packets += c.Packets
				if last := c.LastTime; one.Last == nil || one.Last.Before(&last) {
					one.Last = &last
				}
			}
		}
		list = append(list, one)
	}
	return list
}

// isClean reports whether a policy would have denied nothing for a while.
func (a audited) isClean(now time.Time, after time.Duration) bool {
	quiet := cmp.Or(a.Last, a.Since)
	return a.Counted && quiet != nil && now.Sub(quiet.Time) >= after
}

func printAudited(out io.Writer, list []audited, now time.Time, clean time.Duration) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "No policy is in mode Audit.")
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tWOULD DENY\tLAST\tCOUNTED FOR\tCLEAN")
	uncounted := false
	for _, a := range list {
		packets, last, since, state := fmt.Sprint(a.Packets), "never", "-", "no"
		if a.Last != nil {
			last = ago(now, a.Last.Time)
		}
		if a.Since != nil {
			since = ago(now, a.Since.Time)
		}
		switch {
		case !a.Counted:
			packets, last, state, uncounted = "?", "?", "not known", true
		case a.isClean(now, clean):
			state = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", a.Policy, packets, last, since, state)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nClean is what would have denied nothing for %s.\n", duration.HumanDuration(clean))
	if uncounted {
		fmt.Fprintf(out, "What is not known is counted once its namespace asks for it: kubectl annotate namespace NAMESPACE %s=%s\n",
			v1alpha1.ConnectionsAnnotation, v1alpha1.ConnectionsDenied)
	}
	return nil
}
