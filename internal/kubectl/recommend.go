package kubectl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/internal/encode"
	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/internal/source"
)

// recommendOptions are the flags of 'recommend'.
type recommendOptions struct {
	*options
	since time.Duration
}

func newRecommendCommand(o *options) *cobra.Command {
	r := &recommendOptions{options: o}
	cmd := &cobra.Command{
		Use:   "recommend",
		Short: "Write policies that allow what was seen",
		Long: `Write NetworkPolicies in mode Audit for a namespace, which allow the connections that were seen, and deny all
others once they are enforced. They are printed as YAML, for 'kubectl apply'. What was not seen stands at the
top, in comments: look at it first.

The namespace has to ask for a report of the connections that are allowed, and then be used for a while:
  kubectl annotate namespace NAMESPACE ` + v1alpha1.ConnectionsAnnotation + `=` + v1alpha1.ConnectionsAll + `

Each workload gets one policy, with the fewest labels that tell its pods from others. Policies that there are
stay: what they allow needs no rule, and what they deny stays denied. With --filename, the ConnectionReport is
read from the files too, and --since counts from when the last connection in it was seen.

The exit status is 0 if the policies allow all that was seen, 1 if they may lack something, and 2 if there is no
answer.`,
		Example: `  kubectl ringfence recommend -n shop > policies.yaml
  kubectl ringfence recommend -n shop --since 1h -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	cmd.Flags().DurationVar(&r.since, "since", 24*time.Hour, "leave out what was seen last longer ago than this; 0 leaves nothing out")
	return cmd
}

func (r *recommendOptions) run(cmd *cobra.Command) error {
	if err := r.checkOutput(outputs); err != nil {
		return err
	}
	if r.since < 0 {
		return fmt.Errorf("--since %s is no time ago: write one such as 24h", r.since)
	}
	namespace, err := r.namespace()
	if err != nil {
		return err
	}
	read := r.fromCluster
	if len(r.files) > 0 {
		read = r.fromReportFiles
	}
	gathered, observed, err := read(cmd, namespace)
	if err != nil {
		return err
	}
	printMissing(cmd, gathered.Missing)
	if !slices.ContainsFunc(gathered.Pods, query.IsSubject(namespace)) {
		return fmt.Errorf("no pod of namespace %s is known that a NetworkPolicy can be about: list them by kubectl get pods -n %s", namespace, namespace)
	}
	answer := query.New(gathered.Complete()).Recommend(observed)
	if err := printRecommendation(cmd.OutOrStdout(), r.output, namespace, answer); err != nil {
		return err
	}
	if answer.Lacking {
		return errNo
	}
	return nil
}

// fromCluster reads the report, and the objects of all namespaces, or if the caller may not, of those that the report names.
func (r *recommendOptions) fromCluster(cmd *cobra.Command, namespace string) (source.Gathered, query.Observed, error) {
	c, err := r.client()
	if err != nil {
		return source.Gathered{}, query.Observed{}, err
	}
	report, err := readReport(cmd.Context(), c, namespace)
	if err != nil {
		return source.Gathered{}, query.Observed{}, err
	}
	gathered, err := source.Live(cmd.Context(), c)
	if err == nil && len(gathered.Unlisted) > 0 {
		gathered, err = source.Live(cmd.Context(), c, namespacesNamedBy(report)...)
	}
	unlisted := map[string]bool{}
	for _, n := range gathered.Unlisted {
		unlisted[n] = true
	}
	return gathered, r.observed(report, time.Now(), unlisted), err
}

// readReport reads the ConnectionReport of a namespace. That there is none is an error that says what to do.
func readReport(ctx context.Context, c client.Reader, namespace string) (*v1alpha1.ConnectionReport, error) {
	report := &v1alpha1.ConnectionReport{}
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha1.ConnectionReportName}, report)
	if apierrors.IsNotFound(err) {
		return nil, noReport(namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the ConnectionReport %s/%s: %w", namespace, v1alpha1.ConnectionReportName, err)
	}
	return report, nil
}

func noReport(namespace string) error {
	return fmt.Errorf("there is no ConnectionReport in namespace %s: have one written by kubectl annotate --overwrite namespace %s %s=%s, "+
		"and ask again once its pods have done what they do", namespace, namespace, v1alpha1.ConnectionsAnnotation, v1alpha1.ConnectionsAll)
}

// namespacesNamedBy are the namespaces that a report names, its own among them.
func namespacesNamedBy(report *v1alpha1.ConnectionReport) []string {
	names := []string{report.Namespace}
	for _, o := range report.Status.Connections {
		for _, n := range []string{o.From.Namespace, o.To.Namespace} {
			if len(validation.IsDNS1123Label(n)) == 0 && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

// fromReportFiles reads files, the report among them. Of a namespace without pods there it is not known whether it has any.
func (r *recommendOptions) fromReportFiles(cmd *cobra.Command, namespace string) (source.Gathered, query.Observed, error) {
	gathered, err := r.fromFiles(r.files, cmd.InOrStdin())
	if err != nil {
		return gathered, query.Observed{}, err
	}
	at := slices.IndexFunc(gathered.Reports, func(o *v1alpha1.ConnectionReport) bool { return o.Namespace == namespace })
	if at < 0 {
		printMissing(cmd, gathered.Missing)
		return gathered, query.Observed{}, fmt.Errorf("no file has a ConnectionReport of namespace %s: write one by "+
			"kubectl -n %s get connectionreport %s -o yaml, or name another by --namespace", namespace, namespace, v1alpha1.ConnectionReportName)
	}
	report := gathered.Reports[at]
	var last time.Time
	for _, o := range report.Status.Connections {
		if o.LastTime.After(last) {
			last = o.LastTime.Time
		}
	}
	unlisted := map[string]bool{}
	for _, n := range namespacesNamedBy(report)[1:] {
		unlisted[n] = true
	}
	for _, p := range gathered.Pods {
		delete(unlisted, p.Namespace)
	}
	observed := r.observed(report, last, unlisted)
	observed.Invented = gathered.Invented
	return gathered, observed, nil
}

func (r *recommendOptions) observed(report *v1alpha1.ConnectionReport, until time.Time, unlisted map[string]bool) query.Observed {
	o := query.Observed{Namespace: report.Namespace, Report: report.Status, Until: until, Unlisted: unlisted}
	if r.since > 0 {
		o.Since = until.Add(-r.since)
	}
	return o
}

// recommended is a recommendation as programs read it.
type recommended struct {
	Notes    []string         `json:"notes"`
	Lacking  bool             `json:"lacking"`
	Policies []map[string]any `json:"policies"`
}

func printRecommendation(out io.Writer, form, namespace string, r query.Recommendation) error {
	if form == "json" {
		answer := recommended{r.Notes, r.Lacking, []map[string]any{}}
		for _, p := range r.Policies {
			fields, err := plain(p)
			if err != nil {
				return err
			}
			answer.Policies = append(answer.Policies, fields)
		}
		_, err := encode.Value(out, form, answer)
		return err
	}
	text := comment("", "NetworkPolicies for namespace "+namespace+", in mode Audit: they deny nothing until they are enforced.")
	var objects []metav1.Object
	for _, p := range r.Policies {
		objects = append(objects, p)
		if p.Annotations[v1alpha1.ModeAnnotation] != string(v1alpha1.Audit) {
			text += comment("", p.Name+" exists, and keeps its mode.")
		}
	}
	text += "#\n"
	for _, note := range r.Notes {
		text += comment("- ", note)
	}
	if len(objects) == 0 {
		text += "#\n" + comment("", "No policy is needed: those that there are allow all that was seen, and isolate each workload.")
	}
	manifests, err := manifest(objects)
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text+manifests)
	return err
}

// commentWidth is how long lines of comments are.
const commentWidth = 100

// comment is a text as lines of a comment, the first of which begins with a mark. Names in reports are what nodes say: nothing in them ends the comment.
func comment(mark, text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	var lines []string
	line := "# " + mark
	for i, word := range words {
		if i > 0 && len(line)+len(word) > commentWidth {
			lines, line = append(lines, strings.TrimRight(line, " ")), "# "+strings.Repeat(" ", len(mark))
		}
		line += word + " "
	}
	return strings.Join(append(lines, strings.TrimRight(line, " ")), "\n") + "\n"
}
