package kubectl

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/internal/encode"
	"github.com/ringfence-io/ringfence/internal/query"
)

const outside = query.Outside

func newWhyCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "why FROM TO[:PORT][/PROTOCOL]",
		Short: "Say whether a connection is allowed, and who decides that",
		Long: `Say whether a connection is allowed, at which end and by which policy and rule that is decided, what else
would deny it, and what to apply so that it is allowed. Without a PORT, say which ports are allowed.

FROM and TO are each one of
  NAMESPACE/POD, or POD in the namespace of --namespace
  NAMESPACE/deploy/NAME, and likewise sts, ds, rs, job, cronjob: each pod of it; NAMESPACE/NAME does too
  NAMESPACE/svc/NAME: each pod behind it. PORT is then the Service's
  node/NAME
  an address; an IPv6 address in brackets where a PORT follows
  outside: an address that nobody in the cluster has, and that no policy names

PORT is a number, or the name of a container's port. PROTOCOL is tcp unless it is udp, sctp or icmp.

The exit status is 0 if the connection is allowed, 1 if it is denied, and 2 if there is no answer.`,
		Example: `  kubectl ringfence why shop/frontend shop/database:5432
  kubectl ringfence why outside shop/svc/frontend:80
  kubectl ringfence why -f config/samples shop/backend 203.0.113.9:443/tcp -o json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.why(cmd, args[0], args[1])
		},
	}
}

// explanation is an answer with what is to be known besides.
type explanation struct {
	query.Answer
	// NotProgrammed are policies that apply, and that not all nodes enforce yet.
	NotProgrammed map[string]string `json:"notProgrammed,omitempty"`
	// Change is what to apply so that the connection is allowed; NoChange says why there is none.
	Change   []map[string]any `json:"change,omitempty"`
	Notes    []string         `json:"notes,omitempty"`
	NoChange string           `json:"noChange,omitempty"`

	manifest string
}

// whyAnswer is all that is said of a question: an explanation for each pair of pods that the names stand for, or what is said of all ports.
type whyAnswer struct {
	Allowed      bool          `json:"allowed"`
	Explanations []explanation `json:"explanations,omitempty"`
	Ports        []portsAnswer `json:"ports,omitempty"`
	// NotRead says what the answer does not know.
	NotRead []string `json:"notRead,omitempty"`
}

// portsAnswer says of a pair of ends which ports are allowed.
type portsAnswer struct {
	From  string               `json:"from"`
	To    string               `json:"to"`
	Ports []query.PortsVerdict `json:"ports"`
}

func (o *options) why(cmd *cobra.Command, fromText, toText string) error {
	to, err := parseTarget(toText)
	if err != nil {
		return err
	}
	q, err := o.ask(cmd, outputs, func(namespace string) []string { return namespacesOf(namespace, fromText, to.end) })
	if err != nil {
		return err
	}
	from, err := q.Ends(fromText, q.namespace)
	if err != nil {
		return fmt.Errorf("FROM: %w", err)
	}
	targets, err := q.Targets(to.end, q.namespace, to.port, to.protocol)
	if err != nil {
		return fmt.Errorf("TO: %w", err)
	}
	answer, err := q.explain(from, targets)
	if err != nil {
		return err
	}
	printed, err := encode.Value(cmd.OutOrStdout(), o.output, answer)
	if !printed {
		err = answer.print(cmd.OutOrStdout())
	}
	if err == nil && !answer.Allowed {
		err = errNo
	}
	return err
}

// namespacesOf are those that two ends are in: nothing of others decides about them. They are none, which means all, where an end may be anywhere.
func namespacesOf(namespace string, ends ...string) []string {
	var all []string
	for _, end := range ends {
		if _, err := netip.ParseAddr(strings.Trim(end, "[]")); err == nil {
			return nil // a pod anywhere may have it
		}
		first, _, ok := strings.Cut(end, "/")
		switch {
		case end == outside, ok && first == "node":
		case ok:
			all = append(all, first)
		default:
			all = append(all, namespace)
		}
	}
	return all
}

// explain asks about each pair of ends.
func (q question) explain(from []query.End, targets []query.Target) (whyAnswer, error) {
	w := whyAnswer{Allowed: true, NotRead: q.Missing}
	for _, src := range from {
		for _, t := range targets {
			if !t.HasPort {
				ports := q.Ports(src, t.End)
				w.Ports = append(w.Ports, portsAnswer{src.Name, t.End.Name, ports})
				w.Allowed = w.Allowed && slices.ContainsFunc(ports, func(p query.PortsVerdict) bool { return p.Allowed })
				continue
			}
			one, err := q.explainOne(q.Why(src, t.End, t.Port))
			if err != nil {
				return whyAnswer{}, err
			}
			w.Explanations = append(w.Explanations, one)
			w.Allowed = w.Allowed && one.Allowed
		}
	}
	return w, nil
}

func (q question) explainOne(a query.Answer) (explanation, error) {
	e := explanation{Answer: a}
	if len(a.Paths) == 0 {
		e.NoChange = "the two have no addresses of one family"
		return e, nil
	}
	for _, p := range a.Paths {
		for _, v := range p.Verdicts {
			for _, name := range v.Applied {
				if message, ok := q.Pending[name]; ok {
					if e.NotProgrammed == nil {
						e.NotProgrammed = map[string]string{}
					}
					e.NotProgrammed[name] = message
				}
			}
		}
	}
	if a.Allowed {
		return e, nil
	}
	change, err := q.Allowing(a)
	if err != nil {
		e.NoChange = err.Error()
		return e, nil
	}
	e.Notes = change.Notes
	for _, one := range change.Objects {
		fields, err := plain(one)
		if err != nil {
			return e, err
		}
		e.Change = append(e.Change, fields)
	}
	e.manifest, err = manifest(change.Objects)
	return e, err
}

// print prints the answer for people. Pairs of pods of which the same is said are said once.
func (w whyAnswer) print(out io.Writer) error {
	for i, e := range w.Explanations {
		if i > 0 {
			fmt.Fprintln(out)
		}
		e.print(out)
	}
	for i, p := range w.Ports {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := p.print(out); err != nil {
			return err
		}
	}
	return nil
}

// say is a verdict as a word.
func say(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "DENIED"
}

func (e explanation) print(out io.Writer) {
	fmt.Fprintf(out, "%s to %s on %s: %s\n", e.From, e.To, e.Port, say(e.Allowed))
	for _, p := range e.merged() {
		if len(e.Paths) > 1 {
			fmt.Fprintf(out, "  from %s to %s: %s\n", p.Source, p.Destination, say(p.Allowed))
		}
		for _, v := range p.Verdicts {
			printVerdict(out, v)
		}
		if len(p.Verdicts) == 0 {
			fmt.Fprintln(out, "  Neither end is a pod that policies can be about.")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.NotProgrammed)) {
		fmt.Fprintf(out, "  Not on all nodes yet: %s: %s\n", name, e.NotProgrammed[name])
	}
	if e.NoChange != "" {
		fmt.Fprintf(out, "  No policy can allow it: %s\n", e.NoChange)
	}
	if e.manifest != "" {
		fmt.Fprintf(out, "\nThis allows it, and nothing else:\n\n%s", e.manifest)
		for _, n := range e.Notes {
			fmt.Fprintln(out, "\nNote:", n)
		}
	}
}

// merged are the paths, those of which the same is said only once.
func (e explanation) merged() []query.Path {
	if len(e.Paths) < 2 || !slices.EqualFunc(e.Paths[0].Verdicts, e.Paths[1].Verdicts, func(a, b query.Verdict) bool { return a.Reason == b.Reason }) {
		return e.Paths
	}
	return e.Paths[:1]
}

func printVerdict(out io.Writer, v query.Verdict) {
	where := ""
	if v.Node != "" {
		where = " (node " + v.Node + ")"
	}
	by := ""
	if v.Tier != "" {
		by = " by the tier " + v.Tier
	}
	fmt.Fprintf(out, "  %s of %s%s: %s%s\n    %s\n", v.Direction, v.Pod, where, say(v.Allowed), by, v.Reason)
	if v.Rule == nil && len(v.Policies) > 0 {
		fmt.Fprintf(out, "    They are %s\n", strings.Join(v.Policies, ", "))
	}
	for _, problem := range v.Problems {
		fmt.Fprintf(out, "    Not as written: %s\n", problem)
	}
	for _, also := range v.AlsoDenied {
		fmt.Fprintf(out, "    Without that it would be denied too: %s\n", also)
	}
	for _, w := range v.WouldDeny {
		fmt.Fprintf(out, "    In mode Audit, %s would deny it\n", w)
	}
}

func (p portsAnswer) print(out io.Writer) error {
	fmt.Fprintf(out, "%s to %s:\n", p.From, p.To)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, v := range p.Ports {
		ports := cmp.Or(portsText(v), "every protocol without ports")
		fmt.Fprintf(t, "  %s\t%s\t%s\n", v.Protocol, ports, say(v.Allowed))
	}
	return t.Flush()
}

func portsText(v query.PortsVerdict) string {
	switch v.First {
	case 0:
		return ""
	case v.Last:
		return fmt.Sprint(v.First)
	}
	return fmt.Sprintf("%d-%d", v.First, v.Last)
}
