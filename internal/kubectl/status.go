package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/internal/encode"
	"github.com/ringfence-io/ringfence/internal/source"
)

// What a node is said to do.
const (
	nodeEnforcing = "yes"
	nodeFailing   = "no"
	nodeUnknown   = "unknown" // its enforcer has not reported for long, or never
)

// nodeState is what a node enforces.
type nodeState struct {
	Node      string       `json:"node"`
	Enforcing string       `json:"enforcing"`
	Healthy   bool         `json:"healthy"`
	Policies  int64        `json:"policies"`
	Pods      int64        `json:"pods"`
	Failing   int32        `json:"failing"` // policies that it does not enforce as they are
	Heard     *metav1.Time `json:"heard,omitempty"`
	Version   string       `json:"version,omitempty"`
	Why       string       `json:"why,omitempty"` // if something is wrong
}

func (n nodeState) isRight() bool { return n.Enforcing == nodeEnforcing && n.Healthy && n.Failing == 0 }

// policyState is a policy that is not in force everywhere.
type policyState struct {
	Policy string `json:"policy"`
	Why    string `json:"why"`
}

// state is whether everything is in force.
type state struct {
	// Nodes is absent if the caller may not read about nodes.
	Nodes    []nodeState   `json:"nodes,omitempty"`
	Policies int           `json:"policies"` // that there are
	Pending  []policyState `json:"pending"`  // of these
}

func newStatusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say whether everything is in force, node by node",
		Long: `Say whether everything is in force: what each node enforces, and which policies are not in force on all nodes that
have pods of theirs. With --namespace it is about the NetworkPolicies of one namespace and about the policies of
the whole cluster; otherwise about all. Who may not read about nodes is told of policies alone.

A node is unknown if its enforcer has been silent for three heartbeats, by this machine's clock, or has never
reported.

The exit status is 0 if all is in force, 1 if something is not, and 2 if there is no answer.`,
		Example: `  kubectl ringfence status
  kubectl ringfence status -n shop -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.status(cmd) },
	}
}

func (o *options) status(cmd *cobra.Command) error {
	if err := o.checkOutput(outputs); err != nil {
		return err
	}
	if len(o.files) > 0 {
		return errors.New("files do not say what is in force: leave --filename out")
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	now := time.Now()
	nodes, err := readNodes(cmd.Context(), c, now)
	if apierrors.IsForbidden(err) {
		printMissing(cmd, []string{"nodeenforcements: you may not list them: it is not known what each node enforces"})
	} else if err != nil {
		return err
	}
	policies, err := source.Policies(cmd.Context(), c, o.config.Context.Namespace)
	if err != nil {
		return err
	}
	printMissing(cmd, policies.Missing)
	s := state{Nodes: nodes, Policies: len(policies.Policies) + len(policies.ClusterPolicies) + len(policies.Isolations), Pending: []policyState{}}
	for name, why := range policies.Pending {
		s.Pending = append(s.Pending, policyState{name, why})
	}
	for _, name := range policies.Unjudged {
		s.Pending = append(s.Pending, policyState{name, "its status says nothing yet: see the log of the controller if that stays so"})
	}
	slices.SortFunc(s.Pending, func(a, b policyState) int { return cmp.Compare(a.Policy, b.Policy) })
	printed, err := encode.Value(cmd.OutOrStdout(), o.output, s)
	if !printed && err == nil {
		err = s.print(cmd.OutOrStdout(), now)
	}
	if err == nil && (len(s.Pending) > 0 || slices.ContainsFunc(s.Nodes, func(n nodeState) bool { return !n.isRight() })) {
		err = errNo
	}
	return err
}

// readNodes reads what each node enforces, and which nodes there are, as far as the caller may list these.
func readNodes(ctx context.Context, c client.Reader, now time.Time) ([]nodeState, error) {
	var reports v1alpha1.NodeEnforcementList
	if err := c.List(ctx, &reports); err != nil {
		return nil, fmt.Errorf("reading NodeEnforcements: %w", err)
	}
	all := map[string]nodeState{}
	nodes := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}}
	if err := c.List(ctx, &nodes); err != nil && !apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("reading Nodes: %w", err)
	}
	for _, n := range nodes.Items {
		all[n.Name] = nodeState{Node: n.Name, Enforcing: nodeUnknown, Why: "no enforcer has ever reported: see the pods of the DaemonSet ringfence-enforcer"}
	}
	for _, r := range reports.Items {
		all[r.Name] = stateOf(&r, now)
	}
	return slices.SortedFunc(maps.Values(all), func(a, b nodeState) int { return cmp.Compare(a.Node, b.Node) }), nil
}

func stateOf(r *v1alpha1.NodeEnforcement, now time.Time) nodeState {
	s := &r.Status
	n := nodeState{
		Node: r.Name, Enforcing: nodeFailing, Failing: s.Failing, Version: s.Version,
		Healthy: !meta.IsStatusConditionFalse(s.Conditions, v1alpha1.HealthyCondition),
	}
	if s.Applied != nil {
		n.Policies, n.Pods = int64(s.Applied.Counts.Policies), int64(s.Applied.Counts.Pods)
	}
	if !s.HeartbeatTime.IsZero() {
		heard := metav1.NewTime(s.HeartbeatTime.Time)
		n.Heard = &heard
	}
	if c := meta.FindStatusCondition(s.Conditions, v1alpha1.EnforcingCondition); c != nil && c.Status == metav1.ConditionTrue {
		n.Enforcing = nodeEnforcing
	} else if c != nil {
		n.Why = c.Message
	}
	if c := meta.FindStatusCondition(s.Conditions, v1alpha1.HealthyCondition); n.Why == "" && !n.Healthy {
		n.Why = c.Message
	}
	if n.Why == "" && n.Failing > 0 && len(s.FailingPolicies) > 0 {
		p := s.FailingPolicies[0]
		n.Why = fmt.Sprintf("%s: %s", policy.Ref{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}, p.Message)
	}
	if n.Heard == nil || now.Sub(n.Heard.Time) > v1alpha1.SilentHeartbeats*time.Duration(s.HeartbeatSeconds)*time.Second {
		n.Enforcing, n.Why = nodeUnknown, "its enforcer is silent: what it enforced last stays in force. See its pod's log"
	}
	return n
}

func (s state) print(out io.Writer, now time.Time) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	right := 0
	if len(s.Nodes) > 0 {
		fmt.Fprintln(t, "NODE\tENFORCING\tPOLICIES\tPODS\tFAILING\tHEARD\tVERSION\tWHY")
	}
	for _, n := range s.Nodes {
		heard := "never"
		if n.Heard != nil {
			heard = ago(now, n.Heard.Time)
		}
		if n.isRight() {
			right++
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", n.Node, n.Enforcing, n.Policies, n.Pods, n.Failing, heard, cmp.Or(n.Version, "-"), n.Why)
	}
	if len(s.Pending) > 0 {
		if len(s.Nodes) > 0 {
			fmt.Fprintln(t)
		}
		fmt.Fprintln(t, "NOT IN FORCE EVERYWHERE\tWHY")
	}
	for _, p := range s.Pending {
		fmt.Fprintf(t, "%s\t%s\n", p.Policy, p.Why)
	}
	if len(s.Nodes)+len(s.Pending) > 0 {
		fmt.Fprintln(t)
	}
	if len(s.Nodes) > 0 {
		fmt.Fprintf(t, "%d of %d nodes enforce everything. ", right, len(s.Nodes))
	}
	fmt.Fprintf(t, "%d of %d policies are in force everywhere.\n", s.Policies-len(s.Pending), s.Policies)
	return t.Flush()
}
