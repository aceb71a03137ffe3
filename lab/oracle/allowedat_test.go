package oracle_test

import (
	"testing"

	"github.com/ringfence-io/ringfence/test/scenario"
)

// TestAllowedAt: each node judges its own ends only.
func TestAllowedAt(t *testing.T) {
	c := scenario.Standard(scenario.IPv4)
	if err := c.Apply(`
red/in: {podSelector: {matchLabels: {app: far}}}
blue/out: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ node, line string }{
		{"n1", "client reaches far on tcp/80"},        // egress allows; far is not here
		{"n1", "client does not reach far on tcp/81"}, // egress denies
		{"n2", "client does not reach far on tcp/81"}, // ingress denies
		{"n1", "web reaches far on tcp/80"},           // web is not isolated
		{"n2", "web does not reach far on tcp/80"},
		{"n2", "n2 reaches far on tcp/80"},
		{"n2", "n1 does not reach far on tcp/80"},
		{"n1", "far reaches far on tcp/80"},
		{"n2", "far reaches far on tcp/80"},
		{"n1", "client reaches client on tcp/81"},
	} {
		lines, err := c.ParseLines([]string{row.line})
		if err != nil {
			t.Fatal(err)
		}
		if got, reason := c.AllowedAt(row.node, c.Flow(lines[0], lines[0].Services[0])); got != lines[0].Verb.Passes() {
			t.Errorf("%q at %s: got %v, because %s", row.line, row.node, got, reason)
		}
	}
}
