package scene

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/matrix"
	"github.com/ringfence-io/ringfence/lab/oracle"
)

// objects are the policies in force.
func objects(c oracle.Cluster) []string {
	names := []string{} // "[]" in JSON, not "null"
	add := func(mode v1alpha1.Mode, parts ...string) {
		text := strings.Join(parts, "")
		if mode == v1alpha1.Audit {
			text += " (Audit)"
		}
		names = append(names, text)
	}
	for _, p := range c.ClusterPolicies {
		add(p.Spec.Mode, "ClusterNetworkPolicy ", p.Name)
	}
	for _, i := range c.Isolations {
		add(i.Spec.Mode, "NamespaceIsolation ", i.Name)
	}
	for _, p := range c.Policies {
		add(v1alpha1.Mode(p.Annotations[v1alpha1.ModeAnnotation]), "NetworkPolicy ", p.Namespace, "/", p.Name)
	}
	return names
}

// notes are what objects in audit mode would deny of a flow, by the node that it passes, as [lab.Node.WouldDeny] calls it.
func notes(l *lab.Lab, c oracle.Cluster, f oracle.Flow) map[string][]string {
	found := map[string][]string{}
	for _, n := range l.Nodes {
		for _, d := range c.AuditedAt(n.Name, f) {
			name := d.Name
			if d.Namespace != "" {
				name = d.Namespace + "/" + d.Name
			}
			found[n.Name] = append(found[n.Name], d.Kind+" "+name+" "+d.Direction)
		}
	}
	return found
}

// demandedNotes are those of all connections of a matrix, by node.
func demandedNotes(l *lab.Lab, c oracle.Cluster, m *matrix.Matrix) map[string]map[string]bool {
	demanded := map[string]map[string]bool{}
	for _, a := range m.Attempts {
		t := m.Targets[a.Target]
		for node, what := range notes(l, c, oracle.Flow{Src: a.Src, Dst: a.Dst, Protocol: oracle.Protocol(t.Protocol), DstPort: t.Port}) {
			if demanded[node] == nil {
				demanded[node] = map[string]bool{}
			}
			for _, w := range what {
				demanded[node][w] = true
			}
		}
	}
	return demanded
}

// waitForCounting waits until the nodes have a rule that counts for everything that is demanded.
func (s *scene) waitForCounting(ctx context.Context, demanded map[string]map[string]bool) error {
	return lab.Poll(ctx, func(ctx context.Context) error {
		for _, n := range s.lab.Nodes {
			counts, err := n.WouldDeny(ctx)
			if err != nil {
				return err
			}
			for what := range demanded[n.Name] {
				if _, ok := counts[what]; !ok {
					return fmt.Errorf("node %s does not count what this would deny: %s", n.Name, what)
				}
			}
		}
		return nil
	})
}

// counted reads what the nodes have counted. The error says what was to be counted and was not, or the other way round.
func (s *scene) counted(ctx context.Context, demanded map[string]map[string]bool) ([]Counted, error) {
	var found []Counted
	var errs []error
	for _, n := range s.lab.Nodes {
		counts, err := n.WouldDeny(ctx)
		errs = append(errs, err)
		for _, what := range slices.Sorted(maps.Keys(counts)) {
			found = append(found, Counted{Node: n.Name, What: what, Packets: counts[what]})
			if counts[what] > 0 && !demanded[n.Name][what] {
				errs = append(errs, fmt.Errorf("node %s has counted packets that nothing would deny: %s", n.Name, what))
			}
		}
		for what := range demanded[n.Name] {
			if counts[what] == 0 {
				errs = append(errs, fmt.Errorf("node %s has counted nothing of what this would deny: %s", n.Name, what))
			}
		}
	}
	return found, errors.Join(errs...)
}

// writeCounted writes what would be denied as text.
func (s *scene) writeCounted(counted []Counted) {
	if len(counted) == 0 {
		return
	}
	fmt.Fprint(s.opts.Out, "\nWhat would be denied meanwhile, counted by rules in the nodes' kernels\n\n")
	t := tabwriter.NewWriter(s.opts.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tOBJECT\tDIRECTION\tPACKETS")
	for _, c := range counted {
		object, direction := c.What, ""
		if i := strings.LastIndexByte(c.What, ' '); i >= 0 {
			object, direction = c.What[:i], c.What[i+1:]
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", c.Node, object, direction, c.Packets)
	}
	if err := t.Flush(); err != nil {
		s.progress(err.Error())
	}
}
