package scene

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/lab"
)

// Standing is what the controller says of a NetworkPolicy: whether it is in force, for how many pods, and on how many of their nodes.
type Standing struct {
	Policy     string                 `json:"policy"` // namespace/name
	Programmed metav1.ConditionStatus `json:"programmed"`
	Reason     string                 `json:"reason"`
	Pods       int32                  `json:"pods"`
	Nodes      int32                  `json:"nodes"`
	Enforcing  int32                  `json:"enforcing"` // of these nodes
}

// waitForStandings waits until every NetworkPolicy is said to be in force, and returns what is said.
func (s *scene) waitForStandings(ctx context.Context) ([]Standing, error) {
	var all []Standing
	err := lab.Poll(ctx, func(ctx context.Context) (err error) {
		all, err = s.standings(ctx)
		return err
	})
	return all, err
}

// standings is what is said of the NetworkPolicies, by namespace and name. It is an error if one is not in force, or if nothing is said of its
// present generation.
func (s *scene) standings(ctx context.Context) ([]Standing, error) {
	policies, err := s.lab.Client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing NetworkPolicies: %w", err)
	}
	said, err := s.lab.PolicyEnforcements(ctx)
	if err != nil {
		return nil, err
	}
	var all []Standing
	for _, p := range policies.Items {
		name := p.Namespace + "/" + p.Name
		i := slices.IndexFunc(said, func(e *v1alpha1.PolicyEnforcement) bool { return e.Namespace == p.Namespace && e.Name == p.Name })
		if i < 0 {
			return nil, fmt.Errorf("NetworkPolicy %s has no status yet", name)
		}
		status := said[i].Status
		c := meta.FindStatusCondition(status.Conditions, v1alpha1.ProgrammedCondition)
		if c == nil || c.ObservedGeneration != p.Generation || c.Status != metav1.ConditionTrue {
			return nil, fmt.Errorf("NetworkPolicy %s is not reported to be in force: %+v", name, c)
		}
		all = append(all, Standing{
			Policy: name, Programmed: c.Status, Reason: c.Reason, Pods: status.Pods, Nodes: status.Nodes.Desired, Enforcing: status.Nodes.Programmed,
		})
	}
	slices.SortFunc(all, func(a, b Standing) int { return strings.Compare(a.Policy, b.Policy) })
	return all, nil
}

// writeStandings writes what is said of policies as text.
func (s *scene) writeStandings(all []Standing) {
	if len(all) == 0 {
		return
	}
	fmt.Fprint(s.opts.Out, "\nWhat their owners are told, by 'kubectl get policyenforcements -A'\n\n")
	t := tabwriter.NewWriter(s.opts.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NETWORKPOLICY\tPROGRAMMED\tPODS\tNODES")
	for _, p := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d of %d\n", p.Policy, p.Programmed, p.Pods, p.Enforcing, p.Nodes)
	}
	if err := t.Flush(); err != nil {
		s.progress(err.Error())
	}
}
