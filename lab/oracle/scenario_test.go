package oracle_test

import (
	"testing"

	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// TestScenarios holds the oracle to every scenario, node by node, and to the same verdict where it is asked about the whole cluster.
func TestScenarios(t *testing.T) {
	scenario.Ask(t, func(t *testing.T, s scenario.Scenario, c *scenario.Cluster, node string) scenario.Judge {
		return func(f oracle.Flow) (scenario.Verdict, error) {
			allowed, reason := c.AllowedAt(node, f)
			v := scenario.Verdict{Allowed: allowed, Reason: reason}
			for _, d := range c.AuditedAt(node, f) {
				v.Noted = append(v.Noted, scenario.NoteOf(d.Kind, d.Namespace, d.Name, d.Direction))
			}
			if s.Large {
				return v, nil
			}
			everywhere := true
			for _, n := range c.NodeNames() {
				there, _ := c.AllowedAt(n, f)
				everywhere = everywhere && there
			}
			if whole, reason := c.Allowed(f); whole != everywhere {
				t.Errorf("%s: the nodes say %t, of the whole cluster it is said: %t, %s", f, everywhere, whole, reason)
			}
			return v, nil
		}
	})
}
