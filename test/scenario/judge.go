package scenario

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/lab/oracle"
)

// Verdict is what a judge says of a flow at one node.
type Verdict struct {
	Allowed bool
	// Noted are the objects in dry run that would have denied it, as lines have them.
	Noted  []string
	Reason string
}

// Judge answers for one node of a cluster, without a kernel.
type Judge func(oracle.Flow) (Verdict, error)

// Ask asks a judge about every line of every scenario, in every family. A connection is made where all nodes allow it; what is noted of it is noted at the
// node of the pod that it is about. The judge is made for each state of a cluster, and each node.
func Ask(t *testing.T, newJudge func(t *testing.T, s Scenario, c *Cluster, node string) Judge) {
	t.Helper()
	asked := 0
	for _, theme := range Themes() {
		t.Run(theme.Name, func(t *testing.T) {
			for _, s := range theme.Scenarios {
				t.Run(s.Name, func(t *testing.T) {
					for _, f := range s.Families() {
						err := s.Play(theme.Cluster(f), func(state State) {
							asked += askAll(t, state, func(node string) Judge { return newJudge(t, s, state.Cluster, node) })
						})
						if err != nil {
							t.Fatal(err)
						}
					}
				})
			}
		})
	}
	t.Logf("asked about %d connections", asked)
}

// askAll asks the judges of all nodes about all lines of a state, and counts the connections.
func askAll(t *testing.T, s State, newJudge func(node string) Judge) int {
	t.Helper()
	judges := map[string]Judge{}
	for _, node := range s.Cluster.NodeNames() {
		judges[node] = newJudge(node)
	}
	asked := 0
	for _, l := range slices.Concat(s.Lines, s.Unsent) {
		for _, service := range l.Services {
			asked++
			if err := ask(l, s.Cluster.Flow(l, service), judges); err != nil {
				t.Errorf("%s: %q over IPv%d on %s: %v", cmp.Or(s.What, "at first"), l.Text, s.Cluster.Family, service.Text, err)
			}
		}
	}
	return asked
}

func ask(l Line, f oracle.Flow, judges map[string]Judge) error {
	allowed, reasons := true, []string{}
	var noted []string
	for node, judge := range judges {
		v, err := judge(f)
		if err != nil {
			return err
		}
		allowed = allowed && v.Allowed
		reasons = append(reasons, fmt.Sprintf("%s at %s: %t, %s", f, node, v.Allowed, v.Reason))
		for _, n := range v.Noted {
			noted = append(noted, n)
			if end := map[bool]Actor{true: l.To, false: l.From}[strings.HasPrefix(n, "ingress ")]; end.Node != node {
				return fmt.Errorf("%s notes what is not its own: %s", node, n)
			}
		}
	}
	slices.Sort(noted)
	switch {
	case allowed != l.Verb.Passes():
		return fmt.Errorf("allowed: %t\n%s", allowed, strings.Join(reasons, "\n"))
	case l.Verb == WouldNotReach && len(l.Noted) == 0 && len(noted) > 0:
		return nil
	case !slices.Equal(noted, l.Noted) || l.Verb == WouldNotReach && len(noted) == 0:
		return fmt.Errorf("noted: %s\n%s", strings.Join(noted, ", "), strings.Join(reasons, "\n"))
	}
	return nil
}

// Reported are problems that were reported, sorted: those that the scenario expects by their beginnings.
func (s Scenario) Reported(problems []string) []string {
	for i, got := range problems {
		for _, want := range s.Problems {
			if strings.HasPrefix(got, want) {
				problems[i] = want
			}
		}
	}
	slices.Sort(problems)
	return slices.Compact(problems)
}

// NoteOf is how lines name an object in dry run.
func NoteOf(kind, namespace, name, direction string) string {
	switch {
	case kind == "NetworkPolicy":
		return fmt.Sprintf("%s %s/%s", direction, namespace, name)
	case kind == "NamespaceIsolation":
		return fmt.Sprintf("%s isolation %s", direction, name)
	case strings.Contains(kind, "."):
		return fmt.Sprintf("%s cnp sig/%s", direction, name)
	}
	return fmt.Sprintf("%s cnp %s", direction, name)
}
